"""Counting associations over processes that share memory."""

from __future__ import annotations

import os

from archive.dimse.census import Census, Counts


def never(counts: Counts) -> str | None:
    return None if counts.rows_left else "no room"


def test_associations_are_counted_by_title_and_address() -> None:
    census = Census(1, 10)
    census.join(0)
    census.enter("CT1", "10.0.0.1", never)
    census.enter("ct1", "10.0.0.2", never)
    seen: list[Counts] = []
    census.enter("MR1", "10.0.0.2", lambda counts: seen.append(counts) or "no")  # type: ignore[func-returns-value]
    census.enter("CT1", "10.0.0.1", lambda counts: seen.append(counts) or "no")  # type: ignore[func-returns-value]
    assert seen == [Counts(2, 0, 1, 8), Counts(2, 2, 1, 8)]


def test_who_is_refused_takes_no_row_and_who_leaves_frees_one() -> None:
    census = Census(1, 1)
    census.join(0)
    assert census.enter("A", "1", lambda counts: "full") == "full"
    row = census.enter("A", "1", never)
    assert isinstance(row, int) and census.enter("B", "1", never) == "no room"
    census.leave(row)
    assert census.total() == 0 and isinstance(census.enter("B", "1", never), int)


def test_what_a_killed_process_held_is_forgotten_by_its_successor() -> None:
    census = Census(2, 4)
    census.join(0)
    pid = os.fork()
    if pid == 0:
        census.join(1)
        census.enter("CT1", "1", never)
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert census.total() == 1
    census.join(1)
    assert census.total() == 0


def test_processes_never_admit_more_than_the_limit_together() -> None:
    census = Census(4, 50)
    children = []
    for process in range(4):
        pid = os.fork()
        if pid == 0:
            census.join(process)
            for _ in range(50):
                census.enter("CT1", "1", lambda counts: "full" if counts.total >= 60 else None)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    assert census.total() == 60
