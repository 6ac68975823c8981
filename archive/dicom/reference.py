"""The manual's tables of keys, from the attribute table: ``python -m archive.dicom.reference`` prints them.

Rules that hold here: nothing is said twice; a test holds docs/query.md to what is printed here.
"""

from __future__ import annotations

from collections.abc import Iterator

from archive.dicom.attributes import BY_LEVEL, Attribute, Key, Level
from archive.dicom.keys import WITHOUT_WILDCARDS

RANGES = ("DA", "TM", "DT")


def matching(row: Attribute) -> str:
    """How a key can be matched, in words (PS3.4 C.2.2.2)."""
    if row.computed and row.vr == "IS":
        return "returned only"
    if row.vr == "SQ":
        return "sequence"
    if row.vr in RANGES:
        return "value, range"
    if row.vr == "UI":
        return "value, list"
    return "value" if row.vr in WITHOUT_WILDCARDS else "value, wildcard"


def table(level: Level) -> Iterator[str]:
    """The lines of one level's table."""
    yield "| keyword | tag | VR | key | matched by |"
    yield "| --- | --- | --- | --- | --- |"
    for row in sorted(BY_LEVEL[level], key=lambda row: row.tag):
        yield from _lines(row, "")


def _lines(row: Attribute, indent: str) -> Iterator[str]:
    tag = f"({row.tag >> 16:04X},{row.tag & 0xFFFF:04X})"
    key = {Key.UNIQUE: "unique", Key.REQUIRED: "required", Key.OPTIONAL: "optional"}[row.key]
    computed = ", computed" if row.computed else ""
    yield f"| {indent}{row.keyword} | {tag} | {row.vr} | {key} | {matching(row)}{computed} |"
    for item in row.items:
        yield from _lines(item, indent + "> ")


def tables() -> str:
    """All levels, each under its heading."""
    parts = [f"#### {level.name}\n\n" + "\n".join(table(level)) for level in Level]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(tables(), end="")
