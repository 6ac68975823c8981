"""Transcoding of pixels: every pair of syntaxes, compared with pydicom's decoders and with DCMTK's."""

from __future__ import annotations

import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames, parse_basic_offsets
from pydicom.sequence import Sequence

from archive.dicom import compressed as ts
from archive.dicom.convert import convert
from archive.dicom.encoding import EXPLICIT_LE
from archive.dicom.loss import derived_uid
from archive.dicom.part10 import read_file_meta
from archive.dicom.spans import spans
from archive.dicom.transcode import can_transcode, transcode
from archive.dicom.uids import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    RLE,
    TRANSFER_SYNTAXES,
    Pixels,
)
from archive.errors import NotTranscodable, NotUnderstood
from tests.builders import Sample, bytes_of, part10, read, samples, sr
from tests.dicom.hostile import explicit
from tests.dicom.pictures import (
    BROKEN,
    HTJ2K_RAMP,
    RAMP,
    changed,
    compressed,
    encoded,
    noise,
    picture,
    pixels,
    smooth,
    with_pixels,
    without_word_order,
)

NATIVE = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED)
LOSSLESS = (RLE, ts.JPEG_LOSSLESS, ts.JPEG_LOSSLESS_SV1, ts.JPEG_LS, ts.JPEG_2000_LOSSLESS, ts.JPEG_2000)
MPEG2 = "1.2.840.10008.1.2.4.100"


# -- the matrix -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", with_pixels(), ids=lambda sample: sample.name)
def test_every_accepted_syntax_gives_the_same_pixels_or_says_why_not(sample: Sample) -> None:
    stored = str(sample.syntax)
    expected = without_word_order(pixels(sample.dataset), sample.dataset)
    targets = NATIVE + LOSSLESS if expected.size < 1_000_000 else (EXPLICIT_BIG, RLE, ts.JPEG_LOSSLESS_SV1, ts.JPEG_LS)
    for target in targets:
        try:
            result = changed(sample.data, stored, target)
        except NotTranscodable as refusal:
            assert target not in NATIVE, refusal
            assert refusal.comment
            continue
        assert np.array_equal(without_word_order(pixels(result), result), expected), target
        assert result.SOPInstanceUID == sample.dataset.SOPInstanceUID


EXPLICIT = [s for s in with_pixels() if str(s.syntax) not in (IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED)]


@pytest.mark.parametrize("sample", EXPLICIT, ids=lambda sample: sample.name)
def test_all_but_the_description_of_the_pixels_keeps_its_bytes(sample: Sample) -> None:
    said = {0x00280004, 0x00280006, 0x00282110, 0x00282112, 0x00282114, 0x7FE00010, 0x00280000, 0x7FE00000}
    target = RLE if str(sample.syntax) == EXPLICIT_LITTLE else EXPLICIT_LITTLE
    if sample.dataset.BitsAllocated == 1:
        target = IMPLICIT_LITTLE
    result = b"".join(transcode(sample.data, str(sample.syntax), [target]).pieces)
    if target == IMPLICIT_LITTLE:
        result = b"".join(convert(result, target, EXPLICIT_LITTLE))
    assert elements(result, said) == elements(sample.data, said)


def elements(data: bytes, without: set[int]) -> dict[int, bytes]:
    found = spans(data, EXPLICIT_LE, encapsulated=True)
    return {span.tag: data[span.start : span.end] for span in found if span.tag not in without}


@pytest.mark.parametrize("sample", [s for s in samples() if s.name in BROKEN], ids=lambda sample: sample.name)
def test_broken_samples_are_refused(sample: Sample) -> None:
    target = RLE if str(sample.syntax) in NATIVE else EXPLICIT_LITTLE
    with pytest.raises((NotTranscodable, NotUnderstood)):
        changed(sample.data, str(sample.syntax), target)


