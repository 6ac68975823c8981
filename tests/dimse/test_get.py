"""Objects are fetched by C-GET."""

from __future__ import annotations

import subprocess
from array import array
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt

from archive.dicom.attributes import Level
from archive.dicom.matching import Root
from archive.dimse import scu
from archive.dimse.get import with_following
from archive.dimse.question import question
from archive.dimse.store import StoreObject
from archive.dimse.wire import HAS_DATA, Field, encode_command, encode_response
from archive.errors import Refused

from .archives import ROOT, Archive, fill, instance, parts, peer, serving

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.3"
IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    peers = [peer("TEST"), peer("NO_PR", visible_if="Modality != 'MR'")]
    with serving(tmp_path_factory.mktemp("archive"), peers) as found:
        fill(found, *(instance(number) for number in range(1, 6)))
        fill(found, instance(1, study=2, syntax=IMPLICIT), instance(2, study=2, syntax=BIG))
        fill(found, instance(1, study=3, sop_class=MR, modality="MR"))
        yield found


def get(
    archive: Archive, into: Archive, study: int, *, syntaxes: tuple[str, ...] = (EXPLICIT, IMPLICIT), **more: str
) -> scu.Retrieved:
    return scu.get(
        archive.destination(more.get("calling", "TEST")),
        Root.STUDY,
        Level.STUDY,
        {"StudyInstanceUID": f"{ROOT}.{study}"},
        store=StoreObject(into.store),
        storage=[(CT, syntaxes), *([(MR, syntaxes)] if "mr" in more else [])],
    )


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Archive]:
    with parts(tmp_path) as found:
        yield found


def test_a_study_is_fetched_and_goes_through_the_one_way_in(archive: Archive, other: Archive) -> None:
    done = get(archive, other, 1)
    assert done.complete and done.progress == scu.Progress(0, 5, 0, 0)
    assert other.index.statistics().instances == 5
    for number in range(1, 6):
        here, there = (a.index.known(f"{ROOT}.1.1.{number}") for a in (archive, other))
        assert here is not None and there is not None and here.sha256 == there.sha256


def test_any_class_may_come_when_none_is_named(archive: Archive, other: Archive) -> None:
    keys = {"StudyInstanceUID": f"{ROOT}.3"}
    done = scu.get(archive.destination(), Root.STUDY, Level.STUDY, keys, store=StoreObject(other.store))
    assert done.complete and other.index.known(f"{ROOT}.3.1.1") is not None


def test_what_is_stored_otherwise_is_converted(archive: Archive, other: Archive) -> None:
    done = get(archive, other, 2, syntaxes=(EXPLICIT,))
    assert done.complete and done.progress.completed == 2
    known = other.index.known(f"{ROOT}.2.1.2")
    assert known is not None and known.transfer_syntax == EXPLICIT
    with other.retrieve.open(known) as file, open(file.fd, "rb", closefd=False) as opened:
        words = array("H", instance(2).PixelData)
        words.byteswap()  # what was written as big endian words
        assert pydicom.dcmread(opened).PixelData == words.tobytes()


def test_an_object_without_a_context_fails_and_is_named(archive: Archive, other: Archive) -> None:
    done = get(archive, other, 3)
    assert (done.status, done.progress) == (0xA702, scu.Progress(0, 0, 1, 0))
    assert done.failed_uids == (f"{ROOT}.3.1.1",)
    assert "no such SOP class" in done.words


def test_what_does_not_exist_or_may_not_be_seen_is_not_found(archive: Archive, other: Archive) -> None:
    for study, more in ((77, {}), (3, {"calling": "NO_PR", "mr": "yes"})):
        with pytest.raises(Refused) as refused:
            get(archive, other, study, **more)
        assert "no stored object matches" in refused.value.reason
    assert get(archive, other, 3, mr="yes").complete


