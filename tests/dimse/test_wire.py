from __future__ import annotations

import struct
from io import BytesIO

import pytest
from pydicom.dataset import Dataset
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode, encode

from archive.dimse import wire
from archive.dimse.reasons import ProtocolError
from archive.dimse.wire import HAS_DATA, NO_DATA, Field, decode_command, encode_command, encode_response

from .raw import CT, VERIFICATION, echo, store


def element(number: int, value: bytes, group: int = 0) -> bytes:
    return struct.pack("<HHI", group, number, len(value)) + value


def us(number: int, value: int) -> bytes:
    return element(number, struct.pack("<H", value))


MINIMAL = us(0x0100, 0x0030) + us(0x0110, 7) + us(0x0800, NO_DATA)


def test_a_command_is_read_back_as_it_was_written() -> None:
    command = decode_command(store(77, "1.2.3.4"))
    assert (command.field, command.message_id, command.has_data) == (Field.C_STORE_RQ, 77, True)
    assert (command.sop_class, command.sop_instance, command.priority) == (CT, "1.2.3.4", 0)


def test_another_implementation_reads_our_commands() -> None:
    found = decode(BytesIO(store(3, "1.2.3")), True, True)
    assert found.CommandGroupLength == len(store(3, "1.2.3")) - 12
    assert (found.AffectedSOPClassUID, found.AffectedSOPInstanceUID, found.MessageID) == (CT, "1.2.3", 3)


def test_the_commands_of_another_implementation_are_read() -> None:
    primitive = C_STORE()
    primitive.MessageID, primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = 9, CT, "1.2.3"
    primitive.Priority, primitive.MoveOriginatorApplicationEntityTitle, primitive.MoveOriginatorMessageID = 1, "WS", 4
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    command = decode_command(encode(message.command_set, True, True) or b"")
    assert (command.move_originator, command.move_originator_id, command.priority) == ("WS", 4, 1)


def test_a_response_repeats_what_its_request_named() -> None:
    answer = decode_command(encode_response(decode_command(store(5)), 0xA700, extra={"ErrorComment": "full"}))
    assert (answer.field, answer.message_id, answer.status, answer.comment) == (Field.C_STORE_RSP, 5, 0xA700, "full")
    assert (answer.sop_class, answer.sop_instance, answer.has_data) == (CT, "1.2.3", False)
    assert answer.is_response


def test_an_n_service_is_answered_with_the_affected_sop_instance() -> None:
    asked = encode_command(
        {"RequestedSOPClassUID": "1.2", "RequestedSOPInstanceUID": "1.3", "CommandField": 0x130, "MessageID": 1}
    )
    answer = decode_command(encode_response(decode_command(asked), 0, has_data=True))
    assert (answer.text(0x0002), answer.text(0x1000), answer.has_data) == ("1.2", "1.3", True)


def test_values_are_padded_by_their_representation() -> None:
    encoded = encode_command({"AffectedSOPClassUID": "1.2.3", "MoveDestination": "ABC", "CommandField": 1})
    assert b"1.2.3\0" in encoded and b"ABC " in encoded


def test_what_is_none_is_left_out() -> None:
    assert encode_command({"CommandField": 1, "ErrorComment": None}) == encode_command({"CommandField": 1})


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (b"", "without command field"),
        (us(0x0110, 7) + us(0x0800, NO_DATA), "without command field"),
        (us(0x0100, 1) + us(0x0800, NO_DATA), "without message id"),
        (us(0x0100, 1) + us(0x0110, 1), "without data set type"),
        (us(0x0100, 0x8001) + us(0x0110, 1) + us(0x0800, NO_DATA), "without message id"),
        (MINIMAL[:-1], "longer than the command set"),
        (MINIMAL + b"\0\0\0", "ends inside an element"),
        (MINIMAL + struct.pack("<HHI", 0, 0x0902, 0xFFFFFFF0), "longer than"),
        (element(0x0010, b"X", group=0x0010) + MINIMAL, "group 0010"),
        (element(0x0100, b"\x01") + us(0x0110, 1) + us(0x0800, NO_DATA), "without command field"),
        (b"\xff" * 64, "group ffff"),
    ],
)
def test_a_command_that_cannot_be_read_is_an_invalid_parameter(command: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words) as raised:
        decode_command(command)
    assert (raised.value.source, raised.value.reason) == (2, 6)


