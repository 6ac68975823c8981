"""The configuration: one YAML file to frozen dataclasses.

Rules that hold here: an option's name, default and meaning stand once, in sections.py; a complaint names file,
line, key, value and what would do, and all of them come at once; values are converted before anybody sees them.
"""

from __future__ import annotations

from .changes import needs_restart
from .checks import ports_in_use
from .complaints import Complaint, Complaints, Where
from .display import display
from .files import find_file, load
from .peersfile import add_peer
from .sections import (
    AE,
    TLS,
    Config,
    IndexSettings,
    Limits,
    Listener,
    Log,
    Peer,
    PeerTLS,
    QuerySettings,
    Storage,
    Timeouts,
    UnknownPeers,
)

__all__ = [
    "AE",
    "TLS",
    "Complaint",
    "Complaints",
    "Config",
    "IndexSettings",
    "Limits",
    "Listener",
    "Log",
    "Peer",
    "PeerTLS",
    "QuerySettings",
    "Storage",
    "Timeouts",
    "UnknownPeers",
    "Where",
    "add_peer",
    "display",
    "find_file",
    "load",
    "needs_restart",
    "ports_in_use",
]
