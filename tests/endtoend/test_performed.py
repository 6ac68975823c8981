"""Performed procedure steps of a modality: the worklist, the study and other archives follow."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import ModalityPerformedProcedureStep  # type: ignore[attr-defined]

from tests.endtoend.test_orders import STEP, Site, today
from tests.faults import raw
from tests.faults.daemon import free_port, wait_until
from tests.faults.objects import instance

MODALITY = {"host": "127.0.0.0/8", "allow": ["echo", "store", "worklist", "mpps"]}


class Receiver:
    """Another archive that is told of performed steps."""

    def __init__(self, port: int) -> None:
        self.told: list[tuple[str, str, str, str]] = []
        self._arrived = threading.Condition()
        ae = AE("RIS")
        ae.add_supported_context(ModalityPerformedProcedureStep)
        handlers = [(evt.EVT_N_CREATE, self._create), (evt.EVT_N_SET, self._set)]
        self._server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)

    def _create(self, event: Any) -> tuple[int, Dataset]:
        said = event.attribute_list
        return self._note("create", event.request.AffectedSOPInstanceUID, said), said

    def _set(self, event: Any) -> tuple[int, Dataset]:
        said = event.modification_list
        return self._note("set", event.request.RequestedSOPInstanceUID, said), said

    def _note(self, what: str, uid: str, said: Dataset) -> int:
        with self._arrived:
            name, state = str(said.get("PatientName", "")), said.PerformedProcedureStepStatus
            self.told.append((what, str(uid), state, name))
            self._arrived.notify_all()
        return 0

    def wait_for(self, count: int) -> list[tuple[str, str, str, str]]:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.told) >= count, 20), self.told
        return self.told

    def stop(self) -> None:
        self._server.shutdown()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    port = free_port()
    peers = {
        "SENDER": MODALITY | {"allow": ["echo", "store", "worklist", "mpps", "find"]},
        "RIS": {"host": "127.0.0.1", "port": port, "allow": ["echo"]},
    }
    forward = [{"match": "Modality = 'CT' and CallingAETitle = 'SENDER'", "to": ["RIS"]}]
    mpps, studies, timeouts = {"forward": forward}, {"ready_after": "1h", "match_orders": "off"}, {"idle": "60s"}
    found = Site(tmp_path / "site", peers=peers, mpps=mpps, studies=studies, timeouts=timeouts)
    found.port = port  # type: ignore[attr-defined]
    with found.daemon:
        yield found


class Modality:
    """A pynetdicom SCU."""

    def __init__(self, site: Site) -> None:
        ae = AE("SENDER")
        ae.add_requested_context(ModalityPerformedProcedureStep)
        self._association = ae.associate("127.0.0.1", site.daemon.port, ae_title="ARCHIVE")
        assert self._association.is_established

    def create(self, said: Dataset, uid: str | None) -> Dataset:
        return self._association.send_n_create(said, ModalityPerformedProcedureStep, uid)[0]

    def set(self, said: Dataset, uid: str) -> Dataset:
        return self._association.send_n_set(said, ModalityPerformedProcedureStep, uid)[0]

    def __enter__(self) -> Modality:
        return self

    def __exit__(self, *_: object) -> None:
        self._association.release()


def beginning(study: str, accession: str = "ACC1", step: str = "SPS1", **more: str) -> Dataset:
    said, scheduled = Dataset(), Dataset()
    said.SpecificCharacterSet = "ISO_IR 100"
    said.PatientName, said.PatientID, said.Modality = "Müller^Jürgen", "P1", "CT"
    said.PerformedStationAETitle, said.PerformedProcedureStepID = "CT1", "PPS1"
    said.PerformedProcedureStepStartDate, said.PerformedProcedureStepStartTime = "20261121", "0935"
    said.PerformedProcedureStepStatus = "IN PROGRESS"
    scheduled.StudyInstanceUID, scheduled.AccessionNumber, scheduled.ScheduledProcedureStepID = study, accession, step
    said.ScheduledStepAttributesSequence = [scheduled]
    for keyword, value in more.items():
        setattr(said, keyword, value)
    return said


def ending(state: str, *images: str) -> Dataset:
    said, series = Dataset(), Dataset()
    said.PerformedProcedureStepStatus = state
    said.PerformedProcedureStepEndDate, said.PerformedProcedureStepEndTime = "20261121", "0950"
    series.SeriesInstanceUID = "1.2.3"
    series.ReferencedImageSequence = []
    for uid in images:
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = raw.CT, uid
        series.ReferencedImageSequence.append(image)
    said.PerformedSeriesSequence = [series]
    return said


def states(site: Site) -> dict[str, str]:
    return {each.accession_number: each.state for each in site.index.orders.latest()}


def test_a_performed_step_completes_its_order_its_study_and_is_told_to_others(site: Site, tmp_path: Path) -> None:
    receiver = Receiver(site.port)  # type: ignore[attr-defined]
    assert site.send(today(1)) == "AA"
    (listed,) = site.worklist("0020,000d", folder=tmp_path)
    one = instance()
    with Modality(site) as modality:
        assert modality.create(beginning(str(listed.StudyInstanceUID)), "1.2.77.1").Status == 0
        assert states(site) == {"ACC1": "STARTED"}
        assert [str(each.AccessionNumber) for each in site.worklist(f"{STEP}0040,0020", folder=tmp_path)] == ["ACC1"]
        with raw.association(site.daemon.port) as sending:
            assert sending.store(raw.CT, one.uid, one.data) == 0
        assert modality.set(ending("COMPLETED", one.uid), "1.2.77.1").Status == 0
    assert states(site) == {"ACC1": "COMPLETED"}
    assert site.worklist(folder=tmp_path) == []
    name = "Müller^Jürgen"
    assert receiver.wait_for(2) == [
        ("create", "1.2.77.1", "IN PROGRESS", name),
        ("set", "1.2.77.1", "COMPLETED", ""),
    ]
    receiver.stop()


def test_a_completed_step_makes_its_study_ready_without_waiting(site: Site) -> None:
    one = instance()
    with raw.association(site.daemon.port) as sending:
        assert sending.store(raw.CT, one.uid, one.data) == 0
    (study,) = site.index.studies()
    assert study.state == "received"
    with Modality(site) as modality:
        assert modality.create(beginning(study.study_uid), "1.2.77.2").Status == 0
        assert modality.set(ending("COMPLETED", one.uid), "1.2.77.2").Status == 0
    wait_until(lambda: site.index.studies()[0].state == "ready", 20)


def test_the_rules_of_states_hold(site: Site) -> None:
    with Modality(site) as modality:
        assert modality.create(beginning("1.2.9"), "1.2.77.3").Status == 0
        assert modality.create(beginning("1.2.9"), "1.2.77.3").Status == 0x0111
        assert modality.set(ending("IN PROGRESS"), "1.2.77.3").Status == 0
        assert modality.set(ending("DISCONTINUED"), "1.2.77.3").Status == 0
        final = modality.set(ending("COMPLETED"), "1.2.77.3")
        assert final.Status == 0x0110 and "no longer be updated" in final.ErrorComment
        assert modality.set(ending("COMPLETED"), "1.2.77.99").Status == 0x0112
        for wrong in (
            beginning("1.2.9", PerformedProcedureStepStatus="COMPLETED"),
            beginning("1.2.9", PerformedStationAETitle=""),
            beginning(""),
        ):
            assert modality.create(wrong, "1.2.77.4").Status == 0x0106
        assert modality.create(beginning("1.2.9"), None).Status == 0
    given, made = sorted(step.uid for step in site.index.performed.latest())
    assert given == "1.2.77.3" and made.startswith("2.25.")


def test_what_cannot_be_told_now_is_told_later_in_order(site: Site) -> None:
    with Modality(site) as modality:
        for number in range(3):
            assert modality.create(beginning("1.2.9"), f"1.2.78.{number}").Status == 0
            assert modality.set(ending("COMPLETED"), f"1.2.78.{number}").Status == 0
    wait_until(lambda: any(task.reason for task in site.index.tasks(kind="mpps")), 20)
    receiver = Receiver(site.port)  # type: ignore[attr-defined]
    told = receiver.wait_for(6)
    assert [(what, uid[-1]) for what, uid, _, _ in told] == [
        (what, str(number)) for number in range(3) for what in ("create", "set")
    ]
    receiver.stop()
