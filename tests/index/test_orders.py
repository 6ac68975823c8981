"""Orders and worklists, on both databases: found again, changed, cancelled, listed; a message has one effect."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from archive.dicom.worklist import BY_KEYWORD, STEP, STEP_SEQUENCE_TAG, read_worklist_query
from archive.errors import Conflict
from archive.index import Index, NewTask, open_index
from archive.index.ordervalues import Applied, NewMessage, NewStep, OrderChange, OrderKeys, PatientChange, StepState
from archive.index.performed import Performed, Reference
from archive.index.worklist import statement


def message(control: str = "M1", digest: str = "d", **more: Any) -> NewMessage:
    values = {
        "sender": "RIS|HOSP", "address": "10.1.1.1", "kind": "ORM^O01", "received": 100.0, "code": "AA", "reason": "",
        "content": b"MSH|\xff", "patient_id": "P1", "accession_number": "A1",
    }  # fmt: skip
    return NewMessage(control_id=control, digest=digest, **{**values, **more})


def order(number: int = 1, *, step: Mapping[str, str] = {}, **attributes: Any) -> OrderChange:
    values = {
        "PatientName": "Doe^Jane", "PatientID": "P1", "IssuerOfPatientID": "H", "AccessionNumber": f"A{number}",
        "RequestedProcedureID": f"RP{number}", "StudyInstanceUID": f"1.2.{number}", **attributes,
    }  # fmt: skip
    steps = {
        "Modality": "CT", "ScheduledStationAETitle": "CT1", "ScheduledProcedureStepStartDate": "20261121",
        "ScheduledProcedureStepStartTime": "0930", "ScheduledProcedureStepDescription": "CT head", **step,
    }  # fmt: skip
    keys = OrderKeys(values["StudyInstanceUID"], f"PL{number}", "RIS", f"FL{number}", "RIS", values["AccessionNumber"])
    return OrderChange(keys, None, values, steps=(NewStep(f"S{number}", steps),), reopens=True)


def question(step: Mapping[str, str] = {}, **above: str) -> Any:
    keys: dict[int, tuple[str, Any]] = {
        BY_KEYWORD[key].tag: (BY_KEYWORD[key].vr, value) for key, value in {"PatientID": "", **above}.items()
    }
    items = {tag: (row.vr, step[row.keyword]) for tag, row in STEP.items() if row.keyword in step}
    return read_worklist_query({**keys, STEP_SEQUENCE_TAG: ("SQ", [items])})


def listed(index: Index, step: Mapping[str, str] = {}, **above: str) -> list[str]:
    found = index.orders.worklist(question(step, **above))
    return [str(values["AccessionNumber"]) for values, _ in found]


def test_a_message_and_its_order_are_kept_together(index: Index) -> None:
    assert index.orders.apply(message(), [order()], tasks=[NewTask("prefetch", {})]) is Applied.DONE
    (kept,) = index.orders.messages()
    assert (kept.control_id, kept.content, kept.code) == ("M1", b"MSH|\xff", "AA")
    (found,) = index.orders.latest()
    assert (found.study_uid, found.placer, found.state) == ("1.2.1", "PL1", "SCHEDULED")
    assert [(key, state) for key, state, _ in found.steps] == [("S1", "SCHEDULED")]
    assert len(index.tasks(kind="prefetch")) == 1


def test_the_same_message_again_has_no_effect(index: Index) -> None:
    index.orders.apply(message(), [order()], tasks=[NewTask("prefetch", {})])
    assert index.orders.apply(message(), [order(2)], tasks=[NewTask("prefetch", {})]) is Applied.REPEATED
    assert index.orders.apply(message(digest="e"), [order(2)]) is Applied.DIFFERENT
    assert [len(index.orders.latest()), len(index.orders.messages()), len(index.tasks())] == [1, 1, 1]
    assert index.orders.apply(message(sender="OTHER"), [order(2)]) is Applied.DONE


def test_an_unknown_order_leaves_nothing(index: Index) -> None:
    cancel = OrderChange(OrderKeys(placer="PL9"), StepState.CANCELLED, saves=False)
    assert index.orders.apply(message(), [order(), cancel]) is Applied.UNKNOWN_ORDER
    assert (index.orders.latest(), index.orders.messages()) == ([], [])
    index.orders.keep(message(code="AE"))
    index.orders.keep(message(code="AE"))
    assert len(index.orders.messages(code="AE", control_id="M1", patient_id="P1", accession_number="A1")) == 2


@pytest.mark.parametrize(
    "keys",
    [
        OrderKeys(study_uid="1.2.1"), OrderKeys(placer="PL1", placer_issuer="RIS"),
        OrderKeys(filler="FL1", filler_issuer="RIS"), OrderKeys(accession_number="A1"),
        OrderKeys(study_uid="9.9", placer="PL1", placer_issuer="RIS"),
    ],
)  # fmt: skip
def test_an_order_is_found_again_by_any_of_its_numbers(index: Index, keys: OrderKeys) -> None:
    index.orders.apply(message(), [order()])
    change = OrderChange(keys, None, {"PatientName": "Doe^Janet"}, {"AccessionNumber": "other"})
    assert index.orders.apply(message("M2"), [change]) is Applied.DONE
    (found,) = index.orders.latest()
    assert (found.study_uid, found.accession_number) == ("1.2.1", "A1")
    assert found.attributes["PatientName"] == "Doe^Janet"


def test_an_accession_number_of_two_orders_finds_neither(index: Index) -> None:
    index.orders.apply(message(), [order(1, AccessionNumber="A"), order(2, AccessionNumber="A")])
    cancel = OrderChange(OrderKeys(accession_number="A"), StepState.CANCELLED, saves=False)
    assert index.orders.apply(message("M2"), [cancel]) is Applied.UNKNOWN_ORDER


def test_two_orders_never_share_a_study(index: Index) -> None:
    assert index.orders.apply(message(), [order(1)]) is Applied.DONE
    assert index.orders.apply(message("M2"), [order(2, StudyInstanceUID="1.2.1")]) is Applied.OTHER_ORDER
    (found,) = index.orders.latest()
    assert (found.placer, found.accession_number) == ("PL1", "A1")
    with pytest.raises(Conflict):
        index.orders.save(order(2, StudyInstanceUID="1.2.1"), 3.0)


def test_a_cancelled_order_is_no_work_until_it_is_ordered_anew(index: Index) -> None:
    index.orders.apply(message(), [order()])
    assert listed(index) == ["A1"]
    assert index.orders.set_state("1.2.1", StepState.CANCELLED, 200.0)
    assert listed(index) == []
    index.orders.apply(message("M3"), [order()])
    assert listed(index) == ["A1"]


def test_a_completed_order_is_not_begun_anew_by_a_repetition(index: Index) -> None:
    index.orders.apply(message(), [order()])
    assert index.orders.set_state("1.2.1", StepState.COMPLETED, 200.0, step_id="S1")
    index.orders.apply(message("M2"), [order()])
    assert index.orders.latest()[0].state == "COMPLETED"
    assert listed(index) == []


def test_an_order_is_as_far_as_the_least_advanced_of_its_steps(index: Index) -> None:
    both = OrderChange(OrderKeys("1.2"), None, {"StudyInstanceUID": "1.2"}, steps=(NewStep("a", {}), NewStep("b", {})))
    index.orders.apply(message(), [both])
    index.orders.set_state("1.2", StepState.COMPLETED, 2.0, step_id="a")
    assert index.orders.latest()[0].state == "SCHEDULED"
    index.orders.set_state("1.2", StepState.COMPLETED, 2.0, step_id="b")
    assert index.orders.latest()[0].state == "COMPLETED"


def test_a_step_without_id_is_every_step_of_the_order(index: Index) -> None:
    index.orders.apply(message(), [order()])
    moved = OrderChange(OrderKeys("1.2.1"), steps=(NewStep("", {"ScheduledProcedureStepStartDate": "20261205"}),))
    index.orders.apply(message("M2"), [moved])
    assert listed(index, {"ScheduledProcedureStepStartDate": "20261121"}) == []
    assert listed(index, {"ScheduledProcedureStepStartDate": "20261205"}) == ["A1"]
    assert [key for key, _, _ in index.orders.latest()[0].steps] == ["S1"]


def test_a_patient_is_renamed_and_merged_in_its_orders(index: Index) -> None:
    index.orders.apply(message(), [order(1), order(2, PatientID="P2"), order(3, PatientID="P3")])
    renamed = {"PatientName": "Roe^Jane", "PatientID": "P1", "IssuerOfPatientID": "H"}
    merged = PatientChange("P1", "H", renamed, "P2", "H")
    for control in ("M2", "M3"):
        assert index.orders.apply(message(control), patients=[merged]) is Applied.DONE
    assert sorted(order.patient_id for order in index.orders.latest()) == ["P1", "P1", "P3"]
    assert sorted(listed(index, PatientName="roe*")) == ["A1", "A2"]
    assert listed(index, PatientID="P2") == []


STEPS = [
    order(1), order(2, step={"Modality": "MR", "ScheduledStationAETitle": "MR1\\MR2"}, PatientName="Müller^Jürgen"),
    order(3, step={"ScheduledProcedureStepStartDate": "20261122", "ScheduledProcedureStepStartTime": "080000"}),
    order(4, step={"ScheduledPerformingPhysicianName": "T^Tom"}, PatientSex="F", PatientName="Yamada^Tarou=山田^太郎"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("step", "above", "expected"),
    [
        ({}, {}, "A1 A2 A4 A3"),
        ({"Modality": "MR"}, {}, "A2"),
        ({"ScheduledStationAETitle": "MR2"}, {}, "A2"),
        ({"ScheduledStationAETitle": "MR*"}, {}, "A2"),
        ({"ScheduledProcedureStepStartDate": "20261122"}, {}, "A3"),
        ({"ScheduledProcedureStepStartDate": "20261121-"}, {}, "A1 A2 A4 A3"),
        ({"ScheduledProcedureStepStartDate": "-20261121"}, {}, "A1 A2 A4"),
        (
            {"ScheduledProcedureStepStartDate": "20261121-20261122", "ScheduledProcedureStepStartTime": "1000-0830"},
            {},
            "A3",
        ),
        ({"ScheduledPerformingPhysicianName": "t*"}, {}, "A4"),
        ({"ScheduledProcedureStepID": "S3"}, {}, "A3"),
        ({}, {"PatientName": "MULLER*"}, "A2"),
        ({}, {"PatientName": "山田*"}, "A4"),
        ({}, {"PatientName": "*=山田*"}, "A4"),
        ({}, {"PatientName": "D?e^Jane"}, "A1 A3"),
        ({}, {"PatientID": "P*", "PatientSex": "F"}, "A4"),
        ({}, {"AccessionNumber": "A1"}, "A1"),
        ({}, {"AccessionNumber": "A%"}, ""),
        ({}, {"StudyInstanceUID": "1.2.1\\1.2.3"}, "A1 A3"),
        ({}, {"RequestedProcedureID": "RP2"}, "A2"),
        ({"ScheduledProcedureStepStatus": "SCHEDULED"}, {"AccessionNumber": "A2"}, "A2"),
        ({"ScheduledProcedureStepStatus": "STARTED"}, {}, ""),
    ],
)
def test_a_worklist_matches_by_every_key(
    index: Index, step: dict[str, str], above: dict[str, str], expected: str
) -> None:
    index.orders.apply(message(), STEPS)
    assert listed(index, step, **above) == expected.split()


def test_what_a_peer_may_see_narrows_every_question(index: Index) -> None:
    index.orders.apply(message(), STEPS)

    def seen(**view: Any) -> list[str]:
        return [str(values["AccessionNumber"]) for values, _ in index.orders.worklist(question(), **view)]

    assert seen(stations=["MR1"]) == ["A2"]
    assert seen(modalities=["MR", "US"]) == ["A2"]
    assert seen(dates=("20261122", "20261130")) == ["A3"]
    assert seen(states=[StepState.COMPLETED]) == []


def test_messages_end(index: Index) -> None:
    for number in range(3):
        index.orders.keep(message(f"M{number}", received=float(number)))
    assert [kept.control_id for kept in index.orders.messages(limit=2)] == ["M2", "M1"]
    assert index.orders.purge_messages(2.0) == 2
    assert [kept.control_id for kept in index.orders.messages()] == ["M2"]


def test_one_message_on_many_connections_has_one_effect(index: Index) -> None:
    results: list[Applied] = []

    def send() -> None:
        results.append(index.orders.apply(message(), [order()]))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(result.value for result in results) == ["done"] + ["repeated"] * 7
    assert len(index.orders.latest()) == 1


@pytest.mark.parametrize(
    ("step", "above"),
    [
        ({"ScheduledStationAETitle": "CT1", "ScheduledProcedureStepStartDate": "20261121"}, {}),
        ({"ScheduledProcedureStepStartDate": "20261121-20261122"}, {}),
        ({"Modality": "CT", "ScheduledProcedureStepStartDate": "20261121"}, {}),
        ({}, {"PatientID": "P1"}),
        ({}, {"AccessionNumber": "A1"}),
        ({}, {"PatientName": "Doe*"}),
        ({}, {"RequestedProcedureID": "RP1"}),
        ({}, {"StudyInstanceUID": "1.2.3"}),
    ],
)
def test_the_usual_questions_walk_no_table(tmp_path: Path, step: dict[str, str], above: dict[str, str]) -> None:
    index = open_index(f"sqlite:///{tmp_path}/index.db")
    index.orders.apply(message(), [order(number) for number in range(300)])
    index.database.transact(lambda session: session.run("ANALYZE"))
    sql, values = statement(index.database.dialect, question(step, **above))
    plan = index.read(lambda session: session.rows(f"EXPLAIN QUERY PLAN {sql}", values))
    assert not [row for row in plan if row[3].startswith("SCAN") and "station" not in row[3]], plan


def test_nothing_of_the_wrong_patient_stays_with_an_order(index: Index) -> None:
    index.orders.save(order(1, PatientBirthDate="19600101", Allergies="Latex", PatientWeight="70"), 1.0)
    index.orders.save(order(1, PatientID="P2", PatientName="Roe^Rita"), 2.0)
    (found,) = index.orders.latest()
    assert (found.patient_id, found.attributes["PatientName"]) == ("P2", "Roe^Rita")
    assert "PatientBirthDate" not in found.attributes and "PatientWeight" not in found.attributes
    assert "Allergies" not in found.attributes and found.attributes["RequestedProcedureID"] == "RP1"


def test_a_merge_takes_the_issuer_with_the_identity(index: Index) -> None:
    index.orders.save(order(1, PatientBirthDate="19600101"), 1.0)
    merge = PatientChange("P9", "", {"PatientID": "P9", "PatientName": "Doe^Jane"}, "P1", "H")
    assert index.orders.apply(message(), patients=[merge]) is Applied.DONE
    (found,) = index.orders.latest()
    assert (found.patient_id, found.issuer, found.attributes["IssuerOfPatientID"]) == ("P9", "", "")
    assert found.attributes["PatientBirthDate"] == "19600101"  # the same person


def test_changes_of_one_order_at_a_time_are_all_kept(index: Index) -> None:
    index.orders.save(order(1), 1.0)
    writers, keys = 8, OrderKeys("1.2.1")

    def change(number: int) -> None:
        for turn in range(5):
            index.orders.save(OrderChange(keys, attributes={f"X{number}": str(turn)}), 2.0)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (found,) = index.orders.latest()
    assert {key: value for key, value in found.attributes.items() if key.startswith("X")} == {
        f"X{number}": "4" for number in range(writers)
    }


def test_what_is_done_stays_done_whatever_status_comes_late(index: Index) -> None:
    index.orders.save(order(1), 1.0)
    index.orders.set_state("1.2.1", StepState.COMPLETED, 2.0)
    for late in (StepState.SCHEDULED, StepState.STARTED, StepState.CANCELLED):
        index.orders.set_state("1.2.1", late, 3.0)
        (found,) = index.orders.latest()
        assert (found.state, found.steps[0][1]) == ("COMPLETED", "COMPLETED")


def test_a_study_completes_the_steps_of_its_modalities_only(index: Index) -> None:
    first = order(1)
    second = NewStep("S2", {**first.steps[0].attributes, "Modality": "PT"})
    index.orders.save(OrderChange(first.keys, None, first.attributes, steps=(*first.steps, second)), 1.0)
    assert index.matches.add("1.2.50", "1.2.1", "by test", 2.0, modalities=["CT"])
    (found,) = index.orders.latest()
    assert [state for _, state, _ in found.steps] == ["COMPLETED", "SCHEDULED"]
    assert found.state == "SCHEDULED"


def test_giving_up_a_step_leaves_what_is_complete_and_what_was_not_begun(index: Index) -> None:
    first = order(1)
    steps = [NewStep(f"S{number}", first.steps[0].attributes) for number in (1, 2, 3)]
    index.orders.save(OrderChange(first.keys, None, first.attributes, steps=tuple(steps)), 1.0)
    index.orders.set_state("1.2.1", StepState.COMPLETED, 2.0, step_id="S1")
    index.orders.set_state("1.2.1", StepState.STARTED, 2.0, step_id="S2")
    for step_id in ("S1", "unknown"):
        given_up = Reference("1.2.1", "", step_id)
        index.performed.create(f"1.9.{step_id}", {}, [Reference("", "", "")], station="CT1", source="CT1", now=3.0)
        index.performed.change(f"1.9.{step_id}", {}, [given_up], Performed.DISCONTINUED, now=4.0)
    (found,) = index.orders.latest()
    assert [state for _, state, _ in found.steps] == ["COMPLETED", "DISCONTINUED", "SCHEDULED"]


def test_a_large_department_does_not_hide_the_order_of_a_study(index: Index) -> None:
    for number in range(1, 40):
        index.orders.save(order(number, PatientID=f"P{number}"), 1.0)
    wanted = {"study_uid": "1.2.999", "accession_number": "A1", "patient_id": ""}
    found = index.matches.candidates(**wanted, dates=("20261114", "20261128"), limit=10)
    assert "A1" in {each.accession_number for each in found}


def test_an_order_is_found_by_whatever_number_is_known(index: Index) -> None:
    index.orders.save(order(1), 1.0)
    for keys in (OrderKeys("1.9.9", "PL1", "RIS"), OrderKeys(filler="FL1", filler_issuer="RIS"), OrderKeys("1.2.1")):
        found = index.orders.find(keys)
        assert found is not None and found.study_uid == "1.2.1"
    assert index.orders.find(OrderKeys(placer="PL2", placer_issuer="RIS")) is None
