"""Filter expressions: what they mean, and what is said about wrong ones."""

from __future__ import annotations

import pytest

from archive.dicom.attributes import BY_KEYWORD, Level
from archive.dicom.expression import And, Compare, Not, Or, lowest_level, parse_expression
from archive.errors import ConfigurationError

MODALITY, INSTITUTION = BY_KEYWORD["Modality"][-1], BY_KEYWORD["InstitutionName"][-1]
CT = Compare(MODALITY, "=", ("CT",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Modality = 'CT'", CT),
        ('Modality=="CT"', CT),
        ("Modality != 'CT'", Not(CT)),
        ("Modality <> 'CT'", Not(CT)),
        ("not Modality = 'CT'", Not(CT)),
        ("Modality in ('CT', 'MR')", Compare(MODALITY, "in", ("CT", "MR"))),
        ("Modality NOT IN ('CT')", Not(Compare(MODALITY, "in", ("CT",)))),
        ("InstitutionName like 'N*'", Compare(INSTITUTION, "like", ("N*",))),
        ("InstitutionName not like 'N*'", Not(Compare(INSTITUTION, "like", ("N*",)))),
        ("Modality='CT' or Modality='CT' and Modality='CT'", Or((CT, And((CT, CT))))),
        ("(Modality='CT' or Modality='CT') and Modality='CT'", And((Or((CT, CT)), CT))),
        ("PatientAge >= '018Y'", Compare(BY_KEYWORD["PatientAge"][0], ">=", ("018Y",))),
        ("Rows > 512", Compare(BY_KEYWORD["Rows"][0], ">", ("512",))),
    ],
)
def test_an_expression_becomes_values(text: str, expected: object) -> None:
    assert parse_expression(text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "column 1: expected an attribute such as Modality, found 'the end'"),
        ("Modalty = 'CT'", "column 1: Modalty is no indexed attribute, did you mean Modality?"),
        ("Modality CT", "column 10: expected =, !=, <, <=, >, >=, in or like, found 'CT'"),
        ("Modality = CT", "column 12: expected a value in quotes, found 'CT'"),
        ("Modality = 'CT", 'column 12: cannot read "\'CT"'),
        ("Modality in 'CT'", "column 13: expected '(', found \"'CT'\""),
        ("Modality in ('CT'", "column 18: expected ',' or ')', found 'the end'"),
        ("Modality = 'CT' Modality = 'MR'", "column 17: expected 'and', 'or' or the end, found 'Modality'"),
        ("(Modality = 'CT'", "column 17: expected ')', found 'the end'"),
        ("Modality = 'CT'; drop table study", "column 16: cannot read '; drop tab'"),
        ("__import__('os')", "column 1: __import__ is no indexed attribute"),
        ("RequestAttributesSequence = '1'", "column 1: RequestAttributesSequence is a sequence and cannot be compared"),
        ("not " * 100 + "Modality = 'CT'", "column 205: expected fewer parentheses, found 'not'"),
    ],
)
def test_a_complaint_names_the_column_and_what_would_do(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_expression(text)
    assert str(caught.value) == complaint


def test_the_lowest_level_decides_what_is_looked_at() -> None:
    assert lowest_level(parse_expression("PatientID = '1' and not StudyDate > '2024'")) is Level.STUDY
    assert lowest_level(parse_expression("PatientID = '1' or Modality = 'CT'")) is Level.SERIES
