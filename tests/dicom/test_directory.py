"""DICOMDIRs are read back by pydicom, whatever objects they list."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from pydicom.fileset import FileSet

from archive.dicom.directory import Directory, header_of, references
from archive.dicom.records import record_type
from archive.errors import NotUnderstood
from tests import builders


def test_every_sample_can_be_listed_and_is_found(tmp_path: Path) -> None:
    directory, names = Directory(), {}
    for number, sample in enumerate(builders.samples()):
        file_id = ("IMAGES", f"IM{number:06d}")
        path = tmp_path / Path(*file_id)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(builders.file_meta(
            str(sample.dataset.SOPClassUID), str(sample.dataset.SOPInstanceUID), sample.syntax
        ) + sample.data)  # fmt: skip
        with path.open("rb") as file:
            directory.add(header_of(file), file_id)
        names[str(sample.dataset.SOPInstanceUID)] = file_id
    (tmp_path / "DICOMDIR").write_bytes(directory.encoded())
    read = FileSet(tmp_path / "DICOMDIR")
    assert {str(each.SOPInstanceUID) for each in read} == set(names)
    assert set(references(io.BytesIO(directory.encoded()))) >= set(names.values())
    assert directory.encoded() == directory.encoded()


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [("2", "IMAGE"), ("88.11", "SR DOCUMENT"), ("88.59", "KEY OBJECT DOC"), ("11.1", "PRESENTATION"),
     ("9.1.1", "WAVEFORM"), ("104.1", "ENCAP DOC"), ("481.5", "RT PLAN"), ("66.4", "IMAGE"), ("66", "RAW DATA")],
)  # fmt: skip
def test_an_object_is_listed_by_its_kind(suffix: str, kind: str) -> None:
    assert record_type(f"1.2.840.10008.5.1.4.1.1.{suffix}") == kind
    assert record_type("1.2.3") == "IMAGE"


def test_what_is_no_dicomdir_is_not_understood() -> None:
    for data in (b"", b"nonsense" * 100, builders.part10(builders.ct())):
        with pytest.raises(NotUnderstood):
            references(io.BytesIO(data))