KINDS: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "8 bit": (noise((33, 47), "u1"), {}),
    "8 bit odd": (noise((35, 33), "u1"), {}),
    "8 bit signed": (noise((32, 40), "i1"), {}),
    "6 of 8": (noise((32, 40), "u1", 6), {"stored": 6}),
    "12 of 16": (noise((32, 40), "u2", 12), {"stored": 12}),
    "8 of 16": (noise((32, 40), "u2", 8), {"stored": 8}),
    "16 bit": (noise((32, 40), "u2"), {}),
    "16 bit signed": (noise((32, 40), "i2"), {}),
    "12 of 16 signed": (noise((32, 40), "i2", 12), {"stored": 12}),
    "12 of 16 in high bits": (noise((32, 40), "u2", 12) << 4, {"stored": 12, "HighBit": 15}),
    "overlay in bit 15": (noise((32, 40), "u2", 12) | 0x8000, {"stored": 12}),
    "signed with an overlay": (noise((32, 40), "i2", 12) & 0x7FFF, {"stored": 12}),
    "frames": (noise((3, 33, 33), "u1"), {}),
    "RGB": (noise((33, 35, 3), "u1"), {}),
    "RGB 6 of 8": (noise((32, 40, 3), "u1", 6), {"stored": 6}),
    "RGB 16 bit": (noise((32, 40, 3), "u2"), {}),
    "RGB frames": (noise((2, 32, 40, 3), "u1"), {}),
    "YBR_FULL": (noise((32, 40, 3), "u1"), {"PhotometricInterpretation": "YBR_FULL"}),
    "palette": (noise((32, 40), "u1"), {"PhotometricInterpretation": "PALETTE COLOR"}),
    "MONOCHROME1": (noise((32, 40), "u2"), {"PhotometricInterpretation": "MONOCHROME1"}),
}


USES_OTHER_BITS = {"12 of 16 in high bits", "overlay in bit 15", "signed with an overlay"}
WHOLE_WORDS = {RLE, ts.JPEG_LOSSLESS, ts.JPEG_LOSSLESS_SV1}  # code all that is allocated


@pytest.mark.parametrize("kind", sorted(USES_OTHER_BITS))
@pytest.mark.parametrize("target", [target for target in LOSSLESS if target not in WHOLE_WORDS])
def test_overlays_in_unused_bits_are_not_mixed_into_the_pixels(kind: str, target: str) -> None:
    array, options = KINDS[kind]
    with pytest.raises(NotTranscodable, match="outside Bits Stored"):
        encoded(picture(array, **options), target)


@pytest.mark.parametrize(
    ("kind", "target"),
    [(kind, target) for kind in KINDS for target in LOSSLESS if target in WHOLE_WORDS or kind not in USES_OTHER_BITS],
)
def test_lossless_round_trips_return_every_bit(kind: str, target: str) -> None:
    array, options = KINDS[kind]
    dataset = picture(array, **options)
    coded = b"".join(transcode(bytes_of(dataset), EXPLICIT_LITTLE, [target]).pieces)
    back = changed(coded, target, EXPLICIT_LITTLE)
    assert bytes(back.PixelData) == bytes(dataset.PixelData)
    assert back.PhotometricInterpretation == dataset.PhotometricInterpretation
    for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "Rows", "Columns"):
        assert back[keyword].value == dataset[keyword].value
    assert "LossyImageCompression" not in back


@pytest.mark.parametrize("stored", LOSSLESS)
@pytest.mark.parametrize("target", LOSSLESS)
def test_compressed_syntaxes_are_exchanged_among_each_other(stored: str, target: str) -> None:
    dataset = picture(noise((2, 32, 40), "u2", 12), stored=12)
    first = b"".join(transcode(bytes_of(dataset), EXPLICIT_LITTLE, [stored]).pieces)
    assert np.array_equal(pixels(changed(first, stored, target)), noise((2, 32, 40), "u2", 12))