def test_an_unknown_field_is_for_the_services_to_refuse() -> None:
    assert decode_command(us(0x0100, 0x7777) + us(0x0110, 7) + us(0x0800, HAS_DATA)).field == 0x7777


def test_any_data_set_type_but_the_null_one_announces_a_data_set() -> None:
    for value, announced in ((NO_DATA, False), (0, True), (1, True), (0x0102, True)):
        assert decode_command(us(0x0100, 1) + us(0x0110, 7) + us(0x0800, value)).has_data is announced


@pytest.mark.parametrize(("peer", "expected"), [(0, 1018), (512, 506), (511, 504), (4096, 1018), (7, 1), (8, 2)])
def test_fragments_fit_the_smaller_maximum_and_are_even(peer: int, expected: int) -> None:
    assert wire.fragment_size(peer, 1024) == expected


def test_control_pdus_are_as_the_standard_draws_them() -> None:
    assert wire.abort_pdu(2, 6) == bytes.fromhex("0700000000040000 0206".replace(" ", ""))
    assert wire.reject_pdu(1, 2, 3) == bytes.fromhex("03000000000400010203")
    assert bytes.fromhex("05000000000400000000") == wire.RELEASE_REQUEST
    assert bytes.fromhex("06000000000400000000") == wire.RELEASE_REPLY


def test_every_element_has_the_representation_of_the_dictionary() -> None:
    for keyword, (number, representation) in wire.ELEMENTS.items():
        found = Dataset()
        found.add_new(number, representation, None)
        assert found[number].keyword == keyword


def pdu(*fragments: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack(">IBB", len(data) + 2, 1, control) + data for control, data in fragments)
    return wire.PDU_HEADER.pack(wire.P_DATA, len(body)) + body


@pytest.mark.parametrize(
    ("received", "whole"),
    [
        (pdu((3, echo())), True),
        (pdu((3, store())), False),
        (pdu((3, store())) + pdu((2, b"data")), True),
        (pdu((3, store()), (2, b"data")), True),
        (pdu((3, store()), (0, b"data")) + pdu((2, b"")), True),
        (pdu((1, echo()[:20])) + pdu((3, echo()[20:])), True),
        (wire.RELEASE_REQUEST, False),
        (pdu((3, b"nonsense")), True),
    ],
)
def test_it_is_known_whether_a_message_has_come(received: bytes, whole: bool) -> None:
    assert wire.holds_message(memoryview(received), 0, len(received), 0) is whole
    for end in range(len(received)):
        assert not wire.holds_message(memoryview(received), 0, end, 0)


def test_a_verification_command_needs_no_data_set() -> None:
    assert decode_command(echo(2)).sop_class == VERIFICATION


@pytest.mark.parametrize("elements", [(2, 0x1000), (3, 0x1001), (2, 3, 0x1000, 0x1001), (), (3,), (0x1000,)])
def test_a_response_without_more_is_the_one_with_nothing_more(elements: tuple[int, ...]) -> None:
    numbers = {0x0100: b"\x01\x00", 0x0110: b"\x07\x00", 0x0800: b"\x01\x01"}
    request = wire.Command(1, 7, False, numbers | {element: b"1.2.%d" % element for element in elements})
    for has_data in (False, True):
        plain = wire.encode_response(request, 0xA700, has_data=has_data)
        assert plain == wire.encode_response(request, 0xA700, has_data=has_data, extra={"ErrorComment": None})
