"""The option ``storage.volumes``: where files are, in which role, and when the cache makes room.

Rules that hold here: a single ``storage.path`` stays what it was, one volume of no role; of several one has the role
``cache``, takes what arrives and keeps the journal; a name in the index stands for a volume for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .complaints import Complaint
from .kinds import Reading, Scalar, Unfit
from .schema import option
from .units import read_size, show_size
from .values import PATH, one_of

if TYPE_CHECKING:
    from .sections import Config, Storage

MAIN = "main"  # the name in the index of the volume that takes what arrives
CACHE, LONG_TERM = "cache", "long-term"
ROLES = {
    CACHE: "takes what arrives, and gives up the least recently used of what is safe on a long-term volume",
    LONG_TERM: "takes a copy of every study that is ready, and keeps it",
}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%", re.ASCII)


class Mark(NamedTuple):
    """How full a file system may be: percent of it, or bytes in use."""

    percent: float | None
    size: int = 0

    def bytes_of(self, total: int) -> int:
        """Bytes in use of a file system of so many in all."""
        return self.size if self.percent is None else int(total * self.percent / 100)


def _mark(text: str) -> Mark:
    if match := _PERCENT.fullmatch(text.strip()):
        if float(match[1]) > 100:
            raise Unfit("out of range")
        return Mark(float(match[1]))
    return Mark(None, read_size(text))


def _show_mark(mark: Mark) -> str:
    return show_size(mark.size) if mark.percent is None else f"{mark.percent:g}%"


def _name(text: str) -> str:
    text = text.strip()
    if not _NAME.fullmatch(text):
        raise Unfit("not a name of letters, digits, '-', '_' and '.'")
    return text


MARK = Scalar("percent of the file system such as 90%, or bytes in use on it such as 900GB", _mark, _show_mark)
NAME = Scalar("letters, digits, '-', '_' and '.'", _name)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeEntry:
    """One volume."""

    path: Path = option(PATH, None, "its folder", required=True)
    role: str = option(one_of(ROLES), None, "what it is for", required=True)
    name: str = option(
        NAME, None, "what the index calls it, for ever; main for the cache, long-term for the first of those", unset=""
    )
    high: Mark = option(MARK, "90%", "of a cache: fuller than this, copies that are safe elsewhere go")
    low: Mark = option(MARK, "80%", "of a cache: until it is no fuller than this")


def completed(storage: Storage, reading: Reading) -> Storage:
    """``path`` is that of the cache, and volumes have names."""
    if not storage.volumes:
        return storage
    defaults = {CACHE: MAIN, LONG_TERM: LONG_TERM}
    volumes = tuple(replace(each, name=each.name or defaults[each.role]) for each in storage.volumes)
    cache = next((each for each in volumes if each.role == CACHE), None)
    if cache and "storage.path" in reading.nodes and storage.path != cache.path:
        problem = f"not the path of the cache among storage.volumes, {cache.path}"
        reading.complaints.append(reading.about("storage.path", problem, "leave it out"))
    return replace(storage, volumes=volumes, path=cache.path if cache else storage.path)


def volumes(config: Config, reading: Reading) -> Iterator[Complaint]:
    """One cache, paths and names of their own, a low mark below the high one."""
    entries = config.storage.volumes
    if not entries:
        return
    caches = sum(each.role == CACHE for each in entries)
    if caches != 1:
        problem = f"{caches or 'none'} of them {'has' if caches < 2 else 'have'} the role cache"
        yield reading.about("storage.volumes", problem, "one volume takes what arrives")
    for number, each in enumerate(entries):
        yield from _entry(number, each, entries[:number], reading)


def _entry(number: int, entry: VolumeEntry, before: tuple[VolumeEntry, ...], reading: Reading) -> Iterator[Complaint]:
    key = f"storage.volumes.{number}"
    if entry.role == CACHE and entry.name != MAIN:
        yield reading.about(f"{key}.name", f"{entry.name!r} is the cache", f"it is called {MAIN}: leave the name out")
    if entry.role != CACHE and entry.name == MAIN:
        yield reading.about(f"{key}.name", f"{MAIN} is the name of the cache", "another would do")
    if entry.name in [each.name for each in before]:
        yield reading.about(f"{key}.name", f"{entry.name!r} is the name of another volume", "another would do")
    for each in before:
        if entry.path == each.path or entry.path in each.path.parents or each.path in entry.path.parents:
            yield reading.about(f"{key}.path", f"{entry.path} and {each.path} are not apart", "folders of their own")
    low, high = entry.low, entry.high
    same = (low.percent is None) == (high.percent is None)
    if same and (low.percent or 0, low.size) > (high.percent or 0, high.size):
        yield reading.about(f"{key}.low", "above high", "a lower mark would do")