@pytest.mark.parametrize("target", (RLE, ts.JPEG_LOSSLESS, ts.JPEG_LOSSLESS_SV1))
def test_smallest_pictures_are_compressed_too(target: str) -> None:
    for shape in ((1, 1), (1, 7), (5, 5), (3, 5, 3)):
        array = noise(shape, "u1")
        assert np.array_equal(pixels(encoded(picture(array), target)).reshape(shape), array)


def test_pictures_that_are_too_small_for_a_codec_are_refused() -> None:
    for target in (ts.JPEG_LS, ts.JPEG_2000_LOSSLESS):
        with pytest.raises(NotTranscodable, match="encoded|do not fit"):
            encoded(picture(noise((5, 5), "u1")), target)


def test_planes_become_side_by_side() -> None:
    array = noise((32, 40, 3), "u1")
    planar = picture(array, PlanarConfiguration=1)
    planar.PixelData = np.ascontiguousarray(array.transpose(2, 0, 1)).tobytes()
    for target in LOSSLESS:
        result = encoded(planar, target)
        assert np.array_equal(pixels(result), array)
        assert result.PlanarConfiguration == (1 if target == RLE else 0)


def test_subsampled_native_colour_is_spread_and_stays_ybr() -> None:
    pairs = noise((32, 40, 2), "u1")
    dataset = picture(noise((32, 40, 3), "u1"), PhotometricInterpretation="YBR_FULL_422")
    dataset.PixelData = pairs.tobytes()
    y1, y2, cb, cr = pairs.reshape(-1, 4).T
    expected = np.stack([np.stack([y1, cb, cr], -1), np.stack([y2, cb, cr], -1)], 1).reshape(32, 40, 3)
    for target in (ts.JPEG_LOSSLESS_SV1, ts.JPEG_LS, RLE):
        result = encoded(dataset, target)
        assert result.PhotometricInterpretation == "YBR_FULL"
        assert np.array_equal(pixels(result, raw=True), expected)


def test_rgb_in_jpeg_2000_is_said_to_be_transformed() -> None:
    assert encoded(picture(smooth(32, 40)), ts.JPEG_2000_LOSSLESS).PhotometricInterpretation == "YBR_RCT"


# -- frames ---------------------------------------------------------------------------------------------


def test_compressed_frames_have_a_basic_offset_table() -> None:
    result = encoded(picture(noise((3, 32, 40), "u2")), ts.JPEG_LS)
    offsets = parse_basic_offsets(result.PixelData)
    value = bytes(result.PixelData)
    origin = 8 + 4 * len(offsets)
    assert [value[origin + offset : origin + offset + 4] for offset in offsets] == [b"\xfe\xff\x00\xe0"] * 3
    assert len(list(generate_frames(result.PixelData, number_of_frames=3))) == 3


def jpeg_ls_frames(array: np.ndarray) -> list[bytes]:
    return list(generate_frames(encoded(picture(array), ts.JPEG_LS).PixelData, number_of_frames=len(array)))


@pytest.mark.parametrize("hint", ["table", "wrong table", "extended table", "no table"])
def test_frames_in_several_fragments_are_put_together(hint: str) -> None:
    array = noise((2, 32, 40), "u2")
    frames = [frame + b"\0" * (len(frame) % 2) for frame in jpeg_ls_frames(array)]
    halves = [half for frame in frames for half in (frame[:200], frame[200:])]
    dataset = compressed(picture(array), halves, table=False)
    offsets = [0, len(frames[0]) + 16]
    if hint in ("table", "wrong table"):
        table = struct.pack("<2L", *(offsets if hint == "table" else (0, 12)))
        dataset.PixelData = dataset.PixelData[:4] + struct.pack("<L", 8) + table + dataset.PixelData[8:]
    if hint == "extended table":
        dataset.add_new(0x7FE00001, "OV", struct.pack("<2Q", *offsets))
        dataset.add_new(0x7FE00002, "OV", struct.pack("<2Q", *(len(frame) for frame in frames)))
    result = changed(bytes_of(dataset, ts.JPEG_LS), ts.JPEG_LS, EXPLICIT_LITTLE)
    assert np.array_equal(pixels(result), array)
    assert 0x7FE00001 not in result


