"""Export and import by the command line, with DCMTK's tools as the other party on both ways."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet

from archive.cli import main
from archive.index import open_index
from tests import builders
from tests.endtoend.dcmtk import run as dcmtk

STUDIES = ("1.2.826.0.1.3680043.10.999.8.1", "1.2.826.0.1.3680043.10.999.8.2")
NAMES = {"PatientID": "MÜ1", "PatientName": "Müller^Jörg", "SpecificCharacterSet": "ISO_IR 100"}
JPEG_LS = "1.2.840.10008.1.2.4.80"


class Site:
    """An archive without a daemon."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.config = folder / "archive.yaml"
        settings = {
            "ae": {"title": "ARCHIVE"}, "storage": {"path": str(folder / "files"), "reserve": "1MB"},
            "index": {"url": f"sqlite:///{folder}/index.db"}, **more,
        }  # fmt: skip
        self.config.write_text(yaml.safe_dump(settings))

    def run(self, *arguments: object, good: int = 0) -> Any:
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            status = main([*map(str, arguments), "--json", "--config", str(self.config)])
        assert status == good, out.getvalue() + errors.getvalue()
        return json.loads(out.getvalue()) if out.getvalue() else errors.getvalue()

    def objects(self) -> list[Path]:
        return sorted((self.folder / "files" / "objects").rglob("*.dcm"))

    def stored(self) -> set[str]:
        index = open_index(f"sqlite:///{self.folder}/index.db")
        try:
            return {each.instance.sop_instance_uid for each in index.queue.described(())}
        finally:
            index.close()


def sources() -> list[Dataset]:
    first, second = STUDIES
    title = Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "11528-7", "LN", "Radiology Report"
    return [
        builders.ct(StudyInstanceUID=first, SeriesInstanceUID=f"{first}.1", InstanceNumber=1, **NAMES),
        builders.ct(StudyInstanceUID=first, SeriesInstanceUID=f"{first}.1", InstanceNumber=2, **NAMES),
        builders.sr(
            StudyInstanceUID=first, SeriesInstanceUID=f"{first}.2", ContentDate="20240131", ContentTime="1200",
            ConceptNameCodeSequence=[title], **NAMES,
        ),
        builders.mr(StudyInstanceUID=second, SeriesInstanceUID=f"{second}.1", StudyID="", InstanceNumber=None),
    ]


@pytest.fixture
def objects() -> list[Dataset]:
    return sources()


@pytest.fixture
def site(tmp_path: Path, objects: list[Dataset]) -> Site:
    made = Site(tmp_path / "site")
    (tmp_path / "in").mkdir()
    for number, each in enumerate(objects):
        builders.write(tmp_path / "in" / f"{number}.dcm", each)
    made.run("import", tmp_path / "in")
    return made


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def uids(objects: list[Dataset]) -> set[str]:
    return {str(each.SOPInstanceUID) for each in objects}


# -- export -----------------------------------------------------------------------------------------------------


def test_a_medium_is_read_by_dcmtk_and_pydicom(site: Site, objects: list[Dataset], tmp_path: Path) -> None:
    medium = tmp_path / "cd"
    assert site.run("export", *STUDIES, "--to", medium, "--dicomdir")["written"] == 4
    dump = dcmtk("dcmdump", "+U8", medium / "DICOMDIR")
    assert "Müller^Jörg" in dump and "error" not in dump.lower()
    assert sorted(dump.count(f"[{kind}]") for kind in ("PATIENT", "STUDY", "SERIES", "SR DOCUMENT")) == [1, 2, 2, 3]
    read = FileSet(medium / "DICOMDIR")
    assert {str(each.SOPInstanceUID) for each in read} == uids(objects)
    for each in read:
        whole = each.load()
        assert whole.SOPInstanceUID == each.SOPInstanceUID
        assert all(len(part) == 8 and part.isalnum() for part in Path(each.path).relative_to(medium).parts)
        dcmtk("dcmftest", each.path)


