"""Acknowledgements: what a sender is told (HL7 v2.5.1 2.9.2, chapter 2 MSA and ERR).

Rules that hold here: AA only for what is durable; AR for a message that can never be taken as it is, AE for one that
failed for what it says or for what we could not do; ERR says what and where in table 0357's words; the sender's own
delimiters and identifiers are mirrored; nothing of the patient is repeated.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from archive.hl7.message import header_fields

# HL7 v2.5.1 table 0357.
ACCEPTED = 0
SEQUENCE_ERROR = 100
REQUIRED_MISSING = 101
DATA_TYPE = 102
VALUE_NOT_FOUND = 103
UNSUPPORTED_TYPE = 200
UNSUPPORTED_EVENT = 201
UNSUPPORTED_VERSION = 203
UNKNOWN_KEY = 204
DUPLICATE_KEY = 205
INTERNAL = 207

WORDS = {
    ACCEPTED: "Message accepted",
    SEQUENCE_ERROR: "Segment sequence error",
    REQUIRED_MISSING: "Required field missing",
    DATA_TYPE: "Data type error",
    VALUE_NOT_FOUND: "Table value not found",
    UNSUPPORTED_TYPE: "Unsupported message type",
    UNSUPPORTED_EVENT: "Unsupported event code",
    UNSUPPORTED_VERSION: "Unsupported version id",
    UNKNOWN_KEY: "Unknown key identifier",
    DUPLICATE_KEY: "Duplicate key identifier",
    INTERNAL: "Application internal error",
}
ACCEPT, ERROR, REJECT = "AA", "AE", "AR"
_NEVER = frozenset({SEQUENCE_ERROR, UNSUPPORTED_TYPE, UNSUPPORTED_EVENT, UNSUPPORTED_VERSION})

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered: a code of table 0357, words, and the field it is about (such as ``PID-3``)."""

    condition: int = ACCEPTED
    words: str = ""
    where: str = ""

    @property
    def code(self) -> str:
        if self.condition == ACCEPTED:
            return ACCEPT
        return REJECT if self.condition in _NEVER else ERROR


def acknowledgement(data: bytes, reply: Reply, now: float, *, application: str) -> bytes:
    """The acknowledgement of the message ``data``, readable or not, in ASCII."""
    header = header_fields(data)
    separator = header[0] if header else "|"
    own = [
        "MSH", _field(header, 2) or "^~\\&", _field(header, 5) or application, _field(header, 6), _field(header, 3),
        _field(header, 4), time.strftime("%Y%m%d%H%M%S", time.localtime(now)), "", _kind(header),
        f"{int(now * 1000)}{next(_numbers) % 1000:03d}", _field(header, 11) or "P", _field(header, 12) or "2.5.1",
    ]  # fmt: skip
    lines = [own, ["MSA", reply.code, _field(header, 10), _safe(reply.words, separator)]]
    if reply.condition != ACCEPTED:
        lines.append(_error(header, reply, separator))
    return "".join(separator.join(line).rstrip(separator) + "\r" for line in lines).encode("ascii", "replace")


def _field(header: Sequence[str], number: int) -> str:
    """MSH-number as it was written."""
    return header[number - 1] if number <= len(header) else ""


def _kind(header: Sequence[str]) -> str:
    component = (_field(header, 2) or "^")[0]
    parts = _field(header, 9).split(component)
    return component.join(["ACK", parts[1], "ACK"]) if len(parts) > 1 and parts[1] else "ACK"


def _error(header: Sequence[str], reply: Reply, separator: str) -> list[str]:
    """ERR-2 location, ERR-3 code, ERR-4 severity, ERR-8 words."""
    component = (_field(header, 2) or "^")[0]
    segment, _, rest = reply.where.partition("-")
    location = component.join([segment, "1", *rest.split(".")]) if segment else ""
    code = component.join([str(reply.condition), WORDS[reply.condition], "HL70357"])
    return ["ERR", "", location, code, "E", "", "", "", _safe(reply.words, separator)]


def _safe(words: str, separator: str) -> str:
    """Words of ours: without any delimiter a sender may have chosen."""
    return "".join(" " if sign in separator + "^~\\&\r\n" else sign for sign in words)[:250]
