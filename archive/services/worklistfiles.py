"""Worklist files: orders from a folder of data sets, one for each scheduled step, as file-based worklists keep them.

Rules that hold here: a file is a worklist answer written down, with or without file meta information; what it does
not say is not made up, but the IDs without which nothing could be found again; the same file again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from archive.dicom.attributes import Attribute
from archive.dicom.identifier import decode_identifier
from archive.dicom.part10 import read_file_meta
from archive.dicom.tree import DataSet
from archive.dicom.uids import named_uid
from archive.dicom.worklist import ABOVE, STEP, STEP_SEQUENCE_TAG
from archive.errors import NotUnderstood
from archive.index.ordervalues import NewStep, OrderChange, OrderKeys

ENDINGS = (".wl", ".dcm", ".wlm")
LONGEST = 1 << 20  # bytes of one file: an answer has some kilobytes


def worklist_files(folder: Path) -> Iterator[Path]:
    """The worklist files below a folder, in the order of their names."""
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in ENDINGS and path.is_file())


def read_worklist_file(data: bytes) -> OrderChange:
    """The order in one file; raises NotUnderstood."""
    if len(data) > LONGEST:
        raise NotUnderstood(f"worklist file is longer than {LONGEST} bytes")
    meta = read_file_meta(data)
    found = decode_identifier(data[meta.offset :], meta.transfer_syntax)
    items = found.items_of(STEP_SEQUENCE_TAG)
    if not items:
        raise NotUnderstood("file has no Scheduled Procedure Step Sequence")
    above = _values(found, ABOVE)
    if not above.get("PatientID"):
        raise NotUnderstood("file has no Patient ID")
    steps = tuple(_step(_values(item, STEP)) for item in items)
    return OrderChange(_keys(above), None, above, {"StudyInstanceUID": _stable_uid(above, steps)}, steps)


def _keys(above: Mapping[str, Any]) -> OrderKeys:
    return OrderKeys(
        study_uid=above.get("StudyInstanceUID", ""),
        placer=above.get("PlacerOrderNumberImagingServiceRequest", ""),
        filler=above.get("FillerOrderNumberImagingServiceRequest", ""),
        accession_number=above.get("AccessionNumber", ""),
    )


def _step(values: dict[str, Any]) -> NewStep:
    return NewStep(values.get("ScheduledProcedureStepID", ""), values)


def _stable_uid(above: Mapping[str, Any], steps: tuple[NewStep, ...]) -> str:
    """A UID below 2.25 (PS3.5 B.2) made of what identifies the order in the file."""
    said = (above["PatientID"], above.get("AccessionNumber", ""), above.get("RequestedProcedureID", ""))
    return named_uid(chr(31).join((*said, *(step.step_id for step in steps))))


def _values(found: DataSet, table: Mapping[int, Attribute]) -> dict[str, Any]:
    """The values that are there, by keyword."""
    values: dict[str, Any] = {}
    for tag, attribute in table.items():
        if attribute.vr == "SQ":
            inner = {row.tag: row for row in attribute.items}
            items = [item for each in found.items_of(tag) if (item := _values(each, inner))]
            values |= {attribute.keyword: items} if items else {}
        elif text := found.text(tag).strip():
            values[attribute.keyword] = text
    return values
