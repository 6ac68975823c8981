"""Media that are imported: the members of a ZIP, and the files a DICOMDIR names.

Rules that hold here: nothing that stands on a medium is ever the name of a file that is written; a name leads to no
file outside of its medium, nor through a link; a ZIP is measured before it is opened, and a member is read no further
than it says it is long; what is there is found whatever the case of its name and the version behind it (ISO 9660).
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from archive.dicom.directory import NAME, references
from archive.errors import NotUnderstood, TooLarge

LARGEST_CATALOGUE = 32 << 20  # bytes of the central directory, read at once: some 300,000 names
LARGEST_DICOMDIR = 256 << 20  # parsed at once; a record has 500 bytes
# Deflate gives at most 1032 for 1, and black images come near it; a whole medium of them is none.
RATIO, HARMLESS = 200, 1 << 30
ZIP_MAGIC = b"PK\3\4"
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1  # general purpose bit 0
_END, _END_64 = b"PK\5\6", b"PK\6\6"

UNREADABLE = (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, struct.error)


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a ZIP."""

    zip: Path
    info: zipfile.ZipInfo
    stamp: str  # of the ZIP it was found in

    @property
    def path(self) -> Path:
        """How it is called in a report."""
        return self.zip / self.info.filename.lstrip("/")

    @property
    def mark(self) -> str:
        return f"{self.stamp} {self.info.header_offset}"


@dataclass(frozen=True, slots=True)
class Absent:
    """A file that a DICOMDIR names and that is not to be had."""

    path: Path
    reason: str


# -- ZIP ------------------------------------------------------------------------------------------------------


def is_zip(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    except OSError:
        return False


def members(path: Path) -> Iterator[Member]:
    """The files of a ZIP. Raises NotUnderstood, or TooLarge for one that nobody should open."""
    try:
        status = path.stat()
        _measure_catalogue(path, status.st_size)
        with zipfile.ZipFile(path) as opened:
            found = [info for info in opened.infolist() if not info.is_dir()]
    except UNREADABLE as error:
        raise NotUnderstood("ZIP cannot be read", str(path)) from error
    _measure(found, status.st_size)
    stamp = f"{status.st_size} {status.st_mtime_ns} {str(path).encode('unicode_escape', 'surrogateescape').decode()}"
    yield from (Member(path, info, stamp) for info in found)


def _measure_catalogue(path: Path, size: int) -> None:
    """Before the library reads it whole: how long the list of members says it is (APPNOTE 4.3.16, 4.3.14)."""
    with open(path, "rb") as file:
        file.seek(max(size - (1 << 16) - 22 - 76, 0))
        tail = file.read()
    at = tail.rfind(_END)
    if at < 0:
        raise NotUnderstood("ZIP cannot be read", str(path))
    length = struct.unpack_from("<L", tail, at + 12)[0]
    if length == 0xFFFFFFFF:
        wide = tail.rfind(_END_64, 0, at)
        length = struct.unpack_from("<Q", tail, wide + 40)[0] if wide >= 0 else length
    if length > LARGEST_CATALOGUE:
        raise TooLarge("ZIP has too many members", str(path))


def _measure(found: Sequence[zipfile.ZipInfo], size: int) -> None:
    packed, unpacked = sum(info.compress_size for info in found), sum(info.file_size for info in found)
    if packed > size:
        raise TooLarge("ZIP is longer inside than outside", "members overlap")
    if unpacked > HARMLESS and unpacked > RATIO * size:
        raise TooLarge("ZIP would become too large", f"{unpacked} bytes from {size}")


class Zips:
    """Opens members; the ZIP of the last one stays open for the next."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._zip: zipfile.ZipFile | None = None

    @contextmanager
    def open(self, member: Member) -> Iterator[IO[bytes]]:
        """Raises NotUnderstood for a member that cannot be read."""
        if member.info.flag_bits & ENCRYPTED:
            raise NotUnderstood("member of the ZIP is encrypted")
        if member.info.compress_type not in METHODS:
            raise NotUnderstood("member of the ZIP is compressed in an unknown way")
        with self._opened(member.zip).open(member.info) as file:
            yield file

    def _opened(self, path: Path) -> zipfile.ZipFile:
        if self._zip is None or self._path != path:
            self.close()
            self._path, self._zip = path, zipfile.ZipFile(path)
        return self._zip

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()
            self._zip = None


# -- DICOMDIR -------------------------------------------------------------------------------------------------


def dicomdir_of(path: Path) -> Path | None:
    """The DICOMDIR of a medium: the path itself, or what lies in the folder under that name."""
    if path.is_file():
        return path if _plain(path.name) == NAME else None
    if not path.is_dir():
        return None
    found = sorted(each.name for each in os.scandir(path) if _plain(each.name) == NAME)
    return next((path / name for name in found if (path / name).is_file() and not (path / name).is_symlink()), None)


def referenced(dicomdir: Path) -> list[Path | Absent]:
    """The files of a medium in the order in which they are listed. Raises NotUnderstood, TooLarge."""
    try:
        with open(dicomdir, "rb") as file:
            named = _references(file)
    except OSError as error:
        raise NotUnderstood("DICOMDIR cannot be read", error.strerror or "") from error
    medium = _Medium(dicomdir.parent)
    return list(dict.fromkeys(medium.find(components) for components in named))


def _references(file: BinaryIO) -> list[tuple[str, ...]]:
    if os.fstat(file.fileno()).st_size > LARGEST_DICOMDIR:
        raise TooLarge("DICOMDIR is too large")
    return references(file)


class _Medium:
    """Finds files below one folder by the names of file IDs."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listed: dict[Path, dict[str, str]] = {}

    def find(self, components: Sequence[str]) -> Path | Absent:
        named = self._root.joinpath(*(part.replace("/", "_").replace("\0", "_") for part in components))
        if any(_leads_astray(part) for part in components):
            return Absent(named, "DICOMDIR names a file outside of the medium")
        path = self._root
        for part in components:
            names = self._names(path)
            name = names.get(part) or names.get(_plain(part))
            if name is None:
                return Absent(named, "DICOMDIR names a file that is missing")
            path = path / name
            if path.is_symlink():
                return Absent(named, "DICOMDIR names a file outside of the medium")
        return path if path.is_file() else Absent(named, "DICOMDIR names a file that is missing")

    def _names(self, folder: Path) -> dict[str, str]:
        if folder not in self._listed:
            try:
                names = sorted(os.listdir(folder))
            except OSError:
                names = []
            plain = {_plain(name): name for name in reversed(names)}
            self._listed[folder] = {**plain, **{name: name for name in names}}  # the very name goes first
        return self._listed[folder]


def _leads_astray(part: str) -> bool:
    return part.strip() in ("", ".", "..") or any(each in part for each in "/\\\0")


def _plain(name: str) -> str:
    """A name without case, version (``;1``) and the dot of an empty extension."""
    return name.strip().partition(";")[0].rstrip(".").upper()
