"""The list of seams, and how one replaces a function.

Rules that hold here: those of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Seam = Callable[[], None]
SEAMS: dict[str, Seam] = {}


def seam(name: str) -> Callable[[Seam], Seam]:
    def keep(take_away: Seam) -> Seam:
        SEAMS[name] = take_away
        return take_away

    return keep


def switch_off(names: Sequence[str]) -> None:
    for name in names:
        SEAMS[name]()


def replace(owner: Any, name: str, new: Any) -> Any:
    """What was there before."""
    old = getattr(owner, name)
    setattr(owner, name, new)
    return old


def nothing(*_: object, **__: object) -> None:
    return None
