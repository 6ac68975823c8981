"""The modality worklist: which scheduled steps a modality sees (PS3.4 annex K).

Rules that hold here: a peer's entry narrows what it sees, whatever it asks; a question without a date is about the
days around today, so that a modality that always asks for everything gets what concerns it; a step that is completed,
discontinued or cancelled is no work any more.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta

from archive.dicom.worklist import WorklistQuery
from archive.errors import OutOfResources
from archive.index import Index
from archive.index.ordervalues import OPEN_STATES, Attributes, StepState

DATE = "ScheduledProcedureStepStartDate"


@dataclass(frozen=True, slots=True)
class View:
    """What one peer sees: its stations, modalities and locations (empty is all), and days when it names none."""

    stations: Sequence[str] = ()
    modalities: Sequence[str] = ()
    locations: Sequence[str] = ()
    days_back: int = 1
    days_ahead: int = 7
    limit: int = 0  # 0 = none


class Worklist:
    """Answers from one index; thread-safe."""

    def __init__(self, index: Index, *, today: Callable[[], date], show_started: bool = True) -> None:
        self._index = index
        self._today = today
        self._states = [state for state in OPEN_STATES if show_started or state is not StepState.STARTED]

    def search(self, query: WorklistQuery, view: View) -> Generator[tuple[str | None, ...], None, None]:
        """The values of each step in the order of ``query.returns``; raises OutOfResources after the limit."""
        with closing(self.steps(query, view)) as steps:
            for above, step in steps:
                yield query.row(above, step)

    def steps(self, query: WorklistQuery, view: View) -> Generator[tuple[Attributes, Attributes], None, None]:
        """Each step that matches, with its order."""
        found = self._index.orders.worklist(
            query, states=self._states, dates=None if query.asks(DATE) else self._days(view),
            stations=view.stations, modalities=view.modalities,
        )  # fmt: skip
        with closing(found):
            for number, (above, step) in enumerate(_at(found, view.locations)):
                if view.limit and number == view.limit:
                    raise OutOfResources("too many matches, narrow the query", f"limit is {view.limit}")
                yield above, step

    def _days(self, view: View) -> tuple[str, str]:
        today = self._today()
        first, last = today - timedelta(view.days_back), today + timedelta(view.days_ahead)
        return f"{first:%Y%m%d}", f"{last:%Y%m%d}"


def _at(
    steps: Iterator[tuple[Attributes, Attributes]], locations: Sequence[str]
) -> Iterator[tuple[Attributes, Attributes]]:
    for above, step in steps:
        if not locations or step.get("ScheduledProcedureStepLocation") in locations:
            yield above, step
