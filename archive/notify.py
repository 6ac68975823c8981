"""Tell systemd how the service is (sd_notify(3)); nothing happens when it did not start us."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send e.g. ``READY=1``, ``RELOADING=1``, ``STOPPING=1``, ``WATCHDOG=1``, ``STATUS=…``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(address)
            sock.send(state.encode())
        except OSError:
            pass  # the service manager went away; nothing here depends on it


def watchdog_interval() -> float | None:
    """Seconds between two WATCHDOG=1, half of what systemd allows; None when it does not watch."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isdigit() else None
