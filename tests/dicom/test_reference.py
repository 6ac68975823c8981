"""The manual's tables of keys are those of the attribute table."""

from __future__ import annotations

from pathlib import Path

from archive.dicom.attributes import ATTRIBUTES
from archive.dicom.reference import tables

PAGE = Path(__file__).resolve().parents[2] / "docs" / "query.md"


def test_the_manual_has_every_key_as_the_table_has_it() -> None:
    assert tables() in PAGE.read_text()


def test_every_attribute_has_a_line() -> None:
    assert all(f"| {row.keyword} |" in tables() for row in ATTRIBUTES)
