"""Corrections, legal holds and deletions over an open index and its volume, where their journals are.

Rules that hold here: each journal has one folder, on the volume that takes what arrives, and is written only while that
volume is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from archive.index import Index
from archive.services.corrections import FOLDER as CORRECTIONS
from archive.services.corrections import Corrections
from archive.services.deletion import FOLDER as DELETIONS
from archive.services.deletion import Deletion
from archive.services.holds import Holds
from archive.storage.ledger import Ledger
from archive.storage.local import Volume


def corrections_of(index: Index, volume: Volume, clock: Callable[[], float] = time.time) -> Corrections:
    return Corrections(index, _ledger(volume, CORRECTIONS), clock)


def holds_of(index: Index, volume: Volume) -> Holds:
    return Holds(index, _ledger(volume, CORRECTIONS), time.time)


def deletion_of(index: Index, volume: Volume, others: Mapping[str, Volume] | None = None) -> Deletion:
    return Deletion(index, corrections_of(index, volume), _ledger(volume, DELETIONS), volume, others)


def _ledger(volume: Volume, folder: str) -> Ledger:
    return Ledger(volume.root / folder, guard=volume.require)