def test_frames_that_are_not_there_are_refused_at_once() -> None:
    array = noise((2, 32, 40), "u2")
    short = compressed(picture(array, NumberOfFrames=1_000_000_000), jpeg_ls_frames(array))
    with pytest.raises(NotTranscodable, match="too large|Fewer frames"):
        changed(bytes_of(short, ts.JPEG_LS), ts.JPEG_LS, EXPLICIT_LITTLE)
    with pytest.raises(NotTranscodable, match="Fewer frames"):
        short.NumberOfFrames = 3
        changed(bytes_of(short, ts.JPEG_LS), ts.JPEG_LS, EXPLICIT_LITTLE)
    with pytest.raises(NotTranscodable, match="shorter than described"):
        encoded(picture(array, NumberOfFrames=3), ts.JPEG_LS)


def test_frames_of_another_size_than_described_never_reach_a_decoder() -> None:
    frame = jpeg_ls_frames(noise((1, 32, 40), "u2"))
    dataset = compressed(picture(noise((32, 40), "u2"), Rows=16), frame)
    with pytest.raises(NotTranscodable, match="differ in size"):
        changed(bytes_of(dataset, ts.JPEG_LS), ts.JPEG_LS, EXPLICIT_LITTLE)


@pytest.mark.parametrize("cut", [10, 60, 200])
def test_truncated_frames_are_refused(cut: int) -> None:
    coded = encoded(picture(noise((64, 64), "u2")), ts.JPEG_2000_LOSSLESS)
    frame = next(generate_frames(coded.PixelData, number_of_frames=1))
    dataset = compressed(picture(noise((64, 64), "u2")), [frame[:cut]])
    with pytest.raises(NotTranscodable):
        changed(bytes_of(dataset, ts.JPEG_2000_LOSSLESS), ts.JPEG_2000_LOSSLESS, EXPLICIT_LITTLE)


def test_single_bits_are_packed_across_frames() -> None:
    bits = noise((3, 33, 35), "u1", 1)
    coded = encoded(picture(bits, stored=1), ts.JPEG_2000_LOSSLESS)
    coded.BitsAllocated, coded.BitsStored, coded.HighBit = 1, 1, 0
    result = changed(bytes_of(coded, ts.JPEG_2000_LOSSLESS), ts.JPEG_2000_LOSSLESS, EXPLICIT_LITTLE)
    packed = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    assert bytes(result.PixelData) == packed + b"\0" * (len(packed) % 2)
    assert np.array_equal(pixels(result), bits)


def test_single_bits_are_not_compressed() -> None:
    packed = picture(noise((32, 40), "u1"), BitsAllocated=1, BitsStored=1, HighBit=0)
    for target in LOSSLESS:
        with pytest.raises(NotTranscodable, match="Single-bit"):
            encoded(packed, target)


# -- around the pixels ----------------------------------------------------------------------------------


def test_private_and_broken_elements_go_through_unchanged() -> None:
    data = bytes_of(picture(noise((32, 40), "u2")))
    cut = next(span for span in spans(data, EXPLICIT_LE) if span.tag == 0x7FE00010)
    odd = explicit(0x00290010, "LO", b"\xff\xfe nobody knows") + explicit(0x00291001, "UN", b"\x00\x01\x02\x03")
    place = next(span.start for span in spans(data, EXPLICIT_LE) if span.tag > 0x00291001)
    behind = explicit(0x7FE10010, "LO", b"SOMEONE ") + explicit(0xFFFCFFFC, "OB", bytes(10))
    data = data[:place] + odd + data[place : cut.end] + behind
    for target in LOSSLESS:
        result = b"".join(transcode(data, EXPLICIT_LITTLE, [target]).pieces)
        assert odd in result
        assert result.endswith(behind)
        assert b"".join(transcode(result, target, [EXPLICIT_LITTLE]).pieces) == data


