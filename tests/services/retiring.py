"""An archive with rules of retention, and everything that carries them out, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from archive.dicom.attributes import HEADER_TAGS
from archive.dicom.rule import parse_rule
from archive.errors import Unreachable
from archive.index import Index, StoredInstance, open_index
from archive.index.held import Name
from archive.index.retention import RETIRE, RetentionRows
from archive.services.commit import Committer
from archive.services.corrections import Corrections, by
from archive.services.deletion import Deletion, Unlinking
from archive.services.disposal import Disposal
from archive.services.holds import Holds
from archive.services.retention import DAY, Need, Policy, Rule
from archive.services.rounds import OldVersions, Rounds
from archive.services.schedule import Schedule
from archive.services.steadyclock import SteadyClock
from archive.services.store import Origin, Rules, Store
from archive.storage.journal import Journal
from archive.storage.ledger import Ledger
from archive.storage.local import Volume
from archive.workers.retention import Retire
from tests import builders

EXPLICIT = "1.2.840.10008.1.2.1"


def moment(text: str) -> float:
    return datetime.strptime(text, "%Y%m%d").timestamp()


class Answers:
    """A peer that has some instances, or does not answer."""

    def __init__(self) -> None:
        self.has: set[str] = set()
        self.silent = False
        self.asked = 0

    def missing(self, need: Need, items: Sequence[StoredInstance]) -> set[str]:
        self.asked += 1
        if self.silent:
            raise Unreachable("no answer", need.peer)
        return {item.sop_instance_uid for item in items} - self.has


class Site:
    """An archive with rules, and everything that carries them out."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.now = moment("20260301")
        self.volume = Volume(folder / "files", reserve=0, clock=lambda: self.now)
        self.volume.open(expected=False)
        self.journal = Journal(self.volume.root / "journal", 4 << 20)
        self.peer = Answers()
        self.open(url)

    def open(self, url: str) -> None:
        self.index: Index = open_index(url)
        self.committer = Committer(volume=self.volume, index=self.index, journal=self.journal)
        self.committer.recover()
        self.corrections = Corrections(
            self.index, Ledger(self.volume.root / "corrections"), lambda: self.now
        )
        self.deletion = Deletion(self.index, self.corrections, Ledger(self.volume.root / "deletions"), self.volume)
        self.unlinking = Unlinking(self.index, {"main": self.volume}, lambda: self.now)
        self.rows = RetentionRows(self.index.database)

    def store(self, policy: str = "keep") -> Store:
        rules = Rules(max_instance_size=1 << 20, wanted=HEADER_TAGS, on_duplicate=policy)
        return Store(
            volume=self.volume, index=self.index, committer=self.committer, rules=rules, clock=lambda: self.now
        )

    def put(self, sent: Dataset, *, policy: str = "keep", ready: bool = True) -> str:
        reception = self.store(policy).receive(Origin("CT1"), sent.SOPClassUID, sent.SOPInstanceUID, EXPLICIT)
        reception.write(builders.bytes_of(sent))
        reception.finish()
        if ready:
            self.settle()
        return str(sent.StudyInstanceUID)

    def settle(self) -> None:
        """All studies are ready, and nobody follows them any more."""

        def work(session: Any) -> None:
            session.run("UPDATE study SET state = 'ready', arrivals = 0")
            session.run("DELETE FROM task WHERE kind = 'study'")

        self.index.database.transact(work)

    def worker(self, *rules: Rule, per_day: int = 1000, versions: float | None = None, **options: Any) -> Retire:
        policy = Policy(rules)
        clock = lambda: self.now  # noqa: E731
        disposal = Disposal(
            self.index, policy, self.deletion, self.peer, per_day=per_day, rate=100_000, clock=clock,
            sleep=lambda seconds: None,
        )  # fmt: skip
        return Retire(
            self.index, Rounds(self.index, policy, per_day=per_day, clock=clock), disposal,
            OldVersions(self.index, versions, clock), SteadyClock(self.index, clock),
            hours=options.get("hours", Schedule()), clock=clock,
        )  # fmt: skip

    def run(self, *rules: Rule, **options: Any) -> list[str]:
        """What becomes of studies until there is nothing to do for a while: the reasons of the tasks."""
        worker = self.worker(*rules, **options)
        for _ in range(200):
            if (worker.step() or DAY) > 60:
                break
        return [task.reason for task in self.index.tasks(kind=RETIRE)]

    def studies(self) -> set[str]:
        return {each.study_uid for each in self.index.studies()}

    def files(self) -> int:
        return len(list((self.volume.root / "objects").rglob("*.dcm")))

    def hold(self, name: Name, why: str = "case 12") -> None:
        self.holds().hold(name, by("lawyer", why))

    def holds(self) -> Holds:
        return Holds(self.index, Ledger(self.volume.root / "corrections"), lambda: self.now)

    def close(self) -> None:
        self.committer.close()
        self.index.close()
        self.volume.close()


OLD = Rule("old", parse_rule("Modality = 'CT'"), years=7)


def ct(**given: Any) -> Dataset:
    return builders.ct(**({"StudyDate": "20100301"} | given))
