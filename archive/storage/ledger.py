"""A ledger: entries that must outlive the index, in files that only grow.

Rules that hold here: an entry is on stable storage when ``append`` returns; a line is one entry, numbered without
gaps, with its own digest and that of the line before, so that what was lost or altered is known; a torn line at the
end of the last file was never promised to anybody and is cut off by the next entry; entries are never changed.

    root/corrections/000001.jsonl    {"number": 1, …}<tab>first 16 hexadecimal digits of the SHA-256
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from archive.errors import Damaged, OutOfResources, StorageFailed
from archive.storage.files import sync_folder, write_all

log = logging.getLogger(__name__)

LARGEST = 4 << 20  # bytes of a file before the next one is begun: read again at each start, in some 50 ms
_DIGITS = 16

Entry = dict[str, Any]


class End(NamedTuple):
    """Where the next entry goes."""

    number: int  # of the last entry, 0 for none
    digest: str  # of its line
    path: Path | None = None  # of the last file
    size: int = 0  # of its whole lines


BEGINNING = End(0, "")


class Ledger:
    """One folder of entries. Who appends holds ``alone``; nothing is written before the first entry."""

    def __init__(
        self, folder: Path, largest: int = LARGEST, *, guard: Callable[[], object] = lambda: None
    ) -> None:
        """``guard`` raises StorageFailed when nothing may be made where the folder is."""
        self.folder = folder
        self._largest = largest
        self._guard = guard
        self._end: End | None = None

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """All entries with higher numbers, in order. Raises Damaged where one was altered or lost."""
        files = self._files()
        first = max((n for n, path in enumerate(files) if _first_number(path) <= after + 1), default=0)
        before: End | None = None if first else BEGINNING
        for path in files[first:]:
            for entry, before in self._lines(path, before, last=path is files[-1]):  # noqa: B007, B020  for the next file
                if entry["number"] > after:
                    yield entry

    def last(self) -> int:
        """The number of the last entry, 0 for none."""
        return self._find_end().number

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else appends meanwhile. Raises OutOfResources when somebody does: whoever calls has taken turns."""
        self._guard()
        try:
            self.folder.mkdir(exist_ok=True)
            fd = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise StorageFailed("storage failed", f"{self.folder}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise OutOfResources("another correction is being written") from error
        finally:
            os.close(fd)

    def append(self, entry: Entry) -> int:
        """Add an entry, durably; return its number. Raises StorageFailed, then it counts as not added."""
        end = self._find_end()
        number = end.number + 1
        text = json.dumps({"number": number, "after": end.digest, **entry}, ensure_ascii=False, separators=(",", ":"))
        line = text.encode("utf-8", "surrogatepass")
        digest = _digest(line)
        try:
            written = self._write(end, number, line + f"\t{digest}\n".encode())
        except OSError as error:
            self._end = None
            raise StorageFailed("storage failed", f"{self.folder}: {error.strerror}") from error
        self._end = End(number, digest, *written)
        return number

    def _write(self, end: End, number: int, line: bytes) -> tuple[Path, int]:
        path, size = end.path, end.size
        if path is None or size >= self._largest:
            path, size = self.folder / f"{number:06d}.jsonl", 0
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            try:
                os.ftruncate(fd, size)  # what a crash left of a line
                os.lseek(fd, size, os.SEEK_SET)
                write_all(fd, [line])
                os.fsync(fd)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)
        if size == 0:
            sync_folder(self.folder)
            sync_folder(self.folder.parent)
        return path, size + len(line)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.jsonl"), key=_first_number)

    def _find_end(self) -> End:
        """The end as it is now: other processes append too."""
        files = self._files()
        if not files:
            return BEGINNING
        known = self._end
        if known and known.path == files[-1] and files[-1].stat().st_size == known.size:
            return known
        ends = [end for _, end in self._lines(files[-1], None, last=True)]
        if ends:
            self._end = ends[-1]
            return ends[-1]
        # Its first line is torn, or being written.
        before = [end for _, end in self._lines(files[-2], None, last=False)][-1] if files[1:] else BEGINNING
        return before._replace(path=files[-1], size=0)

    def _lines(self, path: Path, before: End | None, *, last: bool) -> Iterator[tuple[Entry, End]]:
        """The entries of a file; without ``before`` its first line is believed to follow what it says it does."""
        number, digest = (before.number, before.digest) if before else (_first_number(path) - 1, None)
        size = 0
        with path.open("rb") as file:
            for raw in file:
                entry = _parsed(raw)
                if entry is None and last and not file.read(1):
                    log.warning("%s: its last line is torn and counts as not written", path)
                    return
                if entry is None or entry["number"] != number + 1 or digest not in (None, entry["after"]):
                    raise Damaged("a ledger was altered", f"{path}: entry {number + 1} is damaged or missing")
                number, digest, size = number + 1, _digits(raw), size + len(raw)
                yield entry, End(number, digest, path, size)


def _first_number(path: Path) -> int:
    return int(path.stem)


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:_DIGITS]


def _digits(raw: bytes) -> str:
    """The digest that a line ends with."""
    return raw[-_DIGITS - 1 : -1].decode("ascii", "replace")


def _parsed(raw: bytes) -> Entry | None:
    """The entry of a line; None for one that is not what was written."""
    line, tail = raw[: -_DIGITS - 2], raw[-_DIGITS - 2 :]
    if tail != f"\t{_digest(line)}\n".encode():
        return None
    entry: Entry = json.loads(line.decode("utf-8", "surrogatepass"))
    return entry