def test_elements_in_the_wrong_order_stay_there() -> None:
    data = explicit(0x00290010, "LO", b"TOO EARLY ") + bytes_of(picture(smooth(32, 40)))
    coded = b"".join(transcode(data, EXPLICIT_LITTLE, [ts.JPEG_2000_LOSSLESS]).pieces)
    assert read(coded, ts.JPEG_2000_LOSSLESS).PhotometricInterpretation == "YBR_RCT"
    assert b"".join(transcode(coded, ts.JPEG_2000_LOSSLESS, [EXPLICIT_LITTLE]).pieces) == data


@pytest.mark.parametrize("stored", NATIVE)
def test_every_uncompressed_syntax_can_be_compressed(stored: str) -> None:
    array = noise((32, 40), "u2", 12)
    data = b"".join(convert(bytes_of(picture(array, stored=12)), EXPLICIT_LITTLE, stored))
    assert np.array_equal(pixels(changed(data, stored, ts.JPEG_LOSSLESS_SV1)), array)


def test_deflated_results_inflate_to_the_same_data_set() -> None:
    coded = b"".join(transcode(bytes_of(picture(noise((32, 40), "u2"))), EXPLICIT_LITTLE, [RLE]).pieces)
    plain, deflated = (b"".join(transcode(coded, RLE, [target]).pieces) for target in (EXPLICIT_LITTLE, DEFLATED))
    assert zlib.decompressobj(-15).decompress(deflated) == plain
    assert len(deflated) % 2 == 0


def with_icon(fragments: list[bytes] | None) -> Dataset:
    icon = picture(noise((32, 40), "u1"))
    for keyword in ("SOPClassUID", "SOPInstanceUID", "PatientName"):
        delattr(icon, keyword)
    if fragments is not None:
        icon = compressed(icon, fragments)
    dataset = encoded(picture(noise((32, 40), "u2")), ts.JPEG_LS)
    dataset.IconImageSequence = Sequence([icon])
    return dataset


def test_compressed_icons_become_native() -> None:
    frames = jpeg_ls_frames(noise((1, 32, 40), "u1"))
    for target in (EXPLICIT_LITTLE, RLE, IMPLICIT_LITTLE):
        result = changed(bytes_of(with_icon(frames), ts.JPEG_LS), ts.JPEG_LS, target)
        assert bytes(result.IconImageSequence[0].PixelData) == noise((32, 40), "u1").tobytes()
        assert result.IconImageSequence[0].StudyDate == "20240131"


def test_native_icons_of_compressed_images_stay_native() -> None:
    result = changed(bytes_of(with_icon(None), ts.JPEG_LS), ts.JPEG_LS, RLE)
    assert bytes(result.IconImageSequence[0].PixelData) == noise((32, 40), "u1").tobytes()


def test_an_icon_that_cannot_be_decoded_is_left_out() -> None:
    result = changed(bytes_of(with_icon([b"\xff\xd8nonsense"]), ts.JPEG_LS), ts.JPEG_LS, EXPLICIT_LITTLE)
    assert "IconImageSequence" not in result
    assert np.array_equal(pixels(result), noise((32, 40), "u2"))


@pytest.mark.parametrize("target", [*NATIVE, ts.JPEG_LS])
@pytest.mark.parametrize("stored", [EXPLICIT_LITTLE, ts.JPEG_LOSSLESS_SV1])
def test_objects_without_pixels_are_only_written_anew(stored: str, target: str) -> None:
    report = sr()
    result = changed(bytes_of(report), stored, target)
    assert result.ContentSequence[0].TextValue == "nothing found"
    assert result.SOPInstanceUID == report.SOPInstanceUID


