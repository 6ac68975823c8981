"""Instance availability notices: what is ready is told to another archive, also when it could not be reached."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import InstanceAvailabilityNotification  # type: ignore[attr-defined]

from archive.index import State
from tests.endtoend.test_matching import ALL, acquire
from tests.endtoend.test_orders import Site
from tests.faults.daemon import free_port, wait_until
from tests.faults.raw import CT


class Receiver:
    """An SCP of notices."""

    def __init__(self, port: int) -> None:
        self.told: list[tuple[str, Dataset]] = []
        self._arrived = threading.Condition()
        ae = AE("RIS")
        ae.add_supported_context(InstanceAvailabilityNotification)
        self._server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_CREATE, self._take)])

    def _take(self, event: Any) -> tuple[int, Dataset]:
        with self._arrived:
            self.told.append((str(event.request.AffectedSOPInstanceUID), event.attribute_list))
            self._arrived.notify_all()
        return 0, event.attribute_list

    def wait_for(self, count: int) -> list[Dataset]:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.told) >= count, 30), self.told
        return [said for _, said in self.told]

    def stop(self) -> None:
        self._server.shutdown()


def test_what_is_ready_is_told_to_peers_that_want_it(tmp_path: Path) -> None:
    port = free_port()
    peers = {
        "SENDER": {"host": "127.0.0.0/8", "allow": ALL},
        "RIS": {"host": "127.0.0.1", "port": port, "allow": ["echo"]},
        "DEAD": {"host": "127.0.0.1", "port": free_port(), "allow": ["echo"]},
    }
    rules = [{"match": "PatientID != 'SECRET'", "to": ["RIS", "DEAD"]}]
    studies = {"ready_after": "1h", "on_association_close": "0s"}
    site = Site(tmp_path / "site", peers=peers, studies=studies, availability={"notify": rules})
    with site.daemon:
        acquire(site, tmp_path, "1.2.31", PatientName="A", PatientID="SECRET")
        acquire(site, tmp_path, "1.2.32", PatientName="B", PatientID="P2")
        wait_until(lambda: len([each for each in site.index.tasks(kind="availability") if each.reason]) == 2, 20)
        receiver = Receiver(port)
        (said,) = receiver.wait_for(1)
        assert said.StudyInstanceUID == "1.2.32" and not said.ReferencedPerformedProcedureStepSequence
        (series,) = said.ReferencedSeriesSequence
        (item,) = series.ReferencedSOPSequence
        assert series.SeriesInstanceUID == "1.2.32.1"
        assert (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) == (CT, "1.2.32.1.1")
        assert (item.InstanceAvailability, item.RetrieveAETitle) == ("ONLINE", "ARCHIVE")
        wait_until(lambda: len(site.index.tasks(kind="availability", state=State.WAITING)) == 1, 20)
        (left,) = site.index.tasks(kind="availability", state=State.WAITING)
        assert left.lane == "DEAD" and len(receiver.told) == 1
        receiver.stop()
