"""Character sets: every term of PS3.3 C.12.1.1.2, both ways, and what happens to faults."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from pydicom.dataset import Dataset

from archive.dicom.charset import REPLACEMENT, charset_of, decode_text, encode_text

FILES = sorted((Path(pydicom.data.__file__).parent / "charset_files").glob("*.dcm"))

SINGLE = {
    "ISO_IR 100": "Müller^Zoë",
    "ISO_IR 101": "Wałęsa^Lech",
    "ISO_IR 109": "Ġorġ^Ħal",
    "ISO_IR 110": "Ķēniņš^Ģirts",
    "ISO_IR 144": "Люкceмбypг",
    "ISO_IR 127": "قباني^لنزار",
    "ISO_IR 126": "Διονυσιος",
    "ISO_IR 138": "שרון^דבורה",
    "ISO_IR 148": "Çağlar^Işık",
    "ISO_IR 166": "นาย^ไทย",
    "ISO_IR 203": "Œuvre^Šárka€",
    "ISO_IR 13": "ﾔﾏﾀﾞ^ﾀﾛｳ",
    "ISO_IR 192": "王^小東=Ж=ü",
    "GB18030": "王^小东€𠀀",
    "GBK": "王^小东",
}
EXTENDED = {
    ("", "ISO 2022 IR 87"): "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ("ISO 2022 IR 13", "ISO 2022 IR 87"): "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    ("", "ISO 2022 IR 159"): "丂^丄",
    ("", "ISO 2022 IR 87", "ISO 2022 IR 159"): "山丂^田丄\\山",
    ("", "ISO 2022 IR 149"): "Hong^Gildong=洪^吉洞=홍^길동",
    ("", "ISO 2022 IR 58"): "Zhang^XiaoDong=张^小东=",
    ("ISO 2022 IR 6", "ISO 2022 IR 100", "ISO 2022 IR 126"): "Dionysios=Διο^é",
    ("ISO 2022 IR 100", "ISO 2022 IR 144"): "é^Лю=éЛ",
}


def names(dataset: Dataset, terms: tuple[str, ...] = ("",)) -> Iterator[tuple[tuple[str, ...], bytes, str]]:
    """Every person name: terms that hold there, bytes, what pydicom makes of them."""
    if declared := dataset.get("SpecificCharacterSet"):
        terms = (declared,) if isinstance(declared, str) else tuple(declared)
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from names(item, terms)
        elif element.VR == "PN" and element.value:
            values = element.value if element.VM > 1 else [element.value]
            yield terms, b"\\".join(one.original_string for one in values), "\\".join(map(str, values))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_names_decode_as_pydicom_decodes_them_and_encode_back_to_the_same_bytes(path: Path) -> None:
    for terms, raw, text in names(pydicom.dcmread(path)):
        decoded, sound = decode_text(raw, charset_of(terms), person_name=True)
        assert sound
        assert decoded.rstrip("=") == text.rstrip("=")
        assert encode_text(decoded, charset_of(terms)) == raw


@pytest.mark.parametrize("term", SINGLE)
def test_single_sets_go_both_ways(term: str) -> None:
    raw = encode_text(SINGLE[term], term)
    assert raw is not None
    assert decode_text(raw, charset_of(term), person_name=True) == (SINGLE[term], True)


@pytest.mark.parametrize("term", [term for term in SINGLE if term.startswith("ISO_IR") and term != "ISO_IR 192"])
def test_single_sets_can_be_extended(term: str) -> None:
    terms = ("", f"ISO 2022 IR {term[7:]}")
    raw = encode_text(SINGLE[term], terms)
    assert raw is not None
    assert b"\x1b" in raw
    assert decode_text(raw, charset_of(terms), person_name=True) == (SINGLE[term], True)


@pytest.mark.parametrize("terms", EXTENDED, ids="+".join)
def test_extended_sets_go_both_ways(terms: tuple[str, ...]) -> None:
    raw = encode_text(EXTENDED[terms], terms)
    assert raw is not None
    assert decode_text(raw, charset_of(terms), person_name=True) == (EXTENDED[terms], True)


@pytest.mark.parametrize("terms", EXTENDED, ids="+".join)
def test_ascii_is_active_again_before_every_delimiter(terms: tuple[str, ...]) -> None:
    """PS3.5 6.1.2.5.3: each component is encoded as if it stood alone."""
    parts = re.split(r"([\\^=])", EXTENDED[terms])
    assert encode_text(EXTENDED[terms], terms) == b"".join(encode_text(part, terms) or b"" for part in parts)


@pytest.mark.parametrize(
    ("spelling", "term"),
    [
        ("ISO IR 100", "ISO_IR 100"),
        ("ISO-IR 100", "ISO_IR 100"),
        ("iso_ir 100 ", "ISO_IR 100"),
        ("ISO_IR100", "ISO_IR 100"),
        ("ISO IR_144", "ISO_IR 144"),
        ("ISO 8859-1", "ISO_IR 100"),
        ("ISO_8859-15", "ISO_IR 203"),
        ("LATIN1", "ISO_IR 100"),
        ("UTF-8", "ISO_IR 192"),
        ("utf8", "ISO_IR 192"),
        ("ISO_IR 192", "ISO_IR 192"),
        ("ISO 2022 IR 192", "ISO_IR 192"),
        ("GB 18030", "GB18030"),
        ("ISO 2022 GBK", "GBK"),
        ("ISO_IR 6", ""),
        ("ISO 2022 IR 6", ""),
        ("", ""),
        ("ISO_IR 87", "\\ISO 2022 IR 87"),
        ("ISO 2022 IR 6\\ISO_IR 87", "\\ISO 2022 IR 87"),
        ("ISO 2022 58", "\\ISO 2022 IR 58"),
    ],
)
def test_misspelt_terms_are_understood(spelling: str, term: str) -> None:
    charset = charset_of(spelling)
    assert charset.known
    assert charset.defined_terms == term


def test_kanji_under_a_set_declared_without_code_extension() -> None:
    assert decode_text(b"\x1b$B;3ED\x1b(B^x", charset_of("ISO_IR 87"), person_name=True) == ("山田^x", True)
    assert decode_text(b"\x1b$B;3ED\x1b(B", charset_of("")) == ("山田", True)


@pytest.mark.parametrize(
    ("raw", "terms", "text"),
    [
        (b"J\xf6rg", "", "J\ufffdrg"),
        ("Jörg".encode(), "", "Jörg"),  # UTF-8 that nobody declared
        (b"J\xf6rg", "ISO_IR 999", "J\ufffdrg"),
        (b"\xff\xfe", "ISO_IR 192", "\ufffd\ufffd"),
        (b"\x81", "GB18030", "\ufffd"),
        (b"\xd4\xff", "ISO_IR 13", "ﾔ\ufffd"),
        (b"A\x1b(ZB", "\\ISO 2022 IR 87", "A\ufffd(ZB"),
        (b"A\x1b", "\\ISO 2022 IR 87", "A\ufffd"),
        (b"\x1b$B;3E", "\\ISO 2022 IR 87", "山\ufffd"),
        (b"\xb1\xe8\xc8\xf1", "\\ISO 2022 IR 149", "김희"),  # the escape sequence was forgotten
    ],
)
def test_faults_give_replacement_characters_and_say_so(raw: bytes, terms: str, text: str) -> None:
    assert decode_text(raw, charset_of(terms)) == (text, False)


def test_a_set_in_g1_survives_a_delimiter_only_where_value_1_has_none() -> None:
    raw = b"\x1b$)C\xb1\xe8^\xc8\xf1"
    assert decode_text(raw, charset_of("\\ISO 2022 IR 149"), person_name=True)[0] == "김^희"
    assert decode_text(raw, charset_of("ISO 2022 IR 100\\ISO 2022 IR 149"), person_name=True)[0] == "김^Èñ"


def test_bytes_of_delimiters_inside_wide_characters_delimit_nothing() -> None:
    name = "乗山\\木"  # GB18030 and JIS X 0208 have 0x5C and 0x5E in second bytes
    for terms in ("GB18030", "GBK", "\\ISO 2022 IR 87"):
        raw = encode_text(name, terms)
        assert raw is not None
        assert decode_text(raw, charset_of(terms), person_name=True) == (name, True)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("山", "ISO_IR 100"),
        ("é", ""),
        ("é", "\\ISO 2022 IR 87"),
        ("Ж", "GBK\\"),
        ("한", "ISO_IR 144"),
        ("\x1b", ""),
        ("é\x1b", "ISO_IR 100"),
    ],
)
def test_what_a_set_cannot_carry_is_none(text: str, terms: str) -> None:
    assert encode_text(text, terms) is None or terms.startswith("GBK")


def test_nothing_ever_raises() -> None:
    rnd = random.Random(4)
    terms = [*SINGLE, *("\\".join(extended) for extended in EXTENDED), "rubbish", "\\" * 40]
    escapes = [b"\x1b", b"\x1b$B", b"\x1b$(D", b"\x1b$)C", b"\x1b-A", b"\x1b(J", b"\x1b)I", b"\\", b"^", b"\r\n"]
    for _ in range(5_000):
        raw = b"".join(rnd.choice(escapes) if rnd.random() < 0.3 else rnd.randbytes(3) for _ in range(6))
        text, sound = decode_text(raw, charset_of(rnd.choice(terms)), person_name=rnd.random() < 0.5)
        assert sound <= (REPLACEMENT not in text)
        encoded = encode_text(text, rnd.choice(terms))
        assert encoded is None or isinstance(encoded, bytes)