def test_float_pixels_are_converted_but_not_compressed() -> None:
    dataset = picture(noise((32, 40), "u2"), BitsAllocated=32)
    del dataset.PixelData
    dataset.FloatPixelData = np.linspace(0, 1, 32 * 40, dtype="<f4").tobytes()
    assert changed(bytes_of(dataset), EXPLICIT_LITTLE, IMPLICIT_LITTLE).FloatPixelData == dataset.FloatPixelData
    with pytest.raises(NotTranscodable, match="Float pixels"):
        encoded(dataset, ts.JPEG_LS)


# -- the choice -----------------------------------------------------------------------------------------


def chosen(dataset: Dataset, stored: str, accepted: list[str], **options: Any) -> str:
    return transcode(bytes_of(dataset, stored), stored, accepted, **options).transfer_syntax


def test_what_is_stored_goes_out_as_it_is_when_it_is_accepted() -> None:
    data = bytes_of(picture(noise((32, 40), "u2")), ts.JPEG_2000)
    result = transcode(data, ts.JPEG_2000, [EXPLICIT_LITTLE, ts.JPEG_2000])
    assert result.transfer_syntax == ts.JPEG_2000
    assert b"".join(result.pieces) == data


@pytest.mark.parametrize(("stored", "target"), [(narrow, wide) for narrow, wides in ts.WIDER.items() for wide in wides])
def test_a_code_stream_that_the_wider_syntax_allows_is_only_named_anew(stored: str, target: str) -> None:
    data = bytes_of(picture(noise((32, 40), "u2")), stored)
    result = transcode(data, stored, [EXPLICIT_LITTLE, target])
    assert result.transfer_syntax == target
    assert b"".join(result.pieces) == data


def test_the_first_lossless_syntax_of_the_list_is_taken() -> None:
    dataset = encoded(picture(noise((32, 40), "u2")), RLE)
    assert chosen(dataset, RLE, [ts.JPEG_BASELINE, ts.JPEG_LS, EXPLICIT_LITTLE]) == ts.JPEG_LS
    assert chosen(dataset, RLE, [EXPLICIT_LITTLE, ts.JPEG_LS]) == EXPLICIT_LITTLE


def test_uncompressed_objects_are_not_compressed_without_need() -> None:
    dataset = picture(noise((32, 40), "u2"))
    assert chosen(dataset, IMPLICIT_LITTLE, [ts.JPEG_LS, EXPLICIT_LITTLE]) == EXPLICIT_LITTLE


def test_a_syntax_that_will_not_do_gives_way_to_the_next() -> None:
    dataset = picture(noise((9, 9), "u1"))
    assert chosen(dataset, EXPLICIT_LITTLE, [ts.JPEG_2000_LOSSLESS, ts.HTJ2K, RLE]) == RLE


def test_loss_comes_last_and_only_when_asked_for() -> None:
    dataset = picture(smooth(64, 64))
    with pytest.raises(NotTranscodable, match="loss"):
        chosen(dataset, EXPLICIT_LITTLE, [ts.JPEG_BASELINE])
    assert chosen(dataset, EXPLICIT_LITTLE, [ts.JPEG_BASELINE], allow_lossy=True) == ts.JPEG_BASELINE
    accepted = [ts.JPEG_BASELINE, RLE]
    assert chosen(dataset, EXPLICIT_LITTLE, accepted, allow_lossy=True) == RLE


