"""Rules: what holds for an object and what is known about its way here."""

from __future__ import annotations

import pytest

from archive.dicom.rule import WORDS, header_facts, holds, parse_rule
from archive.errors import ConfigurationError

MODALITY, BODY_PART, ROWS, IMAGE_TYPE, CLASS = 0x00080060, 0x00180015, 0x00280010, 0x00080008, 0x00080016
VALUES = {MODALITY: "CT", BODY_PART: "CHEST", ROWS: "512", IMAGE_TYPE: "ORIGINAL\\PRIMARY\\AXIAL", CLASS: "1.2.3"}
FACTS = header_facts(VALUES, {"CallingAETitle": "CT1", "TimeOfDay": "22:30"})


@pytest.mark.parametrize(
    "text",
    [
        "", "  ", "Modality = 'CT'", "Modality in ('MR', 'CT')", "Modality like 'C?'", "Modality != 'MR'",
        "not (Modality = 'MR' or CallingAETitle = 'CT2')", "ImageType = 'AXIAL'", "Rows > 99", "Rows <= 512",
        "TimeOfDay >= '22:00' or TimeOfDay < '06:00'", "PatientSex = ''", "SOPClassUID = '1.2.3'",
        "BodyPartExamined not like 'CH[E]ST'",
    ],
)  # fmt: skip
def test_a_rule_that_fits_holds(text: str) -> None:
    assert holds(parse_rule(text), FACTS)


@pytest.mark.parametrize(
    "text",
    ["Modality = 'ct'", "Modality = 'CT' and CallingAETitle = 'CT2'", "PatientAge > '018Y'", "Rows < 99", "Rows > 'x'"],
)
def test_a_rule_that_does_not_fit_does_not_hold(text: str) -> None:
    assert not holds(parse_rule(text), FACTS)


@pytest.mark.parametrize("word", WORDS)
def test_every_word_can_be_asked(word: str) -> None:
    assert holds(parse_rule(f"{word} = ''"), header_facts({}))


def test_a_misspelt_word_is_named_with_its_column() -> None:
    with pytest.raises(ConfigurationError, match="column 19: CallingAETitel .*did you mean CallingAETitle"):
        parse_rule("Modality='CT' and CallingAETitel='X'")


def test_the_words_are_no_filter_of_the_index() -> None:
    from archive.dicom.expression import parse_expression

    with pytest.raises(ConfigurationError, match="CallingAETitle is no indexed attribute"):
        parse_expression("CallingAETitle = 'CT1'")
