"""What the journal says of an arrival, and what older versions said."""

from __future__ import annotations

import dataclasses
import json

from archive.dicom.header import Header
from archive.index import Location, NewInstance, NewTask
from archive.services import record

HEADER = Header("1.2", "1.2.3", "1.2.4", "1.2.5", {0x00100010: "Müller^\udce4", 0x00100020: ""}, ("ISO_IR 100",))
NEW = NewInstance(
    HEADER,
    Location("main", "objects/20260131/4be0c1d2/0001.dcm", 334, 1000),
    "1.2.840.10008.1.2.1",
    bytes(range(32)),
    "CT1",
    "10.0.0.1",
    1.5,
    tasks=(NewTask("route", {"to": "ARCHIVE2", "tries": 3}, 7.0, "ARCHIVE2"),),
    policy="replace",
    accept=True,
)


class Text(str):
    """As pydicom's UID: a text of another class."""


def test_an_arrival_comes_back_as_it_was() -> None:
    assert record.from_plain(record.to_plain(NEW)) == NEW


def test_texts_of_other_classes_become_plain() -> None:
    odd = dataclasses.replace(NEW, transfer_syntax=Text(NEW.transfer_syntax), source=Text(NEW.source))
    plain = record.to_plain(odd)
    assert type(plain["transfer_syntax"]) is str and type(plain["source"]) is str


def test_an_arrival_that_an_older_version_wrote_as_json_is_understood() -> None:
    plain = record.to_plain(NEW)
    old = plain | {
        "values": list(HEADER.values.items()),
        "sha256": NEW.sha256.hex(),
        "tasks": json.loads(plain["tasks"]),
    }
    for later in ("received_sha256", "received_syntax"):
        old.pop(later, None)
    assert record.from_plain(json.loads(json.dumps(old))) == NEW
