"""The compressed transfer syntaxes that have a codec here, by name (PS3.6 table A-1)."""

from __future__ import annotations

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"  # Process 14, any predictor
JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"  # Process 14, selection value 1
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"

LOSSY_JPEG = frozenset((JPEG_BASELINE, JPEG_EXTENDED))
CLASSIC_JPEG = LOSSY_JPEG | {JPEG_LOSSLESS, JPEG_LOSSLESS_SV1}
JPEG_LS_FAMILY = frozenset((JPEG_LS, JPEG_LS_NEAR))
HTJ2K_FAMILY = frozenset((HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, HTJ2K))
JPEG_2000_FAMILY = HTJ2K_FAMILY | {JPEG_2000_LOSSLESS, JPEG_2000}

# A code stream of the first is one of the others as well (PS3.5 A.4.1 to A.4.4, 10.18): nothing is coded anew.
WIDER: dict[str, tuple[str, ...]] = {
    JPEG_LOSSLESS_SV1: (JPEG_LOSSLESS,),
    JPEG_2000_LOSSLESS: (JPEG_2000,),
    HTJ2K_LOSSLESS_RPCL: (HTJ2K_LOSSLESS, HTJ2K),
    HTJ2K_LOSSLESS: (HTJ2K,),
}

# Lossy Image Compression Method (0028,2114), PS3.3 C.7.6.1.1.5.1.
METHODS: dict[str, str] = {
    JPEG_BASELINE: "ISO_10918_1",
    JPEG_EXTENDED: "ISO_10918_1",
    JPEG_LS_NEAR: "ISO_14495_1",
    JPEG_2000: "ISO_15444_1",
    HTJ2K: "ISO_15444_15",
}
