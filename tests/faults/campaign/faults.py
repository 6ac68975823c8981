"""Every module of the campaign, by name: importing one registers its faults.

Rules that hold here: a part of the archive that comes later adds its module to MODULES and nothing else.
"""

from __future__ import annotations

import importlib

from tests.faults.campaign.run import FAULTS, Fault

MODULES = (
    "away", "canary", "commitments", "conflicts", "crowds", "cuts", "damage", "databases", "deletes", "destinations",
    "errors", "fuzzing", "kills", "load", "resources", "routes", "schema",
)  # fmt: skip


def every_fault() -> list[Fault]:
    for name in MODULES:
        importlib.import_module(f"tests.faults.campaign.{name}")
    return sorted(FAULTS, key=lambda fault: fault.number)
