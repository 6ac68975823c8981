"""The queue wired: each destination of the configuration as a lane, with somebody who can reach it.

Rules that hold here: a destination whose peer has gone from the configuration keeps its tasks, and says why they wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from archive.app.routing import conditions, hooks_for, routes_of, routing
from archive.app.store import Archive
from archive.config import Config
from archive.config.routing import LAYOUT_OF_FOLDERS
from archive.dicom.rule import Facts
from archive.dimse.delivery import PeerReach
from archive.dimse.destinations import Destinations
from archive.dimse.proof import ByCommitment, ByQuery
from archive.errors import ArchiveError
from archive.index import Index, StoredInstance, Task
from archive.services.destination import Channel, Reach
from archive.services.folder import FolderReach
from archive.services.routing import FOLDER, facts_of, layout_keywords
from archive.workers.delivery import Deliveries
from archive.workers.routing import Pruner, Router
from archive.workers.worker import Worker


def deliver(archive: Archive, config: Config) -> Iterable[Worker]:
    """For app/background.py: the workers of the queue."""
    reaches = Reaches(archive, config)
    yield Deliveries(
        archive.index, reaches.of, lambda target: conditions(config, target), clock=time.time, alarm=archive.alarm
    )
    yield Router(archive.index, routing(config), clock=time.time)
    yield Pruner(archive.index, config.queue.history, clock=time.time)


class Reaches:
    """How each destination of one configuration is reached."""

    def __init__(self, archive: Archive, config: Config) -> None:
        self._archive = archive
        self._config = config
        self._destinations = Destinations.of(config)

    def of(self, target: str) -> Reach:
        if target.startswith(FOLDER):
            return self._folder(Path(target.removeprefix(FOLDER)))
        try:
            destination = self._destinations.named(target)
        except ArchiveError as error:
            return Nowhere(error)
        routes = [route for route in routes_of(self._config) if target in route.to]
        codec = None if any(route.transcode == "off" for route in routes) else self._archive.codec
        associations = max((route.associations or 0 for route in routes), default=0)
        archive = self._archive
        proven = any(route.verify == "commitment" for route in routes)
        proof = ByCommitment(destination, archive.index) if proven else ByQuery(destination)
        return PeerReach(
            destination, archive.retrieve.open, codec, associations=associations, outgoing=archive.outgoing,
            proof=proof, hooks=hooks_for(self._config),
        )  # fmt: skip

    def _folder(self, root: Path) -> FolderReach:
        layouts = {route.name: route.layout or LAYOUT_OF_FOLDERS for route in self._config.routes}
        keywords = {keyword for layout in layouts.values() for keyword in layout_keywords(layout)}
        index = self._archive.index

        def layout(task: Task) -> str:
            return layouts.get(task.payload.get("route", ""), LAYOUT_OF_FOLDERS)

        return FolderReach(
            root, self._archive.retrieve.open, describer(index, keywords), layout,
            outgoing=self._archive.outgoing, local_aet=self._config.ae.title, hooks=hooks_for(self._config),
        )  # fmt: skip


def describer(index: Index, keywords: Collection[str]) -> Callable[[Collection[str]], dict[str, Facts]]:
    """Finds what names of files are made of."""
    wanted = {*keywords, *layout_keywords(LAYOUT_OF_FOLDERS)}

    def describe(uids: Collection[str]) -> dict[str, Facts]:
        found = index.queue.described(wanted, sop_instance_uids=uids)
        return {each.instance.sop_instance_uid: facts_of(each) for each in found}

    return describe


class Nowhere:
    """A destination that the configuration does not know any more: its tasks wait, and this is why."""

    def __init__(self, error: ArchiveError) -> None:
        self._error = error

    def open(self, wake: Callable[[], None]) -> Channel:
        raise self._error

    def probe(self) -> None:
        raise self._error

    @property
    def proof(self) -> str:
        return "found there"

    def missing(self, items: Sequence[StoredInstance]) -> set[str]:
        raise self._error
