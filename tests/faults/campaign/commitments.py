"""C01-C04, C07: storage commitment of what is whole and what is not, and SIGKILL in the midst of it.

Rules that hold here: a request that was answered with success is reported, and the report says of each object exactly
what is true of its bytes on the disk; a kill repeats a report once at most, word for word.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.faults import raw
from tests.faults.campaign.deeds import PATIENCE, Deed, every_call, random_moments
from tests.faults.campaign.run import POSTGRESQL, SQLITE, Run, fault
from tests.faults.committing import ASKING, Reference, Report, Reports, ask
from tests.faults.daemon import EVERYTHING, Daemon, wait_until
from tests.faults.objects import instance, new_uid
from tests.faults.raw import CT, MR, Connection, Ended

BOTH = (SQLITE, POSTGRESQL)
PROCESSING_FAILURE, NO_SUCH_INSTANCE, CLASS_CONFLICT = 0x0110, 0x0112, 0x0119  # PS3.3 C.14.1.1
RETRY = {"retry": "1s*100"}


def peer(port: int, way: str) -> dict[str, object]:
    return {"host": ["127.0.0.1"], "port": port, "allow": [*EVERYTHING, "commit"], "quirks": [way]}


class Committing(Deed):
    """A request about two objects that came just now, one that never came and one of another class."""

    def __init__(self, run: Run) -> None:
        self.reports = Reports()
        self._modality = run.enter(contextlib.closing(self.reports.listen()))
        way = run.rng.choice(("commit_new_association", "commit_both"))
        super().__init__(run, {"peers": {"SENDER": peer(self._modality.port, way)}, "commitment": RETRY})

    def prepare(self) -> list[int]:
        self.transaction, self.told = new_uid(), -1
        here, unknown, other = [instance(), instance(size=200_000)], new_uid(), instance()
        self.store([*here, other])
        self._references: list[Reference] = [(one.sop_class, one.uid) for one in here]
        self._references += [(CT, unknown), (MR, other.uid)]
        failed = ((unknown, NO_SUCH_INSTANCE), (other.uid, CLASS_CONFLICT))
        self._truth = Report(frozenset(one.uid for one in here), tuple(sorted(failed)))
        self._asking = Connection(self.archive.port, patience=PATIENCE).associate(ASKING)
        self._thread = threading.Thread(target=self._ask, daemon=True)
        return self.archive.pids()

    def begin(self) -> None:
        self._thread.start()

    def _ask(self) -> None:
        """The report may come on this association too."""
        with contextlib.suppress(OSError, Ended):
            self.told = ask(self._asking, self.transaction, self._references)
            self.reports.take(self._asking)

    def is_done(self) -> bool:
        return self._states() == ["reported"] and not self._tasks()

    def _states(self) -> list[str]:
        found = self.archive.select(f"select state from commitment where transaction_uid = '{self.transaction}'")
        return [str(state) for (state,) in found]

    def _tasks(self) -> list[tuple[str, ...]]:
        return self.archive.select("select kind, state, reason from task where kind like 'commit-%'")

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._asking.sock.shutdown(2)
        self._thread.join(PATIENCE)
        self._asking.close()

    def after(self) -> Iterator[str]:
        if (self.told == 0 or self._states()) and not self.comes(self.is_done):
            yield f"a request that was answered is not reported: {self._states()}, {self._tasks()}"
        came = self.reports.of(self.transaction)
        if self.told == 0 and not came:
            yield "the peer has no report of a request that was answered"
        if len(came) > 2:
            yield f"a report came {len(came)} times"
        yield from (f"reported {each}, not {self._truth}" for each in came if each != self._truth)


KILL_TWINS = ("request answered before it is kept",)
KILL_PROVES = "a request that was answered and is forgotten is seen"


@fault(
    "C07", "kill -9 at random moments of storage commitment", goal="G2", tries=1000, seconds=600, few=2, databases=BOTH,
    twins=KILL_TWINS, proves=KILL_PROVES,
)  # fmt: skip
def random_kills_of_commitments(run: Run) -> None:
    random_moments(run, Committing)


@fault(
    "C07b", "kill -9 at every call of storage commitment", goal="G2", tries=2000, seconds=900, few=4, databases=BOTH,
    twins=KILL_TWINS, proves=KILL_PROVES,
)  # fmt: skip
def every_call_of_a_commitment(run: Run) -> None:
    every_call(run, Committing)


# -- damage -------------------------------------------------------------------------------------------------


@fault(
    "C01-04", "commitment of objects that are whole, changed, cut short, gone, unknown, of another class", goal="G14",
    tries=1000, seconds=300, few=6, databases=BOTH, twins=("promised without reading",),
    proves="a promise of bytes that are not those that came is seen",
)  # fmt: skip
def promises(run: Run) -> None:
    """Many requests at a time, each with its own damage; all is mended before the oracle looks."""
    reports = Reports()
    modality = run.enter(contextlib.closing(reports.listen()))
    peers = {"SENDER": peer(modality.port, "commit_new_association")}
    archive = run.daemon({"processes": 1, "peers": peers, "commitment": RETRY}).start()
    seen: set[str] = set()
    planted = 0
    while run.goes_on():
        asked = [Planted(run, archive) for _ in range(min(20, run.tries - run.tried))]
        with raw.association(archive.port, ASKING, patience=PATIENCE) as asking:
            for each in asked:
                assert ask(asking, each.transaction, each.references) == 0
        wait_until(lambda: all(reports.of(each.transaction) for each in asked), PATIENCE, "no report")  # noqa: B023
        for each in asked:
            came, truth = reports.of(each.transaction), each.truth
            run.count([f"reported {report}, not {truth}" for report in came if report != truth])
            each.mend()
            planted += 3
        # What was found damaged is not sent until a check has found it whole again: the last one always was.
        owed = [one for each in asked for one in reversed(each.images)]
        run.count(run.check(archive, owed, seen=seen, asked=1), tries=0)
    run.figure("planted", f"{planted} damaged files")


class Planted:
    """Five objects, three of them damaged behind the archive's back, and two references to what is not there."""

    def __init__(self, run: Run, archive: Daemon) -> None:
        self.transaction = new_uid()
        self.images = [instance(size=run.rng.choice((300, 5_000, 300_000, 1_200_000))) for _ in range(5)]
        with raw.association(archive.port, patience=PATIENCE) as sending:
            assert {sending.store(CT, one.uid, one.data) for one in self.images} == {0}
        paths = {row.uid: archive.files / row.path for row in archive.rows()}
        whole, other, *victims = self.images
        self._before = {paths[one.uid]: paths[one.uid].read_bytes() for one in victims}
        failed = {new_uid(): NO_SUCH_INSTANCE, other.uid: CLASS_CONFLICT}
        for one, (harm, reason) in zip(victims, HARM.items(), strict=True):
            failed[one.uid] = reason
            harm(paths[one.uid], run.rng.random())
        self.references: list[Reference] = [(CT, one.uid) for one in (whole, *victims)]
        self.references += [(MR if uid == other.uid else CT, uid) for uid in list(failed)[:2]]
        self.truth = Report(frozenset([whole.uid]), tuple(sorted(failed.items())))

    def mend(self) -> None:
        for path, data in self._before.items():
            path.write_bytes(data)


def flip(path: Path, where: float) -> None:
    """One bit of the data set."""
    data = bytearray(path.read_bytes())
    begin = len(data) // 2  # the file's own header is before it
    data[begin + int(where * (len(data) - begin))] ^= 4
    path.write_bytes(data)


def cut(path: Path, where: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(where * len(data))])


def remove(path: Path, where: float) -> None:
    path.unlink()


HARM = {flip: PROCESSING_FAILURE, cut: PROCESSING_FAILURE, remove: NO_SUCH_INSTANCE}
