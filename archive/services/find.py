"""Searching: a query and who asks, to rows.

Rules that hold here: what a caller may not see does not exist for it, whatever it asks for; rows come
from a cursor as they are taken, and closing the iterator frees it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any, cast

from archive.dicom.extra import ExtraKeys
from archive.dicom.matching import Query
from archive.errors import OutOfResources
from archive.index import Index
from archive.services.caller import Caller

Row = tuple[Any, ...]
Rows = Generator[Row, None, None]


class Find:
    """Searches one index; thread-safe."""

    def __init__(self, index: Index) -> None:
        self._index = index

    @property
    def extra(self) -> ExtraKeys:
        """The attributes that this site indexes beyond the table."""
        return self._index.extra

    def search(self, query: Query, caller: Caller) -> Rows:
        """Values in the order of ``query.returns``; raises OutOfResources after the caller's limit."""
        limit = caller.max_results
        found = self._index.find(query, limit=limit + 1 if limit else None, visible=caller.visible_if or None)
        rows = cast(Rows, found)  # its contract: closing it frees the cursor
        return _at_most(rows, limit) if limit else rows


def _at_most(rows: Rows, limit: int) -> Rows:
    """The first ``limit`` rows; one more is one too many, and is said after them."""
    with closing(rows):
        for number, row in enumerate(rows):
            if number == limit:
                raise OutOfResources("too many matches, narrow the query", f"limit is {limit}")
            yield row
