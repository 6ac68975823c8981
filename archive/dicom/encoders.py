"""Single frames through the installed encoders.

Rules that hold here: a row of the tables says what an encoder takes, so that a refusal needs no pixels; a
lossless frame is decoded again and compared before anyone sees it; loss happens only through ``LOSSY_ENCODERS``;
like decoders, encoders run in child processes only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from archive.dicom import compressed as ts
from archive.dicom.decoders import NOT_THE_CODEC, decode
from archive.dicom.pixels import SUBSAMPLED, Description, Frame, fits
from archive.dicom.uids import RLE
from archive.errors import NotTranscodable

QUALITY = 90  # of lossy JPEG, the usual choice of viewers
RATIO = 10.0  # of lossy JPEG 2000; national guidelines lie between 5 and 25, by modality and body part


@dataclass(frozen=True, slots=True)
class Encoder:
    """One way to write a transfer syntax, and what it takes (PS3.5 tables 8.2.1-1 to 8.2.4-1)."""

    write: Callable[[Frame, Description], bytes]
    allocated: tuple[int, ...]
    precision: int  # bits of a sample at most
    deep_ybr: bool = True  # YBR_FULL of more than 8 bits
    largest: int = 0xFFFF  # rows and columns: 16 bits in the frame header
    smallest: int = 1
    rgb_becomes: str = "RGB"
    planar: int = 0
    lossy: bool = False
    colours: tuple[str, ...] = ("RGB", "YBR_FULL", SUBSAMPLED)

    def refusal(self, said: Description) -> str | None:
        """Why pixels of this description cannot be written; None if they can."""
        if said.allocated == 1:
            return "Single-bit pixels are not compressed"
        if said.allocated not in self.allocated or said.stored > self.precision:
            return f"{said.stored} of {said.allocated} bits do not fit the codec"
        if said.samples == 3 and said.photometric not in self.colours:
            return f"{said.photometric[:16]} does not fit the codec"
        if said.samples == 3 and (said.signed or said.photometric == "YBR_FULL" and not self._takes_ybr(said)):
            return "Colour of this depth does not fit the codec"
        if not self.smallest <= min(said.rows, said.columns) <= max(said.rows, said.columns) <= self.largest:
            return "Rows and Columns do not fit the codec"
        return self._lossy_refusal(said) if self.lossy else None

    def _takes_ybr(self, said: Description) -> bool:
        return self.deep_ybr or said.allocated == 8

    def _lossy_refusal(self, said: Description) -> str | None:
        if said.photometric == "PALETTE COLOR":
            return "Palette indices are not compressed with loss"
        return "Signed pixels are not compressed with loss" if said.signed else None

    def coded(self, said: Description) -> Description:
        """The description of the pixels once they are encoded."""
        photometric = said.photometric
        if said.samples == 3:
            photometric = self.rgb_becomes if photometric == "RGB" or self.lossy else "YBR_FULL"
        return replace(said, photometric=photometric, planar=self.planar if said.samples == 3 else 0)


def _require_fit(frame: Frame, said: Description) -> None:
    """Refuse an overlay or rubbish in unused bits: these codecs have one precision, and readers do not mask."""
    if not fits(frame, said):
        raise NotTranscodable("Bits outside Bits Stored would be lost")


def _write_rle(frame: Frame, said: Description) -> bytes:
    from rle.utils import encode_pixel_data

    return encode_pixel_data(
        frame.tobytes(), byteorder="<", rows=said.rows, columns=said.columns,
        samples_per_pixel=said.samples, bits_allocated=said.allocated,
    )  # fmt: skip


def _write_jpeg_ls(frame: Frame, said: Description) -> bytes:
    """JPEG-LS knows no sign: negative samples go as the unsigned words they are."""
    from jpeg_ls import encode_buffer

    _require_fit(frame, said)
    unsigned = frame.view(f"<u{frame.itemsize}")
    bits = said.allocated if said.signed and int(frame.min()) < 0 else said.stored
    source = unsigned.astype(np.uint8) if bits <= 8 else unsigned
    interleave = 2 if said.samples == 3 else 0  # by sample: what most receivers expect
    coded = encode_buffer(source.tobytes(), said.rows, said.columns, said.samples, max(bits, 2), 0, interleave)
    return bytes(coded)


def _write_jpeg_2000(frame: Frame, said: Description) -> bytes:
    from openjpeg.utils import encode_array

    _require_fit(frame, said)
    return encode_array(frame, bits_stored=said.stored, photometric_interpretation=_j2k_colour(said))


def _write_lossy_jpeg_2000(frame: Frame, said: Description) -> bytes:
    from openjpeg.utils import encode_array

    _require_fit(frame, said)
    colour = _j2k_colour(said)
    return encode_array(frame, bits_stored=said.stored, photometric_interpretation=colour, compression_ratios=[RATIO])


def _j2k_colour(said: Description) -> int:
    """openjpeg's colour space: only RGB (1) is transformed, grey is 2, YBR 3."""
    return 2 if said.samples == 1 else 1 if said.photometric == "RGB" else 3


