"""Frames: right whatever way they are cut, or closed."""

from __future__ import annotations

import pytest

from archive.errors import NotUnderstood
from archive.hl7.framing import Framer, framed

TWO = framed(b"first") + framed(b"second")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_messages_are_found_however_they_are_cut(size: int) -> None:
    framer, found = Framer(), []
    for start in range(0, len(TWO), size):
        found += framer.feed(TWO[start : start + size])
    assert found == [b"first", b"second"]
    assert not framer.begun or framer.feed(b"") == []


def test_a_missing_carriage_return_does_not_lose_the_next_message() -> None:
    assert Framer().feed(b"\x0bfirst\x1c\x0bsecond\x1c\r") == [b"first", b"second"]


def test_line_ends_between_messages_are_nothing() -> None:
    assert Framer().feed(b"\r\n" + framed(b"a") + b"\n\r\n" + framed(b"b") + b"\n") == [b"a", b"b"]


@pytest.mark.parametrize("data", [b"MSH|^~\\&|", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02"])
def test_what_begins_with_something_else_cannot_go_on(data: bytes) -> None:
    with pytest.raises(NotUnderstood, match="does not begin with VT"):
        Framer().feed(data)


@pytest.mark.parametrize("end", [b"", b"\x1c\r"])
def test_a_message_has_a_longest_length(end: bytes) -> None:
    with pytest.raises(NotUnderstood, match="longer than 100 bytes"):
        Framer(longest=100).feed(b"\x0b" + b"x" * 200 + end)


def test_a_message_that_drips_in_is_searched_once() -> None:
    framer = Framer()
    framer.feed(b"\x0b")
    for _ in range(1000):
        assert framer.feed(b"x") == []
    assert framer.begun
    assert framer.feed(b"\x1c\r") == [b"x" * 1000]


def test_what_came_whole_before_rubbish_is_given_first() -> None:
    framer = Framer()
    assert framer.feed(framed(b"a") + b"x") == [b"a"]
    with pytest.raises(NotUnderstood, match="does not begin with VT"):
        framer.feed(framed(b"b"))
