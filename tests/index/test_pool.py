"""The pool of connections: bounded, last used first, and without those that are broken."""

from __future__ import annotations

import itertools

import pytest

from archive.errors import IndexUnavailable
from archive.index.database import Pool


def pool(size: int = 2) -> tuple[Pool[int], list[int]]:
    closed: list[int] = []
    numbers = itertools.count(1)
    return Pool(lambda: next(numbers), closed.append, size), closed


def test_the_last_used_connection_is_used_first() -> None:
    found, _ = pool()
    first, second = found.take(), found.take()
    found.give(first)
    found.give(second)
    assert found.take() == second


def test_no_more_connections_than_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.index.database.PATIENCE", 0.05)
    found, _ = pool()
    found.take()
    second = found.take()
    with pytest.raises(IndexUnavailable, match="all 2 connections"):
        found.take()
    found.give(second)
    assert found.take() == second


def test_a_broken_connection_takes_the_idle_ones_along() -> None:
    found, closed = pool()
    first, second = found.take(), found.take()
    found.give(first)
    found.give(second, broken=True)
    assert sorted(closed) == [first, second]
    assert found.take() == 3


def test_a_connection_that_cannot_be_made_leaves_its_place_free() -> None:
    def fail() -> int:
        raise IndexUnavailable("down")

    found: Pool[int] = Pool(fail, lambda _: None, 1)
    for _ in range(3):
        with pytest.raises(IndexUnavailable, match="down"):
            found.take()


def test_what_is_given_back_after_the_end_is_closed() -> None:
    found, closed = pool()
    first, second = found.take(), found.take()
    found.give(first)
    found.close()
    found.give(second)
    assert closed == [first, second]