@pytest.mark.parametrize("keys", [{}, {"StudyInstanceUID": ""}, {"PatientID": "P1"}])
def test_a_retrieval_without_unique_keys_does_not_match_its_class(
    archive: Archive, other: Archive, keys: dict[str, str]
) -> None:
    store = StoreObject(other.store)
    with pytest.raises(Refused, match="A900"):
        scu.get(archive.destination(), Root.STUDY, Level.STUDY, keys, store=store, storage=[(CT, (EXPLICIT,))])


def test_a_damaged_file_fails_alone(archive: Archive, other: Archive) -> None:
    fill(archive, instance(1, study=4), instance(2, study=4))
    known = archive.index.known(f"{ROOT}.4.1.1")
    assert known is not None
    path = archive.folder / "files" / known.location.path
    path.write_bytes(path.read_bytes()[:-10])
    done = get(archive, other, 4)
    assert (done.status, done.progress) == (0xB000, scu.Progress(0, 1, 1, 0))
    assert done.failed_uids == (f"{ROOT}.4.1.1",)


def test_pynetdicom_fetches_and_may_cancel(archive: Archive) -> None:
    taken: list[str] = []
    ae = AE("TEST")
    ae.add_requested_context(STUDY_GET)
    ae.add_requested_context(CT, EXPLICIT)

    def keep(event: evt.Event) -> int:
        taken.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    asked = Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", f"{ROOT}.1"
    association = ae.associate(
        "127.0.0.1",
        archive.port,
        ae_title="ARCHIVE",
        ext_neg=[build_role(CT, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, keep)],
    )
    final = list(association.send_c_get(asked, STUDY_GET))[-1][0]
    association.release()
    assert (final.Status, final.NumberOfCompletedSuboperations, len(taken)) == (0x0000, 5, 5)


def test_dcmtk_fetches(archive: Archive, tmp_path: Path) -> None:
    command = ["getscu", "-S", "-aet", "TEST", "-aec", "ARCHIVE", "-od", str(tmp_path), "+B"]
    command += ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={ROOT}.1", "127.0.0.1", str(archive.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    read = [pydicom.dcmread(path) for path in tmp_path.iterdir()]
    assert sorted(each.InstanceNumber for each in read) == [1, 2, 3, 4, 5]
    assert all(each.PixelData == instance(int(each.InstanceNumber)).PixelData for each in read)


def test_each_item_is_seen_with_the_one_after_it() -> None:
    assert list(with_following([])) == []
    assert list(with_following("abc")) == [("a", "b"), ("b", "c"), ("c", None)]


def test_a_request_that_comes_during_a_fetch_is_served_after_it(archive: Archive) -> None:
    destination = archive.destination(async_window=4)
    contexts = [(STUDY_GET, (EXPLICIT,)), (CT, (EXPLICIT,)), ("1.2.840.10008.1.1", (EXPLICIT,))]
    with destination.connect(contexts, roles={CT: (False, True)}) as association:
        assert association.window[0] > 1
        get_context, _, echo_context = association.contexts.values()
        keys = {"StudyInstanceUID": f"{ROOT}.1"}
        asked = question(Level.STUDY, keys, get_context, destination, "")
        command = {"AffectedSOPClassUID": STUDY_GET, "CommandField": int(Field.C_GET_RQ), "MessageID": 1}
        association.queue_message(get_context, encode_command({**command, "CommandDataSetType": HAS_DATA}), asked)
        echo = {"AffectedSOPClassUID": "1.2.840.10008.1.1", "CommandField": int(Field.C_ECHO_RQ), "MessageID": 2}
        association.queue_message(echo_context, encode_command(echo))
        stored, ended = 0, []
        while len(ended) < 2:
            message = association.read_message()
            assert message is not None
            if message.command.field == Field.C_STORE_RQ:
                stored += 1
                association.send_message(message.context, encode_response(message.command, 0x0000))
            elif message.command.status != 0xFF00:
                ended.append((message.command.message_id, message.command.status))
    assert stored == 5
    assert ended == [(1, 0x0000), (2, 0x0000)]
