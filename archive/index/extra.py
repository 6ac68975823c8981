"""Values of the attributes that a site indexes beyond the table: kept as they came, and term by term for matching.

Rules that hold here: a row says what the first object below it said, and what that left open the next may fill, as with
the columns; adding twice changes nothing, so that the background may add what receiving added already; nothing here
runs for a site without such attributes, except when rows are deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from archive.dicom.attributes import Attribute, Level
from archive.dicom.dictionary import tag_for_keyword, vr_of
from archive.dicom.keys import SINGLE_TEXT, canonical_number
from archive.dicom.names import folded_names, name_tokens, possible
from archive.index.columns import COMPARABLE, INDEXED_LENGTH, ITEMS_LENGTH, LENGTH
from archive.index.database import Session

TERMS = 200  # of one attribute of one row: values of a list, or those of the items of a sequence
WORDS = "#"  # behind a keyword: single words of its names

Filled = frozenset[tuple[Level, int]]  # levels and tags of what a series and the rows above it have

_INSERT_VALUE = (
    "INSERT INTO extra_value (level, owner, keyword, value) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING owner"
)
_INSERT_TERM = (
    "INSERT INTO extra_term (keyword, level, term, owner, item) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)


def add(
    session: Session,
    keys: Sequence[Attribute],
    owners: Mapping[Level, int],
    values: Mapping[int, str],
    filled: Filled = frozenset(),
) -> Filled:
    """Note what a header says of these attributes for the rows it belongs to; what those above the image have now."""
    found = set(filled)
    for key in keys:
        text = _kept(key, values.get(key.tag))
        if text and (key.level, key.tag) not in filled:
            _add_one(session, key, owners[key.level], text)
            found |= {(key.level, key.tag)} if key.level is not Level.IMAGE else set()
    return frozenset(found)


def _add_one(session: Session, key: Attribute, owner: int, text: str) -> None:
    if not session.row(_INSERT_VALUE, (int(key.level), owner, key.keyword, text)):
        return
    for keyword, item, term in dict.fromkeys(terms(key, text)):
        session.later(_INSERT_TERM, (keyword, int(key.level), term, owner, item))


def drop(session: Session, level: Level, owners: Sequence[int]) -> None:
    """Forget what was noted for rows of a level."""
    among = session.dialect.among.format(column="owner")
    for table in ("extra_term", "extra_value"):
        session.run(
            f"DELETE FROM {table} WHERE level = ? AND {among}",
            (int(level), session.dialect.listed(owners)),
        )


def _kept(key: Attribute, text: str | None) -> str:
    """A header's text as far as it is kept: long text is cut, a long sequence is not kept at all."""
    if not text or text == "[]":
        return ""
    if key.vr == "SQ":
        return possible(text) if len(text) <= ITEMS_LENGTH else ""
    return possible(text)[:LENGTH]


def terms(key: Attribute, text: str) -> list[tuple[str, int, str]]:
    """What a value is found by: keyword, number of the item, text."""
    if key.vr != "SQ":
        return [(keyword, 0, term) for keyword, term in _terms(key.keyword, key.vr, text)][:TERMS]
    return [
        (found, number, term)
        for number, item in enumerate(json.loads(text))
        for keyword, value in item.items()
        if isinstance(value, str)
        for found, term in _terms(f"{key.keyword}.{keyword}", _vr(keyword), value)
    ][:TERMS]


def _terms(keyword: str, vr: str, text: str) -> Iterator[tuple[str, str]]:
    if vr == "PN":
        yield from ((keyword + WORDS, word[:INDEXED_LENGTH]) for word in name_tokens(text))
        text = folded_names(text)
    for value in [text] if vr in SINGLE_TEXT else text.split("\\"):
        term = COMPARABLE[vr](value) if vr in COMPARABLE else canonical_number(vr, value.strip())
        if term:
            yield keyword, term[:INDEXED_LENGTH]


def _vr(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    return vr_of(tag).split(" or ")[0] if tag else "UN"
