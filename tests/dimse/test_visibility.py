"""A peer's data filter holds whatever it names, at whichever level, with every verb."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.dicom.attributes import Level
from archive.dicom.matching import Root
from archive.dimse import scu
from archive.dimse.store import StoreObject
from archive.errors import Refused

from .archives import ROOT, Archive, fill, instance, parts, peer, serving
from .receivers import Receiver, receiving

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = ("1.2.840.10008.1.2.1",)
S, SEEN, HIDDEN = f"{ROOT}.1", f"{ROOT}.1.1", f"{ROOT}.1.2"
ALL = scu.Options(relational=True)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Archive]:
    """A study with a series that may be seen and one that may not, and a study that may not be seen at all."""
    peers = [peer("HALF", visible_if="Modality != 'MR'"), peer("DEST", receiver.port)]
    with serving(tmp_path_factory.mktemp("archive"), peers) as found:
        fill(found, *(instance(number) for number in (1, 2)))
        fill(found, *(instance(number, series=2, sop_class=MR, modality="MR") for number in (1, 2)))
        fill(found, instance(1, study=2, sop_class=MR, modality="MR"))
        yield found


# level, keys, what of it may be seen
NAMED: list[tuple[Level, dict[str, str], int]] = [
    (Level.PATIENT, {"PatientID": "P1"}, 2),
    (Level.STUDY, {"StudyInstanceUID": S}, 2),
    (Level.STUDY, {"StudyInstanceUID": f"{ROOT}.2"}, 0),
    (Level.STUDY, {"StudyInstanceUID": f"{S}\\{ROOT}.2"}, 2),
    (Level.SERIES, {"SeriesInstanceUID": HIDDEN}, 0),
    (Level.SERIES, {"StudyInstanceUID": S, "SeriesInstanceUID": f"{SEEN}\\{HIDDEN}"}, 2),
    (Level.IMAGE, {"SOPInstanceUID": f"{HIDDEN}.1"}, 0),
    (Level.IMAGE, {"SOPInstanceUID": f"{HIDDEN}.1\\{SEEN}.1"}, 1),
    (Level.IMAGE, {"StudyInstanceUID": S, "SeriesInstanceUID": HIDDEN, "SOPInstanceUID": f"{HIDDEN}.1"}, 0),
]


@pytest.mark.parametrize(("level", "keys", "seen"), NAMED)
def test_naming_uids_retrieves_no_more_than_may_be_seen(
    archive: Archive, receiver: Receiver, tmp_path: Path, level: Level, keys: dict[str, str], seen: int
) -> None:
    receiver.messages.clear()
    with parts(tmp_path) as other:
        into = StoreObject(other.store)
        for verb, more in (
            (scu.get, {"store": into, "storage": [(CT, EXPLICIT), (MR, EXPLICIT)]}),
            (scu.move, {}),
        ):
            to = ("DEST",) if verb is scu.move else ()
            try:
                done = verb(archive.destination("HALF"), *to, Root.PATIENT, level, keys, options=ALL, **more)
                assert done.progress.completed == seen
            except Refused as refused:
                assert "no stored object matches" in refused.reason and not seen
    assert {uid for uid in receiver.uids() if uid.startswith((HIDDEN, f"{ROOT}.2"))} == set()
    assert len(receiver.uids()) == seen


@pytest.mark.parametrize(
    ("level", "keys"),
    [
        (Level.STUDY, {"StudyInstanceUID": f"{ROOT}.2"}),
        (Level.STUDY, {"SeriesInstanceUID": HIDDEN, "StudyInstanceUID": ""}),
        (Level.STUDY, {"SOPInstanceUID": f"{HIDDEN}.1", "StudyInstanceUID": ""}),
        (Level.STUDY, {"ModalitiesInStudy": "MR", "StudyInstanceUID": ""}),
        (Level.STUDY, {"SOPClassesInStudy": MR, "StudyInstanceUID": ""}),
        (Level.SERIES, {"SeriesInstanceUID": HIDDEN}),
        (Level.SERIES, {"Modality": "MR", "SeriesInstanceUID": ""}),
        (Level.IMAGE, {"SOPInstanceUID": f"{HIDDEN}.1"}),
    ],
)
def test_no_key_finds_what_may_not_be_seen(archive: Archive, level: Level, keys: dict[str, str]) -> None:
    assert list(scu.find(archive.destination("HALF"), Root.STUDY, level, keys, options=ALL)) == []


def test_counts_and_lists_are_those_of_what_may_be_seen(archive: Archive) -> None:
    keys = {"StudyInstanceUID": S, "ModalitiesInStudy": "", "NumberOfStudyRelatedSeries": ""}
    keys |= {"NumberOfStudyRelatedInstances": "", "SOPClassesInStudy": ""}
    (answer,) = scu.find(archive.destination("HALF"), Root.STUDY, Level.STUDY, keys)
    said = scu.plain(answer)
    assert [said[key] for key in keys] == [S, "CT", "1", "2", CT]
