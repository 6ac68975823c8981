"""Sub-operations counted: what a C-MOVE or C-GET has sent, what failed, and what is said in the end.

Rules that hold here: every instance that was selected is counted once, as completed, failed or
warned, or stays in ``remaining``; the counts are VR US (PS3.7 9.3.4.2), so what is above 65,535 is
said as 65,535 while the archive counts on.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import Enum

from archive.dicom.uids import EXPLICIT_BIG, IMPLICIT_LITTLE
from archive.dimse import statuses
from archive.dimse.statuses import Answer
from archive.errors import for_log

LARGEST_COUNT = 0xFFFF
LONGEST_EXPLICIT = 0xFFFE  # bytes of a UI value in Explicit VR, PS3.5 table 7.1-2


class Result(Enum):
    SENT = "sent"
    FAILED = "failed"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one instance: the status of the receiver, or the reason in words.

    ``temporary``: it failed, and another try may not; ``lost``: the association ended under it.
    """

    sop_instance_uid: str
    result: Result
    status: int = 0
    reason: str = ""
    temporary: bool = False
    lost: bool = False


@dataclass(slots=True)
class Tally:
    """The counts of one retrieval over ``total`` selected instances."""

    total: int
    completed: int = 0
    warned: int = 0
    failed_uids: list[str] = field(default_factory=list)
    last_reason: str = ""

    @property
    def failed(self) -> int:
        return len(self.failed_uids)

    @property
    def remaining(self) -> int:
        return max(0, self.total - self.completed - self.warned - self.failed)

    def add(self, sent: Sent) -> None:
        if sent.result is Result.SENT:
            self.completed += 1
        elif sent.result is Result.WARNING:
            self.warned += 1
        else:
            self.failed_uids.append(sent.sop_instance_uid)
            self.last_reason = for_log(sent.reason)

    def counts(self, *, final: bool = False) -> dict[str, int]:
        """The four elements (0000,1020)-(0000,1023); a final response other than cancel has no remaining ones."""
        said = {} if final else {"NumberOfRemainingSuboperations": self.remaining}
        said["NumberOfCompletedSuboperations"] = self.completed
        said["NumberOfFailedSuboperations"] = self.failed
        said["NumberOfWarningSuboperations"] = self.warned
        return {name: min(count, LARGEST_COUNT) for name, count in said.items()}

    def answer(self, *, cancelled: bool = False, warnings_fail: bool = True) -> Answer:
        """PS3.4 C.4.2.3.1: all failed is a failure, some a warning; ``warnings_fail`` off is ``no_warning_status``."""
        if cancelled and self.remaining:
            return Answer(statuses.CANCELLED, "cancelled")
        if self.failed and not self.completed and not self.warned:
            return Answer(statuses.CANNOT_PERFORM, statuses.comment(self.last_reason))
        if self.failed or (self.warned and warnings_fail):
            return Answer(statuses.SOME_FAILED, statuses.comment(self.last_reason))
        return Answer(statuses.SUCCESS)


def failed_list(uids: list[str], transfer_syntax: str) -> bytes:
    """The identifier of a final response: Failed SOP Instance UID List (0008,0058), PS3.4 C.4.2.1.4.2.

    A list too long for the 16-bit length of an explicit UI goes as UN, as PS3.5 6.2.2 note 4 says.
    """
    value = "\\".join(uids).encode("ascii", "replace")
    value += b"\0" * (len(value) % 2)
    if transfer_syntax == IMPLICIT_LITTLE:
        return struct.pack("<HHI", 0x0008, 0x0058, len(value)) + value
    order = ">" if transfer_syntax == EXPLICIT_BIG else "<"
    if len(value) <= LONGEST_EXPLICIT:
        return struct.pack(f"{order}HH2sH", 0x0008, 0x0058, b"UI", len(value)) + value
    return struct.pack(f"{order}HH2sHI", 0x0008, 0x0058, b"UN", 0, len(value)) + value
