"""Compressed pixels inside of sequences, such as icons, made native.

Rules that hold here: nested pixels may be native whatever the transfer syntax (PS3.5 A.4), so that after a change of
syntax they always are; an Icon Image Sequence that cannot be decoded is left out, because it is optional (PS3.3
C.7.6.1.1.6) and no reason to withhold the image; other pixels that cannot be decoded are.
"""

from __future__ import annotations

from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from archive.dicom.decoders import DECODERS, decode, decoded
from archive.dicom.encoding import EXPLICIT_LE
from archive.dicom.frames import read_fragments
from archive.dicom.pixels import describe
from archive.dicom.spans import exchanged, spans
from archive.errors import NotTranscodable

ICON_IMAGE_SEQUENCE = 0x00880200
# (7FE0,0010) with VR OB or OW and undefined length; only sequences that hold these bytes are looked into.
_MARKS = tuple(b"\xe0\x7f\x10\x00" + vr + b"\0\0\xff\xff\xff\xff" for vr in (b"OB", b"OW"))
_KEYWORDS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip


def native_icons(head: bytes, syntax: str) -> bytes:
    """The Explicit LE elements with all compressed pixels inside of them decoded."""
    if not any(mark in head for mark in _MARKS):
        return head
    edits: dict[int, bytes | None] = {}
    for span in spans(head, EXPLICIT_LE, encapsulated=True):
        part = head[span.start : span.end]
        if span.vr == "SQ" and any(mark in part for mark in _MARKS):
            edits[span.tag] = _decoded(part, span.tag, syntax)
    return exchanged(head, edits, encapsulated=True)


def _decoded(part: bytes, tag: int, syntax: str) -> bytes | None:
    try:
        whole = read_dataset(BytesIO(part), is_implicit_VR=False, is_little_endian=True)
        _decode_below(whole, syntax)
        return _written(whole)
    except MemoryError:
        raise
    except Exception as error:
        if tag == ICON_IMAGE_SEQUENCE:
            return None
        raise NotTranscodable("Pixels in a sequence cannot be decoded", str(error)) from error


def _decode_below(level: Dataset, syntax: str) -> None:
    for element in level:
        if element.VR == "SQ":
            for item in element.value:
                _decode_below(item, syntax)
    if "PixelData" in level and level["PixelData"].is_undefined_length:
        _decode_item(level, syntax)


def _decode_item(item: Dataset, syntax: str) -> None:
    if syntax not in DECODERS:
        raise NotTranscodable("No decoder", syntax)
    macro = Dataset()
    for keyword in _KEYWORDS:
        if keyword in item:
            macro[keyword] = item[keyword]
    raw = _written(macro)
    said = describe({span.tag: raw[span.value : span.end] for span in spans(raw, EXPLICIT_LE)})
    value = bytes(item.PixelData)
    frames = read_fragments(value, 0, len(value)).frames(said.frames)
    pixels = b"".join(decode(frame, syntax, said).tobytes() for frame in frames)
    result = decoded(said, syntax)
    item.PhotometricInterpretation = result.photometric
    if said.samples > 1:
        item.PlanarConfiguration = result.planar
    item.add_new("PixelData", "OB" if said.allocated <= 8 else "OW", pixels + b"\0" * (len(pixels) % 2))
    item["PixelData"].is_undefined_length = False


def _written(dataset: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return buffer.getvalue()
