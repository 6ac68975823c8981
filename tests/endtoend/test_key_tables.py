"""Every key of the conformance statements' tables, ticked by findscu: matched each way its VR allows, and returned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

from tests.dimse.archives import instance, write
from tests.endtoend.dcmtk import Client
from tests.endtoend.key_tables import ALL, TABLE_4, TABLE_5, TABLE_6, TABLE_7, TABLE_10, Row
from tests.faults.daemon import Daemon

WITHOUT_WILDCARDS = {"AS", "DA", "DS", "IS", "TM", "UI", "US"}
COUNTS = {"STUDY": ("2", "1"), "SERIES": ("2", "1")}  # of series and of images
UNIQUE = {"PATIENT": "00100020", "STUDY": "0020000D", "SERIES": "0020000E", "IMAGE": "00080018"}
FIRST = {row.level: row.first for row in ALL if row.tag == UNIQUE.get(row.level)}
SECOND = {row.level: row.second for row in ALL if row.tag == UNIQUE.get(row.level)}


def put(found: Dataset, row: Row, value: str) -> None:
    """A value where the row has it: in the data set, or in the one item of a sequence."""
    vr = dictionary_VR(int(row.tag, 16))
    if row.sequence:
        tag = int(row.sequence, 16)
        if tag not in found:
            found.add_new(tag, "SQ", [Dataset()])
        found = found[tag].value[0]
    found.add_new(int(row.tag, 16), vr, int(value) if vr == "US" else value.split("\\") if "\\" in value else value)


def made(number: int, **second: bool) -> Dataset:
    """An object with the first value of every row, but the second ones at some levels."""
    found = instance(number, size=2)
    found.SpecificCharacterSet = "ISO_IR 192"
    for row in [*TABLE_4, *TABLE_5, *TABLE_6, *TABLE_7, *TABLE_10]:
        # Computed keys are in no object; the study's body part and modality come from its first series.
        if row.first and row.keyword != "ModalitiesInStudy" and not (row.table == "10" and not row.sequence):
            put(found, row, row.second if second.get(row.level) else row.first)
    if second.get("STUDY"):
        found.Modality, found.BodyPartExamined = "US", "ABDOMEN"
        found.StudyInstanceUID = SECOND["STUDY"]
        found.SeriesInstanceUID, found.SOPInstanceUID = SECOND["STUDY"] + ".1", SECOND["STUDY"] + ".1.1"
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID
    return found


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("keys")
    second_series = made(3, SERIES=True)
    second_series.SOPInstanceUID = SECOND["SERIES"] + ".1"
    second_series.file_meta.MediaStorageSOPInstanceUID = second_series.SOPInstanceUID
    everything = [made(1), made(2, IMAGE=True), second_series, made(4, PATIENT=True, STUDY=True)]
    objects = write(folder / "objects", *everything)  # in this order: a study keeps what its first object says
    with Daemon(folder / "archive", {"processes": 1}) as found:
        Client(found).call("storescu", rest=objects)
        yield found


def path(row: Row) -> str:
    inner = f"({row.tag[:4]},{row.tag[4:]})"
    return f"({row.sequence[:4]},{row.sequence[4:]})[0].{inner}" if row.sequence else inner


def ask(daemon: Daemon, folder: Path, row: Row, value: str) -> dict[str, str]:
    """The answers to a query with this key: unique key to the value returned for it."""
    keys = {"(0008,0052)": row.level, "(0008,0005)": "ISO_IR 192"}
    for level in ("STUDY", "SERIES"):  # the hierarchy of the study root
        if row.level != level and (row.level, level) in {("SERIES", "STUDY"), ("IMAGE", "STUDY"), ("IMAGE", "SERIES")}:
            keys[f"({UNIQUE[level][:4]},{UNIQUE[level][4:]})"] = FIRST[level]
    unique = UNIQUE[row.level]
    keys.setdefault(f"({unique[:4]},{unique[4:]})", "")
    keys[path(row)] = value
    folder.mkdir(exist_ok=True)
    arguments = [part for key, text in keys.items() for part in ("-k", f"{key}={text}")]
    Client(daemon).call("findscu", "-P" if row.level == "PATIENT" else "-S", "-X", "-od", folder, rest=arguments)
    found = {}
    for file in folder.glob("rsp*.dcm"):
        answer = pydicom.dcmread(file, force=True)
        found[str(answer[int(unique, 16)].value)] = returned(answer, row)
        file.unlink()
    return found


def returned(answer: Dataset, row: Row) -> str:
    if row.sequence:
        answer = answer[int(row.sequence, 16)].value[0]
    value = answer[int(row.tag, 16)].value
    return "\\".join(map(str, value)) if isinstance(value, pydicom.multival.MultiValue) else str(value)


def ways(row: Row) -> list[str]:
    """Keys that match the first entity and not the second."""
    vr, first = dictionary_VR(int(row.tag, 16)), row.first
    value = first.split("\\")[0]
    found = [value]
    if vr == "DA":
        found += [f"{value[:6]}01-{value[:6]}28" if value[6:] < "29" else f"{value}-{value}", f"-{value}"]
    elif vr == "TM":
        found += [f"{value[:2]}-{value[:2]}30", f"-{value}"]
    elif vr not in WITHOUT_WILDCARDS:
        found += [f"{value[:-1]}*", f"?{value[1:]}", f"*{value[1:]}"] if len(value) > 1 else [f"{value}*"]
    if vr == "PN":
        found += [value.upper(), "ang*" if value.startswith("Å") else value.lower()]
    if vr == "UI":
        found += [f"{value}\\1.2.3"]
    return found


def label(row: Row) -> str:
    return f"table {row.table}: {row.level} {row.sequence}{'.' if row.sequence else ''}{row.keyword}"


@pytest.mark.parametrize("row", ALL, ids=label)
def test_a_key_is_matched_and_returned(daemon: Daemon, tmp_path: Path, row: Row) -> None:
    first, second = FIRST[row.level], SECOND[row.level]
    everything = ask(daemon, tmp_path, row, "")
    if not row.first:
        number = 0 if row.keyword.endswith("RelatedSeries") else 1
        expected = {"STUDY": ("21", "31"), "SERIES": ("", "21")}[row.level][number]
        assert everything == {first: expected[0], second: expected[1]}
        return
    if row.keyword in ("Modality", "ModalitiesInStudy") and row.level == "STUDY":
        assert everything == {first: "CT\\PR", second: "US"}
    else:
        assert {key: text.split("\\")[0] for key, text in everything.items()} == {
            first: row.first.split("\\")[0], second: row.second.split("\\")[0],
        }  # fmt: skip
    for way in ways(row):
        assert list(ask(daemon, tmp_path, row, way)) == [first], way


def test_every_table_is_there_whole() -> None:
    counted = Counter(row.table for row in ALL)
    assert counted == {"4": 5, "5": 30, "6": 7, "7": 12, "9": 12, "10": 8, "11": 3}
