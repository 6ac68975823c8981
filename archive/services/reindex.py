"""Rebuilding the index from the files alone: every file says what it is, and how and when it came.

Rules that hold here: files are taken in the order in which their objects came, because the first one of a study fills
its rows; what was accepted once is accepted again, whatever it contradicts; where two files hold one UID the later is
current and the other an earlier version; a copy that is not what it is a copy of takes no place, and is left where it
is; nothing is caused by it; killed at any moment, it goes on where it was.
"""

from __future__ import annotations

import hashlib
import heapq
import logging
import mmap
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

from archive.dicom.header import read_header
from archive.dicom.limits import LIMITS
from archive.dicom.part10 import read_file_meta
from archive.errors import ConfigurationError, NotUnderstood
from archive.index import Index, Location, NewInstance, Outcome, StoredInstance
from archive.services.compression import read_said
from archive.services.identity import identified
from archive.services.strays import walk
from archive.storage.local import Volume

log = logging.getLogger(__name__)

HEAD = 1 << 16
CHUNK = 64  # files that one process reads at a time
BATCH = 512  # instances of one transaction
RUN = 200_000  # files that are sorted in memory, some 30 MB
LIST = "reindex.list"  # in the storage folder: every file in the order in which it came
POSITION = "reindex.position"  # under which the index keeps how many lines of it are done
ELSEWHERE = "//"  # between the name of another volume and a path on it
REASON = "found in the quarantine when the index was rebuilt"


@dataclass(frozen=True, slots=True)
class Reader:
    """How files are read. Travels between processes.

    ``charsets`` and ``issuers`` are those of sources whose data sets name none.
    """

    root: str
    volume: str
    tags: Collection[int]
    charsets: Mapping[str, str] = field(default_factory=dict)
    issuers: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)  # the roots of volumes besides, by name

    def __call__(self, paths: Sequence[str]) -> list[Read]:
        return [self.read(path) for path in paths]

    def read(self, path: str) -> Read:
        """A file below the root, or ``NAME//path`` for one of another volume."""
        name, apart, inner = path.partition(ELSEWHERE)
        root, volume, inner = (self.others[name], name, inner) if apart else (self.root, self.volume, path)
        try:
            with open(os.path.join(root, inner), "rb") as file:
                return Read(path, self._instance(volume, inner, file.fileno()))
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            return Read(path, None, getattr(error, "strerror", None) or "empty")
        except NotUnderstood as error:
            return Read(path, None, str(error))

    def _instance(self, volume: str, path: str, fd: int) -> NewInstance:
        status = os.fstat(fd)
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as mapped:
            mapped.madvise(mmap.MADV_SEQUENTIAL)
            meta = read_file_meta(mapped[:HEAD])
            with memoryview(mapped) as whole, whole[meta.offset :] as data:
                charset = self.charsets.get(meta.source, "")
                header = read_header(
                    data, meta.transfer_syntax, self.tags, default_charset=charset, lenient_uids=True, limits=LIMITS
                )
                sha256 = hashlib.sha256(data).digest()
        said = read_said(meta.private)
        return NewInstance(
            header=identified(header, self.issuers.get(meta.source, "")),
            location=Location(volume, path, meta.offset, status.st_size - meta.offset),
            transfer_syntax=meta.transfer_syntax,
            sha256=sha256,
            source=meta.source,
            address=said.address if said else "",
            received=said.when if said else status.st_mtime,
            policy="version",
            accept=True,
            received_sha256=said.sha256 if said and said.sha256 != sha256 else b"",
            received_syntax=said.transfer_syntax if said and said.transfer_syntax != meta.transfer_syntax else "",
            known=True,
        )


@dataclass(frozen=True, slots=True)
class Read:
    """One file: the instance in it, or why there is none."""

    path: str
    new: NewInstance | None
    reason: str = ""


@dataclass(slots=True)
class Report:
    """What came of it."""

    stored: int = 0
    copies: int = 0  # on other volumes, of what is stored
    versions: int = 0
    quarantined: int = 0
    unreadable: list[Read] = field(default_factory=list)
    refused: list[Read] = field(default_factory=list)
    damaged: list[Read] = field(default_factory=list)  # copies with other bytes: one of the two files is damaged


Progress = Callable[[int], object]
ReadAll = Callable[[Callable[[Sequence[str]], list[Read]], Iterable[Sequence[str]]], Iterator[list[Read]]]


