"""The identifiers we send: keys by keyword or tag, in words the peer can stand (PS3.4 C.4.1.1.3).

Rules that hold here: a peer's quirks change what is asked, never what is meant: a pattern that matches
everything may be sent as an empty value, which means the same (PS3.4 C.2.2.2.3).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from typing import Any

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset

from archive.dicom.attributes import Level
from archive.dicom.uids import IMPLICIT_LITTLE
from archive.dimse.destinations import Destination
from archive.dimse.negotiation import Context
from archive.errors import InvalidQuery

Keys = Mapping[Any, Any]
"""Keyword or tag -> text, or a sequence of such mappings."""

DATES = frozenset({"DA", "TM", "DT"})


def question(level: Level, keys: Keys, context: Context, destination: Destination, charset: str) -> bytes:
    """The identifier of a query or retrieval; raises InvalidQuery for a key that DICOM does not know."""
    return question_in(context.transfer_syntax, level, keys, destination.quirks, charset)


def question_in(
    syntax: str, level: Level, keys: Keys, quirks: Collection[str] = (), charset: str = "ISO_IR 192"
) -> bytes:
    """The identifier in one of the uncompressed little endian transfer syntaxes."""
    asked = data_set(keys, quirks)
    asked.QueryRetrieveLevel = level.name
    if not _is_ascii(keys):
        asked.SpecificCharacterSet = charset
    file = BytesIO()
    target = DicomIO(file)
    target.is_little_endian = True
    target.is_implicit_VR = syntax == IMPLICIT_LITTLE
    write_dataset(target, asked)
    return file.getvalue()


def data_set(keys: Keys, quirks: Collection[str]) -> Dataset:
    """The keys as elements of the VR that the dictionary gives them."""
    found = Dataset()
    for key, value in keys.items():
        tag = tag_for_keyword(key) if isinstance(key, str) else key
        try:
            vr = dictionary_VR(tag)
        except (KeyError, ValueError, TypeError) as error:
            raise InvalidQuery("unknown key", str(key)) from error
        if vr == "SQ":
            asked: Any = [data_set(item, quirks) for item in _items(value)]
        else:
            asked = _tolerable(vr, str(value or ""), quirks)
        # A key may hold a wildcard or a range where a value may not, and pydicom would quote it in a warning.
        found.add(DataElement(tag, vr.partition(" ")[0], asked, validation_mode=IGNORE))
    return found


def _items(value: object) -> Sequence[Keys]:
    return value if isinstance(value, list | tuple) else []


def _tolerable(vr: str, value: str, quirks: Collection[str]) -> str:
    """The value, or the empty one where this peer cannot stand a wildcard that matches everything."""
    if value == "*" and ("no_universal_wildcard" in quirks or (vr in DATES and "no_wildcard_in_dates" in quirks)):
        return ""
    return value


def _is_ascii(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(_is_ascii(each) for each in value.values())
    if isinstance(value, list | tuple):
        return all(_is_ascii(each) for each in value)
    return str(value).isascii()
