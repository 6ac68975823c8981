"""Messages for tests: segments by field number."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

Fields = Mapping[int, str]

NONE: Fields = MappingProxyType({})

HEADER = {3: "RIS", 4: "HOSP", 5: "ARC", 6: "HOSP", 7: "20261121080000", 11: "P", 12: "2.5.1", 18: "UNICODE UTF-8"}
PATIENT = {3: "P1^^^HOSP", 5: "Doe^Jane^^^Dr", 7: "19600102", 8: "F"}
ORC = {1: "NW", 2: "PL1^RIS", 3: "FL1^RIS"}
OBR = {
    1: "1", 2: "PL1^RIS", 3: "FL1^RIS", 4: "CTHEAD^CT head^L", 16: "55^Doc^Dora", 18: "ACC1", 19: "RP1", 20: "SPS1",
    24: "CT", 27: "^^^20261121093000^^S",
}  # fmt: skip
ZDS = {1: "1.2.3.4.5^RIS^Application^DICOM"}


def segment(name: str, fields: Fields) -> str:
    """``PID|…`` with these fields; MSH counts its separator as the first."""
    last = max(fields, default=0)
    if name == "MSH":
        return "|".join(["MSH", "^~\\&", *(fields.get(number, "") for number in range(3, last + 1))])
    return "|".join([name, *(fields.get(number, "") for number in range(1, last + 1))])


def message(kind: str, *segments: tuple[str, Fields], control: str = "M1", header: Fields = NONE) -> bytes:
    """A whole message without its frame."""
    head = {**HEADER, 9: kind, 10: control, **header}
    lines = [segment("MSH", head), *(segment(name, fields) for name, fields in segments)]
    return "".join(line + "\r" for line in lines).encode()


def order(
    control: str = "M1", *, patient: Fields = NONE, orc: Fields = NONE, obr: Fields = NONE, zds: bool = True
) -> bytes:
    """A new order, with other fields where they are given."""
    parts: list[tuple[str, Fields]] = [("PID", {**PATIENT, **patient}), ("PV1", {2: "O", 8: "44^Refer^Rita"})]
    parts += [("ORC", {**ORC, **orc}), ("OBR", {**OBR, **obr})]
    return message("ORM^O01", *parts, *([("ZDS", ZDS)] if zds else []), control=control)
