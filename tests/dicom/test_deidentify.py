"""De-identification: every attribute by its code, no unique string gets through, the same for the same, streamed."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache

import pydicom
import pytest
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from archive.dicom.confidentiality import BASIC, CLASS_UIDS, METHODS, OPTIONS, Profile
from archive.dicom.convert import convert
from archive.dicom.deidentify import Deidentifier
from archive.dicom.pseudonyms import Pseudonyms, shifted
from archive.errors import NotUnderstood

KEY = "a secret of at least thirty-two characters"
EXPLICIT, IMPLICIT, BIG, DEFLATED = (f"1.2.840.10008.1.2{end}" for end in (".1", "", ".2", ".1.99"))
JPEG = "1.2.840.10008.1.2.4.50"
CANARY = "KANARI"
MAPPED = "1.2.3.4.5.6.7"  # the beginning of every UID that must not come out
TEXTS = {"LO", "SH", "PN", "ST", "LT", "UT", "UC", "UR", "CS", "AE"}
VALUES: dict[str, object] = {
    "DA": "20240229", "TM": "101112", "DT": "20240229101112", "AS": "047Y", "DS": "1.5", "IS": "7", "UI": MAPPED,
    "US": 7, "SS": 7, "UL": 7, "SL": 7, "FL": 7.0, "FD": 7.0, "AT": 0x00100010, "UV": 7, "SV": 7,
}  # fmt: skip


def value(tag: int, vr: str) -> object:
    if vr in TEXTS:
        return f"{CANARY} {tag:08X}"[:16]
    return VALUES.get(vr, f"{CANARY} {tag:08X} ".encode())


def add(ds: Dataset, tag: int) -> None:
    vr = dictionary_VR(tag).split(" or ")[-1]
    if vr == "SQ":
        inner = Dataset()
        inner.add_new(0x00080050, "SH", f"{CANARY} inner")
        inner.add_new(0x0040A123, "PN", f"{CANARY}^Inner")
        inner.add_new(0x00081155, "UI", f"{MAPPED}.9")
        inner.add_new(0x00090010, "LO", CANARY)
        ds.add_new(tag, "SQ", Sequence([inner]))
    else:
        ds[tag] = DataElement(tag, vr, value(tag, vr))


def encoded(ds: Dataset, syntax: str = EXPLICIT) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax != BIG, syntax == IMPLICIT
    write_dataset(buffer, ds)
    return buffer.getvalue()


def decoded(data: bytes, syntax: str = EXPLICIT) -> Dataset:
    return pydicom.filereader.read_dataset(io.BytesIO(data), syntax == IMPLICIT, syntax != BIG)


def made(data: bytes, *options: str, syntax: str = EXPLICIT, key: str = KEY) -> bytes:
    by = Deidentifier(options, key)
    person = by.person(by.look(iter([data]), syntax))
    return b"".join(by.pieces(iter([data]), syntax, person))


def known(tags: object) -> Iterator[int]:
    for tag in tags:  # type: ignore[attr-defined]
        if keyword_for_tag(tag):
            yield tag


@lru_cache(maxsize=1)
def everything() -> Dataset:
    """All that the table names; nobody changes it."""
    ds = Dataset()
    for tag in known(BASIC):
        add(ds, tag)
    return ds


@lru_cache(maxsize=1)
def everywhere() -> Dataset:
    """The same, with all names and free text that it does not name, private, nested, overlays and curves."""
    ds = Dataset()
    ds.update(everything())
    names = {"PN", "LT", "ST", "UT", "UC", "UR", "AE"}
    codes = {0x0008010E, 0x00080114, 0x00080115, 0x00080116, 0x00080119, 0x00080120}
    for tag, entry in DicomDictionary.items():
        if tag not in BASIC and entry[0] in names and tag >> 16 >= 8 and tag not in codes:
            add(ds, tag)
    deep = Dataset()
    deep.add_new(0x00400275, "SQ", Sequence([everything()]))
    deep.PersonName, deep.TextValue = f"{CANARY}^Deep", CANARY
    ds.PerFrameFunctionalGroupsSequence = ds.SharedFunctionalGroupsSequence = Sequence([deep])
    for tag, vr in ((0x00090010, "LO"), (0x00091001, "PN"), (0x50000022, "LO"), (0x60003000, "OW"),
                    (0x60020022, "LO"), (0x60004000, "LT"), (0x00281FFF, "LO"), (0x7FE10010, "LO")):  # fmt: skip
        ds.add_new(tag, vr, f"{CANARY} more".encode() if vr == "OW" else f"{CANARY} more")
    ds.add_new(0x00091002, "SQ", Sequence([everything()]))
    return ds


def test_the_table_is_whole() -> None:
    """As many rows as table E.1-1 of 2026c has with a tag of its own outside of groups 0000 and 0002."""
    counts = {code: sum(code == each for each in BASIC.values()) for code in set(BASIC.values())}
    assert len(BASIC) == sum(counts.values()) == 649
    assert set(counts) == {"X", "Z", "D", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"}
    dates = {tag for tag in known(BASIC) if dictionary_VR(tag) in ("DA", "DT", "TM")}
    full = Profile(frozenset({"retain-dates"}))
    assert len(dates) > 80 and all(full.of(tag) == "K" for tag in dates - {0x00100030, 0x00100032, 0x00160077})
    assert all("Class" in keyword_for_tag(tag) or "UID" in keyword_for_tag(tag) or "Classes" in keyword_for_tag(tag)
               for tag in CLASS_UIDS)  # fmt: skip
    assert set(OPTIONS) == set(METHODS) - {"basic"}


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_every_attribute_of_the_table_is_treated_by_its_code(syntax: str) -> None:
    before = everything()
    after = decoded(made(encoded(before, syntax), syntax=syntax), syntax)
    for tag in known(BASIC):
        code, vr = BASIC[tag].rpartition("/")[2], dictionary_VR(tag)
        element = after.get(Tag(tag))
        if tag in (0x00100010, 0x00100020):
            assert str(element.value).startswith("ANON-")
        elif code == "X":
            assert element is None, keyword_for_tag(tag)
        elif code == "Z":
            assert element is not None and not element.value, keyword_for_tag(tag)
        elif vr == "SQ":
            assert len(element.value) == 1 and CANARY not in str(element), keyword_for_tag(tag)
        elif code == "D":
            assert element.value and element.value != before[tag].value, keyword_for_tag(tag)
        else:
            assert str(element.value).startswith("2.25."), keyword_for_tag(tag)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_no_unique_string_gets_through(syntax: str) -> None:
    data = encoded(everywhere(), syntax)
    out = made(data, syntax=syntax)
    assert data.count(CANARY.encode()) > 500
    assert CANARY.encode() not in out and MAPPED.encode() not in out
    assert b"20240229" not in out and not any(element.tag.is_private for element in decoded(out, syntax).iterall())


def test_what_is_written_as_un_or_of_undefined_length_is_no_way_out() -> None:
    """PS3.5 6.2.2: sequences and names whose VR the sender did not know."""
    inner = encoded(small(), IMPLICIT)
    item = b"\xfe\xff\x00\xe0" + len(inner).to_bytes(4, "little") + inner
    undefined = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + inner + b"\xfe\xff\x0d\xe0" + bytes(4)
    end = b"\xfe\xff\xdd\xe0" + bytes(4)
    for tag in (b"\x08\x00\x40\x11", b"\x08\x00\x20\x11", b"\x09\x00\x40\x10", b"\x28\x00\xf0\x1f"):
        for body in (item, undefined):
            data = tag + b"UN\0\0" + len(body).to_bytes(4, "little") + body
            data += b"\x10\x00\x10\x00UN\0\0\x0c\0\0\0" + b"KANARI^Name "
            assert CANARY.encode() not in made(data)
            out = made(tag + b"UN\0\0\xff\xff\xff\xff" + body + end + b"\x20\x00\x13\x00IS\x02\x007 ")
            assert CANARY.encode() not in out and decoded(out).InstanceNumber == 7


def small(patient: str = f"{CANARY} 1", **more: object) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"{MAPPED}.1"
    ds.StudyDate, ds.PatientBirthDate, ds.AcquisitionDateTime = "20240301", "19700101", "20240301101112.5+0100"
    ds.StudyTime, ds.PatientName, ds.PatientID, ds.PatientSex = "101112", f"{CANARY}^Name", patient, "F"
    ds.StationName, ds.Modality, ds.PatientAge = "CT1", "CT", "054Y"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = f"{MAPPED}.2", f"{MAPPED}.3", f"{MAPPED}.4"
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = ds.SOPClassUID, f"{MAPPED}.1"
    ds.ReferencedImageSequence = Sequence([reference])
    for name, each in more.items():
        setattr(ds, name, each)
    return ds


def test_it_says_what_was_done_and_references_still_fit() -> None:
    ds = decoded(made(encoded(small()), "shift-dates", "retain-device"))
    assert (ds.PatientIdentityRemoved, ds.LongitudinalTemporalInformationModified) == ("YES", "MODIFIED")
    assert [each.CodeValue for each in ds.DeidentificationMethodCodeSequence] == ["113100", "113107", "113109"]
    assert ds.ReferencedImageSequence[0].ReferencedSOPInstanceUID == ds.SOPInstanceUID != f"{MAPPED}.1"
    assert ds.SOPClassUID == ds.ReferencedImageSequence[0].ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    tags = [int(element.tag) for element in ds]
    assert tags == sorted(tags) and ds.StationName == "CT1" and not ds.PatientSex and "PatientAge" not in ds


def test_options_keep_what_they_name() -> None:
    kept = decoded(made(encoded(small()), "retain-dates", "retain-uids", "retain-patient-characteristics"))
    assert (kept.StudyDate, kept.StudyTime, kept.PatientSex, kept.PatientAge) == ("20240301", "101112", "F", "054Y")
    assert kept.SOPInstanceUID == f"{MAPPED}.1" and not kept.PatientBirthDate and kept.StationName != "CT1"
    assert kept.LongitudinalTemporalInformationModified == "UNMODIFIED"
    moved = decoded(made(encoded(small()), "shift-dates"))
    other = decoded(made(encoded(small(StudyDate="20240311")), "shift-dates"))
    assert moved.StudyDate != "20240301" and moved.StudyTime == "101112" and not moved.PatientBirthDate
    first, second = (pydicom.valuerep.DA(each.StudyDate) for each in (moved, other))
    assert (second - first).days == 10
    assert moved.AcquisitionDateTime.startswith(moved.StudyDate) and moved.AcquisitionDateTime.endswith("101112.5+0100")
    assert (shifted("20240301", -1), shifted("2024", -1), shifted("x", -1)) == ("20240229", "", "")
    assert shifted("20240301 of Anna", -1) == shifted("20240230", -1) == ""


@pytest.mark.parametrize(
    ("options", "tag", "fate"),
    [
        ("retain-device", 0x00081010, "K"),  # Station Name
        ("retain-device", 0x00181200, "K"),  # Date of Last Calibration
        ("retain-device shift-dates", 0x00181200, "S"),
        ("retain-device", 0x00400241, "X"),  # Performed Station AE Title: C
        ("retain-uids", 0x006A0003, "K"),  # Annotation Group UID, D without the option
        ("", 0x006A0003, "U"),
        ("retain-uids", 0x00081120, "K"),  # Referenced Patient Sequence
        ("retain-uids", 0x0040A124, "U"),  # UID
        ("retain-uids", 0x04000100, "U"),  # Digital Signature UID
        ("retain-dates", 0x00080201, "K"),  # Timezone Offset From UTC
        ("retain-dates", 0x00340007, "K"),  # Frame Origin Timestamp
        ("shift-dates", 0x00340007, "D"),
        ("retain-dates", 0x00160077, "X"),  # GPS Time Stamp
        ("retain-patient-characteristics", 0x00102161, "K"),  # Ethnic Group Code Sequence
        ("retain-patient-characteristics", 0x00102110, "X"),  # Allergies: C
    ],
)
def test_an_option_does_what_its_column_says(options: str, tag: int, fate: str) -> None:
    assert Profile(frozenset(options.split())).of(tag) == fate


def raw(tag: int, vr: str, value: bytes) -> bytes:
    """An element as a sender may write it that knows neither dictionary nor VRs."""
    value += b" " * (len(value) & 1)
    start = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr.encode()
    long = vr in ("UT", "UC", "UR", "UN", "OB", "OW")
    return start + (b"\0\0" + len(value).to_bytes(4, "little") if long else len(value).to_bytes(2, "little")) + value


@pytest.mark.parametrize("option", ["retain-uids", "retain-dates", "shift-dates", "retain-device"])
def test_a_value_that_is_not_what_its_attribute_is_for_is_no_way_out(option: str) -> None:
    text = f"{CANARY} was here".encode()
    data = b"".join((
        raw(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.2"), raw(0x00080018, "UI", b"1.2.840.10008." + text),
        raw(0x0008001A, "UI", text), raw(0x00080020, "DA", b"20240229 " + text), raw(0x00081150, "UI", b"1.2\\" + text),
        raw(0x00180050, "LT", text), raw(0x00180060, "PN", text), raw(0x00180081, "UT", text),
        raw(0x00180082, "DA", b"20240229"), raw(0x00280010, "LO", text), raw(0x00280011, "UI", text),
        raw(0x00281050, "UN", b"40"), raw(0x00400244, "UN", text),
    ))  # fmt: skip
    out = made(data, "retain-patient-characteristics", option)
    kept = decoded(out)
    assert (kept.SOPClassUID, kept[0x00281050].value) == ("1.2.840.10008.5.1.4.1.1.2", b"40") or kept.WindowCenter == 40
    assert kept.SOPInstanceUID.startswith("2.25.")
    assert CANARY.encode() not in out
    assert (b"20240229" in out) is (option == "retain-dates")


def test_only_what_the_standard_has_given_out_keeps_its_uid() -> None:
    names = Pseudonyms(KEY)
    assert names.uids("1.2.840.10008.1.4.1.1\\1.2.3 ").split("\\")[0] == "1.2.840.10008.1.4.1.1"
    assert names.uids("1.2.840.10008.5.1.4.1.1.2.77").startswith("2.25.") and names.uids("") == ""
    assert names.uids("1.2.3 \\1.2.3\0") == f"{names.uid('1.2.3')}\\{names.uid('1.2.3')}"


def test_the_same_patient_is_the_same_in_every_study_process_and_spelling() -> None:
    one = decoded(made(encoded(small())))
    two = decoded(made(encoded(small(PatientName="Otherwise^Spelt", StudyInstanceUID="1.2.3")), "retain-dates"))
    assert (one.PatientID, one.PatientName) == (two.PatientID, two.PatientName)
    assert one.StudyInstanceUID != two.StudyInstanceUID
    assert decoded(made(encoded(small(IssuerOfPatientID="B")))).PatientID != one.PatientID
    assert decoded(made(encoded(small()), key=KEY[::-1])).PatientID != one.PatientID
    program = (
        "from archive.dicom.pseudonyms import Pseudonyms; "
        f"names = Pseudonyms({KEY!r}); print(names.patient('{CANARY} 1', ''), names.uid('{MAPPED}.2'))"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert other.stdout.split() == [one.PatientID, one.StudyInstanceUID]
    assert Pseudonyms(KEY).uid("1.2.840.10008.1.4.1.1") == "1.2.840.10008.1.4.1.1"


def test_compressed_and_deflated_objects_keep_their_pixels() -> None:
    fragments = b"\xfe\xff\x00\xe0" + bytes(4) + b"\xfe\xff\x00\xe0\x04\0\0\0" + b"\xff\xd8\xff\xd9"
    pixels = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + fragments + b"\xfe\xff\xdd\xe0" + bytes(4)
    out = made(encoded(small()) + pixels, syntax=JPEG)
    assert out.endswith(pixels) and CANARY.encode() not in out
    data = b"".join(convert(encoded(small(BitsAllocated=16, PixelData=b"\1\2" * 8)), EXPLICIT, DEFLATED))
    plain = b"".join(convert(made(data, syntax=DEFLATED), DEFLATED, EXPLICIT))
    assert plain.endswith(b"\1\2" * 8) and CANARY.encode() not in plain


def test_a_broken_object_is_found_before_anything_goes_out() -> None:
    data = encoded(small(BitsAllocated=16, PixelData=b"\1\2" * 8))
    by = Deidentifier((), KEY)
    with pytest.raises(NotUnderstood):
        by.look(iter([data[:-5]]), EXPLICIT)
    made = b"".join(convert(data, EXPLICIT, DEFLATED))
    for broken in (made[: len(made) // 2], b"\xff\xff" + made):
        with pytest.raises(NotUnderstood, match="eflated"):
            by.look(iter([broken]), DEFLATED)


def test_nothing_is_held_whole() -> None:
    """64 MB of pixels in pieces: what comes out while they go in."""
    head = encoded(small())
    count, step = 256, bytes(1 << 18)

    def pieces() -> Iterator[bytes]:
        yield head + b"\xe0\x7f\x10\x00OW\0\0" + (count * len(step)).to_bytes(4, "little")
        for _ in range(count):
            ahead.append(1)
            yield step

    ahead: list[int] = []
    by, most, size = Deidentifier((), KEY), 0, 0
    for piece in by.pieces(pieces(), EXPLICIT, by.person(by.look(iter([head]), EXPLICIT))):
        size += len(piece)
        most = max(most, len(ahead) * len(step) - size)
    assert size > count * len(step) and most < 4 * len(step)
