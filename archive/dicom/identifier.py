"""The identifiers of queries and retrievals: bytes to elements with text (PS3.4 C.4).

Rules that hold here: everything is kept, known or not, so that it can be matched or returned empty; group lengths
are not; an identifier is bounded like any data set, only tighter, and NotUnderstood is all that leaves here.
"""

from __future__ import annotations

import struct
from dataclasses import replace

from archive.dicom import uids
from archive.dicom.charset import charset_of
from archive.dicom.elements import CUT_SHORT, Buffer
from archive.dicom.encoding import encoding_of
from archive.dicom.inflate import inflate
from archive.dicom.limits import LIMITS, Limits
from archive.dicom.tree import DataSet, Element, Tree
from archive.errors import NotUnderstood

Identifier = DataSet

__all__ = ["Element", "Identifier", "decode_identifier"]

# An identifier asks for some 100 keys; 10,000 objects leave room for lists of sequences, 16 MB for UID lists.
IDENTIFIER_LIMITS = replace(LIMITS, elements=10_000, objects=10_000, inflated=16_000_000)


def decode_identifier(
    data: Buffer, transfer_syntax: str, default_charset: str = "", limits: Limits = IDENTIFIER_LIMITS
) -> Identifier:
    """The elements of an identifier by tag, in the order they came; ``charset`` is the requester's."""
    facts = uids.transfer_syntax(transfer_syntax)
    if facts.deflated:
        data = b"".join(inflate(data, limits))
    try:
        tree = Tree(data, limits=limits)
        return tree.data_set(0, len(data), encoding_of(facts), 0, charset_of(default_charset))[0]
    except struct.error as error:
        raise NotUnderstood(CUT_SHORT) from error
