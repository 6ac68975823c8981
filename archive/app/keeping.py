"""Compression and scrubbing: what the configuration asks of them, and the workers that do it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from archive.config import Config
from archive.dicom.rule import parse_rule
from archive.services.causes import IMAGE, Causes
from archive.services.compression import Compression, Rule, cause
from archive.services.schedule import Schedule
from archive.services.scrub import Scrub
from archive.workers.codec import Codec
from archive.workers.compressing import NICENESS, SECONDS, Compressor
from archive.workers.scrubbing import Scrubber
from archive.workers.worker import Worker

if TYPE_CHECKING:
    from archive.app.store import Archive


def compress_arrivals(causes: Causes, config: Config) -> None:
    """Let images cause the compression that the rules want."""
    rules = [
        Rule(parse_rule(rule.match), rule.to, rule.after, rule.recompress) for rule in config.storage.compress
    ]
    if rules:
        causes.on(IMAGE, cause(rules))


def compressors(archive: Archive, config: Config) -> Iterable[Worker]:
    """As many as may work at a time; without rules too, for what rules of yesterday have left in the queue."""
    number = config.storage.compress_processes
    codec = Codec(archive.volume.spool.path, workers=number, seconds=SECONDS, niceness=NICENESS)
    owner = f"{socket.gethostname()}:{archive.volume.root}"
    for count in range(1, number + 1):
        compression = Compression(archive.index, archive.volumes, codec, archive.integrity, time.monotonic)
        yield Compressor(count, archive.index, compression, archive.integrity, codec, owner, time.time)


def scrubbers(archive: Archive, config: Config) -> Iterable[Worker]:
    """One, if files are to be read again."""
    settings = config.scrub
    if not settings.every:
        return
    yield Scrubber(
        Scrub(
            archive.index,
            archive.volumes,
            archive.integrity,
            every=settings.every,
            rate=settings.rate,
            hours=Schedule([settings.window] if settings.window else []),
            clock=time.time,
            timer=time.monotonic,
        )
    )
