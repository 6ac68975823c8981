"""What a reload cannot change.

Rules that hold here: which option needs a restart stands beside the option (sections.py); the files of TLS can
change, whether a port speaks TLS cannot.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .schema import Section, options
from .sections import Config


def needs_restart(old: Config, new: Config) -> list[str]:
    """The keys whose new values take effect only after a restart."""
    return [*_listeners(old, new), *_messages(old, new), *_changed(Config, old, new, "")]


def _listeners(old: Config, new: Config) -> Iterator[str]:
    before = [(listener.host, listener.port, bool(listener.tls)) for listener in old.listeners]
    after = [(listener.host, listener.port, bool(listener.tls)) for listener in new.listeners]
    if before != after:
        yield "listeners"


def _messages(old: Config, new: Config) -> Iterator[str]:
    before, after = ((each.hl7.host, each.hl7.port, each.hl7.tls_port) if each.hl7 else None for each in (old, new))
    if before != after:
        yield "hl7"


def _changed(section: type, old: Any, new: Any, key: str) -> Iterator[str]:
    for name, metadata in options(section):
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(metadata["kind"], Section):
            yield from _changed(metadata["kind"].of, before, after, f"{key}{name}.")
        elif metadata["restart"] and before != after:
            yield f"{key}{name}"
