"""Which presentation contexts to propose for the objects to be sent, and which one to send each on.

Rules that hold here: every distinct (SOP class, stored transfer syntax) gets a context of its own, so
that the receiver's choice never hides that it would take the stored bytes as they are; each class
gets contexts for what stored bytes can be converted to besides; an association carries at most 128
contexts (odd one-byte ids, PS3.8 9.3.2.2), and what does not fit waits for the next association.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from archive.dicom.uids import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE

MOST_CONTEXTS = 128
UNCOMPRESSED = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED)  # in order of preference
FALLBACK = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
# PS3.5 A.4: what a codec can compress to without loss, by how many receivers know it:
# JPEG Lossless SV1, JPEG-LS, JPEG 2000, JPEG Lossless, RLE.
LOSSLESS = tuple(f"1.2.840.10008.1.2.{end}" for end in ("4.70", "4.80", "4.90", "4.57", "5"))

# Storage classes that few archives have anything of, after 1.2.840.10008.5.1.: measurements of the eye, templates and
# protocols, second generation RT, laboratory waveforms, volumetric presentation states, trial and hardcopy classes.
RARE = re.compile(
    r"1\.2\.840\.10008\.5\.1\.(1\.|4\.(3[489]|4[345])\.|4\.1\.1\.("
    r"9\.([4-8]|100)\.|11\.([6-9]|1[0-2])$|14\.|66\.[678]|68\.|77\.[12]$|77\.1\.5\.[5-8]|77\.1\.[89]|7[89]\.|8[0-2]\."
    r"|88\.[1-4]$|88\.7[0-7]|9[01]\.|104\.[345]|131$|20[01]\.|481\.(1\d|2\d)))"
)

Pair = tuple[str, str]  # SOP class, stored transfer syntax
Proposal = tuple[str, tuple[str, ...]]  # abstract syntax, transfer syntaxes


class Accepted(Protocol):
    """What is needed of an accepted context."""

    @property
    def abstract_syntax(self) -> str: ...
    @property
    def transfer_syntax(self) -> str: ...
    @property
    def scu(self) -> bool: ...


def proposals(pairs: Iterable[Pair], *, single: bool = False, extra: Sequence[str] = ()) -> list[list[Proposal]]:
    """The contexts to propose, association by association.

    ``single``: one transfer syntax a context, for receivers that understand no more (quirk ``single_context``);
    ``extra``: compressed transfer syntaxes that a codec can produce, for receivers that take nothing else.
    """
    rounds: list[list[Proposal]] = [[]]
    for sop_class, stored in _by_class(pairs).items():
        wanted = _of_class(sop_class, stored, single=single, extra=extra)
        for part in (wanted[i : i + MOST_CONTEXTS] for i in range(0, len(wanted), MOST_CONTEXTS)):
            if len(rounds[-1]) + len(part) > MOST_CONTEXTS:
                rounds.append([])
            rounds[-1].extend(part)
    return [each for each in rounds if each]


def _by_class(pairs: Iterable[Pair]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for sop_class, stored in dict.fromkeys(pairs):
        found.setdefault(sop_class, []).append(stored)
    return found


def _of_class(sop_class: str, stored: Sequence[str], *, single: bool, extra: Sequence[str]) -> list[Proposal]:
    wanted: list[Proposal] = [(sop_class, (syntax,)) for syntax in stored]
    for more in (FALLBACK, extra):
        others = tuple(syntax for syntax in more if syntax not in stored)
        if single:
            wanted += [(sop_class, (syntax,)) for syntax in others]
        elif others:
            wanted.append((sop_class, others))
    return wanted


def to_receive(classes: Iterable[str], syntaxes: Sequence[str], room: int = MOST_CONTEXTS - 2) -> list[Proposal]:
    """Contexts in which the answers of a C-GET may come: as many classes as fit beside the question, rare ones last."""
    ordered = sorted(classes, key=lambda uid: RARE.match(uid) is not None)
    return [(sop_class, tuple(syntaxes)) for sop_class in ordered[:room]]


C = TypeVar("C", bound=Accepted)


class Routes(Generic[C]):
    """The accepted contexts of one association, as the sender looks them up."""

    def __init__(self, contexts: Iterable[C]) -> None:
        self._by_class: dict[str, dict[str, C]] = {}
        for context in contexts:
            if context.scu:
                self._by_class.setdefault(context.abstract_syntax, {}).setdefault(context.transfer_syntax, context)

    def stored(self, sop_class: str, transfer_syntax: str) -> C | None:
        """The context on which stored bytes can go as they are."""
        return self._by_class.get(sop_class, {}).get(transfer_syntax)

    def syntaxes(self, sop_class: str) -> list[str]:
        """What the receiver takes for this class, the uncompressed ones first."""
        found = self._by_class.get(sop_class, {})
        return [s for s in UNCOMPRESSED if s in found] + [s for s in found if s not in UNCOMPRESSED]
