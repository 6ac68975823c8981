"""The sections ``hl7`` and ``worklist``: who may send messages, how their fields are read, what modalities see.

Rules that hold here: as in sections.py; a message field is checked for its form here, and for its data type by who
reads messages.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archive.dicom.worklist import BY_KEYWORD

from . import values
from .document import Node
from .kinds import OFF_WORDS, ListOf, Reading, Scalar, Unfit
from .schema import Section, option
from .values import AE_TITLE, LISTENING_HOST, PATH, PORT, SWITCH, Network, duration, number, one_of

CLIENT_CERTIFICATES = {
    "require": "senders show a certificate that ca has signed",
    "ignore": "senders need no certificate",
}

_FIELD = re.compile(r"([A-Z]+:)?[A-Z][A-Z0-9]{2}-[1-9]\d{0,2}(\(\d+\))?(\.\d+){0,2}")


def _field(text: str) -> str:
    if not _FIELD.fullmatch(text.strip()):
        raise Unfit("not a message field", "PID-3.1, ZDS-1(2).4 or XCN:OBR-16 would do")
    return text.strip()


def _port(text: str) -> int | None:
    return None if text.strip().lower() in OFF_WORDS else PORT.convert(text)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise Unfit("neither an address nor a network") from None


def _sender(text: str) -> str:
    if not 0 < len(text.strip()) <= 200:
        raise Unfit("no sending application")
    return text.strip()


def _state(text: str) -> str:
    if not re.fullmatch(r"[a-z]{1,16}", text.strip()):
        raise Unfit("no state of a study")
    return text.strip()


def _modality(text: str) -> str:
    if not re.fullmatch(r"[A-Z0-9_ ]{1,16}", text.strip()):
        raise Unfit("no modality")
    return text.strip()


FIELD = Scalar("a message field such as PID-3.1", _field)
PORT_OR_OFF = Scalar("off or a port", _port, lambda value: "off" if value is None else value)
NETWORK = Scalar("an address or a network such as 10.1.3.0/24", _network)
SENDER = Scalar("a sending application, or application|facility", _sender)
MODALITY = Scalar("a modality such as CT", _modality)
LOCATION = Scalar("a location, as the step says it", lambda text: text.strip())
STATE = Scalar("a state of a study such as ready", _state)
CHARSET = Scalar("a character set of HL7 table 0211 such as 8859/1", lambda text: text.strip())


@dataclass(frozen=True, slots=True)
class FieldTable:
    """A mapping from attributes of the worklist to message fields."""

    expects: str = "a mapping from attributes such as PatientComments to message fields such as NTE-3"

    def read(self, node: Node, reading: Reading) -> Mapping[str, tuple[str, ...]]:
        if node.content is None:
            return {}
        if not isinstance(node.content, dict):
            raise Unfit("not a mapping")
        found = {}
        for keyword, child in node.content.items():
            if keyword not in BY_KEYWORD:
                remedy = "a keyword such as PatientComments would do"
                reading.complaints.append(child.complaint("no attribute of the worklist", remedy))
                continue
            found[keyword] = reading.read(ListOf(FIELD, 1), child, ())
        return found

    def show(self, value: Any) -> object:
        return {keyword: list(fields) for keyword, fields in value.items()}


KINDS = {
    "orders": "orders and appointments as they came",
    "patients": "patient messages as they came",
    "reports": "results as they came",
    "studies": "that a study has changed its state: received, ready, read, reported, complete, …",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hl7Receiver:
    name: str = option(SENDER, None, "what the queue calls it", required=True)
    host: str = option(values.HOST, None, "where it listens", required=True)
    port: int = option(PORT, None, "its port for MLLP", required=True)
    tls: bool = option(SWITCH, "off", "MLLP over TLS, with ca, cert and key of this section")
    send: tuple[str, ...] = option(ListOf(one_of(KINDS), 1), list(KINDS), "what it gets")
    states: tuple[str, ...] = option(
        ListOf(STATE), ["ready", "reported", "complete"], "of studies: which states it is told of"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hl7:
    host: str = option(LISTENING_HOST, "0.0.0.0", "the address to listen on; 0.0.0.0 is all", restart=True)
    port: int | None = option(PORT_OR_OFF, "2575", "the port for MLLP without TLS; off = none", restart=True)
    tls_port: int | None = option(PORT_OR_OFF, "off", "the port for MLLP over TLS; 12575 is usual", restart=True)
    cert: Path | None = option(PATH, None, "the certificate of tls_port; else that of the first TLS listener")
    key: Path | None = option(PATH, None, "its private key; else that of the first TLS listener")
    ca: Path | None = option(PATH, None, "who signs senders' certificates; else ca of the first TLS listener")
    client_cert: str = option(one_of(CLIENT_CERTIFICATES), "require", "whether senders show a certificate of ca")
    allow: tuple[Network, ...] = option(
        ListOf(NETWORK), ["127.0.0.0/8", "::1"], "the addresses and networks that may connect"
    )
    senders: tuple[str, ...] = option(
        ListOf(SENDER), [], "the sending applications (MSH-3, or MSH-3|MSH-4) that may send; empty is all"
    )
    charset: str = option(CHARSET, "UNICODE UTF-8", "the character set of messages that name none (HL7 table 0211)")
    mapping: Mapping[str, tuple[str, ...]] = option(
        FieldTable(), {}, "attributes of the worklist and the fields they are read from, first match first"
    )
    per_ip: int = option(number(1, 10_000), "20", "connections at a time from one address")
    idle: float = option(duration(1.0, 30 * 86400.0), "10m", "a connection on which nothing comes is closed after this")
    forward: tuple[Hl7Receiver, ...] = option(
        ListOf(Section(Hl7Receiver)), [], "who is sent messages, acknowledged one by one and in order"
    )
    keep: float = option(duration(3600.0, 100 * 365 * 86400.0), "90d", "how long messages are kept")

    def admits(self, address: str) -> bool:
        """Whether this address may connect."""
        caller = ipaddress.ip_address(address)
        return any(caller in network for network in self.allow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worklist:
    days_back: int = option(number(0, 3650), "1", "without a date in the query: steps from this many days ago")
    days_ahead: int = option(number(0, 3650), "7", "and up to this many days from now")
    show_started: bool = option(SWITCH, "on", "steps that have been started are listed until they are completed")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerWorklist:
    stations: tuple[str, ...] = option(ListOf(AE_TITLE), [], "it sees only steps of these stations; empty is all")
    modalities: tuple[str, ...] = option(ListOf(MODALITY), [], "and of these modalities; empty is all")
    locations: tuple[str, ...] = option(ListOf(LOCATION), [], "and at these locations; empty is all")
    days_back: int | None = option(number(0, 3650), None, "as worklist.days_back, for this peer", unset=1)
    days_ahead: int | None = option(number(0, 3650), None, "as worklist.days_ahead, for this peer", unset=7)
