"""The desk and its receivers: nobody waits for another, and a restart or a lost disk silences nobody."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from archive.errors import NotDelivered
from archive.services.alarms import Alarm, Line
from archive.services.notify import Notice, Rule
from archive.workers.notify import Desk, Hearing, StateFile, Telling
from archive.workers.worker import Workers
from tests.faults.daemon import wait_until

NOW = 1_800_000_000.0
FULL = Alarm("disk", "main", "objects cannot be stored")


def files(folder: Path) -> StateFile:
    (folder / ".volume").touch()
    return StateFile(folder / "notices.json", folder / ".volume")


def desk(folder: Path, *names: str, gather: float = 0.0) -> Desk:
    return Desk([Rule(name, gather=gather) for name in names], files(folder), lambda: NOW)


def heard(line: Line, *alarms: Alarm) -> Line:
    for alarm in alarms:
        line.raise_alarm(alarm)
    return line


def test_a_receiver_is_sent_what_was_heard_and_then_waits(tmp_path: Path) -> None:
    sent: list[Notice] = []
    made = desk(tmp_path, "a")
    made.hear(heard(Line(), FULL, FULL))
    teller = Telling("a", made, lambda notice: str(sent.append(notice)))
    assert teller.step() == 0.0
    assert teller.step() is None
    assert [notice.events for notice in sent] == [2]


def test_a_receiver_that_fails_is_tried_again_later(tmp_path: Path) -> None:
    def fail(notice: Notice) -> str:
        raise NotDelivered("hook answered 503")

    made = desk(tmp_path, "a")
    made.hear(heard(Line(), FULL))
    teller = Telling("a", made, fail)
    assert (teller.step(), teller.step()) == (0.0, 60.0)


def test_a_fault_of_our_own_is_a_failure_like_any_other(tmp_path: Path) -> None:
    made = desk(tmp_path, "a")
    made.hear(heard(Line(), FULL))
    teller = Telling("a", made, lambda notice: str(1 // 0))
    assert (teller.step(), teller.step()) == (0.0, 60.0)


def test_a_desk_that_was_closed_leaves_its_file_to_the_next(tmp_path: Path) -> None:
    before = desk(tmp_path, "a")
    before.hear(heard(Line(), FULL))
    before.due("a")
    before.close()
    kept = (tmp_path / "notices.json").read_text()
    before.settle("a")
    assert (tmp_path / "notices.json").read_text() == kept


def test_a_receiver_that_hangs_keeps_no_other_from_hearing(tmp_path: Path) -> None:
    hangs, told = threading.Event(), threading.Event()

    def hang(notice: Notice) -> str:
        hangs.wait(300)
        return ""

    def tell(notice: Notice) -> str:
        told.set()
        return ""

    made, line = desk(tmp_path, "hangs", "well"), Line()
    workers = Workers([Telling("hangs", made, hang), Telling("well", made, tell)], lambda: Hearing(line, made))
    workers.start()
    try:
        line.raise_alarm(FULL)
        wait_until(told.is_set, 60)
        told.clear()
        line.raise_alarm(FULL)
        wait_until(told.is_set, 60)
    finally:
        hangs.set()
        workers.stop()
        line.close()


def test_what_was_gathered_is_there_after_a_kill(tmp_path: Path) -> None:
    desk(tmp_path, "a", gather=60.0).hear(heard(Line(), FULL))
    sent: list[Notice] = []
    later = Desk([Rule("a", gather=60.0)], files(tmp_path), lambda: NOW + 60)
    assert Telling("a", later, lambda notice: str(sent.append(notice))).step() == 0.0
    assert sent[0].entries[0].alarm == FULL


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text(json.dumps({"a": {"pending": [{"other": "form"}]}})),
        lambda path: path.write_text(json.dumps({"a": "text"})),
    ],
)
def test_a_file_that_cannot_be_used_loses_the_past_alone(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    spoil(tmp_path / "notices.json")
    made = desk(tmp_path, "a")
    made.hear(heard(Line(), FULL))
    assert made.due("a")[0] is not None


def test_nothing_is_written_to_a_disk_that_is_not_the_one_that_was_meant(tmp_path: Path) -> None:
    made = desk(tmp_path, "a")
    (tmp_path / ".volume").unlink()
    made.hear(heard(Line(), FULL))
    notice, _ = made.due("a")
    assert notice is not None and notice.entries[0].alarm == FULL
    made.close()
    assert list(tmp_path.iterdir()) == []
