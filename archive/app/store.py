"""One process's hold on the archive: index, volume, journal and the services over them.

Rules that hold here: whoever opens the store has settled what a crash left in its own journal first; nothing
is opened before the process that uses it has been forked.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType

from archive.app import receiving
from archive.app.causes import causes
from archive.app.ledgers import corrections_of, deletion_of
from archive.app.space import reserve_of
from archive.app.volumes import open_volume, open_volumes, tiers_of
from archive.config import Config
from archive.dicom.extra import ExtraKeys
from archive.errors import ArchiveError, ConfigurationError
from archive.index import Index, open_index
from archive.services import corrected, placing
from archive.services.alarms import Line, Raise, nobody
from archive.services.commit import Committer, recover_all
from archive.services.find import Find
from archive.services.integrity import Integrity
from archive.services.quarantine import Quarantine
from archive.services.refusals import Refusals
from archive.services.reindex import is_unfinished
from archive.services.retrieve import Retrieve
from archive.services.store import Rules, Store
from archive.storage.journal import Journal, slots
from archive.storage.local import Volume
from archive.storage.spool import sweep
from archive.workers.codec import Codec
from archive.workers.runner import Runner

log = logging.getLogger(__name__)

INTENTS_ONLY = 1 << 20  # bytes of a journal that holds no objects, only what is about to be renamed


class Archive:
    """One process's hold on the archive: index, volume and services. A context manager."""

    def __init__(self, config: Config, *, clock: Callable[[], float] = time.time, line: Line | None = None) -> None:
        """``line`` is where alarms are told; without one nobody is."""
        self.config = config
        self.alarm: Raise = line.raise_alarm if line else nobody
        self._line = line
        self._listen_to(config)
        self.index = index_of(config)
        self.volume = open_volume(config, self.index, clock)
        self.volumes = open_volumes(config, self.index, clock, self.volume)
        sweep_spool(self.volumes, self.index)  # a process that was killed is replaced while the others go on
        self.journal = open_journal(config, self.volume)
        self.committer = open_committer(config, self.volume, self.index, self.journal)
        self.committer.recover()
        self._clock = clock
        self.integrity = Integrity(self.index, self.volumes, clock, causes(config))
        self.corrections = corrections_of(self.index, self.volume, clock)
        self.outgoing = receiving.outgoing(config, clock, corrected.corrections_of(self.index))
        self._refusals = Refusals(self.alarm)
        self.store = self._store_for(config)
        self.find = Find(self.index)
        self.retrieve = Retrieve(self.index, self.volumes, tiers_of(config))
        self.codec = Codec(spool=self.volume.spool.path)
        self._checkpoint = Runner("checkpoint", self.committer.checkpoint, self.journal.wake)
        self._trim = Runner("index log", self.index.trim_log, self.index.log_full)
        self._checkpoint.start()
        self._trim.start()

    def change(self, config: Config) -> None:
        """Go on with the rules of `config`; what has begun keeps the old ones."""
        self.config = config
        self._listen_to(config)
        for volume in self.volumes.values():
            volume.reserve = config.storage.reserve
        self.volume.reserve = reserve_of(config, self.volume.root)
        self.retrieve.tiers = tiers_of(config)
        self.committer.check_names = checks_names(config)
        self.outgoing = receiving.outgoing(config, self._clock, corrected.corrections_of(self.index))
        self.store = self._store_for(config)

    def _listen_to(self, config: Config) -> None:
        if self._line is not None:
            self._line.wanted = bool(config.notify)

    def _store_for(self, config: Config) -> Store:
        return Store(
            volume=self.volume,
            index=self.index,
            committer=self.committer,
            rules=rules(config),
            clock=self._clock,
            causes=causes(config),
            mend=self.integrity.mend,
            changing=receiving.changing(config, self._clock),
            refusals=self._refusals,
        )

    def well(self) -> None:
        """Say that disk and index work, where they do: who said otherwise may have ended before it could."""
        with suppress(ArchiveError):
            self.volume.check()
            self._refusals.well()

    def close(self) -> None:
        self.codec.close()
        self._checkpoint.stop()
        self._trim.stop()
        self.committer.close()
        self.volume.close()
        self.index.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def rules(config: Config) -> Rules:
    return Rules(
        max_instance_size=config.limits.max_instance_size,
        on_conflict=config.storage.on_conflict,
        on_duplicate=config.storage.on_duplicate,
        on_missing_patient_id=config.storage.on_missing_patient_id,
        lenient_uids=config.storage.lenient_uids,
        wanted=ExtraKeys.of(config.index.extra_keys).tags,
    )


