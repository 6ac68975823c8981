"""Objects are sent where C-MOVE says."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, RLELossless

from archive.dicom.attributes import Level
from archive.dicom.matching import Root
from archive.dimse import scu
from archive.dimse.association import Message
from archive.dimse.question import question
from archive.dimse.wire import HAS_DATA, Field, encode_command
from archive.errors import Refused
from archive.workers.codec import Codec

from .archives import ROOT, Archive, fill, instance, peer, serving
from .receivers import CT, EXPLICIT, IMPLICIT, MR, Receiver, receiving

STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
COUNT = 12
BIG = "1.2.840.10008.1.2.2"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def archive(tmp_path: Path, receiver: Receiver) -> Iterator[Archive]:
    with archive_for(tmp_path, receiver) as found:
        yield found


def archive_for(folder: Path, receiver: Receiver, codec: Codec | None = None, **more: object):  # type: ignore[no-untyped-def]
    peers = [
        peer("TEST"),
        peer("BLIND", visible_if="Modality != 'CT'"),
        peer("DEST", receiver.port, **more),
        peer("DEAD", free_port()),
        peer("SILENT_PEER"),
    ]
    return serving(folder, peers, interval=0.2, codec=codec)


def move(archive: Archive, to: str = "DEST", study: int = 1, **more: object) -> scu.Retrieved:
    keys = {"StudyInstanceUID": f"{ROOT}.{study}"}
    calling = str(more.pop("calling", "TEST"))
    return scu.move(archive.destination(calling), to, Root.STUDY, Level.STUDY, keys, **more)  # type: ignore[arg-type]


def filled(archive: Archive, count: int = COUNT) -> list[str]:
    objects = [instance(number) for number in range(1, count + 1)]
    fill(archive, *objects)
    return [str(each.SOPInstanceUID) for each in objects]


def test_a_study_is_sent_whole_and_every_object_names_who_asked(archive: Archive, receiver: Receiver) -> None:
    uids = filled(archive)
    done = move(archive)
    assert done.complete and done.progress == scu.Progress(0, COUNT, 0, 0)
    assert sorted(receiver.uids()) == sorted(uids)
    assert {message.command.move_originator for message in receiver.messages} == {"TEST"}
    assert {message.command.move_originator_id for message in receiver.messages} == {1}
    assert receiver.requests[0].calling == "ARCHIVE"
    assert len(receiver.requests) == 1


def test_the_stored_bytes_are_the_sent_bytes(archive: Archive, receiver: Receiver) -> None:
    filled(archive, 1)
    move(archive)
    known = archive.index.known(f"{ROOT}.1.1.1")
    assert known is not None
    with archive.retrieve.open(known) as file:
        path = archive.folder / "files" / known.location.path
        assert receiver.messages[0].data == path.read_bytes()[file.offset :]


def test_an_unknown_destination_is_a801(archive: Archive) -> None:
    filled(archive, 1)
    with pytest.raises(Refused, match="A801") as refused:
        move(archive, "NOWHERE")
    assert "no configured peer" in refused.value.reason


@pytest.mark.parametrize("to", ["DEAD", "SILENT_PEER"])
def test_a_destination_that_cannot_be_reached_is_a702_with_the_reason(archive: Archive, to: str) -> None:
    filled(archive, 3)
    try:
        words = move(archive, to).words
    except Refused as refused:
        words = refused.reason
    assert "A702" in words and ("reached" in words or "address" in words)


def test_every_object_that_a_dead_destination_did_not_get_is_listed(archive: Archive) -> None:
    uids = filled(archive, 3)
    done = move(archive, "DEAD")
    assert (done.status, done.progress) == (0xA702, scu.Progress(0, 0, 3, 0))
    assert sorted(done.failed_uids) == sorted(uids)


def test_what_is_not_there_or_may_not_be_seen_is_not_found(archive: Archive, receiver: Receiver) -> None:
    filled(archive, 2)
    for calling, study in (("TEST", 55), ("BLIND", 1)):
        with pytest.raises(Refused) as refused:
            move(archive, study=study, calling=calling)
        assert "no stored object matches" in refused.value.reason
    assert not receiver.requests


def test_failures_and_warnings_are_counted_and_listed(tmp_path: Path) -> None:
    answers = {f"{ROOT}.1.1.2": 0xA700, f"{ROOT}.1.1.3": 0xB000, f"{ROOT}.1.1.4": 0x0111}

    def answering(message: Message) -> int:
        return answers.get(message.command.sop_instance, 0x0000)

    with receiving(answering) as receiver, archive_for(tmp_path, receiver) as archive:
        filled(archive, 6)
        done = move(archive)
        assert (done.status, done.progress) == (0xB000, scu.Progress(0, 4, 1, 1))
        assert done.failed_uids == (f"{ROOT}.1.1.2",)
        assert "A700" in done.words


def test_a_destination_that_aborts_under_an_object_gets_the_others(tmp_path: Path) -> None:
    def answering(message: Message) -> int | None:
        if message.command.sop_instance.endswith(".2"):
            raise ConnectionError("down")
        return 0x0000

    with receiving(answering) as receiver, archive_for(tmp_path, receiver) as archive:
        filled(archive, 5)
        done = move(archive)
        assert (done.status, done.progress.completed, done.progress.failed) == (0xB000, 4, 1)
        assert len(receiver.requests) == 2


def test_several_associations_share_the_work(tmp_path: Path) -> None:
    with receiving() as receiver, archive_for(tmp_path, receiver, store_associations=3) as archive:
        uids = filled(archive, 40)
        done = move(archive)
        assert done.complete and done.progress.completed == 40
        assert sorted(receiver.uids()) == sorted(uids)
        assert 1 <= len(receiver.requests) <= 3


def test_pending_responses_come_by_the_clock_while_an_object_stalls(tmp_path: Path) -> None:
    def answering(message: Message) -> int:
        time.sleep(1.0)
        return 0x0000

    told: list[scu.Progress] = []
    with receiving(answering) as receiver, archive_for(tmp_path, receiver) as archive:
        filled(archive, 1)
        assert move(archive, told=told.append).complete
    assert len(told) >= 2 and set(told) == {scu.Progress(1, 0, 0, 0)}


def test_what_the_destination_does_not_take_is_converted_or_fails_alone(tmp_path: Path) -> None:
    with receiving(classes=[CT], syntaxes=[IMPLICIT]) as receiver, archive_for(tmp_path, receiver) as archive:
        fill(archive, instance(1), instance(2, syntax=BIG), instance(3, syntax=IMPLICIT), instance(4, sop_class=MR))
        done = move(archive)
        assert (done.status, done.progress) == (0xB000, scu.Progress(0, 3, 1, 0))
        assert done.failed_uids == (f"{ROOT}.1.1.4",)
        assert {message.context.transfer_syntax for message in receiver.messages} == {IMPLICIT}


def test_each_stored_syntax_is_proposed_in_its_own_context(archive: Archive, receiver: Receiver) -> None:
    fill(archive, instance(1), instance(2, syntax=BIG))
    move(archive)
    proposed = [each.transfer_syntaxes for each in receiver.requests[0].contexts]
    assert proposed == [(EXPLICIT,), (BIG,), (IMPLICIT,)]


def test_pixels_are_decoded_or_encoded_for_a_destination_that_takes_nothing_else(tmp_path: Path) -> None:
    packed = instance(1)
    packed.compress(RLELossless)
    codec = Codec(tmp_path)
    try:
        for number, (stored, syntax) in enumerate([(packed, EXPLICIT), (instance(2), RLELossless)]):
            folder = tmp_path / str(number)
            folder.mkdir()
            with receiving(syntaxes=[syntax]) as receiver, archive_for(folder, receiver, codec=codec) as archive:
                fill(archive, stored)
                assert move(archive).complete
                (message,) = receiver.messages
            assert message.context.transfer_syntax == syntax
            assert message.data is not None
            assert pixels(message.data, syntax) == instance(number + 1).PixelData
    finally:
        codec.close()


def pixels(data: bytes, syntax: str) -> bytes:
    read = pydicom.filereader.read_dataset(BytesIO(data), is_implicit_VR=False, is_little_endian=True)
    read.file_meta = FileMetaDataset()
    read.file_meta.TransferSyntaxUID = UID(syntax)
    return bytes(read.pixel_array.tobytes())


def test_a_cancel_stops_the_rest_and_says_so(tmp_path: Path) -> None:
    def answering(message: Message) -> int:
        time.sleep(0.05)
        return 0x0000

    with receiving(answering) as receiver, archive_for(tmp_path, receiver) as archive:
        filled(archive, 60)
        destination = archive.destination()
        with destination.connect([(STUDY_MOVE, (EXPLICIT,))]) as association:
            context = association.contexts[1]
            asked = question(Level.STUDY, {"StudyInstanceUID": f"{ROOT}.1"}, context, destination, "")
            association.send_message(context, request(), asked)
            assert receiver.arrived.acquire(timeout=60)
            cancel = {"CommandField": int(Field.C_CANCEL_RQ), "MessageIDBeingRespondedTo": 9}
            association.send_message(context, encode_command(cancel))
            message = association.read_message()
            while message is not None and message.command.status == 0xFF00:
                message = association.read_message()
            assert message is not None
            progress = scu.Progress.of(message.command)
        assert message.command.status == 0xFE00
        assert progress.remaining + progress.completed + progress.failed == 60
        assert progress.remaining and progress.completed == len(receiver.uids())


def request() -> bytes:
    return encode_command(
        {
            "AffectedSOPClassUID": STUDY_MOVE,
            "CommandField": int(Field.C_MOVE_RQ),
            "MessageID": 9,
            "CommandDataSetType": HAS_DATA,
            "MoveDestination": "DEST",
        }
    )


def test_a_requester_that_goes_away_stops_the_sub_operations(tmp_path: Path) -> None:
    def answering(message: Message) -> int:
        time.sleep(0.05)
        return 0x0000

    with receiving(answering) as receiver, archive_for(tmp_path, receiver) as archive:
        filled(archive, 200)
        destination = archive.destination()
        association = destination.connect([(STUDY_MOVE, (EXPLICIT,))])
        context = association.contexts[1]
        asked = question(Level.STUDY, {"StudyInstanceUID": f"{ROOT}.1"}, context, destination, "")
        association.send_message(context, request(), asked)
        assert receiver.arrived.acquire(timeout=60)
        association.abort()
        archive.wait_until_quiet(5)
        assert archive.listener is not None and not archive.listener.associations()
        assert len(receiver.uids()) < 200


def test_dcmtk_moves_to_dcmtk(tmp_path: Path) -> None:
    port = free_port()
    into = tmp_path / "out"
    into.mkdir()
    storescp = subprocess.Popen([shutil.which("storescp") or "storescp", "-od", str(into), "+B", str(port)])
    try:
        wait_for(port)
        with serving(tmp_path, [peer("TEST"), peer("STORESCP", port)]) as archive:
            filled(archive, 5)
            command = ["movescu", "-S", "-aet", "TEST", "-aec", "ARCHIVE", "-aem", "STORESCP"]
            command += ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={ROOT}.1"]
            command += ["127.0.0.1", str(archive.port)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        storescp.terminate()
        storescp.wait(60)
    read = [pydicom.dcmread(path) for path in into.iterdir()]
    assert sorted(int(each.InstanceNumber) for each in read) == [1, 2, 3, 4, 5]
    assert all(each.PixelData == instance(int(each.InstanceNumber)).PixelData for each in read)


def wait_for(port: int) -> None:
    for _ in range(6000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise AssertionError(f"nothing listens on {port}")
