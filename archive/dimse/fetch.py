"""A peer as a source of studies: asked what it has by C-FIND, then C-MOVE to ourselves or C-GET.

Rules that hold here: all questions about one study go over one association; every operation has an end: silence has a
deadline, and so has whatever brings nothing new; what comes by C-GET is taken only if it was asked for, and once.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from time import monotonic

from archive.dicom.attributes import Level
from archive.dicom.query import Root
from archive.dimse import scu, statuses
from archive.dimse.association import Association, Message, Sink
from archive.dimse.contexts import proposed_syntaxes
from archive.dimse.destinations import Destination
from archive.dimse.inquiry import PeerInquiry, Questions
from archive.dimse.negotiation import Context
from archive.dimse.planning import FALLBACK, LOSSLESS, MOST_CONTEXTS, Proposal
from archive.dimse.session import Done, Session
from archive.dimse.store import Refusal, StoreObject
from archive.dimse.wire import Command, Field
from archive.errors import NotAllowed, Refused, Unreachable
from archive.services.comparing import TheirStudy
from archive.services.jobs import Answers
from archive.services.store import Store

ROOM = MOST_CONTEXTS - 2  # beside the question


class PeerSource:
    """One peer; used by one thread, stopped by any."""

    def __init__(self, destination: Destination, to: str, store: Store | None = None) -> None:
        """``to`` is our AE title as the peer knows it; with ``store`` objects come by C-GET and go in there."""
        self._destination = destination
        self._to = to
        self._store = store
        self._association: Association | None = None
        self._mutex = threading.Lock()
        self._stopped = False

    def stop(self) -> None:
        with self._mutex:
            self._stopped = True
            if self._association is not None:
                self._association.stop()

    def _opened(self, association: Association) -> None:
        with self._mutex:
            self._association = association
            if self._stopped:
                association.stop()

    # -- what it has ----------------------------------------------------------------------------

    def listing(self) -> AbstractContextManager[Questions]:
        return PeerInquiry(self._destination).open(self._opened)

    # -- bringing it ----------------------------------------------------------------------------

    def bring(
        self, study_uid: str, series_uid: str, uids: Collection[str], expected: Mapping[str, str] | None
    ) -> str:
        level, keys = Level.STUDY, {"StudyInstanceUID": study_uid}
        if series_uid:
            level, keys["SeriesInstanceUID"] = Level.SERIES, series_uid
        if uids:
            level, keys["SOPInstanceUID"] = Level.IMAGE, "\\".join(uids)
        alive = _Alive(self._destination.timeouts.dimse)
        if self._store is None:
            done = scu.move(
                self._destination, self._to, Root.STUDY, level, keys, told=alive.told, opened=self._opened
            )
        else:
            done = scu.get(
                self._destination, Root.STUDY, level, keys,
                store=_Wanted(self._store, expected, alive),
                storage=_storage(() if expected is None else expected.values()), opened=self._opened,
                told=lambda _: alive.waits(),  # what comes is seen, and says more than the peer's counts
            )  # fmt: skip
        failed = f", {done.progress.failed} failed" if done.progress.failed else ""
        return "" if done.complete and not failed else f"{done.words}{failed}"


class PeerCatalogue:
    """A peer that is asked for studies, an association for each question."""

    def __init__(self, destination: Destination, limit: int) -> None:
        """After ``limit`` answers the peer is asked to stop."""
        self._destination = destination
        self.limit = limit

    def studies(self, keys: Mapping[str, str]) -> Answers:
        ends: list[int] = []
        found: list[TheirStudy] = []
        try:
            with PeerInquiry(self._destination, keys).open() as questions:
                for each in questions.studies(keys, self.limit, ends.append):
                    found.append(each)
        except Refused:
            # A peer that has more than it wants to answer says so in one of these ways (PS3.4 table C.4-1), or that
            # somebody cancelled, and nobody did (PS3.4 C.4.1.1.4).
            if not ends or (not found and not _is_too_much(ends[-1])):
                raise
            return Answers(found, True)
        return Answers(found, len(found) >= self.limit)

    def series(
        self, study_uids: Sequence[str], keys: Mapping[str, str]
    ) -> Iterator[tuple[str, Mapping[str, Mapping[str, str]]]]:
        with PeerInquiry(self._destination).open() as questions:
            for uid in study_uids:
                yield uid, questions.series_with(uid, keys)


def _is_too_much(status: int) -> bool:
    return status == statuses.CANCELLED or status & 0xFF00 == statuses.OUT_OF_RESOURCES & 0xFF00


class _Alive:
    """Hears how far a retrieval is; one that brings nothing new for too long is given up."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._last: scu.Progress | None = None
        self._since = monotonic()

    def told(self, progress: scu.Progress) -> None:
        if progress != self._last:
            self._last = progress
            self.moved()
        self.waits()

    def moved(self) -> None:
        self._since = monotonic()

    def waits(self) -> None:
        if monotonic() - self._since > self._patience:
            raise Unreachable("peer says again and again that it is not done", f"for {self._patience:g} s")


class _Wanted(StoreObject):
    """Takes what was asked for, once; anything, where that is not known. What is stored is a sign of life."""

    def __init__(self, store: Store, expected: Collection[str] | None, alive: _Alive) -> None:
        super().__init__(store)
        self._expected = expected
        self._alive = alive
        self._came: set[str] = set()

    def sink(self, session: Session, command: Command, context: Context) -> Sink | None:
        uid = command.sop_instance
        if command.field == Field.C_STORE_RQ:
            if uid in self._came or (self._expected is not None and uid not in self._expected):
                self._alive.waits()
                return Refusal(NotAllowed("was not asked for"))
            self._came.add(uid)
        return super().sink(session, command, context)

    def __call__(self, session: Session, message: Message) -> Done:
        done = super().__call__(session, message)
        self._alive.moved()  # at its end: a large one takes its time
        return done


def _storage(classes: Collection[str]) -> list[Proposal]:
    """Contexts for these classes, one for each syntax as far as there is room: what is compressed comes as it is.

    None when a class is not known: then anything may come.
    """
    wanted = sorted(set(classes))
    if not wanted or "" in wanted or len(wanted) > ROOM:
        return []
    syntaxes = proposed_syntaxes((*FALLBACK, *LOSSLESS))
    alone = min(ROOM // len(wanted) - 1, len(syntaxes))
    rest = tuple(syntaxes[alone:])
    return [
        (sop_class, part)
        for sop_class in wanted
        for part in (*((syntax,) for syntax in syntaxes[:alone]), rest)
        if part
    ]