def test_an_independent_writer_lists_the_same(site: Site, tmp_path: Path) -> None:
    """DCMTK makes a DICOMDIR of the exported files; its records name the same objects in the same files."""
    medium = tmp_path / "cd"
    site.run("export", *STUDIES, "--to", medium, "--dicomdir")
    ours = pydicom.dcmread(medium / "DICOMDIR")
    (medium / "DICOMDIR").rename(tmp_path / "ours")
    dcmtk("dcmmkdir", "+r", "+I", "-Pgp", "+id", medium, "+D", medium / "DICOMDIR", "-W")
    theirs = pydicom.dcmread(medium / "DICOMDIR")

    def listed(read: Dataset) -> set[tuple[str, str, str]]:
        return {
            (record.DirectoryRecordType, record.ReferencedSOPInstanceUIDInFile, "/".join(record.ReferencedFileID))
            for record in read.DirectoryRecordSequence
            if "ReferencedFileID" in record
        }

    assert listed(ours) == listed(theirs)


def test_what_is_exported_again_is_left_and_another_file_is_not_overwritten(site: Site, tmp_path: Path) -> None:
    medium = tmp_path / "cd"
    export = ("export", *STUDIES, "--to", medium, "--dicomdir")
    site.run(*export)
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in files(medium)}
    assert site.run(*export) == {"to": str(medium), "written": 0, "already there": 4, "failed": []}
    assert {path: (path.read_bytes(), path.stat().st_ino) for path in files(medium)} == before
    victim = next(path for path in before if path.name != "DICOMDIR")
    victim.write_bytes(b"somebody's own")
    (failed,) = site.run(*export, good=1)["failed"][:1]
    assert failed["reason"] == "another file of this name is there" and victim.read_bytes() == b"somebody's own"
    site.run(*export, "--force")
    assert {path: path.read_bytes() for path in files(medium)} == {path: said[0] for path, said in before.items()}


def test_more_studies_join_a_medium_and_fewer_do_not_unlist_any(site: Site, tmp_path: Path) -> None:
    medium = tmp_path / "cd"
    site.run("export", STUDIES[0], "--to", medium, "--dicomdir")
    assert site.run("export", *STUDIES, "--to", medium, "--dicomdir")["already there"] == 3
    assert len(FileSet(medium / "DICOMDIR")) == 4
    (failed,) = site.run("export", STUDIES[1], "--to", medium, "--dicomdir", good=1)["failed"]
    assert failed["name"] == "DICOMDIR" and len(FileSet(medium / "DICOMDIR")) == 4


def test_a_damaged_object_is_named_and_the_others_go(site: Site, objects: list[Dataset], tmp_path: Path) -> None:
    broken = site.objects()[0]
    data = bytearray(broken.read_bytes())
    data[-1] ^= 1
    broken.write_bytes(data)
    uid = str(pydicom.dcmread(broken).SOPInstanceUID)
    for to in (tmp_path / "cd", tmp_path / "cd.zip"):
        said = site.run("export", *STUDIES, "--to", to, "--dicomdir", good=1)
        assert said["written"] == 3
        assert [each["sop_instance_uid"] for each in said["failed"]] == [uid]
        assert "damaged" in said["failed"][0]["reason"]
    assert {str(each.SOPInstanceUID) for each in FileSet(tmp_path / "cd" / "DICOMDIR")} == uids(objects) - {uid}
    assert not [path for path in files(tmp_path) if path.name.endswith(".part")]


def test_a_query_and_a_layout_choose_objects_and_names(site: Site, tmp_path: Path) -> None:
    to = tmp_path / "out"
    layout = "{PatientID}/{Modality}/{SOPInstanceUID}.dcm"
    query = ("--level", "series", "--from-query", "Modality=CT", f"StudyInstanceUID={STUDIES[0]}")
    assert site.run("export", "--to", to, "--layout", layout, *query)["written"] == 2
    assert {path.parent.relative_to(to).as_posix() for path in files(to)} == {"MÜ1/CT"}
    assert "images would overwrite" in site.run("export", *STUDIES, "--to", to, "--layout", "x", good=2)
    assert "nothing is stored" in site.run("export", "1.2.3.4", "--to", to, good=1)


