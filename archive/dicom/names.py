"""Person names and text as they are compared: case, accents, width and spacing folded away.

Rules that hold here: folding is the same for what is stored and for what is asked; it never turns two
different letters of one script into one (kana keep their voicing marks), only case, accents and forms.
"""

from __future__ import annotations

import re
import unicodedata

# Neither NUL nor lone surrogates can be kept by a database; both become the replacement character.
_IMPOSSIBLE = re.compile("[\x00\ud800-\udfff]")

# Letters with strokes and ligatures have no decomposition in Unicode.
_STROKES = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h", "ŧ": "t"}
)

_ACCENTS = re.compile("[\u0300-\u036f]")  # combining diacritical marks: Latin, Greek and Cyrillic accents
_SPACE = re.compile(r"\s+")
_NOT_IN_TOKENS = re.compile(r"[\s^=,.'*?\\-]+")

GROUPS = 3  # alphabetic, ideographic, phonetic (PS3.5 6.2.1)


def possible(text: str) -> str:
    """The text with what no database can hold replaced by U+FFFD."""
    if text.isascii() and "\x00" not in text:
        return text
    return _IMPOSSIBLE.sub("\ufffd", text)


def fold(text: str) -> str:
    """Text for comparison: caseless, without accents, one width, single spaces."""
    if not text.isascii():
        bare = _ACCENTS.sub("", unicodedata.normalize("NFKD", possible(text)))
        text = unicodedata.normalize("NFC", bare).casefold().translate(_STROKES)
    return _SPACE.sub(" ", text.lower()).strip()


def fold_group(group: str) -> str:
    """One component group: components folded and trimmed, empty ones at the end dropped."""
    return "^".join(part.strip() for part in fold(group).split("^")).rstrip("^")


def name_groups(name: str) -> tuple[str, str, str]:
    """The three component groups of one person name, folded; missing ones are empty."""
    groups = [fold_group(group) for group in name.split("=", GROUPS)[:GROUPS]]
    groups += [""] * (GROUPS - len(groups))
    return groups[0], groups[1], groups[2]


def folded_names(text: str) -> str:
    """All groups of all names of an element as one list of values, the alphabetic group of the first name first."""
    return "\\".join(group for name in text.split("\\") for group in name_groups(name) if group)


def name_tokens(text: str) -> tuple[str, ...]:
    """The words of a name or a part of one, folded, for fuzzy matching."""
    return tuple(dict.fromkeys(token for token in _NOT_IN_TOKENS.split(fold(text)) if token))


# How German umlauts are written where there are none.
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "AE", "Ö": "OE", "Ü": "UE"})


def same_name(one: str, other: str) -> bool:
    """Whether two names may be one person's: a group both have decides, a missing name contradicts nothing.

    Neither case, accents, punctuation nor the order of the words matters, nor words that only one of them has
    (middle names, titles), nor whether an umlaut is written as one letter or as two.
    """
    pairs = zip(name_groups(one), name_groups(other), strict=True)
    if not any(mine and theirs for mine, theirs in pairs):
        return True
    spelled = [unicodedata.normalize("NFC", name).translate(_UMLAUTS) for name in (one, other)]
    return _agree(one, other) or _agree(*spelled)


def _agree(one: str, other: str) -> bool:
    for mine, theirs in zip(name_groups(one), name_groups(other), strict=True):
        if mine and theirs:
            few, many = sorted((frozenset(name_tokens(mine)), frozenset(name_tokens(theirs))), key=len)
            return few <= many or _letters(mine) == _letters(theirs)
    return False


def _letters(group: str) -> str:
    return "".join(name_tokens(group))
