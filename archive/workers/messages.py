"""Messages that are passed on, as tasks: one lane for each receiver.

Rules that hold here: a message goes out byte for byte as it was put in.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

KIND = "hl7"
PAUSES = (2.0, 10.0, 30.0, 60.0, 300.0, *[900.0] * 1000)  # between tries to reach a receiver: for ten days


def packed(message: bytes) -> dict[str, Any]:
    """A message as the payload of a task."""
    return {"message": base64.b64encode(message).decode("ascii")}


def unpacked(payload: Mapping[str, Any]) -> bytes:
    return base64.b64decode(payload["message"])
