"""Proofs that a peer has what it has answered success for: by C-FIND, or by its promise in storage commitment.

Rules that hold here: a peer that cannot be asked, or has not answered in time, raises and proves nothing either way;
instances are asked for under the UIDs that they were sent with.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from archive.dicom.references import Reference
from archive.dicom.uids import new_uid
from archive.dimse.asking import requesting, wait_elsewhere
from archive.dimse.destinations import Destination
from archive.dimse.inquiry import PeerInquiry
from archive.errors import Unreachable
from archive.index import Index, StoredInstance, Wakes
from archive.index.commitments import WAITING
from archive.services.commitment import Asking

PATIENCE = 60.0  # seconds for the report of a commitment


class ByQuery:
    """The peer finds it by C-FIND at image level, series by series."""

    words = "found there"

    def __init__(self, destination: Destination) -> None:
        self._destination = destination

    def missing(self, items: Sequence[StoredInstance]) -> set[str]:
        by_series: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for item in items:
            by_series[item.study_uid, item.series_uid].add(item.sop_instance_uid)
        if not by_series:
            return set()
        with PeerInquiry(self._destination).open() as questions:
            return {uid for series, uids in by_series.items() for uid in uids - questions.images(*series).keys()}


class ByCommitment:
    """The peer promises to keep it."""

    words = "committed there"

    def __init__(self, destination: Destination, index: Index, *, patience: float = PATIENCE) -> None:
        self._destination = destination
        self._index = index
        self._patience = patience

    def missing(self, items: Sequence[StoredInstance]) -> set[str]:
        if not items:
            return set()
        asking, peer = Asking(self._index, clock=time.time), self._destination.aet
        transaction = new_uid()
        references = [Reference(item.sop_class_uid, item.sop_instance_uid) for item in items]
        key = asking.begin(peer, transaction, references)
        self._ask(asking, transaction, references, key)
        return {failure[1] for failure in asking.transactions.contents(key).failures}

    def _ask(self, asking: Asking, transaction: str, references: Sequence[Reference], key: int) -> None:
        """Ask, and wait for the report, on whichever association it comes."""

        def settled() -> bool:
            found = asking.transactions.get(key)
            return found is None or found.state != WAITING

        wakes, until = self._index.listen(), time.monotonic() + self._patience
        try:
            self._request(asking, transaction, references, wakes, settled)
            if not wait_elsewhere(wakes, settled, until - time.monotonic()):
                raise Unreachable("no report of the commitment yet", self._destination.aet)
        finally:
            wakes.close()

    def _request(
        self,
        asking: Asking,
        transaction: str,
        references: Sequence[Reference],
        wakes: Wakes,
        settled: Callable[[], bool],
    ) -> None:
        """Ask, and wait for the report on the same association while that lasts."""
        asked = False
        try:
            with requesting(self._destination, asking) as request:
                request.ask(transaction, references)
                asked = True
                request.wait(wakes, settled, self._patience)
        except Unreachable:
            if not asked:
                raise