def test_transcoded_images_have_the_same_pixels_and_reports_stay(
    site: Site, objects: list[Dataset], tmp_path: Path
) -> None:
    to = tmp_path / "out"
    site.run("export", *STUDIES, "--to", to, "--transcode", "jpeg-ls")
    for path in files(to):
        read = pydicom.dcmread(path)
        (source,) = [each for each in objects if each.SOPInstanceUID == read.SOPInstanceUID]
        if "PixelData" in source:
            assert read.file_meta.TransferSyntaxUID == JPEG_LS
            dcmtk("dcmdjpls", path, tmp_path / "plain.dcm")
            assert pydicom.dcmread(tmp_path / "plain.dcm").PixelData == source.PixelData
        else:
            assert not read.file_meta.TransferSyntaxUID.is_compressed
    assert "not a transfer syntax" in site.run("export", *STUDIES, "--to", to, "--transcode", "fax", good=2)


def test_coercion_on_send_is_in_the_files_and_makes_the_same_files_again(tmp_path: Path) -> None:
    rule = {"on": "send", "set": {"PatientName": "Nobody"}}
    site = Site(tmp_path / "coercing", coerce=[rule])
    (tmp_path / "in").mkdir()
    builders.write(tmp_path / "in" / "0.dcm", builders.ct(StudyInstanceUID=STUDIES[0]))
    site.run("import", tmp_path / "in")
    to = tmp_path / "cd"
    for count in ("written", "already there"):
        assert site.run("export", STUDIES[0], "--to", to, "--dicomdir")[count] == 1
    (path,) = [path for path in files(to) if path.name != "DICOMDIR"]
    read = pydicom.dcmread(path)
    assert read.PatientName == "Nobody" and read.OriginalAttributesSequence
    assert "[Nobody]" in dcmtk("dcmdump", to / "DICOMDIR")


def test_corrections_are_in_the_files_and_in_the_directory(site: Site, tmp_path: Path) -> None:
    site.run("corrections", "edit", "study", STUDIES[0], "StudyDescription=What it was", "--reason", "typo")
    medium = tmp_path / "cd"
    for count, number in (("written", 4), ("already there", 4)):
        assert site.run("export", *STUDIES, "--to", medium, "--dicomdir")[count] == number
    said = {pydicom.dcmread(path).StudyDescription for path in files(medium) if path.name != "DICOMDIR"}
    assert said == {"What it was", "MR of the phantom"}
    assert "[What it was]" in dcmtk("dcmdump", medium / "DICOMDIR")


def test_where_nothing_can_be_written_is_said(site: Site, tmp_path: Path) -> None:
    for to in (tmp_path / "no" / "folder", tmp_path / "no" / "file.zip"):
        assert "No such file or directory" in site.run("export", *STUDIES, "--to", to, good=1)
    (tmp_path / "taken").write_text("a file")
    assert "File exists" in site.run("export", *STUDIES, "--to", tmp_path / "taken", good=1)


# -- ZIP --------------------------------------------------------------------------------------------------------


def test_a_zip_goes_round(site: Site, objects: list[Dataset], tmp_path: Path) -> None:
    path = tmp_path / "out.zip"
    assert site.run("export", *STUDIES, "--to", path, "--dicomdir")["written"] == 4
    assert "this file is there already" in site.run("export", *STUDIES, "--to", path, good=1)
    subprocess.run(["python3", "-m", "zipfile", "-t", str(path)], check=True, timeout=300, capture_output=True)
    with zipfile.ZipFile(path) as opened:
        opened.extractall(tmp_path / "unpacked")
    assert len(FileSet(tmp_path / "unpacked" / "DICOMDIR")) == 4
    other = Site(tmp_path / "other")
    assert other.run("import", path) == {"stored": 4, "already there": 0, "skipped": 1, "refused": []}
    assert other.stored() == uids(objects)
    assert other.run("import", path)["already there"] == 4


