"""What goes over the wire once an association stands: PDU headers (PS3.8 9.3) and command sets (PS3.7 6.3).

Rules that hold here: bytes in, values out, no sockets; no length that came from a peer is believed
before it was compared with what is there; what cannot be read raises ProtocolError with the A-ABORT
reason to answer.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum

from archive.dimse.reasons import ProtocolError

# PS3.8 table 9-1 and 9.3: PDU types.
ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)

PDU_HEADER = struct.Struct(">BxI")  # type, reserved, length of what follows (PS3.8 9.3.1)
PDV_HEADER = struct.Struct(">IBB")  # length of what follows, context, message control header (PS3.8 9.3.5.1, E.2)
DATA_HEADER = struct.Struct(">BxIIBB")  # a P-DATA-TF PDU with one PDV, up to its fragment
PDV_OVERHEAD = PDV_HEADER.size
COMMAND_BIT, LAST_BIT = 1, 2  # PS3.8 E.2, message control header
LARGEST_COMMAND = 64 * 1024  # bytes; the largest honest one is a C-GET response with some comments, below 1 kB
SMALLEST_MAXIMUM = 7  # a PDV header and one byte: less cannot carry anything (PS3.8 D.1)

RELEASE_REQUEST = struct.pack(">BxII", RELEASE_RQ, 4, 0)
RELEASE_REPLY = struct.pack(">BxII", RELEASE_RP, 4, 0)


def abort_pdu(source: int, reason: int) -> bytes:
    return struct.pack(">BxIxxBB", ABORT, 4, source, reason)


def reject_pdu(result: int, source: int, reason: int) -> bytes:
    return struct.pack(">BxIxBBB", ASSOCIATE_RJ, 4, result, source, reason)


def data_header(context_id: int, size: int, *, command: bool, last: bool) -> bytes:
    """The twelve bytes before a fragment of `size` that travels alone in its PDU."""
    control = (COMMAND_BIT if command else 0) | (LAST_BIT if last else 0)
    return DATA_HEADER.pack(P_DATA, size + PDV_OVERHEAD, size + 2, context_id, control)


def fragment_size(peer_max_pdu: int, ours: int) -> int:
    """Bytes of a message in each PDU: what both sides bear, even as fragments must be (PS3.8 annex E.1)."""
    room = ours if peer_max_pdu == 0 else min(ours, peer_max_pdu)
    return max(1, (room - PDV_OVERHEAD) & ~1)


# -- command sets -----------------------------------------------------------------------------------


class Field(IntEnum):
    """PS3.7 table E.1-1, Command Field; a response has the bit `RESPONSE` set."""

    C_STORE_RQ = 0x0001
    C_GET_RQ = 0x0010
    C_FIND_RQ = 0x0020
    C_MOVE_RQ = 0x0021
    C_ECHO_RQ = 0x0030
    C_CANCEL_RQ = 0x0FFF
    N_EVENT_REPORT_RQ = 0x0100
    N_GET_RQ = 0x0110
    N_SET_RQ = 0x0120
    N_ACTION_RQ = 0x0130
    N_CREATE_RQ = 0x0140
    N_DELETE_RQ = 0x0150
    C_STORE_RSP = 0x8001
    C_GET_RSP = 0x8010
    C_FIND_RSP = 0x8020
    C_MOVE_RSP = 0x8021
    C_ECHO_RSP = 0x8030
    N_EVENT_REPORT_RSP = 0x8100
    N_GET_RSP = 0x8110
    N_SET_RSP = 0x8120
    N_ACTION_RSP = 0x8130
    N_CREATE_RSP = 0x8140
    N_DELETE_RSP = 0x8150


RESPONSE = 0x8000
NO_DATA, HAS_DATA = 0x0101, 0x0001  # Command Data Set Type (PS3.7 E.1): anything but NO_DATA announces one

# PS3.7 table E.1-1: keyword -> (element of group 0000, VR).
ELEMENTS: dict[str, tuple[int, str]] = {
    "AffectedSOPClassUID": (0x0002, "UI"),
    "RequestedSOPClassUID": (0x0003, "UI"),
    "CommandField": (0x0100, "US"),
    "MessageID": (0x0110, "US"),
    "MessageIDBeingRespondedTo": (0x0120, "US"),
    "MoveDestination": (0x0600, "AE"),
    "Priority": (0x0700, "US"),
    "CommandDataSetType": (0x0800, "US"),
    "Status": (0x0900, "US"),
    "OffendingElement": (0x0901, "AT"),
    "ErrorComment": (0x0902, "LO"),
    "ErrorID": (0x0903, "US"),
    "AffectedSOPInstanceUID": (0x1000, "UI"),
    "RequestedSOPInstanceUID": (0x1001, "UI"),
    "EventTypeID": (0x1002, "US"),
    "AttributeIdentifierList": (0x1005, "AT"),
    "ActionTypeID": (0x1008, "US"),
    "NumberOfRemainingSuboperations": (0x1020, "US"),
    "NumberOfCompletedSuboperations": (0x1021, "US"),
    "NumberOfFailedSuboperations": (0x1022, "US"),
    "NumberOfWarningSuboperations": (0x1023, "US"),
    "MoveOriginatorApplicationEntityTitle": (0x1030, "AE"),
    "MoveOriginatorMessageID": (0x1031, "US"),
}
_VR = dict(ELEMENTS.values())
_NUMBER = {keyword: element for keyword, (element, _) in ELEMENTS.items()}

_ELEMENT = struct.Struct("<HHI")
_US = struct.Struct("<H")
_SHORT_US = struct.Struct("<HHIH")
_FOUR_US = struct.Struct("<HHIHHHIHHHIHHHIH")
_GROUP_LENGTH = struct.Struct("<HHII")

Value = int | str | bytes | None


class Command:
    """A command set as it came: the routing fields decoded, the rest raw until somebody asks."""

    __slots__ = ("elements", "field", "has_data", "message_id")

    def __init__(self, field: int, message_id: int, has_data: bool, elements: dict[int, bytes]) -> None:
        self.field = field
        self.message_id = message_id  # of a response or C-CANCEL: the id of the request it belongs to
        self.has_data = has_data
        self.elements = elements

    def __repr__(self) -> str:
        return f"Command(0x{self.field:04x}, {self.message_id})"

    def number(self, element: int, default: int = 0) -> int:
        value = self.elements.get(element, b"")
        return _US.unpack_from(value)[0] if len(value) >= 2 else default

    def text(self, element: int) -> str:
        return self.elements.get(element, b"").decode("latin-1").strip("\0 ")

    uid = text

    @property
    def is_response(self) -> bool:
        return self.field >= RESPONSE

    @property
    def sop_class(self) -> str:
        """Affected SOP Class UID, or Requested SOP Class UID where the service has that."""
        return self.text(0x0002) or self.text(0x0003)

    @property
    def sop_instance(self) -> str:
        return self.text(0x1000) or self.text(0x1001)

    @property
    def status(self) -> int:
        return self.number(0x0900)

    @property
    def comment(self) -> str:
        return self.text(0x0902)

    @property
    def priority(self) -> int:
        return self.number(0x0700)

    @property
    def move_destination(self) -> str:
        return self.text(0x0600)

    @property
    def move_originator(self) -> str:
        return self.text(0x1030)

    @property
    def move_originator_id(self) -> int:
        return self.number(0x1031)

    @property
    def event_type(self) -> int:
        return self.number(0x1002)

    @property
    def action_type(self) -> int:
        return self.number(0x1008)


def decode_command(data: bytes) -> Command:
    """Read a command set: Implicit VR Little Endian, group 0000 only (PS3.7 6.3.1)."""
    elements: dict[int, bytes] = {}
    position, end = 0, len(data)
    while position < end:
        if end - position < 8:
            raise ProtocolError("command set ends inside an element")
        group, element, length = _ELEMENT.unpack_from(data, position)
        position += 8
        if group:
            raise ProtocolError(f"group {group:04x} in a command set")
        if length > end - position:
            raise ProtocolError("an element of the command set is longer than the command set")
        elements[element] = data[position : position + length]
        position += length
    return _command(elements)


def _command(elements: dict[int, bytes]) -> Command:
    field = _required(elements, 0x0100, "command field")
    answers = field >= RESPONSE or field == Field.C_CANCEL_RQ
    message_id = _required(elements, 0x0120 if answers else 0x0110, "message id")
    has_data = _required(elements, 0x0800, "data set type") != NO_DATA
    return Command(field, message_id, has_data, elements)


def _required(elements: dict[int, bytes], element: int, name: str) -> int:
    value = elements.get(element)
    if value is None or len(value) != 2:
        raise ProtocolError(f"command set without {name}")
    return value[0] | value[1] << 8


def encode_command(elements: Mapping[str, Value]) -> bytes:
    """A command set of values by keyword; None is left out.

    The group length is added, and `CommandDataSetType` NO_DATA unless it is given. UIDs and texts
    are padded, numbers are US; bytes go out as they are.
    """
    numbered: dict[int, Value] = {0x0800: NO_DATA}
    numbered.update((_NUMBER[keyword], value) for keyword, value in elements.items())
    return _encode(numbered)


def _encode(elements: dict[int, Value]) -> bytes:
    body = b"".join([_encoded(number, value) for number, value in sorted(elements.items()) if value is not None])
    return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def _encoded(number: int, value: Value) -> bytes:
    if isinstance(value, int):
        return _SHORT_US.pack(0, number, 2, value)
    if isinstance(value, str):
        value = value.encode("latin-1", "replace")
        if len(value) % 2:
            value += b"\0" if _VR.get(number) == "UI" else b" "
    assert value is not None
    return _ELEMENT.pack(0, number, len(value)) + value


# What a response repeats of its request, by element; N-services answer with the affected SOP instance.
_REPEATED = ((0x0002, 0x0002), (0x0003, 0x0002), (0x1000, 0x1000), (0x1001, 0x1000))


def encode_response(
    request: Command, status: int, *, has_data: bool = False, extra: Mapping[str, Value] | None = None
) -> bytes:
    """The response command to `request`: its field, message id, SOP class and instance, and a status."""
    kind = HAS_DATA if has_data else NO_DATA
    if not extra:
        return _plain_response(request, status, kind)
    answer: dict[int, Value] = {new: request.elements[old] for old, new in _REPEATED if old in request.elements}
    answer[0x0100] = request.field | RESPONSE
    answer[0x0120] = request.message_id
    answer[0x0800] = kind
    answer[0x0900] = status
    for key, value in (extra or {}).items():
        answer[_NUMBER[key]] = value
    return _encode(answer)


def _plain_response(request: Command, status: int, kind: int) -> bytes:
    """As nearly all are: built in one go, as every stored object gets one."""
    get = request.elements.get
    sop_class, sop_instance = get(0x0003, get(0x0002)), get(0x1001, get(0x1000))
    body = _FOUR_US.pack(
        0, 0x0100, 2, request.field | RESPONSE, 0, 0x0120, 2, request.message_id, 0, 0x0800, 2, kind,
        0, 0x0900, 2, status,
    )  # fmt: skip
    if sop_class is not None:
        body = _ELEMENT.pack(0, 0x0002, len(sop_class)) + sop_class + body
    if sop_instance is not None:
        body += _ELEMENT.pack(0, 0x1000, len(sop_instance)) + sop_instance
    return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def holds_message(buffer: memoryview, position: int, end: int, pdu_left: int) -> bool:
    """Does a whole message lie in `buffer[position:end]`, `pdu_left` bytes of a P-DATA PDU first?

    False when it cannot be told: what is wrong with it is found when it is read.
    """
    command = b""
    while True:
        if not pdu_left:
            if end - position < PDU_HEADER.size:
                return False
            kind, pdu_left = PDU_HEADER.unpack_from(buffer, position)
            position += PDU_HEADER.size
            if kind != P_DATA:
                return False
        if end - position < PDV_OVERHEAD:
            return False
        length, _, control = PDV_HEADER.unpack_from(buffer, position)
        if not 2 <= length <= min(pdu_left, end - position) - 4:
            return False
        if control & COMMAND_BIT:
            command += buffer[position + PDV_OVERHEAD : position + length + 4]
        position += length + 4
        pdu_left -= length + 4
        if control & LAST_BIT and (not control & COMMAND_BIT or not _announces_data(command)):
            return True


def _announces_data(command: bytes) -> bool:
    try:
        return decode_command(command).has_data
    except ProtocolError:
        return False
