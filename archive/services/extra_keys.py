"""Filling in attributes that were configured when objects were here already: from the stored files, page by page.

Rules that hold here: only headers are read, of files whose rows lack something; a file that is missing or that nobody
understands any more is passed over and counted, its other attributes stay as they are.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Callable, Mapping

from archive.dicom.header import read_header
from archive.dicom.limits import LIMITS
from archive.errors import ArchiveError, Damaged, StorageFailed
from archive.index import Index
from archive.index.extra_fill import Unfilled
from archive.storage.local import Volume

log = logging.getLogger(__name__)

PAGE = 50  # instances of one transaction: tenths of a second of reading on a slow disk


class ExtraFill:
    """Walks over one index and its volumes."""

    def __init__(self, index: Index, volumes: Mapping[str, Volume], charset_of: Callable[[str], str]) -> None:
        """``charset_of`` gives the character set of a source whose data sets name none."""
        self._index, self._volumes, self._charset_of = index, volumes, charset_of
        self._tags = frozenset(index.extra.by_tag)

    def page(self, size: int = PAGE) -> bool:
        """Fill in the next page; False when there is none."""
        page = self._index.unfilled(size)
        if not page:
            return False
        read = {each.id: self._values(each) for each in page if each.lacking}
        self._index.fill_extra(page, {key: values for key, values in read.items() if values})
        return True

    def _values(self, each: Unfilled) -> Mapping[int, str]:
        try:
            return self._read(each)
        except StorageFailed:
            raise  # its whole volume is not there: it is read when that is back
        except (ArchiveError, OSError) as error:
            log.warning("instance %s is passed over: %s", each.sop_instance_uid, error)
            return {}

    def _read(self, each: Unfilled) -> Mapping[int, str]:
        volume = self._volumes.get(each.location.volume)
        if volume is None:
            raise Damaged("stored file is missing", f"volume {each.location.volume} is not configured")
        location = each.location
        fd = volume.open_file(location.path, location.offset + location.size)
        try:
            with mmap.mmap(fd, location.offset + location.size, access=mmap.ACCESS_READ) as mapped:
                with memoryview(mapped)[location.offset :] as data:
                    charset = self._charset_of(each.source)
                    return read_header(
                        data, each.transfer_syntax, self._tags, default_charset=charset, limits=LIMITS
                    ).values
        finally:
            os.close(fd)
