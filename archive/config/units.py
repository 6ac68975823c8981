"""Sizes and durations as people write them: ``500MB``, ``1h30m``.

Rules that hold here: a size is whole bytes and its units are powers of 1024 (as PostgreSQL and systemd read
them, and the larger reading of a limit); a duration is seconds; what ``show_*`` gives, ``read_*`` reads back.
"""

from __future__ import annotations

import re

SIZE_UNITS = {"": 1, "B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}
DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w|y)\s*", re.ASCII)
_SECONDS = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


def read_size(text: str) -> int:
    """Bytes; a bare number is bytes, ``K``, ``KB`` and ``KiB`` are the same unit."""
    match = _SIZE.fullmatch(text.strip())
    unit = match[2].upper().replace("IB", "B") if match else ""
    unit = f"{unit}B" if unit in ("K", "M", "G", "T") else unit
    if not match or unit not in SIZE_UNITS:
        raise ValueError("not a size")
    return int(float(match[1]) * SIZE_UNITS[unit]) if "." in match[1] else int(match[1]) * SIZE_UNITS[unit]


def read_duration(text: str) -> float:
    """Seconds; a bare number is seconds, parts add up: ``1h30m``."""
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    parts = _DURATION_PART.findall(text)
    if not parts or _DURATION_PART.sub("", text):
        raise ValueError("not a duration")
    return sum(float(number) * DURATION_UNITS[unit.replace("min", "m")] for number, unit in parts)


def show_size(size: int) -> str:
    """The largest unit that divides the size."""
    for unit in ("TB", "GB", "MB", "KB"):
        if size and size % SIZE_UNITS[unit] == 0:
            return f"{size // SIZE_UNITS[unit]}{unit}"
    return str(size)


def show_duration(seconds: float) -> str:
    """The largest unit that divides the seconds, from weeks down; seconds stay seconds below ten minutes."""
    for unit in ("w", "d", "h", "m"):
        if seconds >= 600 and seconds % DURATION_UNITS[unit] == 0:
            return f"{seconds / DURATION_UNITS[unit]:g}{unit}"
    return f"{seconds:.15g}s"
