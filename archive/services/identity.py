"""Whose an object is when it names no issuer of its Patient ID.

Rules that hold here: what an object says itself comes first; the data set keeps its bytes.
"""

from __future__ import annotations

from dataclasses import replace

from archive.dicom.header import Header

PATIENT_ID, ISSUER = 0x00100020, 0x00100021


def identified(header: Header, issuer: str) -> Header:
    """With the issuer that the sender's Patient IDs have when they name none."""
    values = header.values
    if not issuer or values.get(ISSUER) or not values.get(PATIENT_ID):
        return header
    return replace(header, values={**values, ISSUER: issuer})
