"""Protections that a daemon can be started without, so that a check can be shown to fail.

Rules that hold here: a seam takes away exactly one protection, by its name; it replaces a function inside a
process that was started for a test and is no option of the product; each raises when what it replaces is
not there any more, so that a seam never does nothing.
"""

from tests.faults.seams import deeds, durability, helpers, network, reception
from tests.faults.seams.registry import SEAMS, switch_off

__all__ = ["SEAMS", "deeds", "durability", "helpers", "network", "reception", "switch_off"]
