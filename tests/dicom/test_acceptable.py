"""What people and other systems may give us as values."""

from __future__ import annotations

import pytest

from archive.dicom.acceptable import complaint


@pytest.mark.parametrize(
    ("vr", "text"),
    [
        ("PN", "Müller^Jörg^^Dr.=山田^太郎=やまだ^たろう"), ("PN", ""), ("LO", "a^b"), ("LO", "x" * 64), ("SH", "N77"),
        ("DA", "20240229"), ("TM", "10"), ("TM", "235959.999999"), ("DT", "20240131101112.5+0100"), ("AS", "018M"),
        ("CS", "ORIGINAL_1"), ("IS", "-12"), ("DS", "-1.5e3"), ("US", "65535"), ("AE", "STORE SCP"), ("UI", "1.2.0.3"),
        ("LT", "two\r\nlines\\of text"), ("UT", "x"), ("UR", "https://a/b"),
    ],
)  # fmt: skip
def test_values_that_fit_their_vr_are_taken(vr: str, text: str) -> None:
    assert complaint(vr, text) == ""


@pytest.mark.parametrize(
    ("vr", "text", "words"),
    [
        ("PN", "x" * 65, "64 characters"), ("PN", "a=b=c=d", "three groups"), ("PN", "a^b^c^d^e^f", "five components"),
        ("LO", "x" * 65, "64 characters"), ("LO", "a\\b", "one value"), ("LO", "a\nb", "control character"),
        ("LT", "a\x1bb", "control character"), ("SH", "x\ud800", "no character"), ("SH", "x\uffff", "no character"),
        ("DA", "20230229", "YYYYMMDD"), ("DA", "2023.01.01", "YYYYMMDD"), ("DA", "٢٠٢٤٠١٠١", "YYYYMMDD"),
        ("TM", "24", "HHMMSS"), ("TM", "10:11", "HHMMSS"), ("DT", "2024-01-01", "YYYYMMDDHHMMSS"), ("AS", "18", "018M"),
        ("CS", "lower", "capital"), ("CS", "X" * 17, "16 characters"), ("IS", "1.5", "whole number"),
        ("IS", "1" * 13, "12 characters"), ("DS", "one", "a number"), ("US", "65536", "65535"), ("US", "-1", "65535"),
        ("AE", "ä", "ASCII"), ("UI", "1.02", "a UID"), ("UI", "x", "a UID"), ("UR", "a b", "without spaces"),
        ("LT", "x" * 10241, "10240"), ("OB", "x", "cannot be given as text"), ("SQ", "x", "cannot be given as text"),
    ],
)  # fmt: skip
def test_values_that_do_not_are_refused_in_words_that_do_not_repeat_them(vr: str, text: str, words: str) -> None:
    said = complaint(vr, text)
    assert words in said and text not in said.split()


def test_several_values_are_for_attributes_that_have_several() -> None:
    assert complaint("LO", "a\\b", multiple=True) == ""
    assert complaint("LO", f"a\\{'x' * 65}", multiple=True) != ""