def _write_lossless_jpeg(syntax: str) -> Callable[[Frame, Description], bytes]:
    return lambda frame, said: _gdcm(frame, said, syntax)


def _write_lossy_jpeg(frame: Frame, said: Description) -> bytes:
    _require_fit(frame, said)
    return _gdcm(frame, said, ts.JPEG_BASELINE, quality=QUALITY)


def _gdcm(frame: Frame, said: Description, syntax: str, quality: int = 0) -> bytes:
    """GDCM wants even lengths (an odd frame is coded twice, and half of it taken) and full sample precision."""
    import gdcm

    raw = frame.tobytes()
    copies = 1 + len(raw) % 2
    writer = gdcm.ImageWriter()  # owns the image; it must outlive what is done with it
    image = writer.GetImage()
    image.SetNumberOfDimensions(1 + copies)
    image.SetDimensions((said.columns, said.rows, copies))
    colour = gdcm.PhotometricInterpretation.GetPIType(said.photometric)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(colour))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ImplicitVRLittleEndian))
    bits = said.allocated
    image.SetPixelFormat(gdcm.PixelFormat(said.samples, bits, bits, bits - 1, int(said.signed)))
    if said.samples > 1:
        image.SetPlanarConfiguration(0)
    value = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    value.SetByteStringValue(raw * copies)
    image.SetDataElement(value)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    codec = gdcm.JPEGCodec()
    if quality:
        codec.SetQuality(quality)
        codec.SetLossless(False)
        change.SetUserCodec(codec)
    change.SetInput(image)
    if not change.Change():
        raise NotTranscodable("GDCM cannot encode these pixels", syntax)
    return _first_frame(change.GetOutput().GetDataElement().GetSequenceOfFragments(), copies)


def _first_frame(fragments: Any, frames: int) -> bytes:
    per_frame = fragments.GetNumberOfFragments() // frames
    parts = [fragments.GetFragment(number).GetByteValue().GetBuffer() for number in range(per_frame)]
    return b"".join(part.encode("utf-8", "surrogateescape") for part in parts)  # how GDCM hands out bytes


_JPEG_2000_LIMITS: dict[str, Any] = {
    "precision": 24, "largest": 0xFFFFFFFF, "smallest": 32,
}  # openjpeg's binding: 24 bits; its six resolutions need 32 pixels  # fmt: skip

ENCODERS: dict[str, Encoder] = {
    RLE: Encoder(_write_rle, (8, 16), 16, deep_ybr=False, planar=1),
    ts.JPEG_LOSSLESS: Encoder(_write_lossless_jpeg(ts.JPEG_LOSSLESS), (8, 16), 16),
    ts.JPEG_LOSSLESS_SV1: Encoder(_write_lossless_jpeg(ts.JPEG_LOSSLESS_SV1), (8, 16), 16),
    ts.JPEG_LS: Encoder(_write_jpeg_ls, (8, 16), 16, deep_ybr=False),
    ts.JPEG_2000_LOSSLESS: Encoder(_write_jpeg_2000, (8, 16, 32), rgb_becomes="YBR_RCT", **_JPEG_2000_LIMITS),
    # The general syntax carries reversible code streams as well (PS3.5 A.4.4).
    ts.JPEG_2000: Encoder(_write_jpeg_2000, (8, 16, 32), rgb_becomes="YBR_RCT", **_JPEG_2000_LIMITS),
}
LOSSY_ENCODERS: dict[str, Encoder] = {
    ts.JPEG_BASELINE: Encoder(_write_lossy_jpeg, (8,), 8, rgb_becomes=SUBSAMPLED, lossy=True),
    ts.JPEG_2000: Encoder(
        _write_lossy_jpeg_2000, (8, 16), rgb_becomes="YBR_ICT", lossy=True, colours=("RGB",), **_JPEG_2000_LIMITS
    ),
}


def encode(frame: Frame, syntax: str, said: Description, encoder: Encoder, *, verify: bool = True) -> bytes:
    """One frame encoded; with ``verify`` a lossless one is decoded again and compared."""
    try:
        coded = bytes(encoder.write(frame, said))
    except (*NOT_THE_CODEC, NotTranscodable):
        raise
    except BaseException as error:
        raise NotTranscodable("Pixel data cannot be encoded", str(error)) from error
    if verify and not encoder.lossy and not np.array_equal(decode(coded, syntax, encoder.coded(said)), frame):
        raise NotTranscodable("Encoder would change the pixels", syntax)
    return coded
