"""Q02, Q07: destinations that do everything wrong.

Rules that hold here: what an archive says of its queue is judged at the destination; nothing is called sent for which
it gave no answer that says so; nothing is lost; an object comes once, and once more at most for each time when it was
kept and the archive could not know it; objects of a study that needed no second try come in their order.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.faults.campaign.run import Run, fault
from tests.faults.daemon import Daemon
from tests.faults.moody import POISON, SILENT, WRONG_CLASS, Moody
from tests.faults.objects import Instance, instance, new_uid
from tests.faults.raw import CT, Connection

TRIES = 10
RETRY = f"{TRIES - 1}x100ms"
SILENCE, LONG = "500ms", "60s"  # what a destination is given to answer, where some are silent and where none is
BY_HAND = 20  # times that a person sends again what has failed
SIZES = (700, 3_000, 20_000)
ROUND = 1000  # objects at both destinations together
SENDERS = 2
PATIENCE = 60.0  # seconds without progress
LOOK = 0.2  # seconds between two looks at the queue
TIMEOUTS = dict.fromkeys(("idle", "dimse", "pdu", "acse", "send"), LONG)
ONE_BY_ONE, SEVERAL = "THERE", "WIDE"
LOST = "association lost"
TAKEN = {0x0000, 0x0111, 0xB000, 0xB007}


class Delivery(NamedTuple):
    """A task as the queue tells of it."""

    uid: str
    lane: str
    state: str
    attempts: int
    reason: str

    @property
    def is_open(self) -> bool:
        return self.state not in ("done", "failed")


def deliveries(archive: Daemon) -> list[Delivery]:
    rows = archive.select("select payload, lane, state, attempts, reason from task where kind = 'deliver'")
    return [Delivery(json.loads(payload)["sop"], *rest) for payload, *rest in rows]


def studies(run: Run, count: int) -> list[list[Instance]]:
    """So many objects in studies of one to ten."""
    made: list[list[Instance]] = []
    while count:
        number, root = min(count, run.rng.randint(1, 10)), new_uid()
        made.append([instance(study=root, uid=f"{root}.{n}", size=run.rng.choice(SIZES)) for n in range(number)])
        count -= number
    return made


def send(archive: Daemon, wanted: Sequence[Sequence[Instance]]) -> list[float]:
    """By some peers at once, each study in its order, until all is acknowledged; the seconds that each store took."""
    taken: list[float] = []
    left = list(wanted)

    def work() -> None:
        while left:
            try:
                one = left.pop()
            except IndexError:
                return
            taken.extend(_send_study(archive, one))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == sum(map(len, wanted)), "not everything could be stored"
    return taken


def _send_study(archive: Daemon, images: Sequence[Instance]) -> Iterator[float]:
    with Connection(archive.port) as sending:
        sending.associate()
        for one in images:
            before = time.monotonic()
            assert sending.store(CT, one.uid, one.data) == 0
            yield time.monotonic() - before
        sending.release()


def command(run: Run, archive: Daemon, *words: str) -> str:
    """What an `archive` command says."""
    log = archive.folder / "command.log"
    log.unlink(missing_ok=True)
    done = run.forks.start([*words, "--config", str(archive.config_file)], folder=archive.folder, log=log)
    assert done.wait(120) == 0, log.read_text()
    return log.read_text()


@dataclass
class Trial:
    """An archive with routes to destinations, and all that it was given."""

    run: Run
    archive: Daemon
    there: dict[str, Moody]

    def __post_init__(self) -> None:
        self.images: dict[str, Instance] = {}
        self.new: set[str] = set()  # those of this round
        self.said, self.failed = 0, 0
        self.seen: set[str] = set()

    def wait(self) -> Iterator[str]:
        """Until every delivery has ended; what does not hold meanwhile."""
        moved, last = time.monotonic(), None
        while True:
            found = deliveries(self.archive)
            if untrue := list(self._untrue(found)):
                yield from untrue
                return
            if not any(each.is_open for each in found):
                return
            if found != last:
                moved, last = time.monotonic(), found
            if time.monotonic() - moved > PATIENCE:
                yield f"{sum(each.is_open for each in found)} deliveries come to no end"
                return
            time.sleep(LOOK)

    def _untrue(self, found: Sequence[Delivery]) -> Iterator[str]:
        """Called sent, and not taken; or with another reason than the answer was."""
        for each in found:
            if each.state == "done":
                answer = self.there[each.lane].answer(each.uid)
                if answer not in TAKEN:
                    yield f"{each.uid} is called sent to {each.lane}, which answered {_words(answer)}"
                elif _words(answer) not in each.reason:
                    yield f"{each.uid} is sent to {each.lane} with {_words(answer)}, the queue says {each.reason}"

    def judge(self) -> Iterator[str]:
        found = deliveries(self.archive)
        given = sorted((each.uid, each.lane) for each in found)
        owed = sorted((uid, lane) for uid in self.images for lane in self.there)
        if given != owed:
            yield f"{len(given)} deliveries in the queue, {len(owed)} are owed"
        yield from self._parked([each for each in found if each.state == "failed"])
        at_once = [each for each in found if each.lane == ONE_BY_ONE and each.attempts == 1]
        yield from self._in_order([each for each in at_once if each.uid in self.new])
        for name, there in self.there.items():
            for uid, came in there.came.items():
                if came > 1 + there.unsure[uid]:
                    yield f"{uid} came {came} times to {name}, which left {there.unsure[uid]} doubts"
            if there.duplicates > there.faults:
                yield f"{there.duplicates} duplicates at {name} after {there.faults} faults"

    def _parked(self, failed: Sequence[Delivery]) -> Iterator[str]:
        """Why, and after how many tries."""
        for each in failed:
            there = self.there[each.lane]
            answer, always = there.answer(each.uid), there.always.get(each.uid)
            if not each.reason:
                yield f"{each.uid} has failed without a reason"
            elif answer not in (None, *TAKEN) and _words(answer) not in each.reason and LOST not in each.reason:
                yield f"{each.uid} was answered {_words(answer)}, the queue says {each.reason}"
            elif always == POISON and each.attempts != TRIES:
                yield f"{each.uid} has failed after {each.attempts} tries: {each.reason}"

    def _in_order(self, found: Sequence[Delivery]) -> Iterator[str]:
        there = self.there[ONE_BY_ONE]
        came = [self.images[each.uid] for each in sorted(found, key=lambda each: there.order.get(each.uid, 0))]
        last: dict[str, int] = {}
        for one in came:
            number = int(one.uid.rpartition(".")[2])
            if number < last.get(one.study, -1):
                yield f"{one.uid} came after number {last[one.study]} of its study"
            last[one.study] = number

    def again_by_hand(self) -> Iterator[str]:
        """A person sees what has failed, and sends it again to destinations that are in order."""
        found = [each for each in deliveries(self.archive) if each.state == "failed"]
        self.failed += len(found)
        for there in self.there.values():
            there.calm = True
        listed = json.loads(command(
            self.run, self.archive, "queue", "list", "--state", "failed", "--limit", "100000", "--json"
        ))  # fmt: skip
        if {(row["instance"], row["destination"]) for row in listed} != {(each.uid, each.lane) for each in found}:
            yield f"{len(listed)} are listed as failed, {len(found)} are"
        for _ in range(BY_HAND):
            if self.run.seams or not any(each.state == "failed" for each in deliveries(self.archive)):
                break
            command(self.run, self.archive, "queue", "retry", "--state", "failed")
            yield from self.wait()
        for name, there in self.there.items():
            there.calm = False
            for uid, one in self.images.items():
                if there.received.get(uid) != one.data:
                    yield f"{uid} was acknowledged and {name} does not have it"

    def check(self) -> list[str]:
        found = self.run.check(self.archive, [*self.images.values()], since=self.said, seen=self.seen, asked=1)
        self.said = len(self.archive.log())
        return found


def _words(answer: int | None) -> str:
    return "nothing" if answer is None else f"{answer:04X}"


def peer(port: int, patience: str = LONG) -> dict[str, Any]:
    wait = dict.fromkeys(("dimse", "acse", "send", "connect"), patience)
    return {"host": "127.0.0.1", "port": port, "allow": ["echo"], "timeouts": wait}


def settings(peers: dict[str, Any], **route: Any) -> dict[str, Any]:
    return {
        "peers": peers, "timeouts": TIMEOUTS, "queue": {"idle": "1s"},
        "routes": [{"name": name, "to": [*peers], **route} for name in ("all", "all again")],
    }  # fmt: skip


@fault(
    "Q02", "destinations that do everything wrong", goal="G15", tries=10_000, seconds=900, few=24,
    twins=("sent before it is answered", "sent twice", "newest first"),
    proves="what is called sent and is not, what comes too often, and what comes in another order is seen",
)  # fmt: skip
def destinations_that_do_everything_wrong(run: Run) -> None:
    without, patience = (SILENT, LONG) if run.tries < ROUND else ((), SILENCE)
    there = {name: run.enter(Moody(f"{run.seed}:{name}", without)) for name in (ONE_BY_ONE, SEVERAL)}
    peers = {name: peer(each.port, patience) for name, each in there.items()}
    peers[SEVERAL]["store_associations"] = 3
    trial = Trial(run, run.daemon(settings(peers, retry=RETRY)).start(), there)
    while run.goes_on():
        found, items = _round(trial, min(ROUND, run.tries - run.tried))
        run.count(found, tries=items)
    _figures(run, trial)


def _round(trial: Trial, items: int) -> tuple[list[str], int]:
    """Some more objects, until all have ended; violations and the number of items."""
    made = studies(trial.run, max(1, items // len(trial.there)))
    new = [one for images in made for one in images]
    trial.new = {one.uid for one in new}
    trial.images |= {one.uid: one for one in new}
    for one in trial.run.rng.sample(new, max(1, len(new) // 100)):
        for there in trial.there.values():
            there.always[one.uid] = trial.run.rng.choice((POISON, WRONG_CLASS))
    send(trial.archive, made)
    found = list(trial.wait())
    found += trial.judge()
    found += trial.again_by_hand()
    found += trial.check()
    return found, len(new) * len(trial.there)


def _figures(run: Run, trial: Trial) -> None:
    all_of_them = trial.there.values()
    run.figure("faults", str(sum(there.faults for there in all_of_them)))
    run.figure("duplicates", str(sum(there.duplicates for there in all_of_them)))
    run.figure("failed first, sent by hand", str(trial.failed))
    run.figure("broken off by the archive", str(sum(there.left for there in all_of_them)))