REFUSALS = [
    (MPEG2, EXPLICIT_LITTLE, "Video is not transcoded"),
    ("1.2.840.10008.1.2.4.107", ts.JPEG_2000, "Video is not transcoded"),
    ("1.2.840.10008.1.2.4.94", EXPLICIT_LITTLE, "Pixels that are kept elsewhere are not transcoded"),
    ("1.2.840.113619.5.2", EXPLICIT_LITTLE, "Private transfer syntax"),
    (EXPLICIT_LITTLE, MPEG2, "No encoder for MPEG2MPML"),
    (EXPLICIT_LITTLE, ts.HTJ2K_LOSSLESS, "No encoder for HTJ2KLossless"),
    (EXPLICIT_LITTLE, ts.JPEG_LS_NEAR, "No encoder for JPEGLSNearLossless"),
    (EXPLICIT_LITTLE, ts.JPEG_BASELINE, "Only with loss, which was not asked for"),
    ("1.2.840.10008.1.2.4.110", EXPLICIT_LITTLE, "No decoder for JPEG XL Lossless"),
]


@pytest.mark.parametrize(("stored", "target", "reason"), REFUSALS)
def test_refusals_say_why(stored: str, target: str, reason: str) -> None:
    assert can_transcode(stored, target) == reason
    with pytest.raises(NotTranscodable) as refusal:
        transcode(bytes_of(picture(noise((32, 40), "u2")), stored), stored, [target])
    assert refusal.value.comment == reason


def test_every_pair_of_syntaxes_is_possible_or_has_a_short_reason() -> None:
    for stored in TRANSFER_SYNTAXES.values():
        for target in TRANSFER_SYNTAXES:
            reason = can_transcode(stored.uid, target)
            assert reason is None or 0 < len(reason) <= 64
            if stored.pixels is Pixels.VIDEO and stored.uid != target:
                assert reason


# -- loss -----------------------------------------------------------------------------------------------


LOSSY = [s for s in with_pixels() if str(s.syntax) in (ts.JPEG_BASELINE, ts.JPEG_EXTENDED, ts.JPEG_LS_NEAR)]


@pytest.mark.parametrize("sample", LOSSY, ids=lambda sample: sample.name)
def test_what_was_compressed_with_loss_says_so_afterwards(sample: Sample) -> None:
    result = changed(sample.data, str(sample.syntax), EXPLICIT_LITTLE)
    assert result.LossyImageCompression == "01"
    before = sample.dataset
    if before.get("LossyImageCompression") == "01":
        assert result.get("LossyImageCompressionRatio") == before.get("LossyImageCompressionRatio")
    else:
        assert result.LossyImageCompressionMethod == ts.METHODS[str(sample.syntax)]
        assert float(result.LossyImageCompressionRatio) > 1


@pytest.mark.parametrize(("target", "colour"), [(ts.JPEG_BASELINE, "YBR_FULL_422"), (ts.JPEG_2000, "YBR_ICT")])
def test_loss_makes_a_derived_instance(target: str, colour: str) -> None:
    dataset = picture(smooth(64, 64))
    result = encoded(dataset, target, allow_lossy=True)
    assert np.abs(pixels(result).astype(int) - smooth(64, 64)).max() < 25
    assert result.PhotometricInterpretation == colour
    assert result.LossyImageCompression == "01"
    assert result.LossyImageCompressionMethod == ts.METHODS[target]
    assert result.ImageType[0] == "DERIVED"
    assert list(result.ImageType[1:]) == list(dataset.ImageType[1:])
    assert result.SOPInstanceUID == derived_uid(dataset.SOPInstanceUID, target)
    assert result.SourceImageSequence[0].ReferencedSOPInstanceUID == dataset.SOPInstanceUID
    assert "Lossy compression" in result.DerivationDescription


@pytest.mark.parametrize("target", [ts.JPEG_BASELINE, ts.JPEG_2000])
def test_a_second_loss_is_added_to_the_first(target: str) -> None:
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = "1.2.3", "1.2.4"
    dataset = picture(
        smooth(64, 64)[..., 0].copy(), LossyImageCompression="01", LossyImageCompressionRatio="3",
        LossyImageCompressionMethod="ISO_14495_1", SourceImageSequence=[source], DerivationDescription="first",
    )  # fmt: skip
    result = encoded(dataset, target, allow_lossy=True)
    assert result.LossyImageCompressionMethod == ["ISO_14495_1", ts.METHODS[target]]
    assert result.LossyImageCompressionRatio[0] == 3
    assert len(result.SourceImageSequence) == 2
    assert result.DerivationDescription.startswith("first; ")
    assert np.abs(pixels(result).astype(int) - smooth(64, 64)[..., 0]).max() < 25


