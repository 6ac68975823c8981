"""An identifier to a Query: levels, hierarchy, keys and what is returned (PS3.4 C.4.1, C.4.2, C.6).

Rules that hold here: an identifier that does not fit its information model raises InvalidQuery with a
comment that names the key; keys above the level match and are returned, as workstations expect; keys below
it match only in relational queries; keys the index does not know are returned empty and say FF01; group
lengths and the character set are no keys at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from archive.dicom.attributes import (
    INSTANCE_AVAILABILITY,
    QUERY_RETRIEVE_LEVEL,
    RETRIEVE_AE_TITLE,
    SPECIFIC_CHARACTER_SET,
    TIMEZONE_OFFSET,
    UNIQUE,
    Attribute,
    Key,
    Level,
    resolve,
)
from archive.dicom.extra import NO_EXTRA, ExtraKeys, item_attribute
from archive.dicom.keys import is_wild, read_key
from archive.dicom.moments import combined
from archive.dicom.query import (
    AnyOf,
    Between,
    Condition,
    Moment,
    NameHas,
    NameIs,
    NoValue,
    OneOf,
    Query,
    Return,
    Root,
    Test,
    Wild,
    Within,
)
from archive.dicom.temporal import offset_minutes
from archive.errors import InvalidQuery

__all__ = [
    "AnyOf", "Between", "Condition", "Moment", "NameHas", "NameIs", "NoValue", "OneOf", "Query", "Return", "Root",
    "Test", "Wild", "Within", "read_query", "read_retrieval",
]  # fmt: skip

# tag -> (VR, text or items)
Identifier = Mapping[int, tuple[str, Any]]

KEYS = 1_000  # elements of one identifier; the richest tables of any conformance statement stay below 200

_QUERY_RETRIEVE_VIEW = 0x00080053
_NO_KEYS = frozenset({SPECIFIC_CHARACTER_SET, QUERY_RETRIEVE_LEVEL, _QUERY_RETRIEVE_VIEW})


def read_query(
    identifier: Identifier,
    root: Root,
    *,
    relational: bool = False,
    fuzzy: bool = False,
    combine: bool = True,
    timezone: str = "",
    empty_values: bool = False,
    retrieve_aet: str = "",
    extra: ExtraKeys = NO_EXTRA,
) -> Query:
    """The query of a C-FIND identifier; raises InvalidQuery.

    ``relational``, ``fuzzy``, ``combine`` and ``empty_values`` are what extended negotiation agreed on (PS3.4 C.5.1.1);
    ``timezone`` is the archive's own offset from UTC when timezone adjustment was agreed on, else empty. A requester
    in another timezone has other days, so that its dates are spans of date and time here. ``extra`` are the site's
    own attributes.
    """
    level = _level(identifier, root)
    _check_hierarchy(identifier, root, level, relational=relational, retrieval=False)
    shift = _shift(identifier, timezone)
    options = {"fuzzy": fuzzy, "empty_values": empty_values, "shift": shift}
    reader = _Reader(level, relational, options, retrieve_aet, extra)
    for tag in sorted(identifier):
        if tag & 0xFFFF and tag not in _NO_KEYS:
            reader.take(tag, identifier[tag])
    conditions = reader.conditions
    if combine or shift:
        conditions = combined(conditions, shift)
    returns = (Return(QUERY_RETRIEVE_LEVEL, "CS", constant=level.name), *reader.returned())
    return Query(root, level, tuple(conditions), returns, reader.unsupported, relational, fuzzy)


def read_retrieval(identifier: Identifier, root: Root, *, relational: bool = False) -> Query:
    """The query of a C-MOVE or C-GET identifier: unique keys only (PS3.4 C.4.2.1.4.1); raises InvalidQuery."""
    level = _level(identifier, root)
    _check_hierarchy(identifier, root, level, relational=relational, retrieval=True)
    conditions = []
    for unique in (UNIQUE[each] for each in Level if each <= level):
        values = _unique_values(identifier, unique)
        if values:
            conditions.append(Condition(unique, OneOf(values)))
    return Query(root, level, tuple(conditions), relational=relational)


def _text(identifier: Identifier, tag: int) -> str:
    value = identifier[tag][1] if tag in identifier else ""
    return value.strip(" \x00") if isinstance(value, str) else ""


def _level(identifier: Identifier, root: Root) -> Level:
    name = _text(identifier, QUERY_RETRIEVE_LEVEL)
    if len(identifier) > KEYS:
        raise InvalidQuery("Identifier has too many keys")
    if not name:
        raise InvalidQuery("Query/Retrieve Level (0008,0052) is missing")
    levels = {level.name: level for level in root.levels}
    if name not in levels:
        raise InvalidQuery("Query/Retrieve Level does not exist in this model")
    return levels[name]


def _unique_values(identifier: Identifier, unique: Attribute) -> tuple[str, ...]:
    test = read_key(unique, _text(identifier, unique.tag))
    if isinstance(test, OneOf):
        return test.values
    if test is not None:
        raise InvalidQuery(f"{unique.keyword} must not hold wildcards here")
    return ()


def _check_hierarchy(identifier: Identifier, root: Root, level: Level, *, relational: bool, retrieval: bool) -> None:
    """PS3.4 C.4.1.2.1, C.4.2.2.1: one value of each unique key above the level, nothing below it."""
    if not relational:
        for above in (each for each in root.levels if each < level):
            _check_above(identifier, UNIQUE[above])
        for below in (each for each in Level if each > level):
            if _text(identifier, UNIQUE[below].tag).strip("*"):
                raise InvalidQuery(f"{UNIQUE[below].keyword} is below the {level.name} level")
    named = any(_text(identifier, unique.tag) for unique in UNIQUE.values()) if relational else False
    if retrieval and not named and not _unique_values(identifier, UNIQUE[level]):
        raise InvalidQuery(f"{UNIQUE[level].keyword} is missing")


def _check_above(identifier: Identifier, unique: Attribute) -> None:
    text = _text(identifier, unique.tag)
    if not text:
        raise InvalidQuery(f"{unique.keyword} is missing")
    if "\\" in text or is_wild(text):
        raise InvalidQuery(f"{unique.keyword} must be a single value here")


def _shift(identifier: Identifier, timezone: str) -> int:
    """Minutes from the requester's clock to the archive's (PS3.4 C.4.1.1.3.1, Timezone Offset From UTC)."""
    theirs, ours = offset_minutes(_text(identifier, TIMEZONE_OFFSET)), offset_minutes(timezone)
    return 0 if theirs is None or ours is None else ours - theirs


class _Reader:
    """Collects conditions and returns while the keys are walked."""

    def __init__(
        self, level: Level, relational: bool, options: Mapping[str, Any], retrieve_aet: str, extra: ExtraKeys
    ) -> None:
        self.level, self.relational, self.options, self.extra = level, relational, options, extra
        self.constants = {RETRIEVE_AE_TITLE: retrieve_aet, INSTANCE_AVAILABILITY: "ONLINE"}
        self.conditions: list[Condition] = []
        self.returns: dict[int, Return] = {}
        self.unsupported = False

    def returned(self) -> list[Return]:
        """What was asked for, and always the title to retrieve from (PS3.4 C.4.1.1.3.2)."""
        self._constant(RETRIEVE_AE_TITLE, "AE")
        return [self.returns[tag] for tag in sorted(self.returns)]

    def take(self, tag: int, element: tuple[str, Any]) -> None:
        vr, value = element
        attribute = resolve(tag, self.level, self.extra.by_tag.get(tag, ()))
        if tag in self.constants:
            self._constant(tag, vr)
        elif tag == TIMEZONE_OFFSET:
            self.returns[tag] = Return(tag, "SH", attribute)
        elif attribute is None or (attribute.level > self.level and not self.relational):
            self._leave_out(tag, vr if attribute is None else attribute.vr)
        else:
            self._supported(attribute, value)

    def _constant(self, tag: int, vr: str) -> None:
        self.returns[tag] = Return(tag, vr, constant=self.constants[tag])

    def _leave_out(self, tag: int, vr: str) -> None:
        self.returns[tag] = Return(tag, vr)
        self.unsupported = True

    def _supported(self, attribute: Attribute, value: Any) -> None:
        test, items = self._items(attribute, value) if attribute.vr == "SQ" else (self._key(attribute, value), ())
        if test is not None and self._may_match(attribute):
            self.conditions.append(Condition(attribute, test))
        below = attribute.level > self.level
        self.returns[attribute.tag] = Return(attribute.tag, attribute.vr, None if below else attribute, None, items)

    def _may_match(self, attribute: Attribute) -> bool:
        """Counts are returned, never matched (PS3.4 C.3.4)."""
        if attribute.computed and attribute.vr == "IS":
            self.unsupported = True
            return False
        return True

    def _key(self, attribute: Attribute, value: Any) -> Test | None:
        if not isinstance(value, str):
            raise InvalidQuery(f"{attribute.keyword} is no sequence")
        test = read_key(attribute, value, **self.options)
        if attribute.key is Key.UNIQUE and attribute.vr == "UI" and isinstance(test, OneOf):
            return OneOf(tuple(uid for uid in test.values if uid != "*")) if "*" not in test.values else None
        return test

    def _items(self, attribute: Attribute, value: Any) -> tuple[Test | None, tuple[Attribute, ...]]:
        """Sequence matching: all keys of the one item (PS3.4 C.2.2.2.6)."""
        items: Sequence[Identifier] = value if isinstance(value, list | tuple) else ()
        if len(items) > 1:
            raise InvalidQuery(f"{attribute.keyword} must have one item")
        if not items or not items[0]:
            return None, attribute.items
        known = {item.tag: item for item in attribute.items}
        if attribute.extra:
            known = {tag: item for tag in items[0] if (item := item_attribute(attribute, tag))}
        wanted = [known[tag] for tag in sorted(items[0]) if tag in known]
        self.unsupported |= any(tag not in known and tag & 0xFFFF for tag in items[0])
        found = [(item, self._key(item, items[0][item.tag][1])) for item in wanted]
        if attribute.extra and any(isinstance(test, NoValue) for _, test in found):  # what is not there is not indexed
            found = [(item, None if isinstance(test, NoValue) else test) for item, test in found]
            self.unsupported = True
        conditions = combined([Condition(item, test) for item, test in found if test is not None], 0)
        return Within(tuple(conditions)) if conditions else None, tuple(wanted)
