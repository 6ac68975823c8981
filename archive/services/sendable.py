"""What is handed to somebody else, by whatever way: an object, and the codec that gives it another form.

Rules that hold here: these are the sides that whoever sends or writes files relies on; rows of the index and files of
a folder are objects alike, and the codec that works in child processes is one of several.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class Sendable(Protocol):
    """An object to be sent: a row of the index (StoredInstance) or a file of a folder."""

    @property
    def sop_class_uid(self) -> str: ...
    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def transfer_syntax(self) -> str: ...


class Coded(AbstractContextManager["Coded"], Protocol):
    """A data set in a file of its own, which goes when the context ends."""

    @property
    def transfer_syntax(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def offset(self) -> int: ...
    @property
    def size(self) -> int: ...


class Codec(Protocol):
    """Decodes and encodes pixels: the Part-10 file at ``path`` in the best of ``accepted``, or NotTranscodable."""

    def transcode(self, path: Path, accepted: Sequence[str]) -> Coded: ...
