"""D17, D18, D24, D26 and starts of large archives: damage by hand, clocks that jump, backups taken meanwhile.

Rules that hold here: what is damaged is damaged as an administrator or a disk would, behind the archive's back.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import time
from pathlib import Path

from tests.faults import raw
from tests.faults.campaign.kills import ONE_PROCESS, Hammer
from tests.faults.campaign.run import POSTGRESQL, SQLITE, Run, fault, percentile
from tests.faults.daemon import Daemon, merged, wait_until
from tests.faults.objects import Instance, instance, keys_of, study
from tests.faults.raw import CT, Connection, Request, role
from tests.faults.tracing import calls, strace

BOTH = (SQLITE, POSTGRESQL)
SOME_FAILED = 0xB000


@fault(
    "D17-18", "a stored file cut short or deleted by hand, then retrieved", tries=20, seconds=60, few=3, databases=BOTH,
    twins=("length not compared",), proves="an answer that says nothing of the loss is seen",
)  # fmt: skip
def damaged_files(run: Run) -> None:
    """C-GET of a study counts what is damaged as failed, and sends the rest whole."""
    archive = run.daemon(ONE_PROCESS).start()
    while run.goes_on():
        images = study(4)
        with raw.association(archive.port) as sending:
            assert {sending.store(CT, one.uid, one.data) for one in images} == {0}
        victim = run.rng.choice(images)
        path = archive.files / next(row.path for row in archive.rows() if row.uid == victim.uid)
        whole = path.read_bytes()
        if run.rng.random() < 0.5:
            path.unlink()
        else:
            path.write_bytes(whole[: run.rng.randrange(len(whole))])
        run.count(_retrieved(archive, images, victim))
        path.write_bytes(whole)
        run.count(run.check(archive, images), tries=0)


def _retrieved(archive: Daemon, images: list[Instance], victim: Instance) -> list[str]:
    request = Request(user=role(CT, True, True))
    with raw.association(archive.port, request) as asking:
        answer, got = asking.get(keys_of("STUDY", study=victim.study))
    found = []
    if answer.status != SOME_FAILED or answer.number(raw.FAILED) != 1:
        found.append(f"answered with {answer.status:04x}, {answer.number(raw.FAILED)} failed")
    if got != {one.uid: one.data for one in images if one is not victim}:
        found.append(f"{len(got)} of {len(images) - 1} whole images came")
    return found


@fault(
    "D24", "the clock jumps an hour back, a day on, while peers store", tries=20, seconds=60, few=1, databases=BOTH,
)  # fmt: skip
def jumping_clock(run: Run) -> None:
    archive = run.daemon(ONE_PROCESS, seams=("clock from file", *run.seams)).start()
    seen: set[str] = set()
    while run.goes_on():
        hammers = [Hammer(archive.port, run.rng.randrange(1 << 30)) for _ in range(2)]
        for jump in (-3600, 86_400, 0):
            (archive.folder / "clock").write_text(str(jump))
            before = sum(len(hammer.acknowledged) for hammer in hammers)
            wait_until(lambda: sum(len(h.acknowledged) for h in hammers) > before + 4, 20, "stores have stopped")  # noqa: B023
        archive.kill()
        archive.start()
        for hammer in hammers:
            hammer.join(60)
        owed = [one for hammer in hammers for one in hammer.acknowledged]
        found = run.check(archive, owed, seen=seen, asked=2)
        found += [f"refused with {status:04x}" for hammer in hammers for status in hammer.refused]
        run.count(found)


@fault(
    "D26", "a backup taken while peers store: first the index, then the files", tries=20, seconds=120, few=1,
    twins=("files before index",), proves="rows without files in the copy are seen",
)  # fmt: skip
def backups(run: Run) -> None:
    while run.goes_on():
        archive = run.daemon(ONE_PROCESS, seams=()).start()
        hammers = [Hammer(archive.port, run.rng.randrange(1 << 30), [500, 20_000]) for _ in range(2)]
        wait_until(lambda: all(len(hammer.acknowledged) > 5 for hammer in hammers), 20)  # noqa: B023
        owed = [one for hammer in hammers for one in list(hammer.acknowledged)]
        target = run.place()
        steps = [lambda: _copy_index(archive, target), lambda: _copy_files(archive, target, hammers)]  # noqa: B023
        for step in reversed(steps) if run.seams else steps:
            step()
        archive.kill()
        for hammer in hammers:
            hammer.join(60)
        settings = {key: value for key, value in archive.settings.items() if key != "listeners"}
        restored = run.daemon(settings, folder=target, seams=()).start()
        # A file that came after the index was copied has no row: that is no loss, `archive fsck` takes it in again, and
        # nothing to wait for long.
        found = run.check(restored, owed, asked=2, patience=2.0)
        run.count(violation for violation in found if not violation.startswith("file without row"))
        restored.kill()


def _copy_index(archive: Daemon, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(archive.folder / "index.db")) as source,
        contextlib.closing(sqlite3.connect(target / "index.db")) as copy,
    ):
        source.backup(copy)


def _copy_files(archive: Daemon, target: Path, hammers: list[Hammer]) -> None:
    """All but the journals, which say what is not in the copied index, and what is being received."""
    count = sum(len(hammer.acknowledged) for hammer in hammers)
    ignored = shutil.ignore_patterns("spool", "*.journal", "*.part")
    shutil.copytree(archive.files, target / "files", ignore=ignored, dirs_exist_ok=True)
    wait_until(lambda: sum(len(hammer.acknowledged) for hammer in hammers) > count + 5, 20, "stores have stopped")


# -- large archives -------------------------------------------------------------------------------------------------

_GROW = """
insert into instance ({names}) with recursive n(n) as (select 1 union all select n + 1 from n where n < ?)
select {values} from n, (select * from instance limit 1)
"""


@fault("D02c", "restart after kill -9 with a large index", goal="G11", tries=12, seconds=240, few=2)
def restarts_with_many(run: Run) -> None:
    """From the start of the process until the first association is accepted."""
    many = 1_000_000 if run.tries > 4 else 20_000
    archive = run.daemon({"processes": 2}).start()
    first = instance()
    with raw.association(archive.port) as sending:
        assert sending.store(CT, first.uid, first.data) == 0
    archive.stop()
    _grow(archive, many)
    taken: list[float] = []
    while run.goes_on():
        began = time.monotonic()
        archive.start()
        taken.append(time.monotonic() - began)
        one = instance()
        with Connection(archive.port) as sending:
            status = sending.associate().store(CT, one.uid, one.data)
        archive.kill()
        run.count([f"answered with {status:04x}"] if status else [])
    run.figure("instances", f"{many:,}")
    run.figure("to the first association p50/longest", f"{percentile(taken, 0.5):.2f}/{percentile(taken, 1):.2f} s")
    if percentile(taken, 1) > 3:
        run.count([f"a start took {percentile(taken, 1):.1f} s"], tries=0)


def _grow(archive: Daemon, many: int) -> None:
    """Rows as the first one, with names of their own; nobody looks for their files."""
    with contextlib.closing(sqlite3.connect(archive.folder / "index.db")) as database:
        names = [row[1] for row in database.execute("pragma table_info(instance)") if row[1] != "id"]
        own = {"sop_instance_uid": "sop_instance_uid || '.' || n", "path": "path || '.' || n"}
        text = _GROW.format(names=", ".join(names), values=", ".join(own.get(name, name) for name in names))
        database.execute(text, (many,))
        database.commit()


# -- the order ------------------------------------------------------------------------------------------------------

SYNCS = "fdatasync,fsync"


@fault(
    "D01", "file, folder, row and journal synced before the answer", goal="G3", tries=20, seconds=60, few=2,
    twins=("no sync of folders", "no sync"), proves="a sync that is left out is seen",
)  # fmt: skip
def order(run: Run) -> None:
    """A large object without a journal: its file, its folder, the index; a small one with: the journal."""
    small = run.daemon(ONE_PROCESS).start()
    large = run.daemon(merged(ONE_PROCESS, {"storage": {"journal": "off"}})).start()
    while run.goes_on():
        run.count(_synced(small, 3_000, [r"\.journal>"]))
        run.count(_synced(large, 1_300_000, [r"\.part", r"objects/\d+/\w+>", r"index\.db"]))


def _synced(archive: Daemon, size: int, wanted: list[str]) -> list[str]:
    one = instance(size=size)
    with raw.association(archive.port) as sending:
        assert sending.store(CT, (before := instance(size=size)).uid, before.data) == 0
        with strace(archive, archive.folder / "trace", "-e", f"trace={SYNCS},sendmsg,sendto") as file:
            assert sending.store(CT, one.uid, one.data) == 0
            assert sending.echo() == 0
    made = calls(file)
    answer = next(at for at, (name, what) in enumerate(made) if name.startswith("send") and "socket:" in what)
    before_it = [what for name, what in made[:answer] if name in SYNCS.split(",")]
    return [f"{size} bytes: no sync of {one}" for one in wanted if not any(re.search(one, what) for what in before_it)]
