"""A whole archive in a folder for tests of what keeps it: compression, repair, rebuilding."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom.dataset import Dataset

from archive.app.store import Archive
from archive.config import Config, load
from archive.dicom.uids import EXPLICIT_LITTLE
from archive.errors import StorageFailed
from archive.index import Outcome, StoredInstance
from archive.services.fsck import Choice, Fsck, Problem
from archive.services.store import Origin
from archive.services.strays import Strays
from archive.storage.ledger import Ledger
from tests import builders

ORIGIN = Origin("CT1", "ARCHIVE", "10.0.0.1")


def fail_once_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a deletion is broken off between the ledger, which has its files, and the commit."""
    append = Ledger.append

    def fail(self: Ledger, entry: dict[str, Any]) -> int:
        number = append(self, entry)
        if "files" in entry:
            raise StorageFailed("the process was killed here")
        return number

    monkeypatch.setattr(Ledger, "append", fail)


def configured(folder: Path, url: str, **storage: Any) -> Config:
    """The configuration of the archive in a folder."""
    settings = {
        "storage": {"path": "files", "reserve": 0, "journal": "1MB", **storage},
        "index": {"url": url},
        "listeners": [{"port": 0}],
    }
    folder.mkdir(exist_ok=True)
    file = folder / "archive.yaml"
    file.write_text(yaml.safe_dump(settings))
    return load(file)


@contextmanager
def opened(folder: Path, url: str, **storage: Any) -> Iterator[Archive]:
    with Archive(configured(folder, url, **storage)) as archive:
        yield archive


def put(archive: Archive, dataset: Dataset, syntax: str = EXPLICIT_LITTLE, origin: Origin = ORIGIN) -> Outcome:
    return put_bytes(archive, builders.bytes_of(dataset, syntax), dataset, syntax, origin)


def put_bytes(
    archive: Archive, data: bytes, dataset: Dataset, syntax: str = EXPLICIT_LITTLE, origin: Origin = ORIGIN
) -> Outcome:
    reception = archive.store.receive(origin, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), syntax)
    try:
        reception.write(data)
        outcome: Outcome = reception.finish()
        return outcome
    finally:
        reception.discard()


def known(archive: Archive, dataset: Dataset) -> StoredInstance:
    found = archive.index.known(str(dataset.SOPInstanceUID))
    assert found is not None
    return found


def path_of(archive: Archive, dataset: Dataset) -> Path:
    return archive.volume.root / known(archive, dataset).location.path


def stored_bytes(archive: Archive, dataset: Dataset) -> bytes:
    """The stored data set."""
    return path_of(archive, dataset).read_bytes()[known(archive, dataset).location.offset :]


def objects(archive: Archive) -> list[Path]:
    return sorted((archive.volume.root / "objects").rglob("*.dcm"))


def checked(archive: Archive, *, grace: float = 0.0, **choice: Any) -> list[Problem]:
    """What a check says."""
    strays = [
        Strays(archive.index, each, archive.integrity, archive.store, time.time, grace)
        for each in archive.volumes.values() if each.is_there()
    ]  # fmt: skip
    return list(Fsck(archive.index, archive.volumes, archive.integrity, strays, Choice(**choice)).run())
