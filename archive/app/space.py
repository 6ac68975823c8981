"""How much must stay free, by the configuration and the file system as it is."""

from __future__ import annotations

from pathlib import Path

from archive.config import Config
from archive.services.watermarks import reserve
from archive.storage.space import space_of


def reserve_of(config: Config, root: Path) -> int:
    """Bytes: storage.reserve, and what storage.watermarks.refuse means on the file system of a folder."""
    least, refuse = config.storage.reserve, config.storage.watermarks.refuse
    if not refuse:
        return least
    while not root.exists() and root != root.parent:
        root = root.parent
    return reserve(space_of(root), refuse, least)
