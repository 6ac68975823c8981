"""The journal: what was appended is there again, in order, until it was checkpointed."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import threading
import zlib
from pathlib import Path

import pytest

from archive.errors import IndexUnavailable
from archive.storage import journal as journal_module
from archive.storage.journal import Journal, Record, Settle, slots

SIZE = 1 << 20


def record(number: int, size: int = 100) -> Record:
    return Record({"path": f"p{number}"}, [bytes([number % 256]) * size])


def replayed(folder: Path, slot: int = 0) -> list[tuple[str, bytes]]:
    journal = Journal(folder, SIZE, slot)
    found = [(r.meta["path"], b"".join(r.data)) for half in journal.replay() for r in half]
    os.close(journal._fd)
    return found


def crash(journal: Journal) -> None:
    """What kill -9 does to the process's hold on the journal."""
    os.close(journal._fd)


def test_what_was_appended_comes_back_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SIZE)
    assert journal.append([record(1), record(2)]) == 2
    assert journal.append([record(3)]) == 3
    crash(journal)
    assert replayed(tmp_path) == [("p1", b"\1" * 100), ("p2", b"\2" * 100), ("p3", b"\3" * 100)]


def test_a_torn_record_ends_the_replay_before_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SIZE)
    journal.append([record(1)])
    end = journal._halves[0].position
    journal.append([record(2)])
    os.pwrite(journal._fd, b"\xff", end + 30)
    crash(journal)
    assert [path for path, _ in replayed(tmp_path)] == ["p1"]


def test_records_of_an_older_round_are_not_replayed_behind_newer_ones(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SIZE)
    for number in range(12):
        journal.append([record(number, 100_000)])
        journal.checkpoint(lambda paths, records: None)
    crash(journal)
    numbers = [int(path[1:]) for path, _ in replayed(tmp_path)]
    assert numbers == sorted(numbers) and numbers[-1] == 11 and len(numbers) < 12


def test_append_waits_for_the_checkpoint_of_the_other_half(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SIZE)
    settled: list[str] = []
    for number in range(8):
        journal.append([record(number, 120_000)])
    appender = threading.Thread(target=lambda: journal.append([record(9, 120_000)]), daemon=True)
    appender.start()
    appender.join(0.1)
    assert appender.is_alive()
    journal.checkpoint(lambda paths, records: settled.extend(paths))
    appender.join(60)
    assert not appender.is_alive() and settled == [f"p{number}" for number in range(8)]


def test_a_failed_checkpoint_keeps_the_records_and_refuses_more_than_fits(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SIZE)

    def refuse(paths: object, records: object) -> None:
        raise OSError(5, "Input/output error")

    for number in range(8):
        journal.append([record(number, 120_000)])
    with pytest.raises(OSError):
        journal.checkpoint(refuse)
    with pytest.raises(OSError):
        journal.append([record(9, 120_000)])
    journal.checkpoint(lambda paths, records: None)
    journal.append([record(9, 120_000)])
    crash(journal)
    assert replayed(tmp_path)[-1][0] == "p9"


def test_a_closed_journal_has_nothing_to_replay(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SIZE)
    journal.append([record(1)])
    journal.close(lambda paths, records: None)
    assert replayed(tmp_path) == []


def test_two_processes_never_share_a_slot(tmp_path: Path) -> None:
    first, second = Journal(tmp_path, SIZE), Journal(tmp_path, SIZE)
    assert (first.slot, second.slot) == (0, 1)
    with pytest.raises(BlockingIOError):
        Journal(tmp_path, SIZE, 0)
    crash(first)
    assert Journal(tmp_path, SIZE).slot == 0
    assert slots(tmp_path) == [0, 1]


def test_sequence_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SIZE)
    journal.append([record(1), record(2)])
    crash(journal)
    again = Journal(tmp_path, SIZE)
    again.start(2)
    assert again.append([record(3)]) == 3


def test_a_group_that_cannot_fit_is_refused_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SIZE)
    with pytest.raises(OSError):
        journal.append([record(1, SIZE)])
    assert journal.append([record(2)]) == 1


def test_a_journal_that_is_to_grow_keeps_its_records_until_they_are_settled(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SIZE)
    journal.append([record(1)])
    crash(journal)
    larger = Journal(tmp_path, 4 * SIZE)
    assert [r.meta["path"] for half in larger.replay() for r in half] == ["p1"]
    larger.start(1)
    assert larger.size == 4 * SIZE


def test_any_fault_of_a_checkpoint_is_told_to_who_waits_for_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SIZE)

    def fail(paths: object, records: object) -> None:
        raise IndexUnavailable("index is not available")

    for number in range(8):
        journal.append([record(number, 120_000)])
    with pytest.raises(IndexUnavailable):
        checkpoint_full(journal, fail)
    with pytest.raises(OSError):
        journal.append([record(9, 120_000)])


def test_a_half_that_awaits_its_checkpoint_takes_no_small_record_either(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SIZE)

    def fail(paths: object, records: object) -> None:
        raise OSError(5, "Input/output error")

    for number in range(8):
        journal.append([record(number, 120_000)])
    with pytest.raises(OSError):
        checkpoint_full(journal, fail)
    with pytest.raises(OSError):
        journal.append([record(9, 10)])


def checkpoint_full(journal: Journal, settle: Settle) -> None:
    """Fill up what is left, so that both halves await their checkpoint, and let it happen."""
    appender = threading.Thread(target=lambda: _ignored(journal), daemon=True)
    appender.start()
    journal.wake.wait(60)
    try:
        journal.checkpoint(settle)
    finally:
        appender.join(60)


def _ignored(journal: Journal) -> None:
    with contextlib.suppress(OSError):
        journal.append([record(99, 120_000)])


def test_records_that_an_older_version_wrote_are_replayed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SIZE)
    meta = json.dumps({"path": "old", "tags": [[1048592, "A^B"]]}).encode()
    body = journal_module.HEAD.pack(b"AJ01", 0, 1, len(meta), 3)[journal_module.COVERED :]
    crc = zlib.crc32(meta, zlib.crc32(body))
    os.pwrite(journal._fd, b"AJ01" + struct.pack(">I", crc) + body + meta + b"abc", 0)
    crash(journal)
    journal = Journal(tmp_path, SIZE, 0)
    (found,) = [record for half in journal.replay() for record in half]
    assert found.meta["tags"] == [[1048592, "A^B"]] and b"".join(found.data) == b"abc"
    journal.start(found.sequence)
    assert journal.append([record(2)]) == 2
    crash(journal)


def test_what_is_said_of_an_object_comes_back_as_it_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SIZE)
    meta = {"path": "p", "text": "M\u00fcller \udce4", "bytes": b"\0\xff", "number": 1.5, "map": {1: "x"}, "none": None}
    journal.append([Record(dict(meta))])
    crash(journal)
    journal = Journal(tmp_path, SIZE, 0)
    (found,) = [record for half in journal.replay() for record in half]
    del found.meta["_meta"]
    assert found.meta == meta
    crash(journal)
