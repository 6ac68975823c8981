"""The tables of PS3.6 as pydicom carries them, without the rest of pydicom.

Rules that hold here: facts only; a module of tables is loaded by its file, as importing the package around it brings
numpy and every decoder into each command that asks for a keyword; whoever imports pydicom later finds the same module.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType


def _module(name: str) -> ModuleType:
    """A module of pydicom that imports nothing."""
    whole = f"pydicom.{name}"
    if whole in sys.modules:
        return sys.modules[whole]
    package = importlib.util.find_spec("pydicom")
    assert package and package.origin
    spec = importlib.util.spec_from_file_location(whole, Path(package.origin).with_name(f"{name}.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return sys.modules.setdefault(whole, module)


# Tag: VR, VM, name, "Retired" or nothing, keyword (PS3.6 chapters 6 to 9); without those of repeating groups.
ELEMENTS: Mapping[int, tuple[str, str, str, str, str]] = _module("_dicom_dict").DicomDictionary

# UID: name, type, additional information, "Retired" or nothing, keyword (PS3.6 annex A).
UIDS: Mapping[str, tuple[str, str, str, str, str]] = _module("_uid_dict").UID_dictionary
