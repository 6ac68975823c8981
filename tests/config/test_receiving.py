"""The rules of coercion and provenance, as the file writes them."""

from __future__ import annotations

import pytest

from archive.config import Complaints
from archive.config.display import display

from .test_load import Configured

RULES = """
coerce:
  - on: receive
    from: [CT1, "MR*"]
    match: "Modality = 'CT'"
    upper: [PatientName, "(0010,0020)"]
    regex: {PatientID: {find: "^0+", replace: ""}}
    map: {BodyPartExamined: {THORAX: CHEST}}
  - {on: send, to: OLD, set: {"RequestAttributesSequence[*].RequestedProcedureID": X}, remove: ["(0021,ACME Inc.,10)"]}
"""


def test_rules_become_actions_in_their_order(configured: Configured) -> None:
    first, second = (each.rule() for each in configured(RULES).coerce)
    assert (first.on, first.senders, first.receivers) == ("receive", ("CT1", "MR*"), ())
    said = [(action.kind, str(action.target)) for action in first.actions]
    assert said == [
        ("map", "BodyPartExamined"), ("regex", "PatientID"), ("upper", "PatientName"), ("upper", "PatientID"),
    ]  # fmt: skip
    assert [str(action.target) for action in second.actions] == [
        "RequestAttributesSequence[*].RequestedProcedureID", "(0021,ACME Inc.,10)",
    ]  # fmt: skip


def test_what_is_shown_reads_back(configured: Configured) -> None:
    config = configured(RULES + "provenance: {record: [receive, send], creator: 'Somebody, Inc.'}\n")
    again = configured(display(config))
    assert [each.rule() for each in again.coerce] == [each.rule() for each in config.coerce]
    assert again.provenance == config.provenance


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("upper: [PatientNam]", "coerce.0.upper.0 = PatientNam: 'PatientNam' is no attribute"),
        ("set: {Rows: many}", "coerce.0.set.Rows = many: not a value of VR US; a value of VR US would do"),
        ("set: {Modality: Ω}", "VR CS has no letters beyond ASCII"),
        ("set: {PixelData: x}", "coerce.0.set.PixelData = PixelData: an attribute of VR O"),
        ("set: {SOPClassUID: '1.2'}", "SOPClassUID cannot be changed: another SOP class is another object"),
        ("remove: [OriginalAttributesSequence]", "it records changes and is written by itself"),
        ("set: {PatientID: '{CalingAETitle}'}", "{CalingAETitle} is neither an attribute nor one of CallingAETitle"),
        ("regex: {PatientID: '^0'}", "not a pair of find and replace; find and replace, such as {find: '^0+', rep"),
        ("regex: {PatientID: {find: '('}}", "no regular expression of Python"),
        ("regex: {PatientID: {find: 'a', replace: '\\2'}}", "no regular expression of Python: invalid group reference"),
        ("match: \"Modalit = 'CT'\", upper: [PatientID]", "coerce.0.match"),
        ("from: [ABCDEFGHIJKLMNOPQ], upper: [PatientID]", "not an AE title, nor a pattern of one"),
        ("match: ''", "coerce.0: a rule that does nothing; one of copy, set, map"),
        ("uper: [PatientID]", "coerce.0.uper: unknown option; did you mean upper?"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_a_remedy(configured: Configured, text: str, said: str) -> None:
    with pytest.raises(Complaints) as raised:
        configured(f"coerce: [{{on: receive, {text}}}]\n")
    assert said in str(raised.value)


def test_the_identity_of_an_object_stays_on_the_way_out(configured: Configured) -> None:
    with pytest.raises(Complaints, match="the answer of the receiver would name another"):
        configured("coerce: [{on: send, set: {SOPInstanceUID: '1.2'}}]\n")
    assert configured("coerce: [{on: receive, set: {SOPInstanceUID: '1.2'}}]\n").coerce


def test_a_rule_says_when_it_is_applied(configured: Configured) -> None:
    with pytest.raises(Complaints, match="coerce.0: on is missing; add on: one of receive, send, route"):
        configured("coerce: [{upper: [PatientID]}]\n")
