"""What a message would do, without doing it."""

from __future__ import annotations

from typing import Any

from archive.errors import NotUnderstood
from archive.hl7 import acknowledge
from archive.hl7.acknowledge import Reply
from archive.hl7.mapping import FieldMap
from archive.hl7.message import Message
from archive.hl7.requests import Request, Unfit, read_request
from archive.index.ordervalues import OrderChange, PatientChange


def explained(data: bytes, fields: FieldMap, charset: str) -> dict[str, Any]:
    """The answer the message would get and what it asks for, as plain values.

    Line ends of any kind may stand between the segments, and the frame may be there or not.
    """
    try:
        message = Message(data.strip(b"\x0b\x1c\r\n"), default_charset=charset)
        request = read_request(message, fields)
    except NotUnderstood as error:
        return {"answer": Reply(acknowledge.SEQUENCE_ERROR).code, "reason": error.comment}
    except Unfit as unfit:
        return {"answer": unfit.reply.code, "reason": str(unfit)}
    return {"answer": acknowledge.ACCEPT, "message": message.kind, **_asked(request)}


def _asked(request: Request) -> dict[str, Any]:
    return {
        "orders": [_order(change) for change in request.orders],
        "patients": [_patient(change) for change in request.patients],
    }


def _order(change: OrderChange) -> dict[str, Any]:
    """``save`` makes the order or renews it; anything else is the state that a known order gets."""
    found: dict[str, Any] = {"does": change.state.value.lower() if change.state else "save"}
    if change.saves:
        found["attributes"] = {**change.defaults, **change.attributes}
        found["steps"] = [{**step.defaults, **step.attributes} for step in change.steps]
    return found


def _patient(change: PatientChange) -> dict[str, Any]:
    found: dict[str, Any] = {"does": "merge" if change.prior_id else "update", "attributes": dict(change.attributes)}
    if change.prior_id:
        found["prior"] = {"PatientID": change.prior_id, "IssuerOfPatientID": change.prior_issuer}
    return found
