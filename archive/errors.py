"""What can go wrong, in the archive's own words.

Rules that hold here: a class says what happened, never how a protocol spells it (each edge owns
one table from these classes to its status codes); ``comment`` is fit for a peer, at most 64
characters and without patient data (PS3.7 annex C, Error Comment); ``temporary`` decides a retry;
what a peer says in its own words may name a patient: it stands behind SAYING, and stays out of logs.
"""

from __future__ import annotations

COMMENT_LENGTH = 64  # VR LO, PS3.5 table 6.2-1
SAYING = ", saying: "


def saying(what: str, words: str) -> str:
    """What a peer answered, and behind it its own words, if it gave any."""
    return f"{what}{SAYING}{words}" if words else what


def for_log(reason: str) -> str:
    """A reason without the words of a peer: for logs and alarms."""
    return reason.partition(SAYING)[0]


class ArchiveError(Exception):
    """Base of all: ``str(error)`` is for the log, ``error.comment`` for the peer.

    ``error.reason`` has the words of a peer as well: for the task that failed, and for whoever asked.
    """

    temporary = False

    def __init__(self, comment: str, detail: str = "") -> None:
        self.reason = f"{comment}: {detail}" if detail else comment
        super().__init__(for_log(self.reason))
        self.comment = comment[:COMMENT_LENGTH]


class ConfigurationError(ArchiveError):
    """The configuration cannot be used; the text names file, line, key, value and what would do."""


class NotUnderstood(ArchiveError):
    """A data set or an identifier that cannot be read."""


class InvalidUID(NotUnderstood):
    """A UID that PS3.5 chapter 9 does not allow."""


class ClassMismatch(ArchiveError):
    """Command, presentation context and data set do not name the same object."""


class InvalidQuery(ArchiveError):
    """An identifier that does not fit its SOP class: level, hierarchy or unique keys (PS3.4 C.4)."""


class Conflict(ArchiveError):
    """An object that contradicts what the index holds: same UID, other content or other parent."""


class NotThere(ArchiveError):
    """A patient, study, series, instance or operation that is named is not there."""


class NotPossible(ArchiveError):
    """A correction that contradicts itself, the standard or what was done before; the text says what and why."""


class OnHold(NotPossible):
    """Something that is under legal hold is not deleted; the text says which hold, by whom and why."""


class Final(ArchiveError):
    """What has ended takes no change."""


class OutOfResources(ArchiveError):
    """No space, no database, no codec, too large: nothing was kept."""

    temporary = True


class TooLarge(OutOfResources):
    """An object above the configured size."""

    temporary = False


class StorageFailed(OutOfResources):
    """The disk refused a write or a sync; an fsync error is final for its file."""


class IndexUnavailable(OutOfResources):
    """The database did not answer in time or is not there."""


class UnknownDestination(ArchiveError):
    """A move destination that is no configured peer."""


class NotAllowed(ArchiveError):
    """The caller is known but may not do this."""


class Cancelled(ArchiveError):
    """The requester sent C-CANCEL."""


class Unreachable(ArchiveError):
    """A remote AE cannot be reached, rejected the association or fell silent."""

    temporary = True


class Refused(ArchiveError):
    """A remote AE answered an operation with a failure status."""


class NotDelivered(Refused):
    """A remote AE did not take a report; it may the next time."""

    temporary = True


class NotTranscodable(ArchiveError):
    """Stored pixels cannot be given in any transfer syntax the receiver accepts."""


class NotDeidentified(ArchiveError):
    """An object that may tell whose it is, for a route on which nothing may."""


class Damaged(ArchiveError):
    """A stored file is missing or its bytes are not those that were received."""


class WrongSize(Damaged):
    """A stored file is longer or shorter than what was received."""


class WrongContent(Damaged):
    """A stored file has the right length and other bytes than were received."""


class Missing(Damaged):
    """A stored file is not there, or nothing is stored under this UID at all."""
