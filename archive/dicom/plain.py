"""Decoded data sets as plain values by keyword, to be kept as JSON."""

from __future__ import annotations

from typing import Any

from archive.dicom.dictionary import keyword_of
from archive.dicom.tree import DataSet


def plain(found: DataSet) -> dict[str, Any]:
    """Text, or a list of the same for a sequence, by keyword; what the dictionary does not know is left out."""
    return {
        keyword: element.value if isinstance(element.value, str) else [plain(item) for item in element.value]
        for tag, element in found.items()
        if (keyword := keyword_of(tag)) and not keyword[:1].isdigit()
    }
