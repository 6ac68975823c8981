"""Corrections as a source of changes for what goes out.

Rules that hold here: an object that is not below anything corrected costs a look at its own value; what the index says
goes into the data set as a change with the reason CORRECT (PS3.3 C.12.1.1.9), and one that agrees with the file changes
nothing; what was deleted meanwhile does not go out as it once came; a file of a folder is no object of the archive and
goes out as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from archive.dicom.attributes import BY_KEYWORD
from archive.dicom.coerce import CORRECT, Change
from archive.dicom.dictionary import tag_for_keyword, vr_of
from archive.errors import Missing
from archive.index import Index, StoredInstance
from archive.services.outgoing import Source, Subject


def corrections_of(index: Index) -> Source:
    """The changes that bring a file to what the index says."""

    def source(subject: Subject) -> Sequence[Change]:
        instance = subject.instance
        if not isinstance(instance, StoredInstance) or not instance.corrected:
            return ()
        laid = index.laid_over(instance.id)
        if laid is None:  # deleted meanwhile: nobody can tell any more whose it is
            raise Missing("no such instance", instance.sop_instance_uid)
        return changes(laid)

    return source


def changes(laid: dict[str, str | None]) -> list[Change]:
    """Values by keyword as changes; of a sequence its first item."""
    return [change for keyword, text in sorted(laid.items()) for change in _change(keyword, text)]


def _change(keyword: str, text: str | None) -> Iterator[Change]:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    vr = vr_of(tag)
    if vr != "SQ" or text is None:
        yield Change((tag,), vr if text is not None else "", text, CORRECT)
        return
    items = json.loads(text)
    if not items:
        yield Change((tag,), "SQ", "", CORRECT)
    attributes = {each.keyword: each for each in BY_KEYWORD[keyword][0].items}
    for name, value in items[0].items() if items else ():
        yield Change((tag, 0, attributes[name].tag), attributes[name].vr, value, CORRECT)
