"""How much of anything one data set may hold before it is refused.

Rules that hold here: a limit says where its number comes from; every limit is far above what scanners
write and far below what would hold up the other associations of a process.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one pass over one data set."""

    # Structured reports, the deepest real objects, stay below 20 levels; pydicom's recursion ends at about 150.
    depth: int = 64
    # Top-level elements of real objects stay below 1,000; the rest is room for private groups.
    elements: int = 100_000
    # Elements and items of all levels together: 10,000 frames with 30 objects each in their functional groups,
    # walked in about 0.1 s.
    objects: int = 400_000
    # A whole-slide level of 500 MB (the largest instance by default) in tiles of 512 bytes.
    fragments: int = 1_000_000
    # Values of one indexed element; a UID list of a retrieval is the longest in use.
    values: int = 10_000
    # Bytes of one text value; PS3.5 allows 10,240 characters for LT, and UT with 1 MB is a book.
    text: int = 1_000_000
    # A deflated data set: the size of the largest instance by default …
    inflated: int = 500_000_000
    # … and how much denser it may be than its bytes; DEFLATE itself reaches 1,032:1 on zeros.
    ratio: int = 200
    # Below this size nothing is called a bomb: small deflated segmentations are nearly all zeros.
    always_inflated: int = 16_000_000


LIMITS = Limits()
