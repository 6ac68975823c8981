"""The DIMSE statuses this archive gives and understands, and the one table from errors to them.

Rules that hold here: a status is written as a number once, beside its clause; services raise
``archive.errors`` and never see a number; a failure carries an Error Comment (0000,0902) of at most
64 characters from the default repertoire (VR LO, PS3.7 annex C) that gives no patient data away.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import NamedTuple

from archive import errors
from archive.errors import COMMENT_LENGTH, ArchiveError

# PS3.7 annex C: what any service may answer
SUCCESS = 0x0000  # C.1.1
PROCESSING_FAILURE = 0x0110  # C.5.21
CLASS_NOT_SUPPORTED = 0x0122  # C.5.6
NOT_AUTHORIZED = 0x0124  # C.5.26
DUPLICATE_INVOCATION = 0x0210  # C.5.9
UNRECOGNIZED_OPERATION = 0x0211  # C.5.25
MISTYPED_ARGUMENT = 0x0212  # C.5.15
DUPLICATE_INSTANCE = 0x0111  # C.5.7

# PS3.7 annex C, and 10.1.1.1.8 (N-EVENT-REPORT), 10.1.4.1.10 (N-ACTION)
NO_SUCH_INSTANCE = 0x0112
NO_SUCH_EVENT = 0x0113
INVALID_VALUE = 0x0106  # C.5.11
INVALID_ARGUMENT = 0x0115
NO_SUCH_ACTION = 0x0123
RESOURCE_LIMITATION = 0x0213

# PS3.4 B.2.3 (C-STORE), C.4.1.1.4 (C-FIND), C.4.2.1.5 (C-MOVE), C.4.3.1.4 (C-GET)
OUT_OF_RESOURCES = 0xA700  # C-STORE, C-FIND
CANNOT_COUNT_MATCHES = 0xA701  # C-MOVE, C-GET: unable to calculate the number of matches
CANNOT_PERFORM = 0xA702  # C-MOVE, C-GET: unable to perform sub-operations
UNKNOWN_DESTINATION = 0xA801  # C-MOVE
DOES_NOT_MATCH_CLASS = 0xA900  # data set (C-STORE) or identifier (the others)
UNABLE = 0xC000  # cannot understand (C-STORE), unable to process (the others)
SOME_FAILED = 0xB000  # C-MOVE, C-GET: sub-operations complete, one or more failures or warnings
COERCED = 0xB000  # C-STORE
CANCELLED = 0xFE00  # matching or sub-operations terminated by C-CANCEL
PENDING = 0xFF00
PENDING_UNSUPPORTED_KEYS = 0xFF01  # C-FIND: optional keys not supported for existence or matching

AFFECTED_CLASS = 0x00000002  # (0000,0002), the element at fault when class and context differ


class Service(Enum):
    """The columns of the error table."""

    STORE = 0
    FIND = 1
    MOVE = 2
    GET = 3
    ECHO = 4
    COMMIT = 5
    MPPS = 6


class Answer(NamedTuple):
    """What a response says: status, Error Comment, Offending Element (0000,0901)."""

    status: int
    comment: str = ""
    offending: tuple[int, ...] = ()


class _Row(NamedTuple):
    store: int
    find: int
    move: int
    get: int
    echo: int = PROCESSING_FAILURE
    commit: int = PROCESSING_FAILURE  # N-ACTION and N-EVENT-REPORT of storage commitment (PS3.7 10.1)
    mpps: int = PROCESSING_FAILURE  # N-CREATE and N-SET of performed procedure steps (PS3.4 F.7.2)


# One row per error class; a subclass without a row of its own takes its nearest ancestor's.
STATUS_OF: dict[type[ArchiveError], _Row] = {
    #                              C-STORE                C-FIND                 C-MOVE                 C-GET
    ArchiveError: _Row(UNABLE, UNABLE, UNABLE, UNABLE),
    errors.ConfigurationError: _Row(UNABLE, UNABLE, UNABLE, UNABLE),
    errors.NotUnderstood: _Row(UNABLE, UNABLE, UNABLE, UNABLE, commit=INVALID_ARGUMENT, mpps=INVALID_VALUE),
    errors.InvalidUID: _Row(UNABLE, DOES_NOT_MATCH_CLASS, DOES_NOT_MATCH_CLASS, DOES_NOT_MATCH_CLASS),
    errors.ClassMismatch: _Row(DOES_NOT_MATCH_CLASS, DOES_NOT_MATCH_CLASS, DOES_NOT_MATCH_CLASS, DOES_NOT_MATCH_CLASS),
    errors.InvalidQuery: _Row(
        UNABLE, DOES_NOT_MATCH_CLASS, DOES_NOT_MATCH_CLASS, DOES_NOT_MATCH_CLASS, commit=INVALID_ARGUMENT,
        mpps=INVALID_VALUE,
    ),  # fmt: skip
    errors.Final: _Row(UNABLE, UNABLE, UNABLE, UNABLE),
    errors.Conflict: _Row(UNABLE, UNABLE, UNABLE, UNABLE, mpps=DUPLICATE_INSTANCE),
    errors.NotThere: _Row(UNABLE, UNABLE, UNABLE, UNABLE),
    errors.NotPossible: _Row(UNABLE, UNABLE, UNABLE, UNABLE),
    errors.OnHold: _Row(UNABLE, UNABLE, UNABLE, UNABLE),
    errors.OutOfResources: _Row(
        OUT_OF_RESOURCES, OUT_OF_RESOURCES, CANNOT_COUNT_MATCHES, CANNOT_COUNT_MATCHES, commit=RESOURCE_LIMITATION,
        mpps=RESOURCE_LIMITATION,
    ),
    errors.TooLarge: _Row(OUT_OF_RESOURCES, OUT_OF_RESOURCES, CANNOT_COUNT_MATCHES, CANNOT_COUNT_MATCHES),
    errors.StorageFailed: _Row(
        OUT_OF_RESOURCES, OUT_OF_RESOURCES, CANNOT_PERFORM, CANNOT_PERFORM, commit=RESOURCE_LIMITATION,
        mpps=RESOURCE_LIMITATION,
    ),
    errors.IndexUnavailable: _Row(
        OUT_OF_RESOURCES, OUT_OF_RESOURCES, CANNOT_COUNT_MATCHES, CANNOT_COUNT_MATCHES, commit=RESOURCE_LIMITATION,
        mpps=RESOURCE_LIMITATION,
    ),
    errors.UnknownDestination: _Row(UNABLE, UNABLE, UNKNOWN_DESTINATION, UNABLE),
    errors.NotAllowed: _Row(*[NOT_AUTHORIZED] * 7),
    errors.Cancelled: _Row(UNABLE, CANCELLED, CANCELLED, CANCELLED),
    errors.Unreachable: _Row(OUT_OF_RESOURCES, OUT_OF_RESOURCES, CANNOT_PERFORM, CANNOT_PERFORM),
    errors.Refused: _Row(UNABLE, UNABLE, CANNOT_PERFORM, CANNOT_PERFORM),
    errors.NotDelivered: _Row(UNABLE, UNABLE, CANNOT_PERFORM, CANNOT_PERFORM),
    errors.NotTranscodable: _Row(UNABLE, UNABLE, CANNOT_PERFORM, CANNOT_PERFORM),
    errors.NotDeidentified: _Row(UNABLE, UNABLE, CANNOT_PERFORM, CANNOT_PERFORM),
    errors.Damaged: _Row(OUT_OF_RESOURCES, UNABLE, CANNOT_PERFORM, CANNOT_PERFORM),
    errors.WrongSize: _Row(OUT_OF_RESOURCES, UNABLE, CANNOT_PERFORM, CANNOT_PERFORM),
    errors.WrongContent: _Row(OUT_OF_RESOURCES, UNABLE, CANNOT_PERFORM, CANNOT_PERFORM),
    errors.Missing: _Row(OUT_OF_RESOURCES, UNABLE, CANNOT_PERFORM, CANNOT_PERFORM, mpps=NO_SUCH_INSTANCE),
}

OFFENDING: dict[type[ArchiveError], tuple[int, ...]] = {errors.ClassMismatch: (AFFECTED_CLASS,)}


def answer_for(error: ArchiveError, service: Service) -> Answer:
    """What the peer is told when ``error`` ended an operation of ``service``."""
    for kind in type(error).__mro__:
        if kind in STATUS_OF:
            return Answer(STATUS_OF[kind][service.value], comment(error.comment), OFFENDING.get(kind, ()))
    raise LookupError(f"no status for {type(error).__name__}")


def comment(text: str) -> str:
    """``text`` as an Error Comment may carry it: VR LO, default repertoire, no control characters."""
    plain = "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in text)
    return plain[:COMMENT_LENGTH].rstrip()


def tag_bytes(tag: int) -> bytes:
    """A tag as VR AT in a command set: group, then element, little endian."""
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF)


# What statuses of other archives mean, for logs and the command line: (first, last, words).
MEANINGS: tuple[tuple[int, int, str], ...] = (
    (0x0000, 0x0000, "success"),
    (0x0001, 0x0001, "warning: optional attributes not supported"),
    (0x0105, 0x0105, "no such attribute"),
    (0x0106, 0x0106, "invalid attribute value"),
    (0x0107, 0x0107, "warning: attribute list error"),
    (0x0110, 0x0110, "processing failure"),
    (0x0111, 0x0111, "duplicate SOP instance"),
    (0x0112, 0x0112, "no such SOP instance"),
    (0x0113, 0x0113, "no such event type"),
    (0x0114, 0x0114, "no such argument"),
    (0x0115, 0x0115, "invalid argument value"),
    (0x0116, 0x0116, "warning: attribute value out of range"),
    (0x0117, 0x0117, "invalid SOP instance"),
    (0x0118, 0x0118, "no such SOP class"),
    (0x0119, 0x0119, "class-instance conflict"),
    (0x0120, 0x0120, "missing attribute"),
    (0x0121, 0x0121, "missing attribute value"),
    (0x0122, 0x0122, "SOP class not supported"),
    (0x0123, 0x0123, "no such action"),
    (0x0124, 0x0124, "not authorized"),
    (0x0131, 0x0131, "no such SOP class in this request"),
    (0x0210, 0x0210, "duplicate invocation"),
    (0x0211, 0x0211, "unrecognized operation"),
    (0x0212, 0x0212, "mistyped argument"),
    (0x0213, 0x0213, "resource limitation"),
    (0xA701, 0xA701, "out of resources: unable to calculate the number of matches"),
    (0xA702, 0xA702, "out of resources: unable to perform sub-operations"),
    (0xA700, 0xA7FF, "out of resources"),
    (0xA801, 0xA801, "move destination unknown"),
    (0xA900, 0xA9FF, "data set or identifier does not match the SOP class"),
    (0xB000, 0xBFFF, "warning: finished with failures, coercion or elements discarded"),
    (0xC000, 0xCFFF, "cannot understand or unable to process"),
    (0xFE00, 0xFE00, "cancelled"),
    (0xFF00, 0xFF01, "pending"),
)


def meaning(status: int) -> str:
    """``A700 (out of resources)``: a status in words, for logs and people."""
    for first, last, words in MEANINGS:
        if first <= status <= last:
            return f"{status:04X} ({words})"
    return f"{status:04X} (unknown status)"


_UNABLE = range(0xC000, 0xD000, 0x100)


def is_pending(status: int) -> bool:
    return status in (PENDING, PENDING_UNSUPPORTED_KEYS)


def may_pass(status: int) -> bool:
    """Whether the same store may be answered otherwise later: A7xx, and what receivers use for their own trouble."""
    return status in (PROCESSING_FAILURE, DUPLICATE_INVOCATION, 0x0213) or (status & 0xFF00) in (0xA700, *_UNABLE)


def is_warning(status: int) -> bool:
    """PS3.7 annex C: 0001, 0107, 0116 and Bxxx."""
    return status in (0x0001, 0x0107, 0x0116) or 0xB000 <= status <= 0xBFFF
