"""What a caller sees of the dispatch: raw messages in, statuses out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from archive.dimse.association import Association, Message
from archive.dimse.reasons import Ended
from archive.dimse.wire import HAS_DATA, Field, Value, encode_command
from archive.errors import Unreachable

from .archives import Archive, instance, peer, serving

VERIFICATION, CT, MR = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
EXPLICIT = ("1.2.840.10008.1.2.1",)
COMMAND = Field.C_ECHO_RQ


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    peers = [peer("TEST"), peer("SENDER", allow=("echo", "store")), peer("VIEWER", allow=("find",))]
    with serving(tmp_path_factory.mktemp("archive"), peers) as found:
        yield found


def call(archive: Archive, *classes: str, calling: str = "TEST", called: str = "ARCHIVE") -> Association:
    return archive.destination(calling, called).connect([(uid, EXPLICIT) for uid in classes])


def ask(
    association: Association, field: int, data: bytes | None = None, *, on: int = 0, **more: Value
) -> Message | None:
    """Send a command on the ``on``-th accepted context and wait for what comes back."""
    context = list(association.contexts.values())[on]
    given: dict[str, Value] = {"AffectedSOPClassUID": context.abstract_syntax, "CommandField": field, "MessageID": 7}
    given.update(more)
    if data is not None:
        given["CommandDataSetType"] = HAS_DATA
    association.send_message(context, encode_command(given), data)
    return association.read_message()


def status(message: Message | None) -> int:
    assert message is not None
    assert message.command.message_id == 7
    return message.command.status


def test_an_echo_is_answered(archive: Archive) -> None:
    with call(archive, VERIFICATION) as association:
        assert status(ask(association, Field.C_ECHO_RQ)) == 0x0000


def test_an_echo_from_anyone_to_any_title_is_answered(archive: Archive) -> None:
    with call(archive, VERIFICATION, calling="NOBODY", called="WRONG") as association:
        assert status(ask(association, Field.C_ECHO_RQ)) == 0x0000


@pytest.mark.parametrize(
    ("calling", "called", "words"),
    [("NOBODY", "ARCHIVE", "calling AE title"), ("TEST", "WRONG", "called AE title")],
)
def test_others_are_rejected_and_noted(archive: Archive, calling: str, called: str, words: str) -> None:
    archive.noted.clear()
    with pytest.raises(Unreachable, match=words):
        call(archive, CT, calling=calling, called=called)
    ((aet, address, title, reason),) = archive.noted
    assert (aet, address, title) == (calling, "127.0.0.1", called)
    assert words in reason


def test_only_permitted_contexts_are_accepted(archive: Archive) -> None:
    with call(archive, VERIFICATION, CT, FIND, MOVE, GET, calling="SENDER") as association:
        assert [context.abstract_syntax for context in association.contexts.values()] == [VERIFICATION, CT]
        assert set(association.refused.values()) == {1}


@pytest.mark.parametrize("field", [0x7777, 0x0040, 0x0FFE])
def test_an_unknown_command_is_unrecognized(archive: Archive, field: int) -> None:
    with call(archive, VERIFICATION) as association:
        assert status(ask(association, field)) == 0x0211
        assert status(ask(association, Field.C_ECHO_RQ)) == 0x0000


@pytest.mark.parametrize("field", [0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150])
def test_services_we_do_not_have_are_not_supported(archive: Archive, field: int) -> None:
    with call(archive, VERIFICATION) as association:
        assert status(ask(association, field)) == 0x0122


@pytest.mark.parametrize("field", [Field.C_FIND_RQ, Field.C_MOVE_RQ, Field.C_GET_RQ])
@pytest.mark.parametrize("on", [VERIFICATION, CT])
def test_a_query_on_another_context_is_not_supported(archive: Archive, field: Field, on: str) -> None:
    with call(archive, on) as association:
        assert status(ask(association, field, b"\x08\0\x52\0CS\6\0STUDY ")) == 0x0122


def test_an_echo_on_a_storage_context_is_not_supported(archive: Archive) -> None:
    with call(archive, CT) as association:
        assert status(ask(association, Field.C_ECHO_RQ)) == 0x0122


def test_a_command_that_names_another_class_than_its_context_is_not_supported(archive: Archive) -> None:
    with call(archive, FIND, MOVE) as association:
        assert status(ask(association, Field.C_FIND_RQ, b"", AffectedSOPClassUID=MOVE)) == 0x0122


def test_a_query_without_identifier_does_not_match_its_class(archive: Archive) -> None:
    with call(archive, FIND) as association:
        answer = ask(association, Field.C_FIND_RQ)
        assert status(answer) == 0xA900
        assert answer is not None and answer.command.comment == "identifier is missing"


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"\x08\0\x52\0CS\xff\x7fSTUDY"])
def test_an_identifier_that_cannot_be_read_is_a_failure_with_a_comment(archive: Archive, data: bytes) -> None:
    with call(archive, FIND) as association:
        answer = ask(association, Field.C_FIND_RQ, data)
        assert status(answer) in (0xA900, 0xC000)
        assert answer is not None and answer.command.comment


def test_unsolicited_responses_are_ignored(archive: Archive) -> None:
    with call(archive, VERIFICATION) as association:
        context = next(iter(association.contexts.values()))
        for _ in range(100):
            command = {"CommandField": 0x8030, "MessageIDBeingRespondedTo": 3, "Status": 0}
            association.send_message(context, encode_command(command))
        assert status(ask(association, Field.C_ECHO_RQ)) == 0x0000


def test_late_and_wrong_cancels_change_nothing(archive: Archive) -> None:
    with call(archive, VERIFICATION) as association:
        context = next(iter(association.contexts.values()))
        for number in range(11):
            command = {"CommandField": int(Field.C_CANCEL_RQ), "MessageIDBeingRespondedTo": number}
            association.send_message(context, encode_command(command))
        assert status(ask(association, Field.C_ECHO_RQ)) == 0x0000


def test_permissions_are_checked_for_every_message(archive: Archive) -> None:
    """A viewer that proposes a storage context for C-GET must not store on it."""
    viewer = archive.destination("VIEWER")
    with viewer.connect([(FIND, EXPLICIT)]) as association:
        assert list(association.contexts)
    with pytest.raises(Unreachable), viewer.connect([(CT, EXPLICIT)]) as association:
        raise Unreachable("no context" if not association.contexts else "")


def test_an_association_that_breaks_leaves_nothing_behind(archive: Archive) -> None:
    association = call(archive, CT)
    context = next(iter(association.contexts.values()))
    command = encode_command(
        {
            "AffectedSOPClassUID": CT,
            "CommandField": int(Field.C_STORE_RQ),
            "MessageID": 1,
            "CommandDataSetType": HAS_DATA,
            "AffectedSOPInstanceUID": instance(99).SOPInstanceUID,
        }
    )
    with pytest.raises((Ended, OSError)):
        association.send_stream(context, command, broken())
    association.abort()
    archive.wait_until_quiet()
    assert not list((archive.folder / "files" / "spool").rglob("*.part"))


def broken() -> Iterator[bytes]:
    yield bytes(2_000_000)
    yield bytes(2_000_000)
    raise OSError("the sender's disk failed")
