"""Provenance: where an object came from and what was done to it, in a private block of the object itself.

Rules that hold here: the original sender is written once and never changed; each action appends one item and touches
no other; the block is found by its creator or reserved where it collides with nobody, in the data set and in each
item (PS3.5 7.8.1); Original Attributes does not speak of any of this. Elements are those of the table below, with the
creator that is configured.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from archive.dicom.changes import UNRECORDED, Change
from archive.dicom.paths import NEW, Private

GROUP = 0x0021

# Private elements of group 0021 by the last two digits of their tag.
ORIGINAL_SENDER, ACTIONS = 0x90, 0xA0
SOFTWARE_TITLE, SOFTWARE_VERSION, SERIAL_NUMBER = 0x91, 0x92, 0x93
ACTION, ACTION_DATE, ACTION_TIME, ACTION_USER = 0xA1, 0xA2, 0xA3, 0xA4
LOCAL_AE, LOCAL_ADDRESS, REMOTE_AE, REMOTE_ADDRESS = 0xA5, 0xA6, 0xA7, 0xA8

RECEIVED, CHANGED, SENT = "RECEIVED", "MODIFIED", "SENT"


@dataclass(frozen=True, slots=True)
class System:
    """What is written of the archive itself."""

    creator: str
    title: str
    version: str
    serial: str = ""


@dataclass(frozen=True, slots=True)
class Deed:
    """One action: what, when, who, and between which AEs; without a remote AE it was done here."""

    action: str
    when: float
    user: str = ""
    local_aet: str = ""
    local_address: str = ""
    remote_aet: str | None = None
    remote_address: str = ""


def original_sender(system: System, aet: str) -> Change:
    """The first AE that ever sent the object here."""
    return Change((Private(GROUP, system.creator, ORIGINAL_SENDER),), "AE", aet, UNRECORDED, if_missing=True)


def deed(system: System, done: Deed, number: int = 0) -> list[Change]:
    """One more item of the action sequence; ``number`` tells several of one moment apart."""
    moment = datetime.fromtimestamp(done.when)
    values = [
        (SOFTWARE_TITLE, "LO", system.title),
        (SOFTWARE_VERSION, "LO", system.version),
        (SERIAL_NUMBER, "LO", system.serial),
        (ACTION, "LO", done.action),
        (ACTION_DATE, "DA", moment.strftime("%Y%m%d")),
        (ACTION_TIME, "TM", moment.strftime("%H%M%S")),
        (ACTION_USER, "LO", done.user),
        (LOCAL_AE, "AE", done.local_aet),
        (LOCAL_ADDRESS, "LO", done.local_address),
    ]
    if done.remote_aet is not None:
        values += [(REMOTE_AE, "AE", done.remote_aet), (REMOTE_ADDRESS, "LO", done.remote_address)]
    above = (Private(GROUP, system.creator, ACTIONS), NEW - number)
    return [Change((*above, Private(GROUP, system.creator, tag)), vr, text, UNRECORDED) for tag, vr, text in values]
