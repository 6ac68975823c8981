"""What an archive keeps on disk, found by its configuration alone: files, spool, quarantine, rows of the index.

Rules that hold here: nothing of the archive is imported; databases are opened to read only; a place that is not
there is empty.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml


class Row(NamedTuple):
    uid: str
    path: str
    offset: int
    size: int
    sha256: bytes
    study: str
    series: str


_ROWS = (
    "select i.sop_instance_uid, i.path, i.data_offset, i.data_size, i.sha256, s.study_instance_uid,"
    " e.series_instance_uid from instance i left join series e on e.id = i.series left join study s on s.id = e.study"
)


class Site:
    """One archive's folder. Relative paths of the configuration lie in it."""

    is_running = False

    def __init__(self, folder: Path, settings: Mapping[str, Any], log_file: Path | None = None) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = dict(settings)
        self.log_file = log_file or folder / "archive.log"

    @classmethod
    def of(cls, config_file: Path, log_file: Path | None = None) -> Site:
        settings = yaml.safe_load(config_file.read_text()) or {}
        return cls(config_file.resolve().parent, settings, log_file)

    def log(self) -> str:
        return self.log_file.read_text(errors="backslashreplace") if self.log_file.exists() else ""

    # -- files ----------------------------------------------------------------------------------

    @property
    def files(self) -> Path:
        return self.folder / self.settings.get("storage", {}).get("path", "../var/files")

    def spool(self) -> list[Path]:
        return [path for path in _files(self.files / "spool") if path.name != ".lock"]

    def objects(self) -> list[Path]:
        return _files(self.files / "objects")

    def quarantined(self) -> list[Path]:
        return _files(self.files / "quarantine")

    # -- rows -----------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return str(self.settings.get("index", {}).get("url", "sqlite:///../var/index.db"))

    def rows(self) -> list[Row]:
        return [Row(*row[:4], bytes(row[4]), *row[5:]) for row in self.select(_ROWS)]

    def quarantine_rows(self) -> set[str]:
        return {path for (path,) in self.select("select path from quarantine")}

    def select(self, text: str) -> list[tuple[Any, ...]]:
        with self._connected() as connection:
            return list(connection.execute(text).fetchall())

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        if self.url.startswith("sqlite:"):
            file = self.folder / self.url.removeprefix("sqlite:///")
            with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=60)) as database:
                yield database
        else:
            import psycopg

            with psycopg.connect(self.url, autocommit=True, connect_timeout=60) as connection:
                yield connection


def _files(folder: Path) -> list[Path]:
    """Files below it; what goes away meanwhile is not there."""
    found: list[Path] = []
    with contextlib.suppress(FileNotFoundError):
        for entry in folder.iterdir():
            found += _files(entry) if entry.is_dir() and not entry.is_symlink() else [entry]
    return found
