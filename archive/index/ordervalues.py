"""What is kept of orders and messages, and what is asked to be changed: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Attributes = Mapping[str, Any]  # text, or a list of such mappings, by keyword


class StepState(Enum):
    """Of a scheduled procedure step (PS3.3 C.4.10, Scheduled Procedure Step Status), and of the whole order."""

    SCHEDULED = "SCHEDULED"
    ARRIVED = "ARRIVED"
    READY = "READY"
    STARTED = "STARTED"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"
    CANCELLED = "CANCELLED"


OPEN_STATES = (StepState.SCHEDULED, StepState.ARRIVED, StepState.READY, StepState.STARTED)


@dataclass(frozen=True, slots=True)
class NewStep:
    """A step as a message says it; without a ``step_id`` all steps of the order are meant.

    ``defaults`` are for a step that is new, without a ``state`` the step keeps the one it has.
    """

    step_id: str
    attributes: Attributes
    state: StepState | None = None
    defaults: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OrderKeys:
    """What an order is known by; empty ones are not looked for."""

    study_uid: str = ""
    placer: str = ""
    placer_issuer: str = ""
    filler: str = ""
    filler_issuer: str = ""
    accession_number: str = ""


@dataclass(frozen=True, slots=True)
class OrderChange:
    """What one order group of a message asks for: attributes and steps to save, or only a state.

    ``defaults`` are for an order that is new.
    """

    keys: OrderKeys
    state: StepState | None = None
    attributes: Attributes = field(default_factory=dict)
    defaults: Attributes = field(default_factory=dict)
    steps: tuple[NewStep, ...] = ()
    saves: bool = True  # else the order must be there
    reopens: bool = False  # an order that was given up is scheduled again


@dataclass(frozen=True, slots=True)
class PatientChange:
    """New attributes of a patient, or with ``prior`` what becomes of another identity's orders."""

    patient_id: str
    issuer: str
    attributes: Attributes
    prior_id: str = ""
    prior_issuer: str = ""


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message as it is kept: ``code`` is that of its acknowledgement."""

    sender: str
    address: str
    control_id: str
    digest: str
    kind: str
    received: float
    code: str
    reason: str
    content: bytes
    patient_id: str = ""
    accession_number: str = ""


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A row of the history of messages."""

    id: int
    sender: str
    address: str
    control_id: str
    kind: str
    received: float
    code: str
    reason: str
    patient_id: str
    accession_number: str
    content: bytes


@dataclass(frozen=True, slots=True)
class OrderSummary:
    """One order as an administrator's list shows it."""

    id: int
    state: str
    study_uid: str
    accession_number: str
    placer: str
    filler: str
    patient_id: str
    issuer: str
    attributes: Attributes
    steps: tuple[tuple[str, str, Attributes], ...]  # step ID, state, attributes
    created: float
    changed: float


class Applied(Enum):
    """What became of a message."""

    DONE = "done"
    REPEATED = "repeated"  # the same message has taken effect before
    DIFFERENT = "different"  # the same control ID, other content
    UNKNOWN_ORDER = "unknown order"
    OTHER_ORDER = "other order"  # its Study Instance UID is that of an order with other numbers
