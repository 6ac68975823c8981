"""Rules of coercion: what each action makes of an object, and what it leaves alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from archive.dicom.attributes import HEADER_TAGS
from archive.dicom.coerce import Change, changed
from archive.dicom.coercion import Action, CoerceRule, coercions
from archive.dicom.header import read_header
from archive.dicom.paths import parse_path
from archive.dicom.rule import header_facts, parse_rule
from archive.dicom.uids import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from tests.builders import bytes_of, ct, read


def action(kind: str, target: str, **more: Any) -> Action:
    return Action(kind, parse_path(target), **more)


def regex(target: str, find: str, replacement: str) -> Action:
    return action("regex", target, pattern=re.compile(find), replacement=replacement)


def found(
    dataset: Dataset, *actions: Action, match: str = "", syntax: str = EXPLICIT_LITTLE, before: Sequence[Change] = ()
) -> list[Change]:
    data = bytes_of(dataset, syntax)
    facts = header_facts(read_header(data, syntax, HEADER_TAGS).values)
    words = {"CallingAETitle": "CT1"}
    rule = CoerceRule("receive", match=parse_rule(match), actions=actions)
    return coercions([rule], facts, data, syntax, known=lambda word: words.get(word, ""), before=before)


def coerced(dataset: Dataset, *actions: Action, syntax: str = EXPLICIT_LITTLE) -> Dataset:
    changes = found(dataset, *actions, syntax=syntax)
    return read(b"".join(changed(bytes_of(dataset, syntax), syntax, changes)), syntax)


def steps() -> Items:
    made = [Dataset(), Dataset()]
    for number, step in enumerate(made):
        step.RequestedProcedureID = f"rp{number}"
    return Items(made)


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED])
def test_every_action_in_every_layout(syntax: str) -> None:
    dataset = ct(
        PatientID="00042", PatientName="Doe^Jane", StudyID="s1", BodyPartExamined="THORAX", PatientComments="LOUD",
        InstitutionName="Here", RequestAttributesSequence=steps(),
    )  # fmt: skip
    got = coerced(
        dataset,
        action("copy", "OtherPatientIDs", source=parse_path("PatientID")),
        action("set", "InstitutionName", text="{CallingAETitle} of {PatientName}"),
        action("map", "BodyPartExamined", table=(("THORAX", "CHEST"), ("CHEST", "no"))),
        regex("PatientID", "^0+", ""),
        action("upper", "PatientName"),
        action("upper", "RequestAttributesSequence[*].RequestedProcedureID"),
        action("lower", "PatientComments"),
        action("remove", "StudyID"),
        syntax=syntax,
    )
    assert (got.PatientID, got.OtherPatientIDs, got.InstitutionName) == ("42", "00042", "CT1 of Doe^Jane")
    assert (got.BodyPartExamined, got.PatientName, got.PatientComments) == ("CHEST", "DOE^JANE", "loud")
    assert [step.RequestedProcedureID for step in got.RequestAttributesSequence] == ["RP0", "RP1"]
    assert "StudyID" not in got


def test_actions_see_what_those_before_them_made() -> None:
    got = coerced(
        ct(PatientID="a"), regex("PatientID", "a", "b"), regex("PatientID", "b", "c"), action("upper", "PatientID")
    )
    assert got.PatientID == "C"


@pytest.mark.parametrize(
    "actions",
    [
        [action("upper", "PatientID")],
        [action("upper", "PatientComments")],
        [action("remove", "PatientComments")],
        [action("remove", "RequestAttributesSequence[*].RequestedProcedureID")],
        [action("copy", "PatientComments", source=parse_path("ImageComments"))],
        [action("set", "PatientID", text="P0001")],
        [regex("PatientID", "^", "x"), regex("PatientID", "^x", "")],
        [action("upper", "PixelData")],
    ],
)
def test_what_is_so_already_is_no_change(actions: list[Action]) -> None:
    assert found(ct(PatientID="P0001"), *actions) == []


def test_match_looks_at_the_object_as_it_came() -> None:
    change = action("set", "PatientID", text="X")
    assert found(ct(), change, match="Modality = 'MR'") == []
    assert found(ct(), action("set", "Modality", text="MR"), change, match="Modality = 'CT'")


def test_each_of_several_values_is_changed() -> None:
    got = coerced(ct(OtherPatientIDs=["a1", "b2"]), regex("OtherPatientIDs", "^.", "X"))
    assert list(got.OtherPatientIDs) == ["X1", "X2"]


def test_a_text_that_is_not_understood_is_left_alone() -> None:
    data = bytes_of(ct()).replace(b"Phantom^Peter ", b"M\xfcller^J\xf6rg^xy")
    rule = CoerceRule("receive", actions=(action("upper", "PatientName"),))
    assert coercions([rule], lambda word: "", data, EXPLICIT_LITTLE) == []
    (change,) = coercions([rule], lambda word: "", data, EXPLICIT_LITTLE, "ISO_IR 100")
    assert change.value == "MÜLLER^JÖRG^XY"


def test_rules_start_from_what_others_lay_over_the_object() -> None:
    corrected = Change((0x00100010,), "PN", "Right^Name")
    (change,) = found(ct(), action("upper", "PatientName"), before=[corrected])
    assert change.value == "RIGHT^NAME"
    assert found(ct(), action("set", "PatientName", text="Right^Name"), before=[corrected]) == []


@pytest.mark.parametrize(
    ("senders", "title", "fits"),
    [((), "CT1", True), (("CT1",), "CT1", True), (("CT*",), "CT1", True), (("CT?",), "CT12", False),
     (("ct1",), "CT1", False),
     (("MR1", "CT1"), "CT1", True), (("[CM]T1",), "CT1", False)],
)  # fmt: skip
def test_ae_titles_fit_whole_and_by_pattern(senders: tuple[str, ...], title: str, fits: bool) -> None:
    assert CoerceRule("receive", senders).concerns("receive", title, "ARCHIVE") is fits
    assert CoerceRule("send", receivers=senders).concerns("send", "ARCHIVE", title) is fits
    assert not CoerceRule("send", senders).concerns("receive", title, "ARCHIVE")
