"""Acknowledgements: what a sender reads, whatever it sent."""

from __future__ import annotations

import pytest

from archive.hl7 import acknowledge
from archive.hl7.acknowledge import Reply, acknowledgement
from archive.hl7.message import Message
from tests.hl7.made import message, order

TAKEN = Reply()


def answered(data: bytes, reply: Reply = TAKEN) -> Message:
    return Message(acknowledgement(data, reply, 1_800_000_000.0, application="ARCHIVE"))


def test_an_acceptance_mirrors_who_and_what() -> None:
    found = answered(order("M77"))
    assert [found.text(f"MSH-{n}") for n in (3, 4, 5, 6, 9, 11, 12)] == [
        "ARC", "HOSP", "RIS", "HOSP", "ACK^O01^ACK", "P", "2.5.1",
    ]  # fmt: skip
    assert [found.text("MSA-1"), found.text("MSA-2")] == ["AA", "M77"]
    assert not found.has("ERR")


@pytest.mark.parametrize(
    ("condition", "code"),
    [(acknowledge.UNSUPPORTED_EVENT, "AR"), (acknowledge.SEQUENCE_ERROR, "AR"), (acknowledge.REQUIRED_MISSING, "AE"),
     (acknowledge.UNKNOWN_KEY, "AE"), (acknowledge.INTERNAL, "AE")],
)  # fmt: skip
def test_a_refusal_says_what_and_where(condition: int, code: str) -> None:
    found = answered(order(), Reply(condition, "what | is ^ wrong", "PID-3.1"))
    assert found.text("MSA-1") == code
    assert found.text("MSA-3") == "what   is   wrong"
    assert [found.text("ERR-2"), found.text("ERR-3.1"), found.text("ERR-3.3"), found.text("ERR-4")] == [
        "PID^1^3^1", str(condition), "HL70357", "E",
    ]  # fmt: skip


def test_every_condition_has_words() -> None:
    numbers = {value for name, value in vars(acknowledge).items() if name.isupper() and isinstance(value, int)}
    assert numbers == set(acknowledge.WORDS)


@pytest.mark.parametrize("data", [b"", b"MSH", b"\xff" * 20, b"MSH|^~\\&|", b"PID|1"])
def test_rubbish_is_answered_too(data: bytes) -> None:
    found = answered(data, Reply(acknowledge.SEQUENCE_ERROR, "no"))
    assert found.text("MSA-1") == "AR" and found.text("MSH-9.1") == "ACK"


def test_a_sender_reads_its_own_separators() -> None:
    data = message("ORM^O01", control="M5").replace(b"|", b"*").replace(b"^", b"%")
    assert acknowledgement(data, Reply(), 1.0, application="A").startswith(b"MSH*%~\\&*ARC*HOSP*RIS*")


def test_two_answers_have_two_control_ids() -> None:
    assert answered(order()).control_id != answered(order()).control_id
