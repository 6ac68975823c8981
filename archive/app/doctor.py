"""Looks a configuration, its index and its peers over, for `archive doctor`: what is wrong, and what would do.

Rules that hold here: nothing is changed, but for the index being opened; an index that does not answer is a finding
and keeps nothing else from being looked at; peers are called with a deadline for all of them together.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from archive.app.retention import trouble
from archive.app.store import index_of
from archive.app.volumes import overview_of
from archive.config import Complaint, Config, Peer, certificates
from archive.config.words import VERBS
from archive.dimse.access import Access, Why
from archive.dimse.destinations import Destination, Destinations
from archive.dimse.probe import Probed, listens, probe_all
from archive.errors import ArchiveError, ConfigurationError, IndexUnavailable
from archive.index import CallerSeen, Index, State, Which
from archive.services import doctor
from archive.services.doctor import Call, Entry, Finding
from archive.services.lifecycle import UNMATCHED
from archive.services.routing import DELIVER, VERIFY
from archive.services.volumes import findings
from archive.storage.space import space_of

MOST = 1000  # rows of one kind that are looked at: more are no better known by their number


def examine(config: Config, aet: str, now: float, *, since: float, deadline: float) -> list[Finding]:
    """Why a caller or a destination does not work; without ``aet`` everything."""
    look = _One(config, aet, now, since, deadline) if aet else _Whole(config, now, since, deadline)
    return list(dict.fromkeys(finding for part in look.parts() for finding in _safely(part)))


def _safely(part: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(part())
    except ConfigurationError as error:
        return [Finding("configuration", str(error))]
    except ArchiveError as error:
        return [Finding("index", f"does not answer: {error}", "index.url, and the log of the database")]


class _Doctor:
    """What both ways to look share."""

    def __init__(self, config: Config, now: float, since: float, deadline: float) -> None:
        self.config, self.now, self.since, self.deadline = config, now, since, deadline
        self._index: Index | None = None
        self._silent: IndexUnavailable | None = None
        self.access = Access.of(config)
        self.entries = [_entry(peer) for peer in config.peers.values()]

    def index(self) -> Index:
        """Opened once; one that does not answer is asked once, since each try may take its whole time."""
        if self._silent:
            raise self._silent
        try:
            self._index = self._index or index_of(self.config)
            self._index.is_empty()
        except IndexUnavailable as error:
            self._silent = error
            raise
        return self._index

    def warnings(self, prefix: str = "") -> Iterator[Finding]:
        for each in self.config.warnings:
            if not prefix or each.key == prefix or each.key.startswith(f"{prefix}."):
                yield _warned(each)

    def refused(self, callers: Iterable[CallerSeen]) -> Iterator[Finding]:
        for each in callers:
            stands = _stands(self.config, self.access, each)
            remedy = _remedy(self.config, self.access, each)
            yield doctor.refusal(each, self.now, stands=stands, since=self.since, remedy=remedy)

    def called(self, peers: Sequence[Peer]) -> Iterator[Finding]:
        """C-ECHO of those that have a port and a host."""
        titles = [peer for peer in peers if peer.port and peer.address]
        known = Destinations.of(self.config)
        asked = [known.named(peer.aet) for peer in titles]
        for destination, went in zip(asked, probe_all(asked, self.deadline), strict=True):
            yield from doctor.answer(_call(self.config, destination, went), self.now)

    def failures(self, lane: str | None = None) -> Iterator[Finding]:
        tasks = self.index().queue.latest(Which((), lane, (State.FAILED,)), limit=MOST)
        yield from doctor.failures(tasks, self.since, self.now, most=MOST)


class _One(_Doctor):
    """One AE title, as a caller and as a destination."""

    def __init__(self, config: Config, aet: str, now: float, since: float, deadline: float) -> None:
        super().__init__(config, now, since, deadline)
        self.title = aet
        self.peer = self.access.peer(aet)

    def parts(self) -> tuple[Callable[[], Iterable[Finding]], ...]:
        return (self.identity, self.rights, self.callers, self.echo, self.queue, self.failed, self.quarantine)

    def identity(self) -> Iterator[Finding]:
        yield from doctor.identity(self.title, self.entries, self.config.ae.titles)

    def rights(self) -> Iterator[Finding]:
        if self.peer is None:
            allowed = ", ".join(self.config.unknown_peers.allow) or "nothing"
            yield doctor.note("unknown_peers.allow", f"who is no peer may {allowed}")
            return
        entry = _entry(self.peer)
        yield from doctor.permissions(entry, tuple(VERBS))
        yield from self.warnings(entry.key)

    def callers(self) -> Iterator[Finding]:
        """Its refusals, those of what looks like it, and those of strangers at its address."""
        yield from self.refused(each for each in self.index().callers() if self._concerns(each))

    def _concerns(self, caller: CallerSeen) -> bool:
        titles = (self.title, *(_entry(self.peer).titles if self.peer else ()))
        if any(caller.aet == each or doctor.difference(caller.aet, each) for each in titles):
            return True
        return self.peer is not None and self.access.peer(caller.aet) is None and _is_at(self.peer, caller.address)

    def echo(self) -> Iterator[Finding]:
        if self.peer is not None:
            yield from self.called([self.peer])

    def queue(self) -> Iterator[Finding]:
        held = self.index().queue.lanes()
        mine = {name: lane for name, lane in held.items() if name == self._lane}
        open_tasks = self.index().queue.count(Which((), self._lane, (State.WAITING, State.LEASED)))
        waiting = {(self._lane, state): count for state, count in open_tasks.items()}
        yield from doctor.lanes(mine, waiting, self.now)
        if total := sum(open_tasks.values()):
            yield doctor.note(f"queue of {self._lane}", f"{total} tasks are open", f"archive queue --to {self._lane}")

    def failed(self) -> Iterator[Finding]:
        yield from self.failures(self._lane)

    @property
    def _lane(self) -> str:
        return self.peer.aet if self.peer else self.title

    def quarantine(self) -> Iterator[Finding]:
        count = self.index().count_quarantined(self._lane)
        yield from doctor.counted(damaged=0, quarantined=count, unmatched=0, most=count + 1)


class _Whole(_Doctor):
    """Everything."""

    def parts(self) -> tuple[Callable[[], Iterable[Finding]], ...]:
        here = (self.warnings, self.certificates, self.listeners, self.disk, self.volumes)
        return (*here, self.echo, self.queue, self.failures, self.people, self.callers, self.retention)

    def certificates(self) -> Iterator[Finding]:
        """That of the HL7 port where it has its own; the warnings tell of all others."""
        section = self.config.hl7
        told = {listener.tls.cert for listener in self.config.listeners if listener.tls}
        if section and section.cert and section.key and section.cert not in told:
            for each in certificates.examine(section.cert, section.key, self.now, rsa=False):
                yield Finding(f"hl7.{each.option}", each.problem, each.remedy)

    def listeners(self) -> Iterator[Finding]:
        for each in self.config.listeners:
            if not listens(each.host, each.port):
                says = f"nobody answers at {each.host}:{each.port}"
                yield Finding("listeners", says, "archive serve, or systemctl start archive")

    def disk(self) -> list[Finding]:
        path = self.config.storage.path
        return doctor.space(str(path), _free(path), self.config.storage.reserve)

    def volumes(self) -> list[Finding]:
        found = overview_of(self.config, self.index())
        return findings(found) if found else []

    def echo(self) -> Iterator[Finding]:
        yield from self.called(list(self.config.peers.values()))

    def queue(self) -> Iterator[Finding]:
        held = self.index().queue.lanes()
        yield from doctor.lanes(held, self.index().queue.open((DELIVER, VERIFY)), self.now)

    def people(self) -> list[Finding]:
        index = self.index()
        return doctor.counted(
            damaged=index.upkeep.count_damaged(),
            quarantined=index.count_quarantined(),
            unmatched=len(index.studies(state=UNMATCHED, limit=MOST)),
            most=MOST,
        )

    def callers(self) -> Iterator[Finding]:
        yield from self.refused(each for each in self.index().callers() if each.last >= self.since)

    def retention(self) -> Iterator[Finding]:
        yield from trouble(self.index(), lambda: self.now)


# -- values of what was configured and seen ----------------------------------------------------------------------


def _entry(peer: Peer) -> Entry:
    networks = tuple(map(str, peer.networks))
    return Entry(peer.name, peer.aet, peer.aliases, peer.allow, peer.port, peer.address, networks)


def _warned(complaint: Complaint) -> Finding:
    return Finding(complaint.key, complaint.problem, complaint.remedy)


def _call(config: Config, destination: Destination, went: Probed) -> Call:
    peer = config.peer(destination.aet)
    return Call(
        aet=destination.aet,
        key=_entry(peer).key if peer else destination.aet,
        where=f"{destination.host}:{destination.port}",
        calling=destination.calling,
        failed=went.failed,
        seconds=went.seconds,
        steps=went.steps,
        expires=went.expires,
    )


def _is_at(peer: Peer, address: str) -> bool:
    """Only a peer of single addresses says anything about who sits at one."""
    try:
        narrow = all(network.prefixlen == network.max_prefixlen for network in peer.networks)
        return narrow and peer.calls_from(address)
    except ValueError:
        return False  # a caller that was noted without an address


def _free(path: Path) -> int | None:
    try:
        return space_of(path).free
    except OSError:
        return None


# -- callers that were refused -----------------------------------------------------------------------------------


def _why(caller: CallerSeen) -> Why | None:
    return next((why for why in Why if caller.reason.startswith(why.words)), None)


def _stands(config: Config, access: Access, caller: CallerSeen) -> bool:
    """Whether the reason still holds; a certificate is known only when it is shown."""
    peer, why = access.peer(caller.aet), _why(caller)
    if why is Why.WRONG_CALLED:
        return not access.is_ours(caller.called)
    if peer is None or why is None or why is Why.WRONG_CERTIFICATE:
        return True
    if why is Why.TLS_REQUIRED:
        return peer.tls_required
    return not peer.calls_from(caller.address)


def _remedy(config: Config, access: Access, caller: CallerSeen) -> str:
    peer, why = access.peer(caller.aet), _why(caller)
    if why is Why.WRONG_CALLED:
        return f"have it call {' or '.join(config.ae.titles)}, or ae.aliases: [{doctor.written(caller.called)}]"
    if peer is None:
        title = shlex.quote(caller.aet)
        return f"archive peers promote {title} --host {caller.address}, or correct the title at the device"
    key = _entry(peer).key
    return {
        Why.TLS_REQUIRED: f"have it call the TLS port, or {key}.tls: {{incoming: optional}}",
        Why.WRONG_CERTIFICATE: f"{key}.certificate: the one that it shows, if it is the right device",
    }.get(why or Why.WRONG_ADDRESS, f"{caller.address} in the list {key}.host, if it is the same device (NAT shows so)")
