"""Files reports that messages have brought, once their study is here."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Sequence

from archive.dicom.report import Report
from archive.errors import ArchiveError, NotThere
from archive.index import Index, Task
from archive.services.reports import About

log = logging.getLogger(__name__)

KIND = "report"
# Between looks for the study of a report: its images may still be on their way, or a person has to match them.
PAUSES = (2.0, 10.0, 30.0, 60.0, 300.0, 900.0, *[3600.0] * 23, *[6 * 3600.0] * 120)


class Filing:
    """The job."""

    def __init__(self, index: Index, file: Callable[[About, Report], object], clock: Callable[[], float]) -> None:
        self._index, self._file, self._clock = index, file, clock

    def __call__(self, lane: str, tasks: Sequence[Task], owner: str) -> None:
        for task in tasks:
            try:
                self._file(About.of(task.payload["about"]), report_of(task))
                self._index.finish(task.id, owner, self._clock(), reason="filed")
            except ArchiveError as error:
                self._put_back(task, owner, error)

    def _put_back(self, task: Task, owner: str, error: ArchiveError) -> None:
        waits = isinstance(error, NotThere) or error.temporary
        if waits and task.attempts <= len(PAUSES):
            self._index.retry(task.id, owner, self._clock() + PAUSES[task.attempts - 1], str(error))
        else:
            log.error("report %s is not filed: %s", task.id, error)
            self._index.fail(task.id, owner, self._clock(), str(error))


def report_of(task: Task) -> Report:
    said = task.payload["report"]
    return Report(**{**said, "pdf": base64.b64decode(said["pdf"])})
