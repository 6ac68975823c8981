"""Questions are answered by C-FIND."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE

from archive.dicom.attributes import Level
from archive.dicom.matching import Root
from archive.dicom.temporal import offset_minutes
from archive.dimse import scu
from archive.dimse.association import Association
from archive.dimse.question import question
from archive.dimse.wire import HAS_DATA, Field, encode_command
from archive.errors import Refused
from tests.faults.daemon import wait_until

from .archives import ROOT, Archive, fill, instance, peer, serving

Answer = dict[str, object]
STUDIES = 40
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    loose = peer("LOOSE", fuzzy=True, combined_date_time=True)
    peers = [peer("TEST"), peer("SHORT", max_results=3), peer("FREE", relational=True), loose]
    with serving(tmp_path_factory.mktemp("archive"), peers) as found:
        fill(found, *(instance(1, study=study, patient=f"P{study % 4}") for study in range(1, STUDIES + 1)))
        fill(found, *(instance(number, study=1, series=2, modality="MR") for number in (1, 2)))
        yield found


def found(archive: Archive, level: Level, root: Root = Root.STUDY, calling: str = "TEST", **keys: str) -> list[Answer]:
    return [scu.plain(each) for each in scu.find(archive.destination(calling), root, level, keys)]


def test_a_study_is_found_by_its_uid(archive: Archive) -> None:
    ((answer),) = found(archive, Level.STUDY, StudyInstanceUID=f"{ROOT}.1", PatientID="", ModalitiesInStudy="")
    assert answer["StudyInstanceUID"] == f"{ROOT}.1"
    assert answer["QueryRetrieveLevel"] == "STUDY"
    assert answer["RetrieveAETitle"] == "ARCHIVE"
    assert set(str(answer["ModalitiesInStudy"]).split("\\")) == {"CT", "MR"}


def test_availability_is_said_when_asked_for(archive: Archive) -> None:
    ((answer),) = found(archive, Level.STUDY, StudyInstanceUID=f"{ROOT}.1", InstanceAvailability="")
    assert answer["InstanceAvailability"] == "ONLINE"


@pytest.mark.parametrize(
    ("root", "level", "keys", "count"),
    [
        (Root.PATIENT, Level.PATIENT, {"PatientID": ""}, 4),
        (Root.PATIENT, Level.STUDY, {"PatientID": "P2", "StudyInstanceUID": ""}, 10),
        (Root.STUDY, Level.STUDY, {"StudyInstanceUID": ""}, STUDIES),
        (Root.STUDY, Level.SERIES, {"StudyInstanceUID": f"{ROOT}.1", "SeriesInstanceUID": ""}, 2),
        (Root.STUDY, Level.IMAGE, {"StudyInstanceUID": f"{ROOT}.1", "SeriesInstanceUID": f"{ROOT}.1.2"}, 2),
        (Root.PATIENT_STUDY, Level.PATIENT, {"PatientID": "P1"}, 1),
        (Root.PATIENT_STUDY, Level.STUDY, {"PatientID": "P1", "StudyInstanceUID": ""}, 10),
    ],
)
def test_every_root_answers_at_its_levels(
    archive: Archive, root: Root, level: Level, keys: dict[str, str], count: int
) -> None:
    assert len(found(archive, level, root, **keys)) == count


def test_keys_that_are_not_supported_are_answered_empty_with_a_warning(archive: Archive) -> None:
    messages = raw(archive, StudyInstanceUID=f"{ROOT}.1", PatientMotherBirthName="X")
    assert [message.command.status for message in messages] == [0xFF01, 0x0000]
    assert [m.command.status for m in raw(archive, StudyInstanceUID=f"{ROOT}.1", StudyDate="")] == [0xFF00, 0x0000]


def raw(archive: Archive, calling: str = "TEST", **keys: str) -> list:  # type: ignore[type-arg]
    """Every response to a study query, the final one last."""
    destination = archive.destination(calling)
    with destination.connect([(STUDY_FIND, SYNTAXES)]) as association:
        send(association, question(Level.STUDY, keys, next(iter(association.contexts.values())), destination, ""))
        return list(responses(association))


def send(association: Association, identifier: bytes) -> None:
    context = next(iter(association.contexts.values()))
    command = {
        "AffectedSOPClassUID": STUDY_FIND,
        "CommandField": int(Field.C_FIND_RQ),
        "MessageID": 3,
        "Priority": 0,
        "CommandDataSetType": HAS_DATA,
    }
    association.send_message(context, encode_command(command), identifier)


def responses(association: Association) -> Iterator:  # type: ignore[type-arg]
    while (message := association.read_message()) is not None:
        yield message
        if message.command.status < 0xFF00:
            return


def test_a_query_without_its_upper_keys_does_not_match_its_class(archive: Archive) -> None:
    with pytest.raises(Refused, match="A900") as refused:
        found(archive, Level.SERIES, SeriesInstanceUID="")
    assert "StudyInstanceUID is missing" in refused.value.reason


def test_a_relational_peer_may_leave_the_upper_keys_out(archive: Archive) -> None:
    assert len(found(archive, Level.SERIES, calling="FREE", Modality="MR")) == 1


def test_relational_queries_can_be_negotiated(archive: Archive) -> None:
    options = scu.Options(relational=True)
    answers = scu.find(archive.destination(), Root.STUDY, Level.SERIES, {"Modality": "MR"}, options=options)
    assert len(list(answers)) == 1


def test_the_answer_to_extended_negotiation_says_what_is_done(archive: Archive) -> None:
    destination = archive.destination()
    everything = b"\1\1\1\1\0\1\1"
    longer = everything + b"\0\0"
    for asked, agreed in ((b"\1", b"\1"), (b"\0\1", b"\0\1"), (b"\1" * 7, everything), (b"\1" * 9, longer)):
        with destination.connect([(STUDY_FIND, SYNTAXES)], extended={STUDY_FIND: asked}) as association:
            assert association.extended[STUDY_FIND] == agreed


# Every study is of 2 January, 10:15.
SPAN = {"StudyDate": "20260101-20260102", "StudyTime": "1100-1400", "StudyInstanceUID": ""}
NAME = {"PatientName": "P1 name", "StudyInstanceUID": ""}


def asked(archive: Archive, keys: dict[str, str], options: scu.Options | None = None, calling: str = "TEST") -> int:
    answers = scu.find(archive.destination(calling), Root.STUDY, Level.STUDY, keys, options=options or scu.Options())
    return len(list(answers))


def test_a_date_and_a_time_are_one_span_only_when_negotiated(archive: Archive) -> None:
    assert asked(archive, SPAN) == 0
    assert asked(archive, SPAN, scu.Options(date_time=True)) == STUDIES
    assert asked(archive, SPAN, calling="LOOSE") == STUDIES


def test_names_are_matched_fuzzily_only_when_negotiated(archive: Archive) -> None:
    assert asked(archive, NAME) == 0
    assert asked(archive, NAME, scu.Options(fuzzy=True)) == 10
    assert asked(archive, NAME, calling="LOOSE") == 10


def test_the_days_of_another_timezone_count_only_when_negotiated(archive: Archive) -> None:
    """At 10:15 here it is another day where clocks are fourteen hours apart."""
    here = offset_minutes(time.strftime("%z"))
    assert here is not None
    behind = here - 14 * 60 if here > 0 else here + 14 * 60
    theirs = f"{'-' if behind < 0 else '+'}{abs(behind) // 60:02}{abs(behind) % 60:02}"
    day = "20260101" if here > 0 else "20260103"
    keys = {"StudyDate": day, "StudyInstanceUID": "", "TimezoneOffsetFromUTC": theirs}
    assert asked(archive, keys) == 0
    assert asked(archive, keys, scu.Options(timezone=True)) == STUDIES


def test_a_peer_s_limit_is_out_of_resources_after_its_answers(archive: Archive) -> None:
    messages = raw(archive, "SHORT", StudyInstanceUID="")
    assert [message.command.status for message in messages] == [0xFF00] * 3 + [0xA700]
    assert messages[-1].command.comment == "too many matches, narrow the query"
    assert [m.command.status for m in raw(archive, "SHORT", StudyInstanceUID=f"{ROOT}.1")] == [0xFF00, 0x0000]


def test_a_cancel_ends_the_answers(archive: Archive) -> None:
    destination = archive.destination()
    with destination.connect([(STUDY_FIND, SYNTAXES)]) as association:
        context = next(iter(association.contexts.values()))
        cancel = {"CommandField": int(Field.C_CANCEL_RQ), "MessageIDBeingRespondedTo": 3}
        identifier = question(Level.STUDY, {"StudyInstanceUID": ""}, context, destination, "")
        command = {
            "AffectedSOPClassUID": STUDY_FIND,
            "CommandField": int(Field.C_FIND_RQ),
            "MessageID": 3,
            "CommandDataSetType": HAS_DATA,
        }
        association.queue_message(context, encode_command(command), identifier)
        association.queue_message(context, encode_command(cancel))
        statuses = [message.command.status for message in responses(association)]
        assert statuses[-1] == 0xFE00
        assert len(statuses) < STUDIES


def test_the_scu_can_stop_after_some_answers(archive: Archive) -> None:
    answers = scu.find(archive.destination(), Root.STUDY, Level.STUDY, {"StudyInstanceUID": ""}, limit=5)
    assert len(list(answers)) == 5


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_pynetdicom_finds_in_every_transfer_syntax(archive: Archive, syntax: str) -> None:
    ae = AE("TEST")
    ae.add_requested_context(STUDY_FIND, syntax)
    association = ae.associate("127.0.0.1", archive.port, ae_title="ARCHIVE")
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.PatientName, asked.StudyInstanceUID = "STUDY", "NAME^P1*", ""
    answers = [(status.Status, data_set) for status, data_set in association.send_c_find(asked, STUDY_FIND)]
    association.release()
    assert [status for status, _ in answers] == [0xFF00] * 10 + [0x0000]
    assert {str(data_set.PatientName) for _, data_set in answers[:-1]} == {"Name^P1"}


def test_dcmtk_finds(archive: Archive) -> None:
    command = ["findscu", "-S", "-aet", "TEST", "-aec", "ARCHIVE", "-k", "QueryRetrieveLevel=STUDY"]
    command += ["-k", f"StudyInstanceUID={ROOT}.1", "-k", "PatientName", "127.0.0.1", str(archive.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0
    assert "Name^P1" in done.stdout + done.stderr


def test_what_is_logged_of_a_query_names_no_patient(archive: Archive, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    found(archive, Level.STUDY, PatientName="NAME^P2", StudyInstanceUID="")
    wait_until(lambda: "C-FIND" in caplog.text, 10)  # written behind the answer
    lines = [record.getMessage() for record in caplog.records if "C-FIND" in record.getMessage()]
    assert "STUDY level, 10 matches" in lines[0]
    assert "P2" not in caplog.text.upper().replace("MAX_PDU", "")
