"""Stored objects go out: as they are, converted, or not at all and with a reason."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from archive.dicom.coerce import Change
from archive.dimse.destinations import Destination
from archive.dimse.planning import proposals
from archive.dimse.reasons import Aborted, Ended
from archive.dimse.sender import Sender
from archive.dimse.tally import Result, Sent
from archive.errors import Damaged, NotTranscodable
from archive.services.outgoing import Outgoing, Subject
from archive.services.outgoing import Receiver as Remote
from archive.services.retrieve import OpenFile
from archive.services.sendable import Codec
from archive.workers.codec import Transcoded

from .archives import QUICK, ROOT, encoded, instance, part10
from .receivers import CT, EXPLICIT, Receiver, receiving

JPEG, BIG, DEFLATED = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"


@dataclass(frozen=True)
class File:
    """A file to be sent; its transfer syntax is what it says."""

    path: Path
    transfer_syntax: str = EXPLICIT
    sop_class_uid: str = CT
    sop_instance_uid: str = f"{ROOT}.1.1.1"
    offset: int = 0


def open_file(file: File) -> OpenFile:
    try:
        fd = os.open(file.path, os.O_RDONLY)
    except OSError as error:
        raise Damaged("stored file is missing") from error
    return OpenFile(fd, file.offset, os.fstat(fd).st_size - file.offset, file.path)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def send(
    receiver: Receiver, *files: File, codec: Codec | None = None, outgoing: Outgoing | None = None
) -> list[Sent]:
    destination = Destination("DEST", "127.0.0.1", receiver.port, "US", QUICK)
    contexts = proposals((file.sop_class_uid, file.transfer_syntax) for file in files)[0]
    with destination.connect(contexts) as association:
        sender = Sender(association, open_file, codec, outgoing=outgoing)
        try:
            return [sender.send(file, following) for file, following in zip(files, [*files[1:], None], strict=True)]
        finally:
            sender.close()


def written(folder: Path, data: bytes, name: str = "one") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [0, 1, 2, 1000, 300_000, 1_500_001])
def test_bytes_go_out_as_they_are(receiver: Receiver, tmp_path: Path, size: int) -> None:
    data = bytes(number % 251 for number in range(size))
    path = written(tmp_path, b"head" + data)
    (sent,) = send(receiver, File(path, offset=4))
    assert sent == Sent(f"{ROOT}.1.1.1", Result.SENT, 0)
    assert receiver.messages[0].data == data


@pytest.mark.parametrize("syntax", [BIG, DEFLATED])
def test_uncompressed_objects_are_converted_to_what_is_accepted(
    receiver: Receiver, tmp_path: Path, syntax: str
) -> None:
    data_set = instance(1, syntax=syntax)
    raw = part10(data_set)
    path = written(tmp_path, raw)
    offset = 132 + 12 + int.from_bytes(raw[140:144], "little")
    (sent,) = send(receiver, File(path, transfer_syntax=syntax, offset=offset))
    assert sent.result is Result.SENT
    assert receiver.messages[0].context.transfer_syntax == EXPLICIT
    if syntax == DEFLATED:
        assert receiver.messages[0].data == encoded(instance(1))


def test_a_compressed_object_without_a_codec_fails_alone(receiver: Receiver, tmp_path: Path) -> None:
    path = written(tmp_path, encoded(instance(1)))
    results = send(receiver, File(path, transfer_syntax=JPEG), File(path))
    assert [each.result for each in results] == [Result.FAILED, Result.SENT]
    assert "does not take the stored transfer syntax" in results[0].reason


class Decoder:
    """Gives what it was told to give, in a file of its own."""

    def __init__(self, folder: Path, given: bytes) -> None:
        self.spool = folder / "decoded"
        self.given = given
        self.asked: list[tuple[Path, Sequence[str]]] = []

    def transcode(self, path: Path, accepted: Sequence[str]) -> Transcoded:
        self.asked.append((path.resolve(), accepted))
        self.spool.write_bytes(b"head" + self.given)
        return Transcoded(accepted[0], self.spool, 4, len(self.given))


def test_a_file_that_was_compressed_since_it_was_selected_goes_out_as_it_is_now(
    receiver: Receiver, tmp_path: Path
) -> None:
    data, path = encoded(instance(1)), written(tmp_path, b"coded now")
    codec = Decoder(tmp_path, data)
    file = File(path)  # selected while it was uncompressed
    destination = Destination("DEST", "127.0.0.1", receiver.port, "US", QUICK)
    with destination.connect([(CT, (EXPLICIT,))]) as association:
        opened = open_file(file)
        opened.transfer_syntax = JPEG
        sender = Sender(association, lambda _: opened, codec)
        assert sender.send(file).result is Result.SENT
    assert [each.name for each, _ in codec.asked] == ["one"] and receiver.messages[0].data == data


def test_a_codec_gives_what_the_receiver_accepts(receiver: Receiver, tmp_path: Path) -> None:
    data, path = encoded(instance(1)), written(tmp_path, b"x")
    codec = Decoder(tmp_path, data)
    (sent,) = send(receiver, File(path, transfer_syntax=JPEG), codec=codec)
    assert sent.result is Result.SENT
    assert codec.asked == [(path, [EXPLICIT])]
    assert receiver.messages[0].data == data
    assert not codec.spool.exists()


def test_a_codec_that_cannot_says_why(receiver: Receiver, tmp_path: Path) -> None:
    class Refusing:
        def transcode(self, path: Path, accepted: Sequence[str]) -> Transcoded:
            raise NotTranscodable("pixels cannot be decoded")

    (sent,) = send(receiver, File(written(tmp_path, b"x"), transfer_syntax=JPEG), codec=Refusing())
    assert (sent.result, sent.reason) == (Result.FAILED, "pixels cannot be decoded")


def test_a_missing_file_fails_alone(receiver: Receiver, tmp_path: Path) -> None:
    there = File(written(tmp_path, encoded(instance(1))))
    results = send(receiver, there, File(tmp_path / "gone"), there)
    assert [each.result for each in results] == [Result.SENT, Result.FAILED, Result.SENT]


def test_an_object_that_cannot_be_converted_fails_before_its_first_byte(receiver: Receiver, tmp_path: Path) -> None:
    broken = File(written(tmp_path, encoded(instance(1, syntax=BIG))[:-9]), transfer_syntax=BIG)
    results = send(receiver, broken, File(written(tmp_path, encoded(instance(2)), "two")))
    assert [each.result for each in results] == [Result.FAILED, Result.SENT]
    assert len(receiver.messages) == 1


def test_a_file_that_shrinks_while_it_is_sent_ends_the_association(receiver: Receiver, tmp_path: Path) -> None:
    class Shrunk(OpenFile):
        pass

    path = written(tmp_path, bytes(1000))
    destination = Destination("DEST", "127.0.0.1", receiver.port, "US", QUICK)
    association = destination.connect([(CT, (EXPLICIT,))])
    sender: Sender[File] = Sender(association, lambda file: Shrunk(os.open(file.path, os.O_RDONLY), 0, 5_000_000))
    with pytest.raises(Aborted, match="could not be read"):
        sender.send(File(path))
    assert association.closed and not receiver.messages


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (0x0000, Result.SENT),
        (0x0111, Result.SENT),
        (0xB000, Result.WARNING),
        (0xB006, Result.WARNING),
        (0xA700, Result.FAILED),
        (0xC123, Result.FAILED),
        (0x0122, Result.FAILED),
    ],
)
def test_the_receiver_s_status_decides(tmp_path: Path, status: int, result: Result) -> None:
    with receiving(lambda message: status) as receiver:
        (sent,) = send(receiver, File(written(tmp_path, encoded(instance(1)))))
    assert (sent.result, sent.status) == (result, status)
    assert bool(sent.reason) == (result is not Result.SENT)


def test_a_receiver_that_breaks_off_ends_the_sending(tmp_path: Path) -> None:
    def answering(message: object) -> int:
        raise ConnectionError

    with receiving(answering) as receiver, pytest.raises(Ended):
        send(receiver, File(written(tmp_path, encoded(instance(1)))))


def test_files_opened_ahead_are_closed(receiver: Receiver, tmp_path: Path) -> None:
    opened: list[OpenFile] = []

    def noting(file: File) -> OpenFile:
        opened.append(open_file(file))
        return opened[-1]

    one, two = (File(written(tmp_path, encoded(instance(1)), name)) for name in ("one", "two"))
    destination = Destination("DEST", "127.0.0.1", receiver.port, "US", QUICK)
    with destination.connect([(CT, (EXPLICIT,))]) as association:
        sender: Sender[File] = Sender(association, noting)
        sender.send(one, two)
        sender.send(one, two)  # not the one that was announced
        sender.close()
    assert len(opened) == 4 and {file.fd for file in opened} == {-1}


# -- changed on the way -----------------------------------------------------------------------


def changing(value: str | None = "CHANGED") -> tuple[Outgoing, list[Subject]]:
    """Who sets the Patient ID of everything, or of nothing, and what it was asked."""
    asked: list[Subject] = []

    def source(subject: Subject) -> list[Change]:
        asked.append(subject)
        return [Change((0x00100020,), "LO", value)] if value else []

    return Outgoing([source], system="US", clock=lambda: 0.0), asked


@pytest.mark.parametrize("syntax", [EXPLICIT, BIG, DEFLATED])
def test_changes_are_laid_over_stored_and_converted_objects(receiver: Receiver, tmp_path: Path, syntax: str) -> None:
    raw = part10(instance(1, syntax=syntax))
    path = written(tmp_path, raw)
    outgoing, asked = changing()
    file = File(path, transfer_syntax=syntax, offset=132 + 12 + int.from_bytes(raw[140:144], "little"))
    (sent,) = send(receiver, file, outgoing=outgoing)
    assert sent.result is Result.SENT
    got = dcmread(BytesIO(receiver.messages[0].data), force=True)
    assert (got.PatientID, got.SOPInstanceUID) == ("CHANGED", instance(1).SOPInstanceUID)
    assert got.OriginalAttributesSequence[0].ModifyingSystem == "US"
    assert asked[0].receiver == Remote("DEST", "US", "127.0.0.1", "127.0.0.1")
    assert path.read_bytes() == raw


def test_changes_are_laid_over_what_a_codec_made(receiver: Receiver, tmp_path: Path) -> None:
    codec = Decoder(tmp_path, encoded(instance(1)))
    path = written(tmp_path, b"x")
    (sent,) = send(receiver, File(path, transfer_syntax=JPEG), codec=codec, outgoing=changing()[0])
    assert sent.result is Result.SENT
    assert dcmread(BytesIO(receiver.messages[0].data), force=True).PatientID == "CHANGED"


def test_a_source_without_changes_leaves_the_bytes(receiver: Receiver, tmp_path: Path) -> None:
    data = encoded(instance(1))
    (sent,) = send(receiver, File(written(tmp_path, data)), outgoing=changing(None)[0])
    assert receiver.messages[0].data == data


def test_an_object_whose_changes_do_not_fit_fails_alone(receiver: Receiver, tmp_path: Path) -> None:
    broken, whole = written(tmp_path, b"no DICOM", "broken"), written(tmp_path, encoded(instance(1)), "whole")
    results = send(receiver, File(broken), File(whole), outgoing=changing()[0])
    assert [each.result for each in results] == [Result.FAILED, Result.SENT]
