"""Every option: its name, kind, default and meaning, one frozen dataclass per section.

Rules that hold here: an option's facts stand here once; the reader, the complaints, ``check-config --show`` and
the tables of the manual are made from them; what other parts use is already converted (bytes, seconds, absolute
paths, networks); fields without a kind are worked out by the reader.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import values, words
from .complaints import Complaint, Where
from .fetching import Fetch
from .hl7 import Hl7, PeerWorklist, Worklist
from .keeping import CompressRule, Scrub
from .kinds import OFF_WORDS, ON_WORDS, Either, Later, ListOf, Scalar, Unfit
from .notify import NotifyRule, Smtp
from .prefetch import PrefetchRule
from .receiving import ISSUER, Coerce, Provenance
from .retention import Deletion, RetentionRule, Watermarks
from .routing import DeidentifySettings, QueueSettings, Route
from .schema import Named, Part, Section, option
from .studies import Commitment, Studies
from .sync import Sync
from .telling import Availability, Mpps
from .values import AE_TITLE, LIMIT, PATH, SWITCH, TIMEOUT, Network, number, one_of, size
from .volumes import VolumeEntry

SMALLEST_JOURNAL = 2**20  # below this every other small object would wait for the journal to be emptied
SMALLEST_INSTANCE_LIMIT = 2**20


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listening host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "ip6-localhost")


def plain_address(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """A caller's address without IPv6 scope; an IPv4 address inside IPv6 is the IPv4 address."""
    found = ipaddress.ip_address(address.partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found


def _processes(text: str) -> int:
    return len(os.sched_getaffinity(0)) if text.strip().lower() == "auto" else number(1, 256).convert(text)


def _journal(text: str) -> int:
    return 0 if text.strip().lower() in OFF_WORDS else size(SMALLEST_JOURNAL).convert(text)


def _no_tls(text: str) -> None:
    if text.strip().lower() not in OFF_WORDS:
        raise Unfit("not enough to listen with TLS", "{cert: server.pem, key: server.key, ca: ca.pem} would do")


def _peer_tls(text: str) -> PeerTLS | None:
    if text.strip().lower() not in ON_WORDS | OFF_WORDS:
        raise Unfit("neither on nor off")
    return PeerTLS() if text.strip().lower() in ON_WORDS else None


def _no_hl7(text: str) -> None:
    if text.strip().lower() not in OFF_WORDS:
        raise Unfit("not enough to listen for messages", "{port: 2575} would do")


def _show_off(value: object) -> str:
    return "off"


PROFILE = Scalar(
    "bcp195 or legacy-aes128-cbc",
    lambda text: one_of(words.PROFILES).convert(text.replace("_", "-")),
)
PROCESSES = Scalar("auto (one per core) or a number from 1 to 256", _processes, int)
JOURNAL = Scalar(
    f"off or a size of at least {values.show_size(SMALLEST_JOURNAL)}, such as 64MB",
    _journal,
    lambda value: values.show_size(value) if value else "off",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AE:
    title: str = option(AE_TITLE, "ARCHIVE", "the archive's own AE title")
    aliases: tuple[str, ...] = option(ListOf(AE_TITLE), [], "other called AE titles it answers to")

    @property
    def titles(self) -> tuple[str, ...]:
        return (self.title, *self.aliases)


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    cert: Path = option(PATH, None, "the certificate, PEM, with the chain after it", required=True)
    key: Path = option(PATH, None, "its private key, PEM, not encrypted and not readable by others", required=True)
    ca: Path | None = option(PATH, None, "who signs callers' certificates: a PEM file or a folder of them")
    profile: str = option(PROFILE, "bcp195", "which TLS versions and ciphers are spoken")
    client_cert: str = option(one_of(words.CLIENT_CERTIFICATES), "require", "whether callers show a certificate of ca")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    host: str = option(values.LISTENING_HOST, "127.0.0.1", "the address to listen on; 0.0.0.0 is all", restart=True)
    port: int = option(
        values.LISTENING_PORT, "11112", "the port; 2762 is usual with TLS, 0 takes a free one", restart=True
    )
    tls: TLS | None = option(
        Either(Scalar("off", _no_tls, _show_off), Section(TLS), lambda value: value is None),
        "off",
        "off, or cert, key, …",
    )

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    max_associations: int = option(LIMIT, "500", "associations at a time; more are rejected politely; 0 = no limit")
    reserved_for_peers: int = option(number(0, 1_000_000), "20", "of these, how many only configured peers may take")
    per_ae: int = option(LIMIT, "50", "associations at a time with one calling AE title; 0 = no limit")
    per_ip: int = option(LIMIT, "100", "connections at a time from one address, silent ones included; 0 = no limit")
    max_pdu: int = option(values.MAX_PDU, "0", "largest PDU announced and accepted, in bytes; 0 = no limit")
    max_instance_size: int = option(size(SMALLEST_INSTANCE_LIMIT), "500MB", "a larger instance is answered with A700")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    tls: float = option(TIMEOUT, "5s", "for the TLS handshake")
    acse: float = option(TIMEOUT, "5s", "for the association request or answer, from the first byte to the last")
    pdu: float = option(TIMEOUT, "60s", "for the rest of a PDU that has begun")
    dimse: float = option(TIMEOUT, "300s", "for the response to a request, since the last sign of life")
    idle: float = option(TIMEOUT, "300s", "for the next request on an open association")
    send: float = option(TIMEOUT, "60s", "for a receiver that has stopped reading")
    connect: float = option(TIMEOUT, "5s", "for a connection to a peer")


VERBS = ListOf(one_of(words.VERBS))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownPeers:
    allow: tuple[str, ...] = option(VERBS, ["echo"], "what callers that are no peers may do, from anywhere")
    loopback: tuple[str, ...] = option(VERBS, [], "what they may do as well when they call from this machine")

    def allowed(self, address: str) -> tuple[str, ...]:
        """The verbs an unknown caller from this address may use."""
        return (*self.allow, *self.loopback) if plain_address(address).is_loopback else self.allow


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTLS:
    """How the archive speaks TLS with a peer; what is left out comes from the first TLS listener."""

    profile: str = option(PROFILE, "bcp195", "which TLS versions and ciphers are spoken")
    cert: Path | None = option(PATH, None, "the certificate shown to the peer; else that of the first TLS listener")
    key: Path | None = option(PATH, None, "its private key; else that of the first TLS listener")
    ca: Path | None = option(PATH, None, "who signs the peer's; else ca of the first TLS listener, else the system's")
    incoming: str = option(one_of(words.INCOMING), "require", "whether the peer must call over TLS")


PEER_TLS = Either(Scalar("on or off", _peer_tls, _show_off), Section(PeerTLS), lambda value: value is None)
SYNTAXES = Either(
    one_of(words.ACCEPT_SYNTAXES), ListOf(values.TRANSFER_SYNTAX, 1), lambda value: isinstance(value, str)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    aet: str = option(AE_TITLE, None, "its AE title; the name of the entry if left out", required=True)
    aliases: tuple[str, ...] = option(ListOf(AE_TITLE), [], "other AE titles it calls with")
    host: tuple[str, ...] = option(
        ListOf(values.HOST, 1),
        None,
        "where it calls from: an address, a network, a DNS name "
        "(looked up at load), or a list; the first that is no network is called",
        required=True,
    )
    port: int | None = option(values.PORT, None, "where it listens; without it the archive never calls it")
    allow: tuple[str, ...] = option(VERBS, ["echo"], "what it may ask of the archive")
    tls: PeerTLS | None = option(
        PEER_TLS, "off", "on: TLS when it is called and demanded when it calls; or cert, key, …"
    )
    certificate: str | None = option(
        values.CERTIFICATE, None, "the certificate it must show: its fingerprint or its name"
    )
    quirks: tuple[str, ...] = option(ListOf(one_of(words.QUIRKS)), [], "what it cannot stand, by name")
    local_aet: str = option(
        AE_TITLE, None, "the AE title the archive calls it with; ae.title if left out", unset="ARCHIVE"
    )
    visible_if: str = option(values.FILTER, None, "only objects that fit can be found and retrieved by it", unset="")
    accept_syntaxes: str | tuple[str, ...] = option(
        SYNTAXES,
        "first-proposed",
        "which of the proposed transfer syntaxes it "
        "stores with: first-proposed, prefer-lossless, or a list by preference",
    )
    default_charset: str = option(values.CHARSET, None, "the character set of its data sets that name none", unset="")
    default_issuer: str = option(
        ISSUER, None, "the issuer of the Patient IDs in its data sets that name none", unset=""
    )
    store_associations: int = option(number(1, 16), "1", "how many associations are used to send to it at a time")
    async_window: int = option(
        number(0, 65535), "1", "operations proposed to it at a time (0 = no limit); 1 proposes nothing"
    )
    max_pdu: int = option(values.MAX_PDU, None, "as limits.max_pdu, for this peer", unset=0)
    max_results: int = option(LIMIT, None, "as query.max_results, for this peer", unset=0)
    relational: bool = option(SWITCH, "off", "relational queries are answered without being negotiated")
    fuzzy: bool = option(SWITCH, "off", "names are matched fuzzily without that being negotiated")
    combined_date_time: bool = option(
        SWITCH, "off", "a range of dates and one of times mean one span without that being negotiated"
    )
    timeouts: Timeouts = option(
        Part(Timeouts), {}, "as the section timeouts, for this peer; names left out stay", unset=Timeouts()
    )
    worklist: PeerWorklist = option(Section(PeerWorklist), {}, "what it sees of the worklist")
    fetch: Fetch = option(Part(Fetch), {}, "as the section fetch, for this peer; names left out stay", unset=Fetch())
    name: str = field(default="", compare=False)  # of its entry in the file
    networks: tuple[Network, ...] = field(default=(), compare=False)  # all of host, looked up

    @property
    def address(self) -> str | None:
        """The host to connect to: the first that is no network."""
        return next((host for host in self.host if "/" not in host), None)

    @property
    def tls_required(self) -> bool:
        """Whether the peer is accepted over TLS only."""
        return bool(self.certificate or (self.tls and self.tls.incoming == "require"))

    def calls_from(self, address: str) -> bool:
        """Whether the address is one of its own."""
        caller = plain_address(address)
        return any(caller in network for network in self.networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    path: Path = option(PATH, "var/files", "the folder of the files", restart=True)
    volumes: tuple[VolumeEntry, ...] = option(
        ListOf(Section(VolumeEntry)), [], "several volumes with roles, instead of path; see volumes.md", restart=True
    )
    recall: bool = option(
        SWITCH, "off", "on: a study that is retrieved from a long-term volume is copied back to the cache as well"
    )
    volume_timeout: float = option(TIMEOUT, "120s", "a long-term volume that does not answer for so long is given up")
    reserve: int = option(size(0), "1GB", "with less free space a store is answered with A700")
    journal: int = option(
        JOURNAL, "64MB", "write-ahead journal that makes small objects durable in one sync; off = none", restart=True
    )
    on_duplicate: str = option(
        one_of(words.ON_DUPLICATE),
        "keep",
        "what happens to a SOP Instance UID that is there already",
    )
    on_conflict: str = option(
        one_of(words.ON_CONFLICT),
        "quarantine",
        "what happens to an object that contradicts the index, such as a study of another patient",
    )
    on_name_mismatch: str = option(
        one_of(words.ON_NAME_MISMATCH),
        "conflict",
        "what happens to an object whose patient has another name under the same Patient ID and issuer",
    )
    on_missing_patient_id: str = option(
        one_of(words.ON_MISSING_PATIENT_ID), "create", "what happens to an object without a Patient ID"
    )
    lenient_uids: bool = option(SWITCH, "off", "UIDs with leading zeros are accepted")
    accept_unknown_sop_classes: bool = option(
        SWITCH, "off", "storage classes that the archive does not know are accepted"
    )
    compress: tuple[CompressRule, ...] = option(
        ListOf(Section(CompressRule)), [], "which images are compressed without loss after their arrival, and how"
    )
    compress_processes: int = option(number(1, 64), "1", "how many images are compressed at a time, at low priority")
    watermarks: Watermarks = option(Section(Watermarks), {}, "what happens when its file system fills up")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    url: str = option(values.INDEX_URL, "sqlite:///var/index.db", "the database of the index", restart=True)
    statement_timeout: float = option(TIMEOUT, "5s", "a query that takes longer is given up (PostgreSQL)", restart=True)
    extra_keys: tuple[str, ...] = option(
        ListOf(values.EXTRA_KEY), [], "attributes to match and return beyond the built-in ones", restart=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySettings:
    max_results: int = option(LIMIT, "0", "a query stops with A700 after this many answers; 0 = no limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    level: str = option(one_of(words.LEVELS), "info", "how much is logged")


HL7 = Either(Scalar("off", _no_hl7, _show_off), Section(Hl7), lambda value: value is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole configuration, consistent and converted; ``load`` gives one or raises."""

    ae: AE = option(Section(AE), {}, "who the archive is")
    listeners: tuple[Listener, ...] = option(ListOf(Section(Listener), 1), [{}], "where it listens")
    processes: int = option(PROCESSES, "auto", "processes that accept associations; auto = one per core", restart=True)
    limits: Limits = option(Section(Limits), {}, "how much at a time")
    timeouts: Timeouts = option(Section(Timeouts), {}, "how long it waits")
    unknown_peers: UnknownPeers = option(Section(UnknownPeers), {}, "what callers may do that are no peers")
    peers: Mapping[str, Peer] = option(Named(Section(Peer), "aet"), {}, "who may do what, and where to send to")
    storage: Storage = option(Section(Storage), {}, "where the files are and what comes in")
    scrub: Scrub = option(Section(Scrub), {}, "how often all files are read again, to find damaged ones")
    index: IndexSettings = option(Section(IndexSettings), {}, "where the database is")
    query: QuerySettings = option(Section(QuerySettings), {}, "how queries are answered")
    studies: Studies = option(Section(Studies), {}, "when a study is ready")
    commitment: Commitment = option(Section(Commitment), {}, "how storage commitment is answered")
    mpps: Mpps = option(Section(Mpps), {}, "what becomes of performed procedure steps")
    availability: Availability = option(Section(Availability), {}, "who is told what can be retrieved")
    notify: tuple[NotifyRule, ...] = option(ListOf(Section(NotifyRule)), [], "who is told when something goes wrong")
    smtp: Smtp = option(Section(Smtp), {}, "how mail is sent")
    retention: tuple[RetentionRule, ...] = option(
        ListOf(Section(RetentionRule)), [], "how long which studies are kept; without rules for ever"
    )
    deletion: Deletion = option(Section(Deletion), {}, "when and how fast rules delete")
    log: Log = option(Section(Log), {}, "what is logged")
    coerce: tuple[Coerce, ...] = option(ListOf(Section(Coerce)), [], "rules that change objects on their way in or out")
    provenance: Provenance = option(Section(Provenance), {}, "what is written into objects of the way they took")
    routes: tuple[Route, ...] = option(ListOf(Section(Route)), [], "what is sent on to whom")
    deidentify: DeidentifySettings = option(Section(DeidentifySettings), {}, "how routes de-identify")
    queue: QueueSettings = option(Section(QueueSettings), {}, "how what is to be sent on waits")
    fetch: Fetch = option(Section(Fetch), {}, "how studies are retrieved from peers")
    sync: tuple[Sync, ...] = option(ListOf(Section(Sync)), [], "archives that are kept equal with this one")
    prefetch: tuple[PrefetchRule, ...] = option(
        ListOf(Section(PrefetchRule)), [], "which earlier studies are fetched before they are needed"
    )
    hl7: Hl7 | None = option(HL7, "off", "who sends orders; off = no HL7", restart=False)
    worklist: Worklist = option(Section(Worklist), {}, "what modalities see of the orders")
    web: None = option(Later(), None, "the web server (not available yet)")
    file: Path | None = field(default=None, compare=False)  # where it was read from; None = built in
    places: Mapping[str, Where] = field(default_factory=dict, repr=False, compare=False)  # of every key that was given
    warnings: tuple[Complaint, ...] = field(default=(), compare=False)
    _by_title: dict[str, Peer] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_title = {title: peer for peer in self.peers.values() for title in (peer.aet, *peer.aliases)}
        object.__setattr__(self, "_by_title", by_title)

    def peer(self, title: str) -> Peer | None:
        """The peer that calls itself so, by its AE title or an alias."""
        return self._by_title.get(title)
