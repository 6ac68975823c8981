"""Sizes and durations as people write them."""

from __future__ import annotations

import pytest

from archive.config.units import read_duration, read_size, show_duration, show_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("512", 512), ("500MB", 524288000), ("1 gb", 2**30), ("64MiB", 2**26), ("1.5K", 1536), ("2T", 2**41)],
)
def test_a_size_has_units_of_1024(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "5XB", "-1MB", "1e3", "5 5MB", "1,5MB", "٣MB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        read_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5.0),
        ("0.5", 0.5),
        ("300ms", 0.3),
        ("5s", 5.0),
        ("10m", 600.0),
        ("10min", 600.0),
        ("1h30m", 5400.0),
        ("2d", 172800.0),
    ],
)
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    assert read_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "5x", "-5s", "5:00", "1h30", "5 s s", "٥"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        read_duration(text)


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1536, 524288000, 2**40, 2**40 + 1])
def test_a_shown_size_reads_back(size: int) -> None:
    assert read_size(show_size(size)) == size


@pytest.mark.parametrize("seconds", [0.1, 0.3, 5.0, 300.0, 600.0, 5400.0, 86400.0, 86401.5])
def test_a_shown_duration_reads_back(seconds: float) -> None:
    assert read_duration(show_duration(seconds)) == seconds
