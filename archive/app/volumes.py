"""Volumes as the configuration names them: opened, and the workers that move files between them.

Rules that hold here: what a sentinel said when its volume was first seen is kept in the index; the volume that takes
what arrives must be there, the others may come later; a folder is made a volume only for an index that never saw one
under its name, and never for one that was lost with it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from archive.app.space import reserve_of
from archive.config import Config
from archive.config.volumes import CACHE, LONG_TERM, MAIN, VolumeEntry
from archive.errors import ConfigurationError
from archive.index import Index, NewTask
from archive.index.copies import copy_study
from archive.services.causes import STUDY, Causes, Event
from archive.services.deletion import Unlinking
from archive.services.eviction import Eviction, Marks
from archive.services.lifecycle import READY
from archive.services.recall import Recall
from archive.services.retrieve import Tiers
from archive.services.tiering import Copying
from archive.services.volumes import Overview, overview
from archive.storage.local import Volume
from archive.workers.patience import Patience
from archive.workers.tiering import SURVEY, CopyStudies, RecallStudies
from archive.workers.worker import Worker

if TYPE_CHECKING:
    from archive.app.store import Archive

log = logging.getLogger(__name__)

LOOK = 5.0  # seconds in which a volume answers that is only looked at

Clock = Callable[[], float]


def open_volume(config: Config, index: Index, clock: Clock) -> Volume:
    """The volume that takes what arrives. Raises ConfigurationError when it is not there."""
    volume = Volume(config.storage.path, reserve=reserve_of(config, config.storage.path), clock=clock)
    before = index.get(_key(MAIN)) or ""
    volume.open(expected=not index.is_empty(), identity=before)
    if not before:
        index.put(_key(MAIN), volume.identity)
    return volume


def open_volumes(config: Config, index: Index, clock: Clock, main: Volume) -> dict[str, Volume]:
    """All volumes by their names, ``main`` among them. Raises ConfigurationError for one that cannot be made."""
    volumes = {MAIN: main}
    for entry in long_term(config):
        volumes[entry.name] = _attached(entry, config, index, clock, main)
    return volumes


def long_term(config: Config) -> list[VolumeEntry]:
    """The entries of long-term volumes, in the order in which they are filled."""
    return [each for each in config.storage.volumes if each.role == LONG_TERM]


def seen_volumes(config: Config, index: Index, clock: Clock, main: Volume) -> dict[str, Volume]:
    """All volumes, for an index that is made anew from them. Raises ConfigurationError unless each is there."""
    volumes = known_volumes(config, index, clock) | {MAIN: main}
    for name, volume in volumes.items():
        volume.identity = volume.identity or volume.read_sentinel()
        if not volume.is_there():
            raise ConfigurationError(f"volume {name}: {volume.root} has no sentinel: is the disk mounted?")
        index.put(_key(name), volume.identity)
    return volumes


def tiers_of(config: Config) -> Tiers | None:
    """What retrievals note, where there are several volumes."""
    if not long_term(config):
        return None
    return Tiers(time.time, Patience(config.storage.volume_timeout), recall=config.storage.recall)


def known_volumes(config: Config, index: Index, clock: Clock) -> dict[str, Volume]:
    """All volumes as they were seen last, none of them opened or made: to look at them alone."""
    entries = [(MAIN, config.storage.path), *((each.name, each.path) for each in long_term(config))]
    volumes = {}
    for name, path in entries:
        volumes[name] = Volume(path, reserve=config.storage.reserve, clock=clock, name=name)
        volumes[name].identity = index.get(_key(name)) or ""
    return volumes


def _key(name: str) -> str:
    return f"volume.{name}"


def _attached(entry: VolumeEntry, config: Config, index: Index, clock: Clock, main: Volume) -> Volume:
    option = f"storage.volumes ({entry.name})"
    volume = Volume(entry.path, reserve=config.storage.reserve, clock=clock, name=entry.name, option=option)
    volume.identity = index.get(_key(entry.name)) or ""
    if not volume.identity:
        index.put(_key(entry.name), _first_seen(volume, option, index, main))
    if not volume.is_there():
        log.error("volume %s is not there: %s", entry.name, volume.lost())
    return volume


def _first_seen(volume: Volume, option: str, index: Index, main: Volume) -> str:
    volume.identity = volume.read_sentinel()
    if volume.identity:
        return volume.identity
    if index.is_empty() and any((main.root / "objects").iterdir()):
        raise ConfigurationError(
            f"{option}: {volume.root} has no sentinel and the index is empty: is the disk mounted? "
            "archive reindex needs all volumes"
        )
    if volume.root.is_dir() and any(each.name != "lost+found" for each in volume.root.iterdir()):
        raise ConfigurationError(f"{option}: {volume.root} is not empty and no volume: an empty folder would do")
    volume.identity = volume.initialise()
    log.info("volume %s is new: %s", volume.name, volume.root)
    return volume.identity


def overview_of(config: Config, index: Index) -> Overview | None:
    """What there is to say of several volumes; None where there is one."""
    if not long_term(config):
        return None
    roles = {MAIN: CACHE} | {each.name: each.role for each in long_term(config)}
    volumes = known_volumes(config, index, time.time)
    return overview(index, volumes, roles, marks(config), Patience(LOOK))


# -- what moves files ---------------------------------------------------------------------------------------------


def add(causes: Causes, config: Config) -> None:
    """A study that is ready is copied, if there is where to."""
    if long_term(config):
        causes.on(STUDY, _copy)


def _copy(event: Event) -> Iterable[NewTask]:
    return (copy_study(event.study_uid),) if event.facts("StudyState") == READY else ()


def marks(config: Config) -> Marks:
    entry = next(each for each in config.storage.volumes if each.role == CACHE)
    return Marks(entry.high.bytes_of, entry.low.bytes_of)


def move_files(archive: Archive, config: Config) -> Iterable[Worker]:
    """One that copies and makes room, one that recalls, where there are long-term volumes."""
    targets = [each.name for each in long_term(config)]
    if not targets:
        archive.index.put(SURVEY, "")  # what comes meanwhile has no copy
        return
    eviction = Eviction(
        archive.index, archive.volumes, marks(config), Unlinking(archive.index, archive.volumes, time.time),
        archive.integrity,
    )  # fmt: skip
    copying = Copying(archive.index, archive.volumes, targets, archive.integrity, time.time)
    yield CopyStudies(archive.index, copying, eviction, time.time)
    yield RecallStudies(
        archive.index, Recall(archive.index, archive.volumes, archive.integrity, time.time), eviction, time.time
    )
