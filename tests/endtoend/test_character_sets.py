"""Names in every character set: stored by storescu, found by UTF-8 and by their own set, and returned intact."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from tests.dimse.archives import ROOT, instance, part10
from tests.endtoend.dcmtk import Client, query, storescp
from tests.endtoend.samples import BUNDLED, content, distinct
from tests.faults.daemon import Daemon

NAME, CHARSET, STUDY = Tag(0x0010, 0x0010), Tag(0x0008, 0x0005), Tag(0x0020, 0x000D)
JAPANESE = "=山田^太郎=やまだ^たろう"

# Defined terms of PS3.3 C.12.1.1.2 and a name that each carries.
NAMES: list[tuple[str, str]] = [
    ("", "Plain^Jane"),
    ("ISO_IR 100", "Äneas^Rüdiger"),
    ("ISO_IR 101", "Wałęsa^Źrebię"),
    ("ISO_IR 109", "Ħamed^Ġorġ"),
    ("ISO_IR 110", "Ķīlis^Žanis"),
    ("ISO_IR 144", "Люкceмбypг^Роза"),
    ("ISO_IR 127", "قباني^لنزار"),
    ("ISO_IR 126", "Διονυσιος^Σόλων"),
    ("ISO_IR 138", "שרון^דבורה"),
    ("ISO_IR 148", "Çavuşoğlu^İsmet"),
    ("ISO_IR 166", "สมชาย^ใจดี"),
    ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    ("ISO_IR 192", "Ünï^Çødé=山田=홍^길동"),
    ("GB18030", "Wang^XiaoDong=王^小东="),
    ("GBK", "Wang^XiaoDong=王^小东="),
    ("ISO 2022 IR 6\\ISO 2022 IR 87", "Yamada^Tarou" + JAPANESE),
    ("\\ISO 2022 IR 87", "Yamada^Tarou" + JAPANESE),
    ("ISO 2022 IR 13\\ISO 2022 IR 87", "ﾔﾏﾀﾞ^ﾀﾛｳ" + JAPANESE),
    ("\\ISO 2022 IR 87\\ISO 2022 IR 159", "Honda^Toukichi=丂田^太郎=ほんだ"),
    ("\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동"),
    ("ISO 2022 IR 100\\ISO 2022 IR 144", "Müller^Люк"),
    ("ISO 2022 IR 100\\ISO 2022 IR 126", "Buß^Διο"),
]


@dataclass(frozen=True)
class Stored:
    label: str
    path: Path
    study: str
    charset: str  # the terms of the file, as they stand there
    raw: bytes  # the name, as it stands there
    text: str


def stored(label: str, path: Path) -> Stored:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(path, stop_before_pixels=True)
        name = data.PatientName
        raw, text = name.original_string, str(name)  # pydicom keeps the bytes until it decodes them, and after
    return Stored(label, path, str(data.StudyInstanceUID), joined(data.get("SpecificCharacterSet")), raw, text)


def generated(folder: Path, number: int) -> Stored:
    """An object that pydicom wrote in a character set."""
    terms, name = NAMES[number]
    made = instance(number + 1, study=900 + number, patient=f"CS{number}", size=2)
    made.SpecificCharacterSet = terms.split("\\")
    made.PatientName = name
    path = folder / f"made{number}.dcm"
    path.write_bytes(part10(made))
    found = stored(terms or "default repertoire", path)
    assert found.text.rstrip("=") == name.rstrip("="), "pydicom wrote something else"
    return found


@dataclass(frozen=True)
class Archive:
    daemon: Daemon
    objects: dict[str, Stored]
    received: Path


def labels() -> list[str]:
    """Known before the daemon runs, so that each is a test of its own."""
    files = sorted((BUNDLED / "charset_files").glob("*.dcm"))
    bundled = [path.name for path in files if NAME in pydicom.dcmread(path, specific_tags=[NAME])]
    return [*(terms or "default repertoire" for terms, _ in NAMES), *bundled]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    folder = tmp_path_factory.mktemp("charsets")
    (folder / "objects").mkdir()
    found = [generated(folder / "objects", number) for number in range(len(NAMES))]
    samples = [sample for sample in distinct(folder / "objects") if sample.path.name in labels()]
    found += [stored(sample.path.name, sample.path) for sample in samples]
    with storescp(folder / "received", "+xa", "+B") as port:
        peer = {"RECEIVER": {"host": "127.0.0.1", "port": port, "allow": ["echo"]}}
        with Daemon(folder / "archive", {"processes": 1, "peers": peer}) as daemon:
            for each in found:
                assert "(Success)" in Client(daemon).call("storescu", "-v", "-R", rest=[each.path])
            yield Archive(daemon, {each.label: each for each in found}, folder / "received")


def ask(archive: Archive, folder: Path, charset: str, name: bytes) -> dict[str, bytes]:
    """Studies whose name matches, with the name in the answer, still encoded; the query is a file, byte for byte."""
    asked = Dataset()
    asked.file_meta = FileMetaDataset()
    asked.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    asked.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.2.2.1"
    asked.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.1"
    name += b" " * (len(name) % 2)
    terms = charset.encode() + b" " * (len(charset) % 2)
    asked[CHARSET] = RawDataElement(CHARSET, "CS", len(terms), terms, 0, False, True)
    asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", ""
    asked[NAME] = RawDataElement(NAME, "PN", len(name), name, 0, False, True)
    folder.mkdir(exist_ok=True)
    pydicom.dcmwrite(folder / "query.dcm", asked, enforce_file_format=True)
    Client(archive.daemon).call("findscu", "-S", "-X", "-od", folder, rest=[folder / "query.dcm"])
    answers = sorted(folder.glob("rsp*.dcm"))
    return {str(pydicom.dcmread(each, force=True).StudyInstanceUID): each.read_bytes() for each in answers}


def answered(answer: bytes, folder: Path) -> tuple[str, str]:
    """The name in an answer as pydicom decodes it, and the character set that the answer names."""
    (folder / "answer.dcm").write_bytes(answer)
    data = pydicom.dcmread(folder / "answer.dcm", force=True)
    return str(data.PatientName), joined(data.get("SpecificCharacterSet"))


def joined(terms: object) -> str:
    return terms if isinstance(terms, str) else "\\".join(terms or ())  # type: ignore[call-overload]


@pytest.mark.parametrize("label", labels())
def test_a_name_is_found_by_both_spellings_and_returned_intact(archive: Archive, tmp_path: Path, label: str) -> None:
    each = archive.objects[label]
    for way, charset, name in (
        ("utf", "ISO_IR 192", each.text.encode("utf-8")),
        ("own", each.charset, each.raw),
        ("wild", "ISO_IR 192", each.text.partition("=")[0][:2].encode("utf-8") + b"*"),
    ):
        answers = ask(archive, tmp_path / way, charset, name)
        assert each.study in answers, way
        text, charset_of_answer = answered(answers[each.study], tmp_path)
        assert text.rstrip("=") == each.text.rstrip("="), way
        assert charset_of_answer == charset.removeprefix("ISO 2022 IR 6"), way  # which is what an empty value means


@pytest.mark.parametrize("label", labels())
def test_an_object_comes_back_byte_for_byte(archive: Archive, label: str) -> None:
    """As it was received: storescu itself rewrites lengths of groups and sequences, and nothing else."""
    each = archive.objects[label]
    uid = str(pydicom.dcmread(each.path, stop_before_pixels=True).SOPInstanceUID)
    Client(archive.daemon).call("movescu", "-aem", "RECEIVER", rest=query("STUDY", StudyInstanceUID=each.study))
    (received,) = (path for path in archive.received.iterdir() if path.name.endswith(uid))
    kept = [path for path in (archive.daemon.folder / "files").rglob("*") if path.is_file() and holds(path, uid)]
    assert data_set(received) == data_set(kept[0])
    assert content(received) == content(each.path)


def holds(path: Path, uid: str) -> bool:
    """Whether a file is this object, by its file meta information."""
    with path.open("rb") as file:
        head = file.read(1000)
    return head[128:132] == b"DICM" and uid.encode() in head[: 144 + int.from_bytes(head[140:144], "little")]


def data_set(path: Path) -> bytes:
    """All bytes behind the file meta information."""
    found = path.read_bytes()
    return found[144 + int.from_bytes(found[140:144], "little") :]
