"""What reaches the log."""

from __future__ import annotations

import logging

from archive.log import LONGEST, Formatter


def formatted(message: str, *args: object) -> str:
    return Formatter("%(threadName)s %(message)s").format(
        logging.LogRecord("archive", logging.INFO, __file__, 1, message, args, None)
    )


def test_received_text_cannot_start_a_line_of_its_own() -> None:
    line = formatted("caller %s", "EVIL\n2026-01-01 INFO admin login ok\x1b[2J\u2028")
    assert "\n" not in line and "\x1b" not in line and r"\x0a" in line and "\u2028" not in line


def test_a_line_is_bounded() -> None:
    assert len(formatted("%s", "x" * 100_000)) < LONGEST + 100


def test_a_percent_sign_in_received_text_is_only_text() -> None:
    assert formatted("caller %s", "%s%n").endswith("caller %s%n")
