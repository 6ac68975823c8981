"""A few tries of every fault of the campaign, on each of its databases, and what the campaign says of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.campaign.__main__ import chosen, main
from tests.faults.campaign.faults import every_fault
from tests.faults.campaign.run import POSTGRESQL, SQLITE, Fault, Run
from tests.faults.campaign.table import as_json, markdown
from tests.faults.cluster import Cluster
from tests.faults.forks import ForkServer
from tests.faults.power import can_cut
from tests.faults.seams import SEAMS

SECONDS = 60.0
NEEDS_A_DISK = {"D04", "D05"}  # to be mounted: root and loop devices


def few() -> list[tuple[Fault, str]]:
    """What runs here. Where nothing can be mounted no power is cut: tests/services does it with copies of files."""
    faults = [fault for fault in every_fault() if fault.few and (fault.number not in NEEDS_A_DISK or can_cut())]
    return [(fault, database) for fault in faults for database in fault.databases]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One server for all of them: those that stop it start it again."""
    with Cluster() as made:
        yield made.make().start()


@pytest.mark.parametrize("fault, database", few(), ids=lambda value: getattr(value, "number", value))
def test_a_few_tries(
    fault: Fault, database: str, forks: ForkServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    shared = request.getfixturevalue("cluster") if database == POSTGRESQL and not fault.alone else None
    tries = fault.few if database == fault.databases[0] else max(1, fault.few // 4)
    run = Run(fault, tmp_path, forks, database, tries=tries, seconds=SECONDS, shared=shared).go()
    assert run.violations == []
    assert run.tried > 0


def test_every_twin_is_a_seam_and_says_what_it_proves() -> None:
    for fault in every_fault():
        assert {name for name, _ in fault.every_twin()} <= set(SEAMS), fault.number
        assert bool(fault.twins) == bool(fault.proves), fault.number


def test_faults_are_chosen_by_number() -> None:
    assert {fault.number for fault in chosen("D02*,N37a")} == {"D02", "D02b", "D02c", "D02d", "N37a"}
    assert chosen("X99") == []
    assert main(["--only", "X99"]) == 2


def made_up(violations: list[str]) -> Run:
    fault = Fault("X01", "made up", lambda run: run.count(violations), goal="G1", twins=("no sync",))
    return Run(fault, Path("/nonexistent"), None, SQLITE, tries=5)  # type: ignore[arg-type]


def test_the_table_says_how_often_and_what() -> None:
    run = made_up(["it broke"]).go()
    assert "| X01 (G1) | sqlite | made up | 1 | 1 |" in markdown([run], twins=False)
    assert as_json([run])[0]["violations"] == ["try 0: it broke"]


def test_a_fault_that_raises_is_a_violation() -> None:
    run = made_up([])
    object.__setattr__(run.fault, "work", lambda run: 1 / 0)
    assert "ZeroDivisionError" in run.go().violations[0]


def test_what_was_sent_decides_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "N37a", "--tries", "2000"]) == 0
    assert "| N37a (G5) | sqlite | spoiled PDUs in process | 2,000 | 0 |" in capsys.readouterr().out