def test_lossless_jpeg_2000_in_the_general_syntax_keeps_the_instance() -> None:
    dataset = picture(noise((32, 40), "u2"))
    result = encoded(dataset, ts.JPEG_2000)
    assert result.SOPInstanceUID == dataset.SOPInstanceUID
    assert np.array_equal(pixels(result), noise((32, 40), "u2"))


def test_loss_never_swallows_an_overlay() -> None:
    with pytest.raises(NotTranscodable, match="would be lost"):
        encoded(picture(noise((64, 64), "u1") | 0x80, stored=7), ts.JPEG_2000, allow_lossy=True)


def test_htj2k_is_decoded() -> None:
    dataset = compressed(picture(RAMP), [HTJ2K_RAMP])
    for stored in ts.HTJ2K_FAMILY:
        for target in (EXPLICIT_LITTLE, ts.JPEG_LOSSLESS_SV1):
            assert np.array_equal(pixels(changed(bytes_of(dataset, stored), stored, target)), RAMP)


# -- DCMTK's opinion --------------------------------------------------------------------------------------

DCMTK_DECODERS = {
    RLE: "dcmdrle",
    ts.JPEG_LOSSLESS: "dcmdjpeg",
    ts.JPEG_LOSSLESS_SV1: "dcmdjpeg",
    ts.JPEG_LS: "dcmdjpls",
}
DCMTK_ENCODERS = {
    RLE: ("dcmcrle",),
    ts.JPEG_LOSSLESS: ("dcmcjpeg", "+el"),
    ts.JPEG_LOSSLESS_SV1: ("dcmcjpeg", "+e1"),
    ts.JPEG_LS: ("dcmcjpls",),
}
DCMTK_KINDS = ("8 bit", "12 of 16", "16 bit signed", "12 of 16 signed", "frames", "RGB", "palette", "overlay in bit 15")


def dcmtk(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("kind", "target"),
    [(kind, to) for kind in DCMTK_KINDS for to in DCMTK_DECODERS if to in WHOLE_WORDS or kind not in USES_OTHER_BITS],
)
def test_dcmtk_decodes_what_we_encode(kind: str, target: str, tmp_path: Path) -> None:
    array, options = KINDS[kind]
    coded = encoded(picture(array, **options), target)
    (tmp_path / "coded.dcm").write_bytes(part10(coded, target))
    dcmtk(DCMTK_DECODERS[target], tmp_path / "coded.dcm", tmp_path / "plain.dcm")
    data = (tmp_path / "plain.dcm").read_bytes()
    assert array.tobytes() in data or np.ascontiguousarray(np.moveaxis(array, -1, 0)).tobytes() in data


@pytest.mark.parametrize("stored", DCMTK_ENCODERS)
@pytest.mark.parametrize("kind", DCMTK_KINDS)
def test_we_decode_what_dcmtk_encodes(kind: str, stored: str, tmp_path: Path) -> None:
    array, options = KINDS[kind]
    (tmp_path / "plain.dcm").write_bytes(part10(picture(array, **options)))
    dcmtk(*DCMTK_ENCODERS[stored], tmp_path / "plain.dcm", tmp_path / "coded.dcm")
    data = (tmp_path / "coded.dcm").read_bytes()
    meta = read_file_meta(data)
    assert meta.transfer_syntax == stored
    result = changed(data[meta.offset :], stored, EXPLICIT_LITTLE)
    assert np.array_equal(pixels(result), pixels(read(bytes_of(picture(array, **options)), EXPLICIT_LITTLE)))
