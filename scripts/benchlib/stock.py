"""The yardstick of the language: an archive as pynetdicom's own documentation would have one write it.

`stock.py PORT FOLDER DESTINATION_PORT [CERTIFICATE KEY AUTHORITY]` is a program of its own. It writes each object to a
file, syncs it, and commits a row to SQLite before it answers; queries and retrievals read that table.
"""

from __future__ import annotations

import fnmatch
import json
import os
import sqlite3
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    MRImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

STUDY_KEYWORDS = (
    "PatientName", "PatientID", "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "StudyDescription",
    "StudyInstanceUID",
)  # fmt: skip
SEARCH = "select max(header) from instance where study glob ? group by study"
TABLE = "create table if not exists instance (uid text primary key, study text, path text, header text)"
ASSOCIATIONS = 1200
USED = (CTImageStorage, MRImageStorage)  # what it proposes to a C-MOVE destination


class Naive:
    """File, fsync, row: one connection per call, which is what the threads of pynetdicom ask for."""

    def __init__(self, folder: Path, destination: int) -> None:
        self._folder, self._destination = folder, destination
        with self._database() as database:
            database.execute("pragma journal_mode=wal")
            database.execute(TABLE)

    def _database(self) -> sqlite3.Connection:
        return sqlite3.connect(self._folder / "index.db", timeout=30)

    def store(self, event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        path = self._folder / f"{dataset.SOPInstanceUID}.dcm"
        with path.open("wb") as file:
            dataset.save_as(file, enforce_file_format=True)
            file.flush()
            os.fsync(file.fileno())
        header = json.dumps({keyword: str(dataset.get(keyword, "")) for keyword in STUDY_KEYWORDS})
        row = (dataset.SOPInstanceUID, dataset.StudyInstanceUID, str(path), header)
        with self._database() as database:
            database.execute("insert or ignore into instance values (?, ?, ?, ?)", row)
        return 0x0000

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        wanted = [element.keyword for element in event.identifier if element.keyword in STUDY_KEYWORDS]
        patient = str(event.identifier.get("PatientID", "")) or "*"
        study = str(event.identifier.get("StudyInstanceUID", "")) or "*"
        for (header,) in self._database().execute(SEARCH, (study,)):
            values, answer = json.loads(header), Dataset()
            if not fnmatch.fnmatchcase(values["PatientID"], patient):
                continue
            answer.QueryRetrieveLevel = "STUDY"
            for keyword in wanted:
                setattr(answer, keyword, values[keyword])
            yield 0xFF00, answer

    def _paths(self, event: evt.Event) -> list[str]:
        study = event.identifier.StudyInstanceUID
        return [path for (path,) in self._database().execute("select path from instance where study = ?", (study,))]

    def get(self, event: evt.Event) -> Iterator[Any]:
        paths = self._paths(event)
        yield len(paths)
        for path in paths:
            yield 0xFF00, dcmread(path)

    def move(self, event: evt.Event) -> Iterator[Any]:
        yield "127.0.0.1", self._destination
        yield from self.get(event)


def context(certificate: str, key: str, authority: str) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
    made.load_cert_chain(certificate, key)
    made.verify_mode = ssl.CERT_REQUIRED
    return made


def main(port: str, folder: str, destination: str, *tls: str) -> None:
    naive = Naive(Path(folder), int(destination))
    ae = AE("STOCK")
    ae.maximum_associations = ASSOCIATIONS
    for storage in AllStoragePresentationContexts:
        ae.add_supported_context(str(storage.abstract_syntax), scu_role=True, scp_role=True)
        if storage.abstract_syntax in USED:
            ae.add_requested_context(str(storage.abstract_syntax))
    for service in (
        Verification, StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelGet,
        StudyRootQueryRetrieveInformationModelMove,
    ):  # fmt: skip
        ae.add_supported_context(service)
    handlers = [(evt.EVT_C_STORE, naive.store), (evt.EVT_C_FIND, naive.find), (evt.EVT_C_GET, naive.get),
                (evt.EVT_C_MOVE, naive.move)]  # fmt: skip
    ae.start_server(("127.0.0.1", int(port)), evt_handlers=handlers, ssl_context=context(*tls) if tls else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
