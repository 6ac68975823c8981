"""The listening sockets of a configuration, opened before any process that serves them.

Rules that hold here: a port that cannot be had is said with the option that names it; a socket is shared by all
processes that are forked after it was opened.
"""

from __future__ import annotations

import socket

from archive.config import Config
from archive.dimse.listener import bind
from archive.errors import ConfigurationError

HL7_PORTS = ("port", "tls_port")  # of the section hl7, in the order of their sockets


def open_sockets(config: Config) -> list[socket.socket]:
    """One for each listener. Raises ConfigurationError."""
    listeners = enumerate(config.listeners)
    return [_open(f"listeners.{number}", listener.host, listener.port) for number, listener in listeners]


def open_hl7_sockets(config: Config) -> list[socket.socket | None]:
    """One for each of HL7_PORTS, None for those that are off. Raises ConfigurationError."""
    section = config.hl7
    if section is None:
        return []
    ports = [(key, getattr(section, key)) for key in HL7_PORTS]
    return [None if port is None else _open(f"hl7.{key}", section.host, port) for key, port in ports]


def _open(key: str, host: str, port: int) -> socket.socket:
    try:
        return bind(host, port)
    except OSError as error:
        raise ConfigurationError(
            f"{key}: cannot listen on {host}:{port}: {error.strerror}; end what uses the port, or choose another"
        ) from error