def test_hostile_zips_are_refused_and_good_members_of_others_taken(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    mixed, lying = tmp_path / "mixed.zip", tmp_path / "lying.zip"
    with zipfile.ZipFile(mixed, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("../../../escape.dcm", builders.part10(builders.ct()))
        made.writestr("a/b/c/deep.dcm", builders.part10(builders.ct()))
        made.writestr("README.TXT", "not an image")
        made.writestr("cut.dcm", builders.part10(builders.ct())[:-20])
    said = site.run("import", mixed, good=1)
    assert (said["stored"], said["skipped"]) == (2, 1) and len(said["refused"]) == 1
    assert not list(tmp_path.rglob("escape.dcm"))
    with zipfile.ZipFile(lying, "w") as made:
        made.writestr("one.dcm", builders.part10(builders.ct()))
    data = bytearray(lying.read_bytes())
    at = data.rfind(b"PK\1\2")
    data[at + 20 : at + 24] = (1 << 30).to_bytes(4, "little")  # more in it than there is
    lying.write_bytes(data)
    (tmp_path / "cut.zip").write_bytes(mixed.read_bytes()[:200])
    for bad in (lying, tmp_path / "cut.zip"):
        assert site.run("import", bad, good=1)["stored"] == 0


# -- DICOMDIR ---------------------------------------------------------------------------------------------------


@pytest.fixture
def medium(tmp_path: Path, objects: list[Dataset]) -> Iterator[Path]:
    """A medium that DCMTK made."""
    folder = tmp_path / "medium"
    (folder / "IMAGES").mkdir(parents=True)
    for number, each in enumerate(objects[:2]):
        builders.write(folder / "IMAGES" / f"IM{number:04d}", each)
    dcmtk("dcmmkdir", "+r", "+I", "-Pgp", "+id", folder, "+D", folder / "DICOMDIR", "-W")
    yield folder


def test_a_medium_is_imported_by_its_dicomdir(medium: Path, objects: list[Dataset], tmp_path: Path) -> None:
    builders.write(medium / "IMAGES" / "UNLISTED")
    site = Site(tmp_path / "new")
    assert site.run("import", medium)["stored"] == 2
    assert site.stored() == uids(objects[:2])
    assert site.run("import", medium / "DICOMDIR")["already there"] == 2
    assert site.run("import", "--all-files", medium, good=1)["stored"] == 1


def test_names_are_found_in_lower_case_and_with_versions(medium: Path, objects: list[Dataset], tmp_path: Path) -> None:
    for path in files(medium / "IMAGES"):
        path.rename(path.with_name(f"{path.name.lower()}.;1"))
    (medium / "IMAGES").rename(medium / "images")
    (medium / "DICOMDIR").rename(medium / "dicomdir;1")
    site = Site(tmp_path / "new")
    assert site.run("import", medium)["stored"] == 2 and site.stored() == uids(objects[:2])


def test_missing_files_are_named_and_paths_out_of_the_medium_refused(medium: Path, tmp_path: Path) -> None:
    builders.write(tmp_path / "SECRET")
    read = pydicom.dcmread(medium / "DICOMDIR")
    records = [record for record in read.DirectoryRecordSequence if "ReferencedFileID" in record]
    records[0].ReferencedFileID = ["..", "SECRET"]
    read.save_as(medium / "DICOMDIR")
    (medium / "IMAGES" / records[1].ReferencedFileID[1]).unlink()
    site = Site(tmp_path / "new")
    said = site.run("import", medium, good=1)
    assert said["stored"] == 0
    assert sorted(each["reason"] for each in said["refused"]) == [
        "DICOMDIR names a file outside of the medium",
        "DICOMDIR names a file that is missing",
    ]
    (medium / "DICOMDIR").write_bytes(b"nonsense" * 100)
    assert site.run("import", medium, good=1)["stored"] == 0
