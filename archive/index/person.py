"""Who a patient is to the index, and how what is written of a patient names one."""

from __future__ import annotations

from typing import NamedTuple


class Person(NamedTuple):
    """What a patient is known by."""

    patient_id: str
    issuer: str = ""

    @property
    def owner(self) -> str:
        """As writes name it; an issuer holds no backslash (VR LO, PS3.5 6.2), whatever a Patient ID may hold."""
        return f"{self.patient_id}\\{self.issuer}"

    @classmethod
    def of(cls, owner: str) -> Person:
        return cls(*owner.rsplit("\\", 1))

    def __str__(self) -> str:
        return f"{self.patient_id}^^^{self.issuer}" if self.issuer else self.patient_id
