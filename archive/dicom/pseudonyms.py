"""Other names for people, things and UIDs: by a secret key, always the same for the same.

Rules that hold here: nothing is remembered, so that processes, machines and years agree as long as the key is the same;
without the key nobody can tell who is behind a pseudonym, nor by trying all the identifiers there are (PS3.15 E.1.1).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import uuid
from datetime import date, timedelta

from archive.dicom.uids import is_registered

MOST_DAYS = 1095  # a date moves back by 1 to this many days, the same for all of a patient
# PS3.5 6.2: DA, and DT from the day on; what else stands in such a value is no part of a date.
_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)(\d{0,6}(?:\.\d{1,6})?(?:[+-]\d{4})?)", re.ASCII)


class Pseudonyms:
    """The pseudonyms of one key; thread-safe."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def _hash(self, kind: str, *values: str) -> bytes:
        text = "\0".join((kind, *values)).encode("utf-8", "surrogateescape")
        return hmac.new(self._key, text, hashlib.sha256).digest()

    def uid(self, uid: str) -> str:
        """Another UID (PS3.5 B.2); those of the standard and what is empty stay."""
        if not uid or is_registered(uid):
            return uid
        return f"2.25.{uuid.UUID(bytes=self._hash('uid', uid)[:16], version=5).int}"

    def uids(self, text: str) -> str:
        """The same for a value of VR UI."""
        return "\\".join(self.uid(each.strip(" \0")) for each in text.split("\\"))

    def word(self, kind: str, value: str) -> str:
        """12 letters and digits for a value."""
        return base64.b32encode(self._hash(kind, value))[:12].decode()

    def patient(self, patient_id: str, issuer: str) -> str:
        """The Patient ID of somebody whom ``issuer`` knows as ``patient_id``."""
        return f"ANON-{base64.b32encode(self._hash('patient', patient_id, issuer))[:16].decode()}"

    def days(self, patient_id: str, issuer: str) -> int:
        """How far a patient's dates move."""
        return -1 - int.from_bytes(self._hash("days", patient_id, issuer)[:8], "big") % MOST_DAYS


def shifted(value: str, days: int) -> str:
    """A value of VR DA or DT on another day, "" for one that names no day or is none."""
    match = _DATE.fullmatch(value)
    try:
        found = date(*map(int, match.groups()[:3])) + timedelta(days) if match else None
    except (ValueError, OverflowError):
        return ""
    return f"{found:%Y%m%d}".rjust(8, "0") + match[4] if match and found else ""