class Reindex:
    """One run over all volumes."""

    def __init__(
        self, index: Index, volume: Volume, reader: Reader, read_all: ReadAll, others: Sequence[Volume] = ()
    ) -> None:
        """``volume`` is the one that takes what arrives, ``others`` are the rest; ``read_all`` lets the reader read
        chunk after chunk, in their order; nobody else uses the index meanwhile.
        """
        self._index = index
        self._volume = volume
        self._others = others
        self._reader = reader
        self._read_all = read_all
        self._list = volume.root / LIST
        self.report = Report()

    def begin(self, *, resume: bool) -> int:
        """How many files there are. Raises ConfigurationError for an index that is not empty or not interrupted."""
        unfinished = is_unfinished(self._index)
        if self._index.statistics().instances and not unfinished:
            raise ConfigurationError("the index is not empty: move it away first, or name a new one in index.url")
        if unfinished and not resume:
            raise ConfigurationError("a rebuild of this index was broken off: go on with --resume")
        if not (unfinished and self._list.exists()):
            self._index.put(POSITION, "0")
            self._index.sync()
            write_list(self._volume, self._list, self._others)
        with open(self._list, encoding="utf-8", errors="surrogateescape") as lines:
            return sum(1 for _ in lines)

    def run(self, progress: Progress) -> Report:
        """Take in all files that are not yet; ``progress`` hears how many are done in all."""
        done = int(self._index.get(POSITION) or 0)
        progress(done)
        with open(self._list, encoding="utf-8", errors="surrogateescape") as lines:
            paths = (line.rstrip("\n").partition(" ")[2] for line in islice(lines, done, None))
            waiting: list[Read] = []
            for chunk in self._read_all(self._reader, chunks(paths, CHUNK)):
                waiting += chunk
                if len(waiting) >= BATCH:
                    done = self._add(waiting, done, progress)
                    waiting = []
            done = self._add(waiting, done, progress)
        self._end()
        return self.report

    def _add(self, found: list[Read], done: int, progress: Progress) -> int:
        """One transaction; then the position, which may be lost with it but never be ahead of it."""
        self.report.unreadable += [each for each in found if each.new is None]
        good = self._without_damaged([each for each in found if each.new is not None])
        added = self._index.add([each.new for each in good if each.new], durable=False)
        for each, result in zip(good, added, strict=True):
            if result.outcome is Outcome.STORED:
                self.report.stored += 1
            elif result.outcome is Outcome.EQUAL and each.new and self._is_copy(each.new):
                self.report.copies += 1
            else:
                self.report.refused.append(Read(each.path, None, result.reason or "a copy of what another file holds"))
        done += len(found)
        self._index.put(POSITION, str(done))
        progress(done)
        return done

    def _without_damaged(self, found: list[Read]) -> list[Read]:
        """Without copies whose bytes are not those of the file that came at the very same moment: were they taken for
        a newer object, what is whole would be an earlier version, and go one day."""
        elsewhere = [each.new for each in found if each.new and each.new.location.volume != self._volume.name]
        before = self._index.queue.stored([new.header.sop_instance_uid for new in elsewhere])
        first: dict[str, NewInstance] = {}
        good: list[Read] = []
        for each in found:
            assert each.new
            uid = each.new.header.sop_instance_uid
            other = first.get(uid) or before.get(uid)
            if other and self._contradicts(each.new, other):
                words = "other bytes than the file that it is a copy of: one of the two is damaged"
                self.report.damaged.append(Read(each.path, None, words))
            else:
                first.setdefault(uid, each.new)
                good.append(each)
        return good

    def _contradicts(self, new: NewInstance, other: NewInstance | tuple[StoredInstance, float]) -> bool:
        """Whether a file should be a copy of another one, or of what is stored, and is not."""
        digests = _digests(new)
        if isinstance(other, NewInstance):
            same_moment = other.location.volume != new.location.volume and other.received == new.received
            return same_moment and not digests & _digests(other)
        stored, received = other
        if stored.location.volume == new.location.volume or received != new.received or stored.sha256 in digests:
            return False
        said = self._index.upkeep.received(stored)
        return said is None or said.sha256 not in digests

    def _is_copy(self, new: NewInstance) -> bool:
        """Whether a file with bytes that are known is the second one of its instance, on another volume."""
        stored = self._index.known(new.header.sop_instance_uid)
        if stored is None or stored.sha256 != new.sha256:
            return False
        if stored.location.volume == self._volume.name and new.location.volume != self._volume.name:
            return self._index.copies.add([(stored, new.location)], new.received)[0]
        if stored.location.volume != self._volume.name and new.location.volume == self._volume.name:
            return self._index.copies.recall(stored, new.location, new.received)
        return False

    def _end(self) -> None:
        self._quarantine()
        self._index.put(POSITION, "")
        self._index.sync()
        self._list.unlink()

    def _quarantine(self) -> None:
        """Files that wait for a person wait on."""
        for path in walk(self._volume, "quarantine"):
            read = self._reader.read(path)
            if read.new is None:
                self.report.unreadable.append(read)
            elif not self._index.upkeep.quarantines(path):
                self._index.quarantine(read.new, path, REASON)
                self.report.quarantined += 1


def is_unfinished(index: Index) -> bool:
    """Whether a rebuild of this index was broken off."""
    return bool(index.get(POSITION))


def write_list(volume: Volume, target: Path, others: Sequence[Volume] = ()) -> None:
    """Every file below objects in the order in which it came; whole when it has its name. Raises StorageFailed."""
    for each in others:
        each.require()
    folder = volume.spool.path / "reindex"
    folder.mkdir()
    entries = chain(_entries(volume), *(_entries(each, f"{each.name}{ELSEWHERE}") for each in others))
    with ExitStack() as stack:
        runs: list[TextIO] = []
        while run := sorted(islice(entries, RUN)):
            path = folder / f"{len(runs)}"
            path.write_text("".join(f"{line}\n" for line in run), "utf-8", "surrogateescape")
            runs.append(stack.enter_context(open(path, encoding="utf-8", errors="surrogateescape")))
        with open(folder / "list", "w", encoding="utf-8", errors="surrogateescape") as out:
            out.writelines(heapq.merge(*runs))
            out.flush()
            os.fsync(out.fileno())
    os.rename(folder / "list", target)
    shutil.rmtree(folder)


def _digests(new: NewInstance) -> set[bytes]:
    """Of what is stored, and of what came."""
    return {new.sha256, new.received_sha256 or new.sha256}


def _entries(volume: Volume, prefix: str = "") -> Iterator[str]:
    """Of files of the same moment those of other volumes, which are copies mostly, come last."""
    for path in walk(volume, "objects"):
        if "\n" not in path:  # no name of ours
            yield f"{os.stat(volume.root / path).st_mtime_ns:020d}{int(bool(prefix))} {prefix}{path}"


def chunks(items: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
