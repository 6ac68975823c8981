"""One key of an identifier to one test (PS3.4 C.2.2.2), by value representation.

Rules that hold here: a key that cannot be understood raises InvalidQuery with the keyword and without the
value; a key that matches everything gives None; lengths and wildcards are bounded here.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from functools import partial

from archive.dicom.attributes import Attribute
from archive.dicom.names import GROUPS, fold_group, name_tokens, possible
from archive.dicom.query import AnyOf, Between, NameHas, NameIs, NoValue, OneOf, Test, Wild
from archive.dicom.temporal import date_bounds, moment_bounds, time_bounds
from archive.errors import InvalidQuery

# PS3.4 C.2.2.2.4: no wild cards in dates, times, numbers, UIDs and ages.
WITHOUT_WILDCARDS = frozenset("AS AT DA DS DT FD FL IS SL SS SV TM UI UL US UV".split())
# PS3.5 6.2: a backslash is a character of the text, not a delimiter.
SINGLE_TEXT = frozenset("LT ST UT".split())

VALUES = 100_000  # a list of UIDs; ten times the longest that retrievals send
LENGTH = 1024  # characters of one value; PS3.5 allows 64 in the VRs that are searched, names 3 x 64
WILDCARDS = 32  # asterisks in one value; each costs one more pass over the text
EMPTY = '""'  # PS3.4 C.2.2.2.7, empty value matching


def read_key(
    attribute: Attribute, text: str, *, fuzzy: bool = False, empty_values: bool = False, shift: int = 0
) -> Test | None:
    """The test a key's text asks for, or None for universal matching.

    ``shift`` is the number of minutes from the requester's clock to the archive's.
    """
    values = _values(attribute, text)
    if not any(values) or values == ["*"]:
        return None
    if empty_values and values == [EMPTY]:
        return NoValue()
    if attribute.vr in _RANGES:
        return _range(attribute, text, shift)
    if attribute.vr == "PN":
        return NameHas(name_tokens(text)) if fuzzy and name_tokens(text) else _name(attribute, values[0])
    if attribute.vr in WITHOUT_WILDCARDS:
        return OneOf(tuple(dict.fromkeys(_spellings(attribute.vr, values))))
    return _text(attribute, values)


def _values(attribute: Attribute, text: str) -> list[str]:
    parts = [text] if attribute.vr in SINGLE_TEXT else text.split("\\")
    if len(parts) > VALUES:
        raise InvalidQuery(f"{attribute.keyword} lists too many values")
    values = [possible(part.strip(" \x00")) for part in parts]
    if any(len(value) > LENGTH for value in values):
        raise InvalidQuery(f"{attribute.keyword} is too long")
    if any(value.count("*") > WILDCARDS for value in values):
        raise InvalidQuery(f"{attribute.keyword} has too many wildcards")
    return values


def _text(attribute: Attribute, values: list[str]) -> Test | None:
    plain = tuple(value for value in values if value and not is_wild(value))
    patterns = [Wild(squeezed(value)) for value in values if is_wild(value)]
    if any(pattern.pattern == "*" for pattern in patterns):
        return None
    if not patterns:
        return OneOf(plain)
    if not plain and len(patterns) == 1:
        return patterns[0]
    return AnyOf((OneOf(plain), *patterns) if plain else tuple(patterns))


def is_wild(text: str) -> bool:
    """Whether a value holds wild cards."""
    return "*" in text or "?" in text


def squeezed(pattern: str) -> str:
    """A pattern with runs of asterisks made one."""
    while "**" in pattern:
        pattern = pattern.replace("**", "*")
    return pattern


def _name(attribute: Attribute, text: str) -> NameIs | None:
    """The folded patterns of a name's component groups."""
    groups = tuple(_name_group(group) for group in text.split("=")[:GROUPS])
    groups = groups[:1] if not any(groups[1:]) else groups
    return NameIs(groups) if any(group not in ("", "*") for group in groups) else None


def _name_group(group: str) -> str:
    """A group's pattern; components at the end that may be anything may be missing too: ``Doe^*`` finds Doe."""
    pattern = squeezed(fold_group(group))
    bare = pattern
    while bare.endswith(("^*", "^")):
        bare = bare.rstrip("^").removesuffix("^*")
    if bare == pattern or not bare:
        return pattern
    return bare if bare.endswith("*") else f"{bare}^*"


def _spellings(vr: str, values: list[str]) -> list[str]:
    """Values with the form in which numbers are kept in the index."""
    found = [value for value in values if value]
    return [*found, *(other for value in found if (other := canonical_number(vr, value)) != value)]


def canonical_number(vr: str, text: str) -> str:
    """A number without sign and zeros that change nothing; other text as it is."""
    try:
        if vr in ("IS", "US", "SS", "UL", "SL") and len(text) <= 12:  # PS3.5 table 6.2-1, IS
            return str(int(text))
        if vr == "DS" and len(text) <= 16:
            number = Decimal(text.strip()).normalize()
            return f"{number:f}" if number.is_finite() and abs(number.adjusted()) < 16 else text
    except (ValueError, InvalidOperation):
        return text
    return text


_RANGES = {"DA": (date_bounds, "date"), "TM": (time_bounds, "time"), "DT": (moment_bounds, "date-time")}


def _range(attribute: Attribute, text: str, shift: int) -> Test:
    read, what = _RANGES[attribute.vr]
    if attribute.vr == "DT" and shift:
        read = partial(moment_bounds, shift=-shift)
    if "\\" not in text:
        return _between(attribute, read(text), what)
    days = [_between(attribute, read(part), what) for part in text.split("\\") if part.strip()]
    if any(day.low != day.high for day in days):
        raise InvalidQuery(f"{attribute.keyword} is neither one range nor a list")
    return OneOf(tuple(day.low for day in days if day.low))


def _between(attribute: Attribute, bounds: tuple[str | None, str | None] | None, what: str) -> Between:
    if bounds is None:
        raise InvalidQuery(f"{attribute.keyword} is no {what} and no range")
    return Between(*bounds)
