"""The options of keeping: which images are compressed, and how often all files are read again.

Rules that hold here: a rule is parsed when the file is read, so that a mistake is a complaint with its column; a
compression is named as the field does and becomes the UID of its transfer syntax.
"""

from __future__ import annotations

from dataclasses import dataclass

from .kinds import OFF_WORDS, Scalar, Unfit
from .pacing import HOURS, RATE, Hours
from .rules import RULE
from .schema import option
from .units import read_duration, show_duration
from .values import SWITCH, duration

COMPRESSIONS = {
    "jpeg-lossless-sv1": "1.2.840.10008.1.2.4.70",
    "jpeg-ls": "1.2.840.10008.1.2.4.80",
    "jpeg-2000-lossless": "1.2.840.10008.1.2.4.90",
    "rle": "1.2.840.10008.1.2.5",
}
MEANINGS = {
    "jpeg-lossless-sv1": "JPEG Lossless, Process 14 selection value 1: what nearly every receiver knows",
    "jpeg-ls": "JPEG-LS Lossless: the quickest, and smaller than JPEG Lossless",
    "jpeg-2000-lossless": "JPEG 2000 Lossless Only: the smallest for most pictures, and the slowest",
    "rle": "RLE Lossless: large, but understood by every viewer",
}
_LOSSY = {"jpeg", "jpeg-baseline", "jpeg-lossy", "jpeg-2000", "jpeg-2000-lossy", "jpeg-ls-near-lossless", "j2k-lossy"}


def _compression(text: str) -> str:
    word = text.strip().lower().replace("_", "-")
    if word.startswith(("htj2k", "ht-j2k")):
        raise Unfit("HTJ2K is decoded but not encoded here", "jpeg-2000-lossless would do")
    if word in _LOSSY:
        raise Unfit("nothing is compressed with loss", f"{', '.join(COMPRESSIONS)} would do")
    uids = {uid: uid for uid in COMPRESSIONS.values()}
    found = COMPRESSIONS.get(word) or uids.get(word)
    if found is None:
        raise Unfit("not a compression without loss that this archive can do")
    return found


def _show_compression(uid: str) -> str:
    return next(word for word, known in COMPRESSIONS.items() if known == uid)


def _never(text: str) -> float:
    if text.strip().lower() in OFF_WORDS:
        return 0.0
    value = read_duration(text)
    if not 3600.0 <= value <= 3650 * 86400.0:
        raise Unfit("out of range")
    return value


COMPRESSION = Scalar(" or ".join(COMPRESSIONS), _compression, _show_compression)
DELAY = duration(0.0, 3650 * 86400.0)
EVERY = Scalar("off, or a time from 1h to 3650d", _never, lambda value: show_duration(value) if value else "off")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressRule:
    match: str = option(RULE, "", "which images; the first rule that fits counts")
    to: str = option(COMPRESSION, None, "how they are compressed", required=True)
    after: float = option(DELAY, "0s", "how long after their arrival")
    recompress: bool = option(
        SWITCH, "off", "images that came compressed without loss too; those that may have loss never are"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrub:
    every: float = option(EVERY, "off", "how often all files are read and hashed anew; off = never")
    rate: int = option(RATE, "20MB/s", "how much is read at most")
    window: Hours | None = option(HOURS, "always", "when it may read")
