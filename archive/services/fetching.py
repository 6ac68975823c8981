"""Fetching: what a peer has of a study and the archive has not is retrieved, nothing else, until all of it is here.

Rules that hold here: what the peer lists is compared with the index instance by instance, before and after; no count
of the peer's is believed, an instance is here when the index has it; what is here is never asked for again; a study
waits once for each peer, however many want it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from archive.errors import NotThere, Refused
from archive.index import Index, NewTask
from archive.services.inquiry import MOST_IMAGES, Listing
from archive.services.schedule import Span

FETCH = "fetch"  # kind of the tasks; the lane is the peer
FROM = "from:"  # before the peer's AE title, the name of the lane: what is sent to the peer has another one
WHOLE = 500  # instances: a study or series of no more is asked for in one operation
MANY = 100  # UIDs in one identifier: some 6 kB, which old peers still read
LIKELY_CUT = 100  # answers: a shorter list is whole, whatever the peer counts; only an empty one is not
PIECE = 500


def fetch(
    peer: str, study_uid: str, *,
    series: Iterable[str] = (), priority: int = 0, due: float = 0.0, why: str = "", window: Sequence[Span] = (),
) -> NewTask:  # fmt: skip
    """The task that retrieves what is missing of a study, or of some of its series, from the peer of this AE title.

    For causes and for ``Index.add_tasks``; it joins one that waits already. ``why`` is shown in lists; ``window`` is
    when it may begin, within that of the peer.
    """
    payload: dict[str, Any] = {"peer": peer, "series": sorted({*series}), "by": why}
    if window:
        payload["window"] = [[sorted(days), start, end] for days, start, end in window]
    return NewTask(FETCH, payload, due, FROM + peer, study_uid, priority, single=True)


def enqueue(
    index: Index, peer: str, study_uid: str, now: float, *,
    series: Iterable[str] = (), priority: int = 0, due: float = 0.0, why: str = "",
) -> int:  # fmt: skip
    """The id of the task that will retrieve this, new or not."""
    return index.add_tasks([fetch(peer, study_uid, series=series, priority=priority, due=due, why=why)], now)[0]


class Source(Protocol):
    """A peer from which objects can be fetched."""

    def listing(self) -> AbstractContextManager[Listing]:
        """Raises Unreachable when no association comes about, later whatever goes wrong."""
        ...

    def bring(
        self, study_uid: str, series_uid: str, uids: Collection[str], expected: Mapping[str, str] | None
    ) -> str:
        """Have the peer send a study, one of its series (if named) or some of its instances (if named); its last word.

        ``expected`` are the instances that are missing, with their SOP classes, None where the peer has not listed all
        of them. An empty word: the peer says that all is well.
        """
        ...

    def stop(self) -> None:
        """From another thread: end what is under way, and begin nothing more."""
        ...


@dataclass(frozen=True, slots=True)
class Balance:
    """What the peer has = was here + fetched + failed, in series and in instances."""

    series: int = 0
    series_here: int = 0
    series_fetched: int = 0
    series_failed: int = 0
    instances: int = 0
    here: int = 0
    fetched: int = 0
    failed: int = 0

    def words(self) -> str:
        if not self.fetched and not self.failed:
            return f"all {self.instances} instances were here"
        parts = [f"{self.fetched} of {self.instances} instances fetched", f"{self.here} were here"]
        return ", ".join(parts[: 1 + bool(self.here)]) + (f", {self.failed} missing" if self.failed else "")

    def since(self, series_here: int, here: int) -> Balance:
        """The same, when so many were here before an earlier try began."""
        series_here, here = min(series_here, self.series_here), min(here, self.here)
        return replace(
            self, series_here=series_here, here=here, fetched=self.instances - self.failed - here,
            series_fetched=self.series - self.series_failed - series_here,
        )  # fmt: skip


@dataclass(slots=True)
class _Series:
    """One series: how many instances the peer has by its list or count, and which of the listed are not here."""

    uid: str
    number: int = 0
    listed: int = 0
    stored: int = 0  # of the series in our index; looked at only when the list is cut off, or empty
    lacked: int = 0  # at first
    missing: dict[str, str] = field(default_factory=dict)  # SOP Instance UID -> class

    @property
    def is_cut(self) -> bool:
        return self.number > self.listed

    @property
    def lacking(self) -> int:
        unlisted = self.number - min(self.number, self.stored) if self.is_cut else 0
        return max(len(self.missing), unlisted)


class Retrieval:
    """One study, or some of its series, from one source."""

    def __init__(
        self,
        index: Index,
        source: Source,
        study_uid: str,
        series: Collection[str] = (),
        *,
        brought: Callable[[int], None] = lambda size: None,
    ) -> None:
        """``brought`` is told the bytes that came, after each operation, and may wait."""
        self._index = index
        self._source = source
        self._study = study_uid
        self._only = frozenset(series)
        self._brought = brought
        self._series: list[_Series] = []
        self.words = ""  # the peer's last one, where it was not that all is well
        self.came = 0  # instances, by this retrieval
        self.reached = False  # the peer has taken an association
        self.looked = False  # and has listed all it has

    # -- what is there --------------------------------------------------------------------------

    def look(self) -> None:
        """Ask the peer what it has; raises NotThere when that is nothing."""
        self._series = []
        with self._source.listing() as listing:
            self.reached = True
            for uid, number in self._wanted(listing).items():
                self._series.append(self._compared(uid, number, listing.images(self._study, uid)))
                if sum(series.listed for series in self._series) > MOST_IMAGES:
                    raise Refused("peer lists more instances than a study has")
        if not sum(series.number for series in self._series):
            raise NotThere("peer has nothing of this study" if not self._only else "peer has nothing of these series")
        self.looked = True

    def _wanted(self, listing: Listing) -> dict[str, int | None]:
        """The series, and how many images the peer counts in each."""
        listed = listing.series(self._study)
        return {uid: number for uid, (_, number) in listed.items() if not self._only or uid in self._only}

    def _compared(self, series_uid: str, number: int | None, listed: Mapping[str, str]) -> _Series:
        """One series, compared with the index a piece at a time."""
        found = _Series(series_uid, len(listed), len(listed))
        for piece in _pieces(list(listed)):
            stored = self._index.queue.stored(piece)
            found.missing |= {uid: listed[uid] for uid in piece if uid not in stored}
        if (number or 0) > found.listed and (not found.listed or found.listed >= LIKELY_CUT):
            found.number, found.stored = number or 0, self._number(series_uid)
        found.lacked = found.lacking
        return found

    def _number(self, series_uid: str) -> int:
        """How many instances of a series are here."""
        return sum(1 for _ in self._index.queue.described((), series_uid=series_uid))

    # -- bringing it ----------------------------------------------------------------------------

    @property
    def is_here(self) -> bool:
        return not any(series.lacking for series in self._series)

    def bring(self) -> None:
        """One try for all that is missing; what the peer refuses does not keep it from the rest."""
        for series_uid, uids, expected in self._operations():
            try:
                words = self._source.bring(self._study, series_uid, uids, expected)
            except Refused as error:
                words = error.reason
            self.words = words or self.words
            self._settle()

    def _operations(self) -> list[tuple[str, list[str], dict[str, str] | None]]:
        """What to ask for, and what may come: as much at a time as is no more than what is missing."""
        lacking = [series for series in self._series if series.lacking]
        nothing = all(series.lacking == series.number for series in self._series)
        if nothing and not self._only and sum(series.number for series in lacking) <= WHOLE:
            known = not any(series.is_cut for series in lacking)
            return [("", [], {uid: name for each in lacking for uid, name in each.missing.items()} if known else None)]
        found: list[tuple[str, list[str], dict[str, str] | None]] = []
        for series in lacking:
            if series.is_cut or series.lacking == series.number:
                found.append((series.uid, [], None if series.is_cut else dict(series.missing)))
                continue
            missing = list(series.missing.items())
            for start in range(0, len(missing), MANY):
                part = dict(missing[start : start + MANY])
                found.append((series.uid, list(part), part))
        return found

    def _settle(self) -> None:
        """Look in the index what has come."""
        size = 0
        for series in self._series:
            before = series.lacking
            for piece in _pieces(list(series.missing)):
                stored = self._index.queue.stored(piece)
                size += sum(instance.location.size for instance, _ in stored.values())
                for uid in stored:
                    del series.missing[uid]
            if series.is_cut and before:
                series.stored = self._number(series.uid)
            self.came += before - series.lacking
        self._brought(size)

    # -- what came of it ------------------------------------------------------------------------

    def missing(self) -> list[str]:
        """SOP Instance UIDs that the peer lists and the index does not have."""
        return [uid for series in self._series for uid in series.missing]

    def balance(self) -> Balance:
        series = self._series
        number, lacked = sum(each.number for each in series), sum(each.lacked for each in series)
        failed = sum(each.lacking for each in series)
        return Balance(
            series=len(series),
            series_here=sum(1 for each in series if not each.lacked),
            series_fetched=sum(1 for each in series if each.lacked and not each.lacking),
            series_failed=sum(1 for each in series if each.lacking),
            instances=number,
            here=number - lacked,
            fetched=lacked - failed,
            failed=failed,
        )


def _pieces(uids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(uids), PIECE):
        yield uids[start : start + PIECE]
