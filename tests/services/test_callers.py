"""Refused callers on their way to the index."""

from __future__ import annotations

from pathlib import Path

from archive.index import open_index
from archive.services.callers import BURST, Callers


def test_every_refusal_counts_although_a_flood_writes_few(tmp_path: Path) -> None:
    index = open_index(f"sqlite:///{tmp_path}/index.db")
    now = [1000.0]
    writes: list[int] = []

    def note(aet: str, address: str, called: str, reason: str, when: float, times: int) -> None:
        writes.append(times)
        index.note_caller(aet, address, called, reason, when, times)

    callers = Callers(note, lambda: now[0])
    for _ in range(500):
        callers.note("SCAN", "10.0.0.9", "X", "unknown")
    now[0] += 1
    callers.note("SCAN", "10.0.0.9", "X", "unknown")
    assert len(writes) == BURST + 1
    assert [(caller.aet, caller.times) for caller in index.callers()] == [("SCAN", 501)]


def test_a_usual_refusal_is_there_at_once(tmp_path: Path) -> None:
    index = open_index(f"sqlite:///{tmp_path}/index.db")
    callers = Callers(index.note_caller, lambda: 1000.0)
    for _ in range(3):
        callers.note("CT9", "10.0.0.9", "ARCHIVE", "unknown")
    assert [(caller.aet, caller.times, caller.last) for caller in index.callers()] == [("CT9", 3, 1000.0)]
