"""Messages of our own: that a study has arrived, and what became of it (HL7 v2.5.1 4.4.1, ORM^O01 with ORC-1 SC).

Rules that hold here: values are escaped; the message is UTF-8 and says so; its control ID is given, so that the same
event is the same message however often it is sent.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

# Study state -> HL7 v2.5.1 table 0038, order status.
STATUSES = {
    "received": "IP", "ready": "A", "read": "A", "reported": "CM", "complete": "CM", "updated": "IP", "unmatched": "A",
}  # fmt: skip
_ESCAPES = str.maketrans(
    {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "~": "\\R\\", "&": "\\T\\", "\r": "\\.br\\", "\n": ""}
)


def study_message(values: Mapping[str, str], state: str, *, control_id: str, application: str, now: float) -> bytes:
    """``values`` are the study's and, if there is one, its order's attributes by keyword."""
    moment = time.strftime("%Y%m%d%H%M%S", time.localtime(now))
    placer = _text(values, "PlacerOrderNumberImagingServiceRequest")
    filler = _text(values, "FillerOrderNumberImagingServiceRequest")
    accession = _text(values, "AccessionNumber")
    segments: list[Sequence[str]] = [
        ("MSH", "^~\\&", _escaped(application), "", "", "", moment, "", "ORM^O01^ORM_O01", control_id, "P", "2.5.1",
         "", "", "", "", "", "UNICODE UTF-8"),
        ("PID", "1", "", _joined(_text(values, "PatientID"), "", "", _text(values, "IssuerOfPatientID")), "",
         _name(values.get("PatientName", "")), "", _text(values, "PatientBirthDate"), _text(values, "PatientSex")),
        ("ORC", "SC", placer, filler or accession, "", STATUSES.get(state, "A"), "", "", "", moment),
        ("OBR", "1", placer, filler or accession, _joined("", _text(values, "StudyDescription")), "", "",
         _text(values, "StudyDate") + _text(values, "StudyTime")[:6], *[""] * 10, accession, "", "", "", "", "",
         _text(values, "ModalitiesInStudy").split("\\")[0]),
        ("ZDS", _joined(_text(values, "StudyInstanceUID"), _escaped(application), "Application", "DICOM")),
        ("NTE", "1", "", f"study is {state}"),
    ]  # fmt: skip
    return "".join("|".join(segment).rstrip("|") + "\r" for segment in segments).encode()


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)


def _text(values: Mapping[str, str], keyword: str) -> str:
    return _escaped(str(values.get(keyword, "") or ""))


def _joined(*parts: str) -> str:
    return "^".join(parts).rstrip("^")


def _name(name: str) -> str:
    """A DICOM name to XPN, its component groups as repetitions; prefix and suffix change places."""
    groups = [group.split("^") for group in name.split("=")]
    words = []
    for code, parts in zip("AIP", groups, strict=False):
        family, given, middle, prefix, suffix = (_escaped(part) for part in [*parts, *[""] * 5][:5])
        components = [family, given, middle, suffix, prefix, "", "", code if len(groups) > 1 else ""]
        words.append("^".join(components).rstrip("^"))
    return "~".join(filter(None, words))
