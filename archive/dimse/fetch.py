"""A peer as a source of studies: C-FIND by series and image, then C-MOVE to ourselves or C-GET.

Rules that hold here: all questions about one study go over one association; every operation has a deadline, silence
and an answer that says the same for ever included; what comes by C-GET is taken only if it was asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic

from pydicom.datadict import tag_for_keyword

from archive.dicom.attributes import Level
from archive.dicom.identifier import Identifier
from archive.dicom.query import Root
from archive.dimse import scu, statuses
from archive.dimse.access import QUERY_RETRIEVE
from archive.dimse.association import Association, Sink
from archive.dimse.contexts import proposed_syntaxes
from archive.dimse.destinations import Destination
from archive.dimse.negotiation import Context
from archive.dimse.planning import FALLBACK, LOSSLESS, MOST_CONTEXTS, Proposal
from archive.dimse.session import Session
from archive.dimse.store import Refusal, StoreObject
from archive.dimse.wire import Command, Field
from archive.errors import NotAllowed, Refused, Unreachable
from archive.services.fetching import Listed, ListedSeries
from archive.services.jobs import Answers, StudyAnswer
from archive.services.store import Store

FIND = f"{QUERY_RETRIEVE}.{scu.ROOT_NUMBER[Root.STUDY]}.1"
STUDY_UID, SERIES_UID, SOP_INSTANCE_UID, SOP_CLASS_UID = 0x0020000D, 0x0020000E, 0x00080018, 0x00080016
NUMBER_OF_INSTANCES = 0x00201209  # Number of Series Related Instances
STUDY_SERIES, STUDY_INSTANCES = 0x00201206, 0x00201208  # Number of Study Related Series, Instances
OF_STUDIES = ("StudyInstanceUID", "StudyDate", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
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

    @contextmanager
    def listing(self) -> Iterator[PeerListing]:
        with scu.calling(self._destination, FIND) as association:
            self._opened(association)
            yield PeerListing(association, self._destination)

    # -- bringing it ----------------------------------------------------------------------------

    def bring(self, study_uid: str, series_uid: str, uids: Collection[str], expected: Mapping[str, str]) -> str:
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
                self._destination, Root.STUDY, level, keys, store=_Wanted(self._store, expected),
                storage=_storage(expected.values()), told=alive.told, opened=self._opened,
            )  # fmt: skip
        failed = f", {done.progress.failed} failed" if done.progress.failed else ""
        return "" if done.complete and not failed else f"{done.words}{failed}"


class PeerListing:
    """Questions about what a peer has, over one association."""

    def __init__(self, association: Association, destination: Destination) -> None:
        self._association = association
        self._destination = destination

    def series(self, study_uid: str) -> Iterator[ListedSeries]:
        keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": "", "NumberOfSeriesRelatedInstances": ""}
        for answer in self._ask(Level.SERIES, keys):
            if (uid := _uid(answer, SERIES_UID)) and _fits(answer, STUDY_UID, study_uid):
                yield ListedSeries(uid, _number(answer, NUMBER_OF_INSTANCES))

    def instances(self, study_uid: str, series_uid: str) -> Iterator[Listed]:
        keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid, "SOPInstanceUID": "", "SOPClassUID": ""}
        for answer in self._ask(Level.IMAGE, keys):
            # One that cannot match by these keys answers with all it has.
            fits = _fits(answer, STUDY_UID, study_uid) and _fits(answer, SERIES_UID, series_uid)
            if (uid := _uid(answer, SOP_INSTANCE_UID)) and fits:
                yield Listed(uid, _uid(answer, SOP_CLASS_UID))

    def _ask(self, level: Level, keys: Mapping[str, str]) -> Iterator[Identifier]:
        return scu.answers(self._association, self._destination, Root.STUDY, level, keys)


def _uid(answer: Identifier, tag: int) -> str:
    return answer.text(tag).strip(" \0")


def _fits(answer: Identifier, tag: int, asked: str) -> bool:
    return _uid(answer, tag) in ("", asked)


class PeerCatalogue:
    """A peer that is asked for studies, an association for each question."""

    def __init__(self, destination: Destination, limit: int) -> None:
        """After ``limit`` answers the peer is asked to stop."""
        self._destination = destination
        self.limit = limit

    def studies(self, keys: Mapping[str, str]) -> Answers:
        asked = {**dict.fromkeys(OF_STUDIES, ""), **keys}
        tags = {keyword: tag_for_keyword(keyword) or 0 for keyword in (*keys, "StudyDate")}
        ends: list[int] = []
        found: list[StudyAnswer] = []
        try:
            with scu.calling(self._destination, FIND) as association:
                answers = scu.answers(
                    association, self._destination, Root.STUDY, Level.STUDY, asked, limit=self.limit,
                    ended=ends.append,
                )  # fmt: skip
                for each in answers:
                    values = {keyword: _text(each, tag) for keyword, tag in tags.items()}
                    counts = (_number(each, STUDY_SERIES), _number(each, STUDY_INSTANCES))
                    if uid := _uid(each, STUDY_UID):
                        found.append(StudyAnswer(uid, *counts, values))
        except Refused:
            # A peer that has more than it wants to answer says so in one of these ways (PS3.4 table C.4-1).
            if not ends or (not found and ends[-1] & 0xFF00 != statuses.OUT_OF_RESOURCES & 0xFF00):
                raise
            return Answers(found, True)
        # Some say that somebody cancelled, and nobody did (PS3.4 C.4.1.1.4).
        return Answers(found, len(found) >= self.limit or statuses.CANCELLED in ends)

    def series(self, study_uids: Sequence[str], keys: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
        with scu.calling(self._destination, FIND) as association:
            for uid in study_uids:
                asked = {"SeriesInstanceUID": "", **keys, "StudyInstanceUID": uid}
                answers = scu.answers(association, self._destination, Root.STUDY, Level.SERIES, asked)
                yield uid, [found for each in answers if (found := _uid(each, SERIES_UID))]


def _number(answer: Identifier, tag: int) -> int | None:
    text = answer.text(tag).strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _text(answer: Identifier, tag: int) -> str:
    """A value as text; a sequence says nothing here."""
    element = answer.get(tag)
    return element.value.strip(" \0") if element is not None and isinstance(element.value, str) else ""


class _Alive:
    """Hears how far a retrieval is; one that says the same for too long is given up."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._last: scu.Progress | None = None
        self._since = monotonic()

    def told(self, progress: scu.Progress) -> None:
        if progress != self._last:
            self._last, self._since = progress, monotonic()
        elif monotonic() - self._since > self._patience:
            raise Unreachable("peer says again and again that it is not done", f"for {self._patience:g} s")


class _Wanted(StoreObject):
    """Takes what was asked for."""

    def __init__(self, store: Store, expected: Collection[str]) -> None:
        super().__init__(store)
        self._expected = expected

    def sink(self, session: Session, command: Command, context: Context) -> Sink | None:
        if command.field == Field.C_STORE_RQ and command.sop_instance not in self._expected:
            return Refusal(NotAllowed("was not asked for"))
        return super().sink(session, command, context)


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
