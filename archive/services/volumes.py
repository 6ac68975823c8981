"""What the volumes look like: whether they are there, how full they are, what waits to be copied or could go.

Rules that hold here: a volume that does not answer is one that is not there, and keeps nobody from hearing of the
others; numbers come from the index, which knows them without a walk over all instances.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from archive.errors import ArchiveError
from archive.index import Index
from archive.index.copies import COPY, RECALL
from archive.services.doctor import Finding, megabytes, note
from archive.services.eviction import Marks
from archive.storage.local import Volume
from archive.storage.space import Space

Measure = Callable[[Callable[[Callable[[], None]], Space]], Space]  # waits for a slow volume


@dataclass(frozen=True, slots=True)
class State:
    """One volume; without a space it is not there, for a reason."""

    name: str
    role: str
    path: str
    space: Space | None
    reason: str = ""
    files: int = 0  # of what is stored, on a volume besides the cache
    size: int = 0
    same_disk: bool = False  # as the cache


@dataclass(frozen=True, slots=True)
class Overview:
    """All volumes, and what moves between them: studies and bytes."""

    volumes: tuple[State, ...]
    to_copy: tuple[int, int]
    to_recall: tuple[int, int]
    evictable: tuple[int, int]  # files and bytes
    excess: int = 0  # bytes that the marks of the cache want to see gone


def overview(
    index: Index, volumes: Mapping[str, Volume], roles: Mapping[str, str], marks: Marks, measure: Measure
) -> Overview:
    """As they are now; ``roles`` by their names, the cache first."""
    held = {each.volume: each for each in index.copies.held()}
    states: list[State] = []
    for name, role in roles.items():
        space, reason = _look(volumes[name], measure)
        on_it = held.get(name)
        files, size = (on_it.files, on_it.size) if on_it else (0, 0)
        same = space is not None and bool(states) and space.total == (states[0].space or space).total
        same = same and _device(volumes[name]) == _device(volumes[states[0].name])
        states.append(State(name, role, str(volumes[name].root), space, reason, files, size, same))
    cache = states[0].space
    return Overview(
        tuple(states), index.copies.waiting(COPY), index.copies.waiting(RECALL), index.copies.evictable(),
        max(marks.excess(cache), 0) if cache else 0,
    )  # fmt: skip


def _look(volume: Volume, measure: Measure) -> tuple[Space | None, str]:
    def work(alive: Callable[[], None]) -> Space:
        volume.require()
        return volume.space()

    try:
        return measure(work), ""
    except ArchiveError as error:
        return None, str(error)
    except OSError as error:
        return None, error.strerror or "cannot be read"


def _device(volume: Volume) -> int:
    try:
        return volume.root.stat().st_dev
    except OSError:
        return 0


def findings(found: Overview) -> list[Finding]:
    """For ``archive doctor``: what is wrong with volumes, and how they are."""
    said = [finding for state in found.volumes for finding in _of_volume(state)]
    studies, size = found.to_copy
    if studies:
        lost = all(state.space is None for state in found.volumes[1:])
        words = f"{studies} studies ({megabytes(size)}) wait to be copied to a long-term volume"
        said.append(Finding("volumes", words, "mount a long-term volume") if lost else note("volumes", words))
    files, size = found.evictable
    said.append(note("volumes", f"{files} files ({megabytes(size)}) of the cache are safe on a long-term volume"))
    if found.excess > size:
        words = f"the cache is {megabytes(found.excess)} above its low mark, and {megabytes(size)} could go"
        said.append(Finding("volumes", words, "a larger cache, or a long-term volume that takes copies"))
    return said


def _of_volume(state: State) -> Sequence[Finding]:
    about = f"volume {state.name}"
    if state.space is None:
        return [Finding(about, f"{state.path} is not there: {state.reason}", "mount it: it is used again by itself")]
    words = f"{state.path} ({state.role}) is {state.space.percent:.0f}% full, {megabytes(state.space.free)} free"
    if state.same_disk:
        return [Finding(about, f"{words}, on the same file system as the cache", "a disk of its own, or mount it")]
    return [note(about, words)]
