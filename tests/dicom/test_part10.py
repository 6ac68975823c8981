"""File meta information, written and read."""

from __future__ import annotations

from io import BytesIO

import pydicom
import pytest

from archive.dicom.header import read_header
from archive.dicom.part10 import FileMeta, file_meta, read_file_meta
from archive.dicom.uids import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLEMENTATION_CLASS_UID,
    IMPLICIT_LITTLE,
    is_uid,
)
from archive.errors import NotUnderstood
from tests.builders import CT, Sample, bytes_of, ct, part10, samples
from tests.dicom.hostile import explicit


@pytest.mark.parametrize("source", ["", "CT1", "SIXTEEN_LETTERS_"])
@pytest.mark.parametrize("instance", ["1.2.3", "1.2.34"])
def test_what_is_written_is_what_pydicom_reads(source: str, instance: str) -> None:
    data = file_meta(CT, instance, IMPLICIT_LITTLE, source=source)
    assert data[:132] == bytes(128) + b"DICM"
    meta = pydicom.dcmread(BytesIO(data)).file_meta
    assert meta.FileMetaInformationGroupLength == len(data) - 144
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CT, instance)
    assert (meta.TransferSyntaxUID, meta.ImplementationClassUID) == (IMPLICIT_LITTLE, IMPLEMENTATION_CLASS_UID)
    assert meta.get("SourceApplicationEntityTitle", "") == source


def test_what_is_written_is_read_again() -> None:
    data = file_meta(CT, "1.2.3", EXPLICIT_BIG, source="CT1")
    assert read_file_meta(data + bytes_of(ct(), EXPLICIT_BIG)) == FileMeta(EXPLICIT_BIG, len(data), CT, "1.2.3", "CT1")


def test_what_the_archive_says_itself_is_read_again_and_what_others_say_is_not() -> None:
    data = file_meta(CT, "1.2.3", EXPLICIT_LITTLE, private=b'{"odd": 1}!')
    assert read_file_meta(data + bytes_of(ct())).private == '{"odd": 1}!'
    assert pydicom.dcmread(BytesIO(data + bytes_of(ct()))).file_meta.PrivateInformation == b'{"odd": 1}! '
    other = data.replace(IMPLEMENTATION_CLASS_UID.encode(), b"1.2.3.4".ljust(len(IMPLEMENTATION_CLASS_UID), b"\0"))
    assert read_file_meta(other + bytes_of(ct())).private == ""


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.name)
def test_the_data_set_of_every_sample_is_found(sample: Sample) -> None:
    data = b"\x7fELF" + bytes(124) + b"DICM" + explicit(0x00020010, "UI", _even(sample.syntax)) + sample.data
    meta = read_file_meta(data[:4096])
    assert (meta.transfer_syntax, data[meta.offset :]) == (sample.syntax, sample.data)
    if sample.syntax != DEFLATED and sample.name != "SC_rgb_jpeg.dcm":
        assert (meta.sop_class_uid, meta.sop_instance_uid) == (
            sample.dataset.SOPClassUID,
            sample.dataset.SOPInstanceUID,
        )


def _even(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG])
def test_a_file_without_preamble_and_meta_information_is_guessed(syntax: str) -> None:
    dataset = ct()
    meta = read_file_meta(bytes_of(dataset, syntax))
    assert meta == FileMeta(syntax, 0, CT, dataset.SOPInstanceUID)


@pytest.mark.parametrize("start", [128, 132])
def test_a_file_without_preamble_is_read(start: int) -> None:
    dataset = ct()
    data = part10(dataset)[start:]
    meta = read_file_meta(data)
    assert meta.sop_instance_uid == dataset.SOPInstanceUID
    assert read_header(data[meta.offset :], meta.transfer_syntax).sop_instance_uid == dataset.SOPInstanceUID


def test_a_group_length_that_lies_is_not_believed() -> None:
    dataset = ct()
    data = bytearray(part10(dataset))
    data[140:144] = b"\xff\xff\0\0"
    meta = read_file_meta(data)
    assert read_header(data[meta.offset :], meta.transfer_syntax).sop_instance_uid == dataset.SOPInstanceUID


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        bytes(1000),
        b"\x89PNG" + bytes(range(256)) * 4,
        bytes(128) + b"DICM",
        bytes(128) + b"DICM" + b"\2\0",
        bytes(128) + b"DICM" + explicit(0x00020010, "UI", b"1.2", 0xFFFF),
        bytes(128) + b"DICM" + explicit(0x00020010, "OB", b"1.2", 0xFFFFFFFF),
        bytes(128) + b"DICM" + explicit(0x00020100, "UI", b"") * 1000,
        bytes(128) + b"DICM" + explicit(0x00020003, "UI", b"1.2\0"),
    ],
)
def test_what_is_no_dicom_file_is_refused(data: bytes) -> None:
    with pytest.raises(NotUnderstood):
        read_file_meta(data)


def test_meta_information_cut_anywhere_is_refused_or_read_without_harm() -> None:
    data = part10(ct())
    for end in range(len(data)):
        try:
            meta = read_file_meta(data[:end])
        except NotUnderstood:
            continue
        assert meta.offset <= end
        assert not meta.sop_instance_uid or is_uid(meta.sop_instance_uid)
