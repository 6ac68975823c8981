"""What codes and descriptions say of the body."""

from __future__ import annotations

import pytest

from archive.dicom.bodyparts import are_near, regions, side

SAYINGS = {
    "CT head": {"head"},
    "CT HEAD/BRAIN W CONTRAST": {"head"},
    "Schädel-CT": {"head"},
    "CSPINE": {"cspine"},
    "MRI of the cervical spine": {"cspine"},
    "L-SPINE": {"lspine"},
    "ABDOMENPELVIS": {"abdomen", "pelvis"},
    "CT Thorax/Abdomen": {"chest", "abdomen"},
    "MRT Knie rechts": {"knee"},
    "Hüfte links": {"hip"},
    "WHOLEBODY": {"whole body"},
    "follow-up": set(),
    "": set(),
}


@pytest.mark.parametrize("text", SAYINGS)
def test_texts_name_regions(text: str) -> None:
    assert regions([text]) == SAYINGS[text]


def test_neighbours_are_near_and_the_whole_body_is_near_everything() -> None:
    assert are_near(regions(["abdomen"]), regions(["pelvis"])) and are_near(regions(["pelvis"]), regions(["abdomen"]))
    assert not are_near(regions(["head"]), regions(["foot"]))
    assert are_near(regions(["whole body"]), regions(["foot"])) and not are_near(regions(["whole body"]), frozenset())


def test_sides_come_from_their_attribute_then_from_words_and_never_from_a_letter_in_a_text() -> None:
    assert side(["R"], ["left knee"]) == "right"
    assert side([""], ["MRT Knie links"]) == "left"
    assert side(["L", "R"], []) == "both"
    assert side([], ["XR L knee"]) == side([], []) == ""
