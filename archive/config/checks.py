"""What must hold between options, and what is allowed but looks like a mistake."""

from __future__ import annotations

from .complaints import Complaint
from .document import Node
from .kinds import Reading
from .sections import Config


def check(config: Config, root: Node, reading: Reading) -> tuple[list[Complaint], list[Complaint]]:
    """Complaints and warnings."""
    return list(reading.complaints), []


def exposed(config: Config, reading: Reading) -> list[Complaint]:
    """A listener that anybody can reach and nothing guards."""
    return []
