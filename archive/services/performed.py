"""Performed procedure steps: what modalities say of their work (PS3.4 annex F).

Rules that hold here: a step must say where and when it began and which scheduled step it carries out, as far as the
standard requires it; what modalities are known to leave out is taken without; a step that has ended takes no change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from archive.dicom.rule import Facts
from archive.errors import Conflict, Final, InvalidQuery, Missing
from archive.index import Index, NewTask
from archive.index.performed import Performed, Reference, Result
from archive.services.causes import PERFORMED, Causes, Event

STATUS = "PerformedProcedureStepStatus"
SCHEDULED = "ScheduledStepAttributesSequence"
STATION = "PerformedStationAETitle"

# PS3.4 table F.7.2-1, type 1 in N-CREATE. What else it requires, modalities in use leave out.
_REQUIRED = (SCHEDULED, STATION, "PerformedProcedureStepStartDate", STATUS, "Modality")

READY_TASK, LANE = "mpps-completed", "studies"


class PerformedWork:
    """Takes performed steps into one index; thread-safe."""

    def __init__(self, index: Index, clock: Callable[[], float], causes: Causes) -> None:
        self._index = index
        self._clock = clock
        self._causes = causes

    def begin(self, uid: str, said: Mapping[str, Any], source: str) -> None:
        """A step begins. Raises InvalidQuery, Conflict or IndexUnavailable."""
        missing = [keyword for keyword in _REQUIRED if not said.get(keyword)]
        if missing:
            raise InvalidQuery(f"{missing[0]} is missing")
        if said[STATUS] != Performed.IN_PROGRESS.value:
            raise InvalidQuery(f"{STATUS} must be IN PROGRESS")
        references, now = _references(said), self._clock()
        if not references or not references[0].study_uid:
            raise InvalidQuery("StudyInstanceUID is missing")
        tasks = self._caused("create", uid, said, said, source, now)
        result = self._index.performed.create(
            uid, said, references, station=said[STATION], source=source, now=now, tasks=tasks
        )
        if result is Result.DUPLICATE:
            raise Conflict("performed procedure step is there already", uid)

    def change(self, uid: str, said: Mapping[str, Any], source: str) -> Performed:
        """A step goes on or ends; its state afterwards. Raises InvalidQuery, Missing, Final, IndexUnavailable."""
        known = self._index.performed.get(uid)
        if known is None:
            raise Missing("no such performed procedure step", uid)
        try:
            state = Performed(said.get(STATUS) or known.state.value)
        except ValueError:
            raise InvalidQuery(f"{STATUS} is not a known state") from None
        whole, now = {**known.attributes, **said}, self._clock()
        references = _references(whole)
        tasks = self._caused("set", uid, whole, said, source, now)
        if state is Performed.COMPLETED:
            tasks = (*tasks, *_completed(whole, references))
        result = self._index.performed.change(uid, said, references, state, now=now, tasks=tasks)
        if result is Result.FINAL:
            raise Final("performed procedure step may no longer be updated", uid)
        if result is Result.MISSING:
            raise Missing("no such performed procedure step", uid)
        return state

    def _caused(
        self, operation: str, uid: str, whole: Mapping[str, Any], said: Mapping[str, Any], source: str, now: float
    ) -> tuple[NewTask, ...]:
        """What others want to do about it: rules ask the ``whole`` step, what was ``said`` is handed on."""
        if not self._causes.has(PERFORMED):
            return ()
        details = {"operation": operation, "uid": uid, "said": said}
        return self._causes.tasks(Event(PERFORMED, _facts(whole, source), now, details=details))


def _references(said: Mapping[str, Any]) -> tuple[Reference, ...]:
    """The scheduled steps that are carried out."""
    items = said.get(SCHEDULED)
    return tuple(
        Reference(
            str(item.get("StudyInstanceUID", "")),
            str(item.get("AccessionNumber", "")),
            str(item.get("ScheduledProcedureStepID", "")),
        )
        for item in (items if isinstance(items, list) else ())
    )


def _completed(said: Mapping[str, Any], references: Sequence[Reference]) -> list[NewTask]:
    """A look whether all that the step made is here: then its study is ready without waiting."""
    made = [
        str(image["ReferencedSOPInstanceUID"])
        for series in said.get("PerformedSeriesSequence") or ()
        for sequence in ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence")
        for image in series.get(sequence) or ()
        if image.get("ReferencedSOPInstanceUID")
    ]
    studies = sorted({each.study_uid for each in references if each.study_uid})
    return [NewTask(READY_TASK, {"study": study, "instances": made}, lane=LANE) for study in studies] if made else []


def _facts(said: Mapping[str, Any], source: str) -> Facts:
    first = said[SCHEDULED][0] if said.get(SCHEDULED) else {}

    def fact(keyword: str) -> str:
        if keyword == "CallingAETitle":
            return source
        value = said.get(keyword) or first.get(keyword)
        return value if isinstance(value, str) else ""

    return fact
