"""Builders for index tests: arrivals and queries in one line."""

from __future__ import annotations

import itertools
from typing import Any

from pydicom.datadict import tag_for_keyword

from archive.dicom.attributes import BY_KEYWORD
from archive.dicom.header import Header
from archive.dicom.matching import Query, Root, read_query
from archive.index import Index, Location, NewInstance

CT = "1.2.840.10008.5.1.4.1.1.2"
PR = "1.2.840.10008.5.1.4.1.1.11.1"
EXPLICIT = "1.2.840.10008.1.2.1"

_numbers = itertools.count(1)


def tag(keyword: str) -> int:
    found = tag_for_keyword(keyword)
    assert found is not None, keyword
    return int(found)


def arrival(study: str = "1.1", series: str | None = None, sop: str | None = None, **options: Any) -> NewInstance:
    """One CT image; options are attributes by keyword, or fields of NewInstance in lower case."""
    number = next(_numbers)
    series = series or f"{study}.1"
    values = {"PatientID": "P1", "PatientName": "Doe^John", "Modality": "CT", "InstanceNumber": str(number)}
    values |= {key: value for key, value in options.items() if key[0].isupper()}
    sop_class = values.pop("SOPClassUID", CT)
    own = {key: value for key, value in options.items() if key[0].islower()}
    header = Header(
        sop_class,
        sop or f"{series}.{number}",
        study,
        series,
        values={tag(key): value for key, value in values.items() if value is not None},
        charset=(),
    )
    digest = own.pop("digest", number.to_bytes(32, "big"))
    fields: dict[str, Any] = {"source": "CT1", "address": "10.0.0.1", "received": 1000.0 + number} | own
    return NewInstance(header, Location("local", f"aa/{number}", 300, 1000), EXPLICIT, digest, **fields)


def identifier(level: str, **keys: Any) -> dict[int, tuple[str, Any]]:
    """An identifier; a key's value is text or a list of items."""
    found: dict[int, tuple[str, Any]] = {0x00080052: ("CS", level)}
    for keyword, value in keys.items():
        vr = BY_KEYWORD[keyword][0].vr if keyword in BY_KEYWORD else "LO"
        if isinstance(value, list):
            value = [{tag(key): ("LO", text) for key, text in item.items()} for item in value]
        found[tag(keyword)] = (vr, value)
    return found


def query(level: str, *, root: Root = Root.STUDY, relational: bool = True, fuzzy: bool = False, **keys: Any) -> Query:
    return read_query(identifier(level, **keys), root, relational=relational, fuzzy=fuzzy)


def found(index: Index, level: str, returned: str, *, visible: str | None = None, **keys: Any) -> list[Any]:
    """The values of one returned attribute, sorted."""
    wanted = query(level, **({returned: ""} | keys))
    place = [each.tag for each in wanted.returns].index(tag(returned))
    return sorted(row[place] for row in index.find(wanted, visible=visible))
