"""What a result message reports: its text lines, or the document in it (HL7 v2.5.1 7.4.2, OBX).

Rules that hold here: text of any kind of observation is kept in its order, each with its name where it has one; of
documents the first PDF counts; a message with neither is refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from archive.errors import NotUnderstood
from archive.hl7.message import Message, Segment

# HL7 v2.5.1 table 0085 and 0123: results that are not final yet.
_PRELIMINARY = frozenset({"P", "R", "S", "I", "O"})
_TEXT = frozenset({"TX", "FT", "ST", "CE", "CWE", "NM", "SN", ""})
_PDF = b"%PDF-"


class NotReadable(NotUnderstood):
    """A result without anything that could be kept."""


def read_report(message: Message, within: list[Segment], number: int) -> dict[str, Any]:
    """The report of one OBR, as plain values for a task. Raises NotReadable."""
    observations = list(message.all("OBX", within))
    pdf = next(filter(None, map(_document, observations)), b"")
    text = "" if pdf else _text(observations)
    if not pdf and not text.strip():
        raise NotReadable("result has neither text nor a PDF")
    status = message.text("OBR-25", within) or (observations[0].text(11) if observations else "")
    status = status.upper()
    said = next(filter(None, (message.text(each, within) for each in ("OBR-22", "OBR-7"))), message.text("MSH-7"))
    when = re.match(r"\d{8,14}", said)
    return {
        "key": chr(31).join(("report", message.sender, message.control_id, str(number))),
        "title": message.text("OBR-4.2", within) or message.text("OBR-4.1", within) or "Report",
        "when": (when[0] if when else "19700101").ljust(14, "0"),
        "text": text,
        "pdf": base64.b64encode(pdf).decode("ascii"),
        "final": status not in _PRELIMINARY,
        "observer": _person(message, within),
    }


def _document(segment: Segment) -> bytes:
    """A PDF in OBX-5 (ED): its encoding in the fourth component, the data in the fifth."""
    if segment.text(2) != "ED":
        return b""
    data, encoding = segment.text(5, 5), segment.text(5, 4).lower()
    try:
        found = binascii.unhexlify(data) if encoding == "hex" else base64.b64decode(data, validate=False)
    except (binascii.Error, ValueError) as error:
        raise NotReadable("document cannot be decoded") from error
    if not found.startswith(_PDF):
        raise NotReadable("document is no PDF")
    return found


def _text(observations: list[Segment]) -> str:
    lines: list[str] = []
    last = ""
    for segment in observations:
        if segment.text(2) not in _TEXT:
            continue
        name = segment.text(3, 2) or segment.text(3, 1, 2) or segment.text(3, 1)  # "&GDT" has the suffix alone
        if name and name != last:
            lines += [f"{name}:"] if not lines else ["", f"{name}:"]
            last = name
        lines += _values(segment)
    return "\r\n".join(lines)


def _values(segment: Segment) -> list[str]:
    """Repetitions are lines; of coded values the words."""
    coded = segment.text(2) in ("CE", "CWE")
    return [
        segment.text(5, 2 if coded else 0, 0, number) or segment.text(5, 1, 0, number)
        for number in range(1, segment.repetitions(5) + 1)
    ]


def _person(message: Message, within: list[Segment]) -> str:
    """The principal result interpreter, OBR-32 (NDL)."""
    for segment in message.all("OBR", within):
        parts = [segment.text(32, 1, part) for part in (2, 3)]
        return "^".join(re.sub(r"[\^=\\]+", " ", part) for part in parts).rstrip("^")
    return ""
