"""For whom a service works: the caller's name and address, and the limits its peer entry sets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """``visible_if`` is the data filter of the caller's peer entry, ``max_results`` 0 for no limit."""

    aet: str
    address: str = ""
    visible_if: str = ""
    max_results: int = 0


def plain_address(address: str) -> str:
    """As a socket gives it, without IPv6 scope; an IPv4 address inside IPv6 is the IPv4 address."""
    address = address.partition("%")[0]
    return address[7:] if address.startswith("::ffff:") and "." in address else address
