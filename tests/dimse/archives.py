"""A whole archive on a free port, without configuration or processes: what the tests of the verbs talk to."""

from __future__ import annotations

import ipaddress
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import dcmwrite, write_dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from archive.config import Peer
from archive.dicom.attributes import HEADER_TAGS
from archive.dimse.access import Access
from archive.dimse.connection import Timeouts
from archive.dimse.contexts import table
from archive.dimse.destinations import Destination, Destinations
from archive.dimse.echo import Echo
from archive.dimse.find import FindMatches
from archive.dimse.get import GetMatches
from archive.dimse.listener import Listener, bind
from archive.dimse.move import MoveMatches
from archive.dimse.policy import AccessPolicy
from archive.dimse.server import Server, Verbs
from archive.dimse.store import StoreObject
from archive.dimse.tls import ServerTLS
from archive.dimse.wire import Field
from archive.index import Index, open_index
from archive.services.commit import Committer
from archive.services.find import Find
from archive.services.retrieve import Retrieve
from archive.services.sendable import Codec
from archive.services.store import Origin, Rules, Store
from archive.storage.journal import Journal
from archive.storage.local import Volume
from archive.workers.runner import Runner

EVERYTHING = ("echo", "store", "find", "move", "get")
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
ROOT = "1.2.826.0.1.3680043.8.498.7"
QUICK = Timeouts(tls=3, acse=3, pdu=5, dimse=10, idle=20, send=5, connect=2)


def peer(aet: str, port: int | None = None, **more: object) -> Peer:
    """A peer on this machine that may do everything, unless told otherwise."""
    values: dict[str, object] = {
        "host": ("127.0.0.1",),
        "allow": EVERYTHING,
        "networks": (LOOPBACK,),
        "local_aet": "ARCHIVE",
        "max_results": 0,
        "timeouts": QUICK,
        **more,
    }
    return Peer(aet=aet, port=port, **values)  # type: ignore[arg-type]


@dataclass
class Archive:
    """The parts, and the port that a client wants."""

    folder: Path
    index: Index
    store: Store
    retrieve: Retrieve
    port: int = 0
    noted: list[tuple[str, str, str, str]] = field(default_factory=list)
    listener: Listener | None = None

    def wait_until_quiet(self, most: float = 60.0) -> None:
        """Until every association has ended here too."""
        until = time.monotonic() + most
        while self.listener is not None and self.listener.associations() and time.monotonic() < until:
            time.sleep(0.01)

    def destination(self, calling: str = "TEST", called: str = "ARCHIVE", **more: object) -> Destination:
        return Destination(called, "127.0.0.1", self.port, calling, QUICK, **more)  # type: ignore[arg-type]


@contextmanager
def parts(folder: Path) -> Iterator[Archive]:
    """Index, storage and the services on them."""
    index = open_index(f"sqlite:///{folder / 'index.db'}")
    volume = Volume(folder / "files", reserve=0, clock=time.time)
    volume.open(expected=False)
    journal = Journal(volume.root / "journal", 16 << 20)
    committer = Committer(volume=volume, index=index, journal=journal)
    committer.recover()
    checkpoint = Runner("checkpoint", committer.checkpoint, journal.wake)
    checkpoint.start()
    rules = Rules(max_instance_size=64 << 20, wanted=HEADER_TAGS)
    store = Store(volume=volume, index=index, committer=committer, rules=rules, clock=time.time)
    try:
        yield Archive(folder, index, store, Retrieve(index, {volume.name: volume}))
    finally:
        checkpoint.stop()
        committer.close()
        volume.close()
        index.close()


@contextmanager
def serving(
    folder: Path,
    peers: list[Peer],
    *,
    open_to: tuple[str, ...] = ("echo",),
    codec: Codec | None = None,
    interval: float = 5.0,
    max_results: int = 0,
    tls: ServerTLS | None = None,
    title: str = "ARCHIVE",
) -> Iterator[Archive]:
    """An archive that serves these peers."""
    with parts(folder) as archive:
        access = Access([title], peers, lambda _: open_to)
        destinations = Destinations.of_peers(access, peers)
        others = {
            Field.C_ECHO_RQ: {"echo": Echo()},
            Field.C_FIND_RQ: {"find": FindMatches(Find(archive.index), title)},
            Field.C_MOVE_RQ: {"move": MoveMatches(archive.retrieve, destinations, codec, interval=interval)},
            Field.C_GET_RQ: {"get": GetMatches(archive.retrieve, codec)},
        }
        server = Server(Verbs(StoreObject(archive.store), others), max_results=max_results)
        policy = AccessPolicy(access, table(), note_caller=lambda *caller: archive.noted.append(caller))
        archive.listener = Listener(bind("127.0.0.1", 0), timeouts=QUICK, tls=tls)
        archive.port = archive.listener.port
        archive.listener.start(server.handle, policy)
        try:
            yield archive
        finally:
            archive.listener.stop(3)


def instance(
    number: int = 1,
    *,
    study: int = 1,
    series: int = 1,
    sop_class: str = CTImageStorage,
    syntax: str = ExplicitVRLittleEndian,
    patient: str = "P1",
    modality: str = "CT",
    size: int = 64,
) -> Dataset:
    """A small composite object of its own."""
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = UID(syntax)
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID = UID(sop_class)
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID = UID(f"{ROOT}.{study}.{series}.{number}")
    found.SeriesInstanceUID = f"{ROOT}.{study}.{series}"
    found.StudyInstanceUID = f"{ROOT}.{study}"
    found.PatientID, found.PatientName = patient, f"Name^{patient}"
    found.StudyDate, found.StudyTime, found.StudyID = "20260102", "101500", str(study)
    found.AccessionNumber, found.Modality = f"A{study}", modality
    found.SeriesNumber, found.InstanceNumber = series, number
    found.Rows, found.Columns, found.BitsAllocated, found.BitsStored, found.HighBit = size, size, 16, 12, 11
    found.SamplesPerPixel, found.PixelRepresentation, found.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    found.PixelData = array("H", ((number + i) % 4093 for i in range(size * size))).tobytes()
    return found


def encoded(data_set: Dataset) -> bytes:
    """The data set alone, in its own transfer syntax."""
    buffer = DicomIO(BytesIO())
    syntax = data_set.file_meta.TransferSyntaxUID
    buffer.is_little_endian, buffer.is_implicit_VR = syntax.is_little_endian, syntax.is_implicit_VR
    write_dataset(buffer, data_set)
    found: bytes = buffer.parent.getvalue()
    return found


def part10(data_set: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, data_set, enforce_file_format=True)
    return buffer.getvalue()


def write(folder: Path, *data_sets: Dataset) -> list[Path]:
    """The data sets as files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{data_set.SOPInstanceUID}.dcm" for data_set in data_sets]
    for path, data_set in zip(paths, data_sets, strict=True):
        path.write_bytes(part10(data_set))
    return paths


def fill(archive: Archive, *data_sets: Dataset) -> None:
    """Put data sets into the archive by the one way in."""
    for data_set in data_sets:
        syntax = str(data_set.file_meta.TransferSyntaxUID)
        origin = Origin("FILLER", "ARCHIVE", "127.0.0.1")
        reception = archive.store.receive(origin, data_set.SOPClassUID, data_set.SOPInstanceUID, syntax)
        reception.write(memoryview(encoded(data_set)))
        reception.finish()
