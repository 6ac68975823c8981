"""D02d, D03d: SIGKILL in the midst of a deletion: of the command alone, or of the daemon with it.

Rules that hold here: a study is whole or gone, with its files; what somebody was told is deleted is gone; an object
that is stored again after it was deleted stays, whatever was broken off before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tests.faults.campaign.deeds import Deed, every_call, random_moments
from tests.faults.campaign.run import POSTGRESQL, SQLITE, Run, fault
from tests.faults.forks import Forked
from tests.faults.objects import Instance, instance, new_uid, study

BOTH = (SQLITE, POSTGRESQL)
TWINS = ("files unlinked before rows", "no tombstones")
SIZES = (900, 90_000, 1_600_000)
PROVES = "rows without files and files without rows are seen"


class Deleting(Deed):
    """`archive delete` of a study of three, beside one that stays."""

    def __init__(self, run: Run) -> None:
        super().__init__(run, {})
        self.images: list[Instance] = []
        self._command: Forked | None = None
        self._gate: Path | None = None

    def prepare(self) -> list[int]:
        if not self.images or self.run.rng.random() < 0.5:
            root = new_uid()
            self.images = [instance(study=root, uid=f"{root}.{n}", size=size) for n, size in enumerate(SIZES)]
        self.store(self.images)
        self.store(study(1))
        self._gate = self.archive.folder / f"gate-{self.done}"
        os.mkfifo(self._gate)
        arguments = ["delete", "--config", str(self.archive.config_file), "--yes", self.images[0].study]
        self._command = self.run.forks.start(
            arguments, folder=self.archive.folder, log=self.archive.folder / "command.log", seams=self.run.seams,
            gate=self._gate,
        )  # fmt: skip
        self.owed = self.owed[-1:]
        with_daemon = self.run.rng.random() < 0.7
        return [self._command.pid, *(self.archive.pids() if with_daemon else ())]

    def begin(self) -> None:
        assert self._gate is not None
        self._gate.open("wb").close()

    def is_done(self) -> bool:
        assert self._command is not None
        return self._command.poll() is not None and not self.archive.select("select id from tombstone")

    def end(self) -> None:
        assert self._command is not None and self._gate is not None
        self.told = self._command.wait(60) == 0
        self._gate.unlink()

    def after(self) -> Iterator[str]:
        mine = {one.uid for one in self.images}
        left = [row.uid for row in self.archive.rows() if row.uid in mine]
        if left and self.told:
            yield f"{len(left)} objects are there although somebody was told that they are deleted"
        if left and len(left) < len(mine):
            yield f"{len(left)} of {len(mine)} objects are left of a study"
        if left:
            self.owed += self.images
        elif self.run.rng.random() < 0.5:
            self.store(self.images)


@fault(
    "D02d", "kill -9 at random moments of a deletion", goal="G2", tries=1000, seconds=600, few=2, databases=BOTH,
    twins=TWINS, proves=PROVES,
)  # fmt: skip
def random_kills_of_deletions(run: Run) -> None:
    random_moments(run, Deleting)


@fault(
    "D03d", "kill -9 at every call of a deletion", goal="G2", tries=2000, seconds=900, few=4, databases=BOTH,
    twins=TWINS, proves=PROVES,
)  # fmt: skip
def every_call_of_a_deletion(run: Run) -> None:
    every_call(run, Deleting)
