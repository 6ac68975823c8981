"""Twins: the same fault with one protection switched off must be noticed, else its check is worth nothing.

The quick ones run here; `scripts/faults --twins` runs them all.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.campaign.faults import every_fault
from tests.faults.campaign.run import Fault, Run
from tests.faults.forks import ForkServer
from tests.faults.power import can_cut

QUICK = {
    ("D01", "no sync of folders"), ("D02", "answer before commit"), ("D02", "row before file"),
    ("D04", "commit not synced"), ("D06-11", "no cleaning up"),
    ("D17-18", "length not compared"), ("B01-20", "command not compared"), ("B21c", "any size"),
    ("N37a", "a fault in the wire"), ("B50", "a fault in the gate"), ("B40-43", "no contradictions"),
    ("D02d", "no tombstones"), ("C01-04", "promised without reading"), ("C07", "request answered before it is kept"),
    ("Q03", "sent before it is answered"),
}  # fmt: skip


def quick() -> list[tuple[Fault, str, str]]:
    return [
        (fault, seam, database)
        for fault in every_fault()
        for seam, database in fault.every_twin()
        if (fault.number, seam) in QUICK and (fault.number != "D04" or can_cut())
    ]


@pytest.mark.parametrize("fault, seam, database", quick(), ids=lambda value: getattr(value, "number", value))
def test_the_twin_is_noticed(fault: Fault, seam: str, database: str, forks: ForkServer, tmp_path: Path) -> None:
    run = Run(fault, tmp_path, forks, database, (seam,), tries=min(fault.tries, 400), seconds=60.0).go()
    assert run.violations