def index_of(config: Config) -> Index:
    """The index of a configuration, open."""
    extra = ExtraKeys.of(config.index.extra_keys)
    return open_index(config.index.url, statement_timeout=config.index.statement_timeout, extra=extra)


@contextmanager
def opened(config: Config) -> Iterator[tuple[Index, Volume]]:
    """Index and main volume, for a command that needs no more of the archive."""
    index = index_of(config)
    volume = open_volume(config, index, time.time)
    try:
        yield index, volume
    finally:
        volume.close()
        index.close()


def open_journal(config: Config, volume: Volume, slot: int | None = None) -> Journal:
    return Journal(volume.root / "journal", config.storage.journal or INTENTS_ONLY, slot)


def open_committer(config: Config, volume: Volume, index: Index, journal: Journal) -> Committer:
    committer = Committer(volume=volume, index=index, journal=journal, group_syncs=bool(config.storage.journal))
    committer.check_names = checks_names(config)
    return committer


def checks_names(config: Config) -> bool:
    return config.storage.on_name_mismatch == "conflict"


def recover(config: Config) -> None:
    """Bring schema, journals and spool in order after whatever happened; run before anything is served."""
    index = index_of(config)
    if index.settle_extra(time.time()):
        log.info("index.extra_keys changed: stored objects are gone through in the background")
    if is_unfinished(index):
        raise ConfigurationError("index.url: this index was begun to be rebuilt: archive reindex --resume ends that")
    volume = open_volume(config, index, time.time)
    volumes = open_volumes(config, index, time.time, volume)
    corrections_of(index, volume).start()
    if index.is_empty() and any((volume.root / "objects").iterdir()):
        log.warning("the index is empty and there are stored files: archive reindex would make it anew from them")
    # Before the journals, which put aside what is not there yet.
    Quarantine(volume, index).adopt(receiving.sources(config).issuers)
    committers = []
    for slot in slots(volume.root / "journal"):
        with suppress(BlockingIOError):  # in use, by an import for example
            committers.append(open_committer(config, volume, index, open_journal(config, volume, slot)))
    recover_all(committers)
    for committer in committers:
        committer.close()
    # Behind the journals, which on a new index bring back what was deleted since.
    deletion_of(index, volume, volumes).start()
    sweep_spool(volumes, index)
    volume.close()
    index.close()


def settle_journals(config: Config) -> None:
    """Make files whole that were torn, when the index is lost and about to be made from them.

    The journals stay as they are: ``recover`` settles them by the new index, which knows what belongs together.
    """
    with tempfile.TemporaryDirectory() as folder:
        index = open_index(f"sqlite:///{folder}/index.db")
        volume = open_volume(config, index, time.time)
        for slot in slots(volume.root / "journal"):
            open_committer(config, volume, index, open_journal(config, volume, slot)).mend_files()
        volume.close()
        index.close()


def sweep_spool(volumes: Mapping[str, Volume], index: Index) -> None:
    spool = volumes[placing.MAIN].root / "spool"
    removed = sweep(spool, lambda folder: placing.settle(folder, volumes, index))
    if removed:
        log.warning("removed %d unfinished files of dead processes", removed)
