"""How many may be connected: in all, per address, per AE title, and before they said who they are.

Rules that hold here: counting only, no sockets; a connection becomes an association when its request
was accepted and not before, so that silent sockets never take a slot; some slots are kept for
configured peers; one object is shared by the listeners of a process, and its `Census` by all processes.
"""

from __future__ import annotations

import threading
from collections import Counter

from archive.dimse.associate import AE_LENGTH
from archive.dimse.census import Census, Counts
from archive.dimse.negotiation import Rejected
from archive.dimse.reasons import CONGESTION, LIMIT_EXCEEDED

PENDING_PER_IP = 64  # fifty modalities behind one address may call at once; a thousand silent sockets may not stay
PENDING = 512  # from everywhere; each has five seconds
LARGEST_COLLECTED = 16 * 1024 * 1024


class Limits:
    """The counts of one process; thread-safe. 0 is no limit."""

    def __init__(
        self,
        *,
        max_associations: int = 500,
        per_ae: int = 50,
        per_ip: int = 100,
        max_pdu: int = 0,
        pending_per_ip: int = PENDING_PER_IP,
        pending: int = PENDING,
        kept_for_known: int | None = None,
        largest_collected: int = LARGEST_COLLECTED,
        census: Census | None = None,
    ) -> None:
        """`census` is one that this process has joined; without it the process counts for itself."""
        self.max_associations = max_associations
        self.per_ae = per_ae
        self.per_ip = per_ip
        self.max_pdu = max_pdu
        self.pending_per_ip = pending_per_ip
        self.pending = pending
        self.kept_for_known = max_associations // 10 if kept_for_known is None else kept_for_known
        self.largest_collected = largest_collected
        self._lock = threading.Lock()
        self._census = census or _own_census(max_associations)
        self._rows: dict[tuple[str, str], list[int]] = {}
        self._pending: Counter[str] = Counter()
        self._all_pending = 0

    @property
    def associations(self) -> int:
        return self._census.total()

    def admit(self, address: str) -> bool:
        """Count a connection that has not said who it is; False when there are too many."""
        with self._lock:
            if _reached(self._all_pending, self.pending) or _reached(self._pending[address], self.pending_per_ip):
                _settle(self._pending, address)
                return False
            self._pending[address] += 1
            self._all_pending += 1
            return True

    def leave(self, address: str) -> None:
        """The connection of `admit` is an association now, or gone."""
        with self._lock:
            self._all_pending -= 1
            _less(self._pending, address)

    def enter(self, aet: str, address: str, *, known: bool) -> Rejected | None:
        """Count an association, or say why there can be no more (PS3.8 table 9-21)."""
        aet = aet[:AE_LENGTH]
        row = self._census.enter(aet, address, lambda counts: self._refusal(counts, known))
        if isinstance(row, Rejected):
            return row
        with self._lock:
            self._rows.setdefault((aet, address), []).append(row)
        return None

    def exit(self, aet: str, address: str) -> None:
        """The association of `enter` is over."""
        key = (aet[:AE_LENGTH], address)
        with self._lock:
            rows = self._rows[key]
            row = rows.pop()
            if not rows:
                del self._rows[key]
        self._census.leave(row)

    def _refusal(self, counts: Counts, known: bool) -> Rejected | None:
        room = self.max_associations - (0 if known else self.kept_for_known)
        if self.max_associations and counts.total >= room:
            what = "limits.max_associations" if known else "limits.max_associations less the room kept for peers"
            return Rejected.of(CONGESTION, f"{counts.total} associations are open: {what}")
        if self.per_ae and counts.of_aet >= self.per_ae:
            return Rejected.of(LIMIT_EXCEEDED, f"{self.per_ae} associations of this AE title are open: limits.per_ae")
        if self.per_ip and counts.of_address >= self.per_ip:
            return Rejected.of(LIMIT_EXCEEDED, f"{self.per_ip} associations of this address are open: limits.per_ip")
        if not counts.rows_left:
            return Rejected.of(CONGESTION, "this process can count no more associations")
        return None


def _own_census(max_associations: int) -> Census:
    census = Census(1, max_associations or 10_000)
    census.join(0)
    return census


def _reached(count: int, limit: int) -> bool:
    return bool(limit) and count >= limit


def _less(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    _settle(counter, key)


def _settle(counter: Counter[str], key: str) -> None:
    """A counter keeps no key for nobody: addresses of passers-by must not add up."""
    if counter[key] <= 0:
        del counter[key]
