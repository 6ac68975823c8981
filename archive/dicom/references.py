"""The data sets of storage commitment: which instances are asked about, and what became of each (PS3.4 J.3).

Rules that hold here: a reference is a SOP class and a SOP instance; the order is kept and the same reference counts
once; what cannot be meant is NotUnderstood or InvalidQuery, with words for the peer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from archive.dicom.encode import encode_identifier
from archive.dicom.identifier import Identifier, decode_identifier
from archive.dicom.limits import LIMITS
from archive.dicom.tree import DataSet
from archive.errors import InvalidQuery

TRANSACTION_UID = 0x00081195
REFERENCED_SOP_SEQUENCE = 0x00081199
FAILED_SOP_SEQUENCE = 0x00081198
FAILURE_REASON = 0x00081197
REFERENCED_CLASS, REFERENCED_INSTANCE = 0x00081150, 0x00081155

MOST = 50_000  # references of one request: several times the largest study; below 16 MB, and decoded in two seconds
_LIMITS = replace(LIMITS, values=MOST, elements=1000, objects=10 * MOST, text=64 * 1024, inflated=16_000_000)
_UID = re.compile(r"[0-9.]{1,64}", re.ASCII)


class Reference(NamedTuple):
    """An instance somebody asks about."""

    sop_class: str
    sop_instance: str


class Failure(NamedTuple):
    """One that is not committed, and why (PS3.3 C.14.1.1)."""

    sop_class: str
    sop_instance: str
    reason: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a report says: which are committed, and which are not."""

    transaction: str
    committed: tuple[Reference, ...]
    failed: tuple[Failure, ...]


def encode_request(transaction: str, references: Iterable[Reference], transfer_syntax: str) -> bytes:
    """The action information of PS3.4 table J.3-1."""
    return encode_identifier(_head(transaction, references), transfer_syntax)


def encode_outcome(outcome: Outcome, transfer_syntax: str) -> bytes:
    """The event information of PS3.4 table J.3-2: a sequence without items is left out."""
    pairs = _head(outcome.transaction, outcome.committed)
    if outcome.failed:
        failed = json.dumps(
            [
                {"ReferencedSOPClassUID": each.sop_class, "ReferencedSOPInstanceUID": each.sop_instance,
                 "FailureReason": str(each.reason)}
                for each in outcome.failed
            ]
        )  # fmt: skip
        pairs.append(((FAILED_SOP_SEQUENCE, "SQ", ()), failed))
    return encode_identifier(pairs, transfer_syntax)


def _head(transaction: str, references: Iterable[Reference]) -> list[tuple[tuple[int, str, tuple[()]], str]]:
    items = [
        {"ReferencedSOPClassUID": each.sop_class, "ReferencedSOPInstanceUID": each.sop_instance} for each in references
    ]
    pairs: list[tuple[tuple[int, str, tuple[()]], str]] = [((TRANSACTION_UID, "UI", ()), transaction)]
    if items:
        pairs.append(((REFERENCED_SOP_SEQUENCE, "SQ", ()), json.dumps(items)))
    return pairs


def decode_request(data: bytes | None, transfer_syntax: str) -> tuple[str, tuple[Reference, ...]]:
    """Transaction UID and references of a request; raises NotUnderstood or InvalidQuery."""
    found = _decoded(data, transfer_syntax)
    transaction = _uid(found, TRANSACTION_UID, "Transaction UID")
    references = _references(found.items_of(REFERENCED_SOP_SEQUENCE))
    if not references:
        raise InvalidQuery("Referenced SOP Sequence is empty")
    return transaction, references


def decode_outcome(data: bytes | None, transfer_syntax: str) -> Outcome:
    """What a report says; raises NotUnderstood or InvalidQuery."""
    found = _decoded(data, transfer_syntax)
    transaction = _uid(found, TRANSACTION_UID, "Transaction UID")
    items = found.items_of(FAILED_SOP_SEQUENCE)
    failed = tuple(Failure(*_reference(item), _reason(item)) for item in items)
    return Outcome(transaction, _references(found.items_of(REFERENCED_SOP_SEQUENCE)), failed)


def _decoded(data: bytes | None, transfer_syntax: str) -> Identifier:
    if not data:
        raise InvalidQuery("data set is missing")
    return decode_identifier(data, transfer_syntax, limits=_LIMITS)


def _references(items: Sequence[DataSet]) -> tuple[Reference, ...]:
    return tuple(dict.fromkeys(map(_reference, items)))


def _reference(item: DataSet) -> Reference:
    return Reference(
        _uid(item, REFERENCED_CLASS, "Referenced SOP Class UID"),
        _uid(item, REFERENCED_INSTANCE, "Referenced SOP Instance UID"),
    )


def _reason(item: DataSet) -> int:
    text = item.text(FAILURE_REASON)
    return int(text) if text.isdigit() else 0


def _uid(item: DataSet, tag: int, name: str) -> str:
    text = item.text(tag).strip()
    if not text:
        raise InvalidQuery(f"{name} is missing")
    if not _UID.fullmatch(text):
        raise InvalidQuery(f"{name} is no UID", ascii(text[:70]))
    return text
