"""Instance availability notices: what of a study can be retrieved here (PS3.4 annex R).

Rules that hold here: a notice says what is here when it is sent, not when it was caused; it names the performed
procedure step only where there is one for the whole study.
"""

from __future__ import annotations

from typing import Any

from archive.index import Index
from archive.index.contents import contents

STEP_CLASS = "1.2.840.10008.3.1.2.3.3"  # PS3.4 F.7


class Notices:
    """Describes studies of one index."""

    def __init__(self, index: Index, title: str) -> None:
        """``title`` is the AE title to retrieve from."""
        self._index = index
        self._title = title

    def of(self, study_uid: str) -> dict[str, Any] | None:
        """The attributes of PS3.4 table R.3.2-1 by keyword; None for a study that is not here any more."""
        series = contents(self._index.database, study_uid)
        if not series:
            return None
        return {
            "ReferencedPerformedProcedureStepSequence": self._step(study_uid),
            "StudyInstanceUID": study_uid,
            "ReferencedSeriesSequence": [
                {"SeriesInstanceUID": uid, "ReferencedSOPSequence": [self._item(*each) for each in instances]}
                for uid, instances in series.items()
            ],
        }

    def _item(self, sop_class: str, instance: str) -> dict[str, str]:
        return {
            "ReferencedSOPClassUID": sop_class, "ReferencedSOPInstanceUID": instance,
            "InstanceAvailability": "ONLINE", "RetrieveAETitle": self._title,
        }  # fmt: skip

    def _step(self, study_uid: str) -> list[dict[str, Any]]:
        steps = self._index.performed.latest(limit=2, study_uid=study_uid)
        if len(steps) != 1:
            return []
        item = {"ReferencedSOPClassUID": STEP_CLASS, "ReferencedSOPInstanceUID": steps[0].uid}
        return [{**item, "PerformedWorkitemCodeSequence": []}]
