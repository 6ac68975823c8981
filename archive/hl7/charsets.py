"""Character sets of messages (HL7 v2.5.1 table 0211, MSH-18).

Rules that hold here: a set that is named is the one that is used, and bytes it does not have are a fault of the
message; without a name UTF-8 is tried, then the configured set, then Latin-1, so that no name becomes question marks.
"""

from __future__ import annotations

from archive.errors import NotUnderstood

# HL7 v2.5.1 table 0211: the name in MSH-18 to Python's codec.
CODECS = {
    "ASCII": "ascii",
    **{f"8859/{number}": f"iso8859-{number}" for number in (*range(1, 12), 13, 14, 15, 16)},
    "ISO IR6": "ascii",
    "ISO IR14": "iso2022_jp",
    "ISO IR87": "iso2022_jp",
    "ISO IR159": "iso2022_jp_1",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "CNS 11643-1992": "big5hkscs",
    "BIG-5": "big5hkscs",
    "UNICODE": "utf-8",
    "UNICODE UTF-8": "utf-8",
}
# What senders write instead.
_ALIASES = {
    "UTF-8": "UNICODE UTF-8", "UTF8": "UNICODE UTF-8", "ISO-8859-1": "8859/1", "ISO8859/1": "8859/1",
    "ISO_IR 100": "8859/1", "ISO_IR 192": "UNICODE UTF-8", "GB18030": "GB 18030-2000", "ISO IR 87": "ISO IR87",
    "US-ASCII": "ASCII", "BIG5": "BIG-5",
}  # fmt: skip


def codec(name: str) -> str:
    """Python's codec for a name of table 0211; raises NotUnderstood for one that nobody knows."""
    word = " ".join(name.strip().upper().split())
    found = CODECS.get(_ALIASES.get(word, word))
    if found is None:
        raise NotUnderstood("character set in MSH-18 is not known", name[:32])
    return found


def decoded(data: bytes, names: str, default: str) -> str:
    """The text of a message whose MSH-18 is ``names`` (repetitions by ~); raises NotUnderstood."""
    sets = [codec(name) for name in names.split("~") if name.strip()]
    # A Japanese sender names the single-byte set first and what it escapes to after it: the last one holds both.
    wanted = next((each for each in reversed(sets) if each.startswith("iso2022")), sets[0] if sets else "")
    if not wanted:
        return _guessed(data, codec(default))
    try:
        return data.decode(wanted)
    except UnicodeDecodeError as error:
        raise NotUnderstood("text is not in the character set of MSH-18", f"{wanted}, byte {error.start}") from error


def _guessed(data: bytes, default: str) -> str:
    """UTF-8 proves itself; any other set is taken on trust, and Latin-1, which every byte fits, as the last."""
    for each in ("utf-8", default):
        try:
            return data.decode(each)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")
