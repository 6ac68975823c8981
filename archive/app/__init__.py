"""Builds everything from a Config and wires it; starts and stops in order.

``store`` opens what every process needs, ``acceptor`` is a process that serves associations, ``background`` the one
in which the workers run.
"""

from archive.app.acceptor import Acceptor, Main, Reload, destinations, open_sockets, rows_of_census
from archive.app.alarming import ended
from archive.app.background import Background
from archive.app.notify import Notifier
from archive.app.orders import field_map, open_hl7_sockets
from archive.app.store import Archive, recover

__all__ = [
    "Acceptor", "Archive", "Background", "Main", "Notifier", "Reload", "destinations", "ended", "field_map",
    "open_hl7_sockets", "open_sockets", "recover", "rows_of_census",
]  # fmt: skip
