"""How many may be connected: in all, per address, per AE title, and before they said who they are.

Rules that hold here: counting only, no sockets; a connection becomes an association when its request
was accepted and not before, so that silent sockets never take a slot; some slots are kept for
configured peers; one object is shared by the listeners of a process.
"""

from __future__ import annotations

import threading
from collections import Counter

from archive.dimse.associate import AE_LENGTH
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
    ) -> None:
        self.max_associations = max_associations
        self.per_ae = per_ae
        self.per_ip = per_ip
        self.max_pdu = max_pdu
        self.pending_per_ip = pending_per_ip
        self.pending = pending
        self.kept_for_known = max_associations // 10 if kept_for_known is None else kept_for_known
        self.largest_collected = largest_collected
        self._lock = threading.Lock()
        self._associations = 0
        self._by_ae: Counter[str] = Counter()
        self._by_ip: Counter[str] = Counter()
        self._pending: Counter[str] = Counter()
        self._all_pending = 0

    @property
    def associations(self) -> int:
        return self._associations

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
        with self._lock:
            refused = self._refusal(aet, address, known)
            if refused is None:
                self._associations += 1
                self._by_ae[aet] += 1
                self._by_ip[address] += 1
            return refused

    def exit(self, aet: str, address: str) -> None:
        """The association of `enter` is over."""
        with self._lock:
            self._associations -= 1
            _less(self._by_ae, aet[:AE_LENGTH])
            _less(self._by_ip, address)

    def _refusal(self, aet: str, address: str, known: bool) -> Rejected | None:
        room = self.max_associations - (0 if known else self.kept_for_known)
        if self.max_associations and self._associations >= room:
            what = "limits.max_associations" if known else "limits.max_associations less the room kept for peers"
            return Rejected.of(CONGESTION, f"{self._associations} associations are open: {what}")
        if self.per_ae and self._by_ae.get(aet, 0) >= self.per_ae:
            return Rejected.of(LIMIT_EXCEEDED, f"{self.per_ae} associations of this AE title are open: limits.per_ae")
        if self.per_ip and self._by_ip.get(address, 0) >= self.per_ip:
            return Rejected.of(LIMIT_EXCEEDED, f"{self.per_ip} associations of this address are open: limits.per_ip")
        return None


def _reached(count: int, limit: int) -> bool:
    return bool(limit) and count >= limit


def _less(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    _settle(counter, key)


def _settle(counter: Counter[str], key: str) -> None:
    """A counter keeps no key for nobody: addresses of passers-by must not add up."""
    if counter[key] <= 0:
        del counter[key]
