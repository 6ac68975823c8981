"""What all lists of rules share: what a rule matches, its name, and the peers that it names.

Rules that hold here: a rule is parsed when the file is read, so that a mistake is a complaint with its column; a
destination is a peer's AE title or ``folder:PATH``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from archive.errors import ConfigurationError

from . import values
from .complaints import Complaint
from .kinds import Reading, Rooted, Scalar, Unfit

if TYPE_CHECKING:
    from .sections import Config

FOLDER = "folder:"


def _target(text: str, folder: Path) -> str:
    if text.strip().startswith(FOLDER):
        return f"{FOLDER}{values.PATH.place(text.strip()[len(FOLDER) :], folder)}"
    return values.ae_title(text)


def _rule(text: str) -> str:
    from archive.dicom.rule import parse_rule

    try:
        parse_rule(text)
    except ConfigurationError as error:
        raise Unfit(str(error), "a rule such as Modality = 'CT' and CallingAETitle = 'CT1' would do") from None
    return text.strip()


RULE = Scalar("a rule such as Modality = 'CT' and CallingAETitle = 'CT1'; empty is everything", _rule)
TARGET = Rooted("the AE title of a peer, or folder:/path", _target)
NAME = Scalar("a name", str.strip)


class Named(Protocol):
    @property
    def name(self) -> str: ...


def own_names(reading: Reading, key: str, rules: Iterable[Named]) -> Iterator[Complaint]:
    """Each entry of a list has a name of its own."""
    names: set[str] = set()
    for position, rule in enumerate(rules):
        if rule.name in names:
            problem = f"{rule.name!r} is the name of an earlier one"
            yield reading.about(f"{key}.{position}.name", problem, "another name would do")
        names.add(rule.name)


def callable_peer(
    config: Config, reading: Reading, key: str, target: str, option: str = "to"
) -> Iterator[Complaint]:
    """A destination is a folder or a peer that can be called."""
    if target.startswith(FOLDER):
        return
    peer = config.peer(target)
    if peer is None or peer.aet != target:
        known = ", ".join(each.aet for each in config.peers.values() if each.port and each.address) or "none"
        yield reading.about(f"{key}.{option}", f"{target} is no peer", f"peers that can be sent to: {known}")
    elif not peer.port or not peer.address:
        remedy = "give it a port and a host that is no network"
        yield reading.about(f"{key}.{option}", f"peer {target} cannot be called", remedy)
