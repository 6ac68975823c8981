"""A client that shares no code with DCMTK: pynetdicom finds, moves and gets at every level of every root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, StoragePresentationContexts, build_role, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import CTImageStorage

from archive.index import open_index
from scripts.index_rows import fill
from tests.dimse.archives import ROOT, instance, write
from tests.endtoend.dcmtk import Client
from tests.faults.daemon import Daemon, free_port

QR = "1.2.840.10008.5.1.4.1.2"
ROOTS = {"patient": "1", "study": "2", "patient-study": "3"}
FIND, MOVE, GET = "1", "2", "3"
PENDING, SUCCESS, CANCELLED, MISMATCH = 0xFF00, 0x0000, 0xFE00, 0xA900
MADE_UP = 6_000  # studies without files, enough for a cancel to come before the last answer

# Two patients with two studies of two series of two images each.
OBJECTS = [(p, s, e, i) for p in (1, 2) for s in (1, 2) for e in (1, 2) for i in (1, 2)]
P, S, E = "P1", f"{ROOT}.11", f"{ROOT}.11.1"
KEYS = {"PATIENT": ("PatientID", P), "STUDY": ("StudyInstanceUID", S), "SERIES": ("SeriesInstanceUID", E)}
I = f"{E}.1"  # noqa: E741

# root, level, what is named, how many match, how many objects are below them
NAMED = [
    ("patient", "PATIENT", {"PatientID": P}, 1, 8),
    ("patient", "STUDY", {"PatientID": P, "StudyInstanceUID": S}, 1, 4),
    ("patient", "SERIES", {"PatientID": P, "StudyInstanceUID": S, "SeriesInstanceUID": E}, 1, 2),
    ("patient", "IMAGE", {"PatientID": P, "StudyInstanceUID": S, "SeriesInstanceUID": E, "SOPInstanceUID": I}, 1, 1),
    ("study", "STUDY", {"StudyInstanceUID": S}, 1, 4),
    ("study", "SERIES", {"StudyInstanceUID": S, "SeriesInstanceUID": E}, 1, 2),
    ("study", "IMAGE", {"StudyInstanceUID": S, "SeriesInstanceUID": E, "SOPInstanceUID": I}, 1, 1),
    ("patient-study", "PATIENT", {"PatientID": P}, 1, 8),
    ("patient-study", "STUDY", {"PatientID": P, "StudyInstanceUID": S}, 1, 4),
]
UNNAMED = [
    ("patient", "PATIENT", {"PatientID": "P?"}, 3),
    ("patient", "STUDY", {"PatientID": P, "StudyInstanceUID": ""}, 2),
    ("patient", "SERIES", {"PatientID": P, "StudyInstanceUID": S, "SeriesInstanceUID": ""}, 2),
    ("study", "STUDY", {"StudyInstanceUID": "", "PatientID": "P?"}, 5),
    ("study", "SERIES", {"StudyInstanceUID": S, "SeriesInstanceUID": ""}, 2),
    ("study", "IMAGE", {"StudyInstanceUID": S, "SeriesInstanceUID": E, "SOPInstanceUID": ""}, 2),
    ("patient-study", "STUDY", {"PatientID": P, "StudyInstanceUID": ""}, 2),
]
# Without the keys above: a relational query, or a mistake.
RELATIONAL = [
    ("patient", "STUDY", {"StudyInstanceUID": S}, 1, 4),
    ("patient", "IMAGE", {"SOPInstanceUID": I}, 1, 1),
    ("study", "SERIES", {"SeriesInstanceUID": E}, 1, 2),
    ("study", "IMAGE", {"SOPInstanceUID": I}, 1, 1),
]


class Received:
    """A storage SCP that counts what it gets."""

    def __init__(self) -> None:
        self.uids: list[str] = []
        self.port = free_port()
        ae = AE("RECEIVER")
        ae.supported_contexts = StoragePresentationContexts
        self._server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=self.handlers)

    @property
    def handlers(self) -> list[object]:
        return [(evt.EVT_C_STORE, self._store)]

    def _store(self, event: evt.Event) -> int:
        self.uids.append(str(event.request.AffectedSOPInstanceUID))
        return SUCCESS

    def close(self) -> None:
        self._server.shutdown()


@pytest.fixture(scope="module")
def received() -> Iterator[Received]:
    found = Received()
    yield found
    found.close()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, received: Received) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("clients")
    peer = {"RECEIVER": {"host": "127.0.0.1", "port": received.port, "allow": ["echo"]}}
    with Daemon(folder, {"processes": 1, "peers": peer}) as found:
        index = open_index(f"sqlite:///{folder}/index.db")
        fill(index, MADE_UP)
        index.close()
        store(found, folder / "objects", *OBJECTS, *((9, 1, 1, number) for number in range(1, 301)))
        yield found


def store(daemon: Daemon, folder: Path, *places: tuple[int, int, int, int]) -> None:
    objects = [
        instance(image, study=10 * patient + study, series=series, patient=f"P{patient}", size=2)
        for patient, study, series, image in places
    ]
    write(folder, *objects)
    Client(daemon).call("storescu", "+sd", rest=[folder])


def connect(daemon: Daemon, syntax: str, *, relational: bool = False, received: Received | None = None) -> Association:
    """An association for one service, which may ask for relational queries, and take objects in."""
    ae = AE("SENDER")
    ae.add_requested_context(syntax)
    items = []
    if relational:
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid, item.service_class_application_information = syntax, b"\x01"
        items.append(item)
    handlers = []
    if received is not None:
        ae.add_requested_context(CTImageStorage)
        items.append(build_role(CTImageStorage, scp_role=True))
        handlers = received.handlers
    association = ae.associate("127.0.0.1", daemon.port, ae_title="ARCHIVE", ext_neg=items, evt_handlers=handlers)
    assert association.is_established
    return association


def identifier(level: str, keys: dict[str, str]) -> Dataset:
    found = Dataset()
    found.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(found, keyword, value)
    return found


def find(daemon: Daemon, root: str, level: str, keys: dict[str, str], *, relational: bool = False) -> tuple[int, int]:
    """How many answers came, and the final status."""
    syntax = f"{QR}.{ROOTS[root]}.{FIND}"
    association = connect(daemon, syntax, relational=relational)
    statuses = [status.Status for status, _ in association.send_c_find(identifier(level, keys), syntax)]
    association.release()
    assert set(statuses[:-1]) <= {PENDING}
    return len(statuses) - 1, statuses[-1]


@pytest.mark.parametrize(("root", "level", "keys", "count"), [*UNNAMED, *(row[:4] for row in NAMED)])
def test_pynetdicom_finds_at_every_level(
    daemon: Daemon, root: str, level: str, keys: dict[str, str], count: int
) -> None:
    assert find(daemon, root, level, keys) == (count, SUCCESS)


@pytest.mark.parametrize(("root", "level", "keys", "count", "objects"), RELATIONAL)
def test_pynetdicom_skips_levels_only_when_that_was_negotiated(
    daemon: Daemon, received: Received, root: str, level: str, keys: dict[str, str], count: int, objects: int
) -> None:
    assert find(daemon, root, level, keys) == (0, MISMATCH)
    assert find(daemon, root, level, keys, relational=True) == (count, SUCCESS)
    for service in (MOVE, GET):
        assert retrieve(daemon, received, service, root, level, keys) == (0, MISMATCH)
        assert retrieve(daemon, received, service, root, level, keys, relational=True) == (objects, SUCCESS)


def retrieve(
    daemon: Daemon,
    received: Received,
    service: str,
    root: str,
    level: str,
    keys: dict[str, str],
    *,
    relational: bool = False,
) -> tuple[int, int]:
    """How many objects came by C-MOVE or C-GET, and the final status."""
    received.uids.clear()
    syntax = f"{QR}.{ROOTS[root]}.{service}"
    association = connect(daemon, syntax, relational=relational, received=received if service == GET else None)
    asked = identifier(level, keys)
    if service == GET:
        answers = association.send_c_get(asked, syntax)
    else:
        answers = association.send_c_move(asked, "RECEIVER", syntax)
    final, _ = list(answers)[-1]
    association.release()
    assert final.Status or final.NumberOfCompletedSuboperations == len(set(received.uids))
    return len(received.uids), final.Status


@pytest.mark.parametrize("service", [MOVE, GET])
@pytest.mark.parametrize(("root", "level", "keys", "_count", "objects"), NAMED)
def test_pynetdicom_retrieves_at_every_level(
    daemon: Daemon,
    received: Received,
    service: str,
    root: str,
    level: str,
    keys: dict[str, str],
    _count: int,
    objects: int,
) -> None:
    assert retrieve(daemon, received, service, root, level, keys) == (objects, SUCCESS)


def test_pynetdicom_cancels_a_query(daemon: Daemon) -> None:
    syntax = f"{QR}.2.{FIND}"
    association = connect(daemon, syntax)
    statuses = []
    for status, _ in association.send_c_find(identifier("STUDY", {"StudyInstanceUID": ""}), syntax, msg_id=7):
        if not statuses:
            association.send_c_cancel(7, query_model=syntax)
        statuses.append(status.Status)
    association.release()
    assert statuses[-1] == CANCELLED
    assert len(statuses) < MADE_UP


@pytest.mark.parametrize("service", [MOVE, GET])
def test_pynetdicom_cancels_a_retrieval(daemon: Daemon, received: Received, service: str) -> None:
    received.uids.clear()
    syntax = f"{QR}.2.{service}"
    association = connect(daemon, syntax, received=received if service == GET else None)
    asked = identifier("STUDY", {"StudyInstanceUID": f"{ROOT}.91"})
    send = association.send_c_get if service == GET else association.send_c_move
    arguments = (asked, syntax) if service == GET else (asked, "RECEIVER", syntax)
    answers = send(*arguments, msg_id=5)
    association.send_c_cancel(5, query_model=syntax)
    final = [status for status, _ in answers][-1]
    association.release()
    assert final.Status == CANCELLED
    assert final.NumberOfRemainingSuboperations > 0
    assert final.NumberOfCompletedSuboperations + final.NumberOfRemainingSuboperations == 300
    assert len(received.uids) < 300
