"""We ask other archives, here DCMTK's and pynetdicom's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from archive.dicom.attributes import Level
from archive.dicom.identifier import decode_identifier
from archive.dicom.matching import Root
from archive.dimse import scu
from archive.dimse.destinations import Destination
from archive.dimse.question import question_in
from archive.dimse.store import StoreObject
from archive.dimse.tally import Result
from archive.errors import InvalidQuery, Refused, Unreachable

from .archives import QUICK, ROOT, Archive, fill, instance, parts, peer, serving
from .receivers import CT, EXPLICIT, IMPLICIT, receiving
from .test_move import free_port

FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))


@contextmanager
def pynetdicom(*handlers: tuple[Any, Any]) -> Iterator[Destination]:
    """An archive by pynetdicom that answers as its handlers say."""
    ae = AE("OTHER")
    for uid in (Verification, FIND, MOVE, GET):
        ae.add_supported_context(uid)
    ae.add_supported_context(CT, scu_role=True, scp_role=True)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=list(handlers))
    assert server is not None
    try:
        yield Destination("OTHER", "127.0.0.1", server.socket.getsockname()[1], "US", QUICK)
    finally:
        server.shutdown()


def test_an_echo_returns_when_it_was_answered() -> None:
    with pynetdicom() as other:
        scu.echo(other)


def test_an_echo_that_is_refused_says_why() -> None:
    with pynetdicom((evt.EVT_C_ECHO, lambda event: 0x0122)) as other, pytest.raises(Refused, match="0122"):
        scu.echo(other)


def test_nobody_there_is_unreachable_with_the_reason() -> None:
    with pytest.raises(Unreachable, match="refused"):
        scu.echo(Destination("OTHER", "127.0.0.1", free_port(), "US", QUICK))


def test_a_peer_without_the_service_is_said() -> None:
    with receiving() as receiver, pytest.raises(Refused, match="does not accept this service"):
        scu.echo(Destination("OTHER", "127.0.0.1", receiver.port, "US", QUICK))


def answers(count: int, final: int = 0x0000) -> Any:
    def handler(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        for number in range(count):
            if event.is_cancelled:
                yield 0xFE00, None
                return
            data_set = Dataset()
            data_set.QueryRetrieveLevel = "STUDY"
            data_set.StudyInstanceUID, data_set.PatientName = f"1.2.{number}", "Name^A"
            yield 0xFF00, data_set
        if final:
            yield final, None

    return handler


def test_answers_are_handed_on_by_keyword() -> None:
    with pynetdicom((evt.EVT_C_FIND, answers(3))) as other:
        found = [scu.plain(each) for each in scu.find(other, Root.STUDY, Level.STUDY, {"StudyInstanceUID": ""})]
    assert [each["StudyInstanceUID"] for each in found] == ["1.2.0", "1.2.1", "1.2.2"]
    assert found[0]["PatientName"] == "Name^A"


def test_a_query_that_fails_says_why_after_its_answers() -> None:
    with pynetdicom((evt.EVT_C_FIND, answers(1, 0xA700))) as other:
        found = scu.find(other, Root.STUDY, Level.STUDY, {"StudyInstanceUID": ""})
        next(found)
        with pytest.raises(Refused, match="A700"):
            next(found)


def test_a_limit_cancels_the_query() -> None:
    with pynetdicom((evt.EVT_C_FIND, answers(500))) as other:
        found = scu.find(other, Root.STUDY, Level.STUDY, {"StudyInstanceUID": ""}, limit=2)
        assert len(list(found)) == 2


def test_answers_that_take_too_long_are_given_up() -> None:
    with pynetdicom((evt.EVT_C_FIND, answers(500))) as other:
        found = scu.find(other, Root.STUDY, Level.STUDY, {"StudyInstanceUID": ""}, seconds=0)
        with pytest.raises(Unreachable, match="no end"):
            list(found)


def test_a_query_that_nobody_reads_to_its_end_ends_its_association() -> None:
    ended = threading.Event()
    with pynetdicom(
        (evt.EVT_C_FIND, answers(500)), (evt.EVT_ABORTED, lambda event: ended.set())
    ) as other:
        found = scu.find(other, Root.STUDY, Level.STUDY, {"StudyInstanceUID": ""})
        next(found)
        found.close()  # type: ignore[attr-defined]
        assert ended.wait(60)


def test_a_move_tells_its_progress_and_its_end() -> None:
    def handler(event: Any) -> Iterator[Any]:
        yield None, None  # pynetdicom: destination unknown

    with pynetdicom((evt.EVT_C_MOVE, handler)) as other, pytest.raises(Refused, match="A801"):
        scu.move(other, "NOWHERE", Root.STUDY, Level.STUDY, {"StudyInstanceUID": "1.2"})


def test_a_move_to_ourselves_from_pynetdicom(tmp_path: Path) -> None:
    with serving(tmp_path, [peer("OTHER")]) as ours:

        def handler(event: Any) -> Iterator[Any]:
            yield "127.0.0.1", ours.port, {"contexts": contexts}
            yield 2
            for number in (1, 2):
                yield 0xFF00, instance(number)

        ae = AE()
        ae.add_requested_context(CT, EXPLICIT)
        contexts = ae.requested_contexts
        told: list[scu.Progress] = []
        with pynetdicom((evt.EVT_C_MOVE, handler)) as other:
            done = scu.move(other, "ARCHIVE", Root.STUDY, Level.STUDY, {"StudyInstanceUID": ROOT}, told=told.append)
        assert done.complete and done.progress.completed == 2
        assert told and told[-1].completed == 2
        assert ours.index.statistics().instances == 2


def test_a_get_from_pynetdicom_goes_through_the_one_way_in(tmp_path: Path) -> None:
    def handler(event: Any) -> Iterator[Any]:
        yield 2
        for number in (1, 2):
            yield 0xFF00, instance(number)

    with parts(tmp_path) as ours, pynetdicom((evt.EVT_C_GET, handler)) as other:
        store = StoreObject(ours.store)
        keys = {"StudyInstanceUID": ROOT}
        done = scu.get(other, Root.STUDY, Level.STUDY, keys, store=store, storage=[(CT, (EXPLICIT, IMPLICIT))])
        assert done.complete and done.progress.completed == 2
        assert ours.index.statistics().instances == 2


def stored(archive: Archive, *numbers: int) -> list[Any]:
    fill(archive, *(instance(number) for number in numbers))
    return [archive.index.known(f"{ROOT}.1.1.{number}") for number in numbers]


def test_objects_are_sent_and_each_result_is_given(tmp_path: Path) -> None:
    refused = f"{ROOT}.1.1.2"
    with parts(tmp_path) as ours, receiving(lambda m: 0xA700 if m.command.sop_instance == refused else 0) as receiver:
        items = stored(ours, 1, 2, 3)
        destination = Destination("DEST", "127.0.0.1", receiver.port, "US", QUICK, store_associations=2)
        results = {each.sop_instance_uid: each for each in scu.send(destination, items, ours.retrieve.open)}
    assert {uid: each.result for uid, each in results.items()} == {
        f"{ROOT}.1.1.1": Result.SENT,
        refused: Result.FAILED,
        f"{ROOT}.1.1.3": Result.SENT,
    }
    assert "A700" in results[refused].reason


def test_a_dead_destination_fails_every_object_in_words(tmp_path: Path) -> None:
    with parts(tmp_path) as ours:
        items = stored(ours, 1, 2, 3)
        destination = Destination("DEST", "127.0.0.1", free_port(), "US", QUICK)
        results = list(scu.send(destination, items, ours.retrieve.open))
    assert [each.result for each in results] == [Result.FAILED] * 3
    assert "refused" in results[0].reason


def test_sending_nothing_calls_nobody(tmp_path: Path) -> None:
    with parts(tmp_path) as ours:
        destination = Destination("DEST", "127.0.0.1", free_port(), "US", QUICK)
        assert list(scu.send(destination, [], ours.retrieve.open)) == []


# -- what is asked ----------------------------------------------------------------------------------


def asked(keys: dict[Any, Any], *quirks: str) -> dict[str, Any]:
    return scu.plain(decode_identifier(question_in(EXPLICIT, Level.STUDY, keys, quirks), EXPLICIT))


def test_keys_are_asked_by_keyword_or_tag() -> None:
    found = asked({"PatientID": "1*", 0x0020000D: "1.2", "StudyDate": "20260101-"})
    assert found == {
        "QueryRetrieveLevel": "STUDY",
        "PatientID": "1*",
        "StudyInstanceUID": "1.2",
        "StudyDate": "20260101-",
    }


def test_a_sequence_is_asked_by_its_items() -> None:
    found = asked({"RequestAttributesSequence": [{"ScheduledProcedureStepID": "7"}]})
    assert found["RequestAttributesSequence"] == [{"ScheduledProcedureStepID": "7"}]


def test_text_beyond_ascii_says_its_character_set() -> None:
    found = asked({"PatientName": "Müller^Jürgen"})
    assert (found["SpecificCharacterSet"], found["PatientName"]) == ("ISO_IR 192", "Müller^Jürgen")


@pytest.mark.parametrize(
    ("keys", "quirk", "found"),
    [
        ({"StudyDate": "*"}, "no_wildcard_in_dates", {"StudyDate": ""}),
        ({"PatientName": "*"}, "no_wildcard_in_dates", {"PatientName": "*"}),
        ({"PatientName": "*"}, "no_universal_wildcard", {"PatientName": ""}),
        ({"PatientName": "A*"}, "no_universal_wildcard", {"PatientName": "A*"}),
    ],
)
def test_a_peer_s_quirks_change_what_is_asked(keys: dict[str, str], quirk: str, found: dict[str, str]) -> None:
    assert asked(keys, quirk) == {"QueryRetrieveLevel": "STUDY", **found}


def test_a_key_that_does_not_exist_is_named() -> None:
    with pytest.raises(InvalidQuery, match="PatientNam"):
        asked({"PatientNam": "X"})
