"""Corrections as users see them: by the command line, found and fetched by DCMTK, the files as they were."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from archive.cli import main
from tests import builders
from tests.endtoend.dcmtk import Client, query, storescp
from tests.faults.daemon import Daemon, wait_until

STUDIES = ("1.2.826.0.1.3680043.10.999.7.1", "1.2.826.0.1.3680043.10.999.7.2")
SERIES = tuple(f"{study}.1" for study in STUDIES)
WRONG = {"PatientID": "WRONG", "PatientName": "Müller^Jörg", "SpecificCharacterSet": "ISO_IR 100",
         "PatientBirthDate": "19010101", "AccessionNumber": "N1", "PatientAddress": "Nowhere 1"}  # fmt: skip
RIGHT = {"PatientID": "RIGHT", "PatientName": "Right^Person", "PatientBirthDate": None, "PatientSex": "F"}


class Site:
    """A daemon with two studies of two patients, and a workstation it may move to."""

    def __init__(self, folder: Path, index_url: str) -> None:
        self.folder, self.moved = folder, folder / "moved"
        self._receiver = storescp(self.moved, "+xa", "+B")
        peer = {"WORK": {"host": "127.0.0.1", "port": self._receiver.__enter__(), "allow": ["echo"]}}
        self.daemon = Daemon(folder, {"peers": peer, "processes": 1, "index": {"url": index_url}}).start()
        self.client = Client(self.daemon)
        self.number = 0
        self.store(STUDIES[0], **WRONG)
        self.store(STUDIES[0], **WRONG)
        self.store(STUDIES[1], **RIGHT)
        self.before = self.digests()

    def store(self, study: str, **values: Any) -> str:
        self.number += 1
        sent = builders.ct(StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1", **values)
        path = builders.write(self.folder / f"sent{self.number}.dcm", sent)
        self.client.call("storescu", rest=[path])
        return str(sent.SOPInstanceUID)

    def digests(self) -> dict[str, str]:
        files = sorted((self.folder / "files" / "objects").rglob("*.dcm"))
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def archive(self, *arguments: str, good: int = 0) -> Any:
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            status = main([*arguments, "--config", str(self.daemon.config_file)])
        assert status == good, out.getvalue() + errors.getvalue()
        return json.loads(out.getvalue()) if "--json" in arguments else out.getvalue() + errors.getvalue()

    def correct(self, *arguments: str) -> Any:
        return self.archive("corrections", *arguments, "--reason", "wrong wristband", "--json")

    def found(self, level: str, **keys: str) -> str:
        return self.client.call("findscu", *query(level, **keys))

    def fetched(self, study: str) -> list[Dataset]:
        folder = self.folder / f"fetched{len(list(self.folder.glob('fetched*')))}"
        folder.mkdir()
        self.client.call("getscu", "-od", folder, *query("STUDY", StudyInstanceUID=study))
        return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]

    def moved_to(self, study: str) -> list[Dataset]:
        for path in self.moved.iterdir():
            path.unlink()
        self.client.call("movescu", "-aem", "WORK", *query("STUDY", StudyInstanceUID=study))
        return [pydicom.dcmread(path) for path in sorted(self.moved.iterdir())]

    def close(self) -> None:
        assert self.daemon.stop() == 0
        self._receiver.__exit__(None, None, None)


@pytest.fixture
def site(index_url: str, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, index_url)
    yield made
    after = made.digests()
    assert {path: after[path] for path in made.before} == made.before  # whatever was corrected
    made.close()


def test_a_study_given_to_another_patient_is_found_and_sent_as_that_ones(site: Site) -> None:
    site.correct("move", "RIGHT", STUDIES[0])
    assert STUDIES[0] in site.found("STUDY", PatientID="RIGHT", StudyInstanceUID="")
    assert STUDIES[0] not in site.found("STUDY", PatientID="WRONG", StudyInstanceUID="")
    for images in (site.fetched(STUDIES[0]), site.moved_to(STUDIES[0])):
        assert len(images) == 2
        for image in images:
            assert (image.PatientID, str(image.PatientName), image.PatientSex) == ("RIGHT", "Right^Person", "F")
            assert image.PatientBirthDate == "" and "PatientAddress" not in image
            (original,) = image.OriginalAttributesSequence
            was = original.ModifiedAttributesSequence[0]
            assert (was.PatientID, str(was.PatientName), was.PatientBirthDate) == ("WRONG", "Müller^Jörg", "19010101")
            assert was.PatientAddress == "Nowhere 1"
            assert (original.ReasonForTheAttributeModification, original.ModifyingSystem) == ("CORRECT", "ARCHIVE")
            assert original.AttributeModificationDateTime and "SourceOfPreviousValues" in original
            assert image.PixelData == builders.ct().PixelData
    late = site.store(STUDIES[0], **WRONG)
    assert late in {image.SOPInstanceUID for image in site.fetched(STUDIES[0])}
    site.archive("corrections", "undo", "1", "--reason", "it was right")
    images = site.fetched(STUDIES[0])
    assert [image.PatientID for image in images] == ["WRONG"] * 3
    assert all("OriginalAttributesSequence" not in image for image in images)


def test_merged_edited_and_moved_objects_go_out_as_the_index_says(site: Site) -> None:
    site.correct("merge", "WRONG", "RIGHT")
    site.correct("edit", "patient", "RIGHT", "PatientName=山田^花子=Right^Person", "PatientSex")
    code = '[{"CodeValue": "CT1", "CodingSchemeDesignator": "99X", "CodeMeaning": "chest"}]'
    code = f"ProcedureCodeSequence={code}"
    site.correct("edit", "study", STUDIES[0], "AccessionNumber=N77", "StudyDescription=", code)
    site.correct("edit", "series", SERIES[0], "SeriesDescription=left is left")
    assert STUDIES[0] in site.found("STUDY", AccessionNumber="N77", StudyInstanceUID="")
    for image in site.fetched(STUDIES[0]):
        assert (image.PatientID, str(image.PatientName)) == ("RIGHT", "山田^花子=Right^Person")
        assert image.PatientBirthDate == "19010101"  # the same person, of whom nothing else is known
        assert image.PatientSex == ""
        assert (image.AccessionNumber, image.StudyDescription, image.SeriesDescription) == ("N77", "", "left is left")
        assert [code.CodeMeaning for code in image.ProcedureCodeSequence] == ["chest"]
        assert len(image.OriginalAttributesSequence) == 1
    site.correct("move-series", STUDIES[1], SERIES[0])
    assert "Related" not in site.found("STUDY", StudyInstanceUID=STUDIES[0])
    images = site.fetched(STUDIES[1])
    assert {image.StudyInstanceUID for image in images} == {STUDIES[1]}
    assert {image.AccessionNumber for image in images} == {"A0001"}
    assert sorted(image.SeriesDescription for image in images) == ["left is left", "left is left", "one"]
    assert site.fetched(STUDIES[0]) == []
    newest = site.archive("corrections", "list", "--json")
    assert [each["kind"] for each in newest] == ["move series", "edit", "edit", "edit", "merge"]
    assert all(each["actor"] and each["reason"] == "wrong wristband" for each in newest)
    for number in range(5, 0, -1):
        site.correct("undo", str(number))
    assert {image.StudyInstanceUID for image in site.fetched(STUDIES[0])} == {STUDIES[0]}


@pytest.mark.parametrize("index_url", ["sqlite"], indirect=True)
def test_an_index_rebuilt_from_the_files_has_the_corrections_too(site: Site) -> None:
    site.correct("merge", "WRONG", "RIGHT")
    site.correct("edit", "study", STUDIES[0], "AccessionNumber=N77")
    keys = {"PatientID": "", "PatientName": "", "AccessionNumber": "", "StudyInstanceUID": ""}
    answers = site.found("STUDY", **keys)
    assert site.daemon.stop() == 0
    for path in site.folder.glob("index.db*"):
        path.unlink() if path.is_file() else [each.unlink() for each in path.iterdir()]
    site.archive("reindex")
    site.daemon.start()
    assert site.found("STUDY", **keys) == answers
    site.correct("undo", "1")
    assert STUDIES[0] in site.found("STUDY", PatientID="WRONG", StudyInstanceUID="")


def test_the_command_line_refuses_in_words_and_tries_without_doing(site: Site) -> None:
    text = site.archive("corrections", "merge", "WRONG", "RIGHT", "--reason", "x", "--dry-run")
    assert "would be operation 1: merge, WRONG -> RIGHT" in text
    assert site.archive("corrections", "list", "--json") == []
    text = site.archive("corrections", "merge", "WRONG", "NOBODY", "--reason", "x", good=1)
    assert "no such patient" in text
    text = site.archive("corrections", "edit", "study", STUDIES[0], "StudyDate=yesterday", "--reason", "x", good=1)
    assert "StudyDate: not a value: a date as YYYYMMDD" in text
    site.correct("link", "WRONG", "RIGHT")
    assert site.archive("corrections", "links", "WRONG", "--json") == [{"patient": "RIGHT"}]
    assert "nothing to do" in site.archive("corrections", "link", "RIGHT", "WRONG", "--reason", "x")
    assert "wrong wristband" in site.archive("corrections", "show", "1")


@pytest.mark.parametrize("index_url", ["sqlite"], indirect=True)
def test_deleted_objects_are_gone_their_files_too_and_come_again_anew(site: Site) -> None:
    assert "nothing was deleted" in site.archive("delete", STUDIES[0], good=1)
    assert f"study {STUDIES[0]}: 2 instances" in site.archive("delete", STUDIES[0], "--dry-run")
    assert len(site.fetched(STUDIES[0])) == 2
    assert "deleted: 2 instances" in site.archive("delete", STUDIES[0], "--yes", "--reason", "phantom")
    assert STUDIES[0] not in site.found("STUDY", StudyInstanceUID="")
    assert site.fetched(STUDIES[0]) == []
    wait_until(lambda: len(site.digests()) == 1, 20)
    site.client.call("storescu", rest=[site.folder / "sent1.dcm"])
    assert len(site.fetched(STUDIES[0])) == 1
    site.daemon.kill()
    (series,) = {image.SeriesInstanceUID for image in [pydicom.dcmread(site.folder / "sent1.dcm")]}
    site.archive("delete", str(series), "--yes")  # nobody is there to unlink the file
    assert len(site.digests()) == 2
    site.daemon.start()
    wait_until(lambda: len(site.digests()) == 1, 20)
    assert [each["kind"] for each in site.archive("corrections", "list", "--json")] == ["delete", "delete"]
    assert "no such study" in site.archive("delete", STUDIES[0], "--yes", good=1)
    site.before = site.digests()


@pytest.mark.parametrize("index_url", ["sqlite"], indirect=True)
def test_deleted_objects_do_not_come_back_by_reindex(site: Site) -> None:
    site.daemon.kill()
    site.archive("delete", STUDIES[0], "--yes")
    assert len(site.digests()) == 3
    for path in site.folder.glob("index.db*"):
        path.unlink() if path.is_file() else [each.unlink() for each in path.iterdir()]
    site.archive("reindex")
    site.daemon.start()
    assert STUDIES[0] not in site.found("STUDY", StudyInstanceUID="")
    assert STUDIES[1] in site.found("STUDY", StudyInstanceUID="")
    assert len(site.digests()) == 1
    site.before = site.digests()
