"""Messages taken apart: paths, escapes, character sets, rubbish."""

from __future__ import annotations

import pytest

from archive.errors import NotUnderstood
from archive.hl7.message import Message, path
from tests.hl7.made import message, order

NAMES = {
    "8859/1": "Müller^Jürgen", "8859/2": "Łukasz^Žofie", "8859/5": "Люкceмбypг", "8859/7": "Διονυσιος",
    "8859/8": "שרון^דבורה", "8859/9": "Çavuşoğlu", "ISO IR87": "山田^太郎", "GB 18030-2000": "王^小东",
    "KS X 1001": "김희중", "BIG-5": "陳大文", "UNICODE UTF-8": "Buc^Jérôme", "utf-8": "Buc^Jérôme",
}  # fmt: skip
CODECS = {
    "ISO IR87": "iso2022_jp", "GB 18030-2000": "gb18030", "KS X 1001": "euc_kr", "BIG-5": "big5",
    "UNICODE UTF-8": "utf-8", "utf-8": "utf-8",
}  # fmt: skip


def with_name(name: str, charset: str) -> bytes:
    codec = CODECS.get(charset, charset.replace("8859/", "iso8859-"))
    text = message("ADT^A08", ("PID", {3: "P1", 5: name}), header={18: charset}).decode()
    return text.encode(codec)


@pytest.mark.parametrize("charset", NAMES)
def test_text_is_read_in_the_set_that_is_named(charset: str) -> None:
    assert Message(with_name(NAMES[charset], charset)).text("PID-5") == NAMES[charset]


def test_a_japanese_sender_names_two_sets() -> None:
    data = with_name("山田^太郎", "ISO IR87").replace(b"ISO IR87", b"ISO IR6~ISO IR87")
    assert Message(data).text("PID-5.2") == "太郎"


@pytest.mark.parametrize(("default", "expected"), [("8859/1", "Müller"), ("8859/5", "Mќller")])
def test_without_a_name_utf_8_proves_itself_and_else_the_default_holds(default: str, expected: str) -> None:
    latin = message("ADT^A08", ("PID", {5: "Muller"}), header={18: ""}).replace(b"Muller", b"M\xfcller")
    assert Message(latin, default_charset=default).text("PID-5") == expected
    assert Message(latin.replace(b"\xfc", "ü".encode()), default_charset=default).text("PID-5") == "Müller"


def test_an_unknown_set_is_a_fault() -> None:
    with pytest.raises(NotUnderstood, match="MSH-18 is not known"):
        Message(message("ADT^A08", header={18: "KLINGON"}))


def test_bytes_that_the_named_set_does_not_have_are_a_fault() -> None:
    with pytest.raises(NotUnderstood, match="not in the character set of MSH-18"):
        Message(message("ADT^A08", ("PID", {5: "x"}), header={18: "ASCII"}).replace(b"|x", b"|\xfc"))


PID = (
    "PID",
    {
        3: "1^^^HOSP&1.2.3&ISO~2^^^OTHER",
        5: "Doe\\S\\Roe^J\\X0D\\n\\T\\\\E\\\\F\\\\R\\",
        11: "A\\.br\\B\\H\\c\\N\\\\Q\\",
    },
)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("MSH-1", "|"), ("MSH-2", "^~\\&"), ("MSH-9.2", "A08"), ("MSH-10", "M1"), ("PID-3", "1^^^HOSP&1.2.3&ISO"),
        ("PID-3.1", "1"), ("PID-3.4", "HOSP&1.2.3&ISO"), ("PID-3.4.1", "HOSP"), ("PID-3.4.3", "ISO"),
        ("PID-3.4.9", ""), ("PID-3(2).1", "2"), ("PID-3(2).4.1", "OTHER"), ("PID-3(3).1", ""), ("PID-99", ""),
        ("ZZZ-1", ""), ("PID-3.1.1", "1"), ("PID-3.1.2", ""), ("PID-5.1", "Doe^Roe"), ("PID-5.2", "J\rn&\\|~"),
        ("PID-11", "A\r\nBc\\Q\\"),
    ],
)  # fmt: skip
def test_a_path_leads_to_its_text(where: str, expected: str) -> None:
    assert Message(message("ADT^A08", PID)).text(where) == expected


@pytest.mark.parametrize("text", ["", "PID", "PID-0", "PID-x", "pid-3", "PID-3.", "PID-3(1", "PID 3"])
def test_what_is_no_path_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is no field"):
        path(text)


def test_line_feeds_and_empty_lines_between_segments_are_taken() -> None:
    data = message("ADT^A08", ("PID", {3: "P1"})).replace(b"\r", b"\r\n\r\n")
    assert Message(data).text("PID-3.1") == "P1"


def test_a_sender_may_have_separators_of_its_own() -> None:
    data = b"MSH*%$!@*RIS*HOSP*A*B*20260101**ADT%A08*M1*P*2.3\rPID***1%%%HOSP@1.2*\r"
    found = Message(data)
    assert (found.kind, found.text("PID-3.1"), found.text("PID-3.4.2")) == ("ADT^A08", "1", "1.2")


@pytest.mark.parametrize(
    "data",
    [b"", b"MSH", b"MSH|", b"MSH|^~", b"PID|1", b"\x00\xff" * 50, b"MSH|^~\\&|\r" + b"NTE|x\r" * 5001],
)  # fmt: skip
def test_rubbish_is_no_message(data: bytes) -> None:
    with pytest.raises(NotUnderstood):
        Message(data)


@pytest.mark.parametrize("data", [b"MSH\n^~\\&|RIS|", b"MSH~^~\\&|RIS|HOSP", b"MSH||||||||", b"MSH|^~\\&"])
def test_delimiters_that_are_none_are_told(data: bytes) -> None:
    with pytest.raises(NotUnderstood):
        Message(data[:7] if data.endswith(b"&") else data)


def test_characters_that_no_database_holds_are_left_out() -> None:
    found = Message(order(patient={5: "D\\X00\\oe\0^Jane"}))
    assert found.text("PID-5.1") == "Doe"
