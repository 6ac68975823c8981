"""Legal holds: decided on, listed.

Rules that hold here: as in decide.py; a hold names one study, patient or accession number that is known, and is
released by its number or by that name; what holds a study is said with who wanted it and why.
"""

from __future__ import annotations

from dataclasses import dataclass

from archive.errors import NotPossible, NotThere
from archive.index import corrections, held
from archive.index.corrections import Draft
from archive.index.database import Database, Session
from archive.index.held import HOLD, RELEASE, Name


@dataclass(frozen=True, slots=True)
class Hold:
    """One hold that is in force; ``studies`` are those it was put on by itself."""

    number: int
    scope: str
    owner: str
    actor: str
    reason: str
    since: float
    studies: tuple[str, ...]


def hold(session: Session, name: Name) -> Draft:
    """Nothing of it is deleted until it is released."""
    studies = held.studies_of(session, name)
    if not studies:
        raise NotThere(f"no such {name.scope}" if name.scope != held.ACCESSION else "no study has this number")
    return Draft(HOLD, {"scope": name.scope, "owner": name.owner, "studies": studies})


def release(session: Session, name: Name) -> Draft:
    """All holds on this very name end."""
    found = [each for each in _holds(session) if (each.scope, each.owner) == name]
    if not found and name.scope == held.STUDY and (other := held.among(session, [name.owner])):
        number = next(iter(other.values()))
        raise NotPossible("held otherwise", f"{held.words(session, number)}; release it by its number {number}")
    if not found:
        raise NotThere(f"no hold on this {name.scope}")
    return Draft(RELEASE, {"holds": [each.number for each in found]})


def release_number(session: Session, number: int) -> Draft:
    """One hold ends."""
    if all(each.number != number for each in _holds(session)):
        raise NotThere("no such hold", str(number))
    return Draft(RELEASE, {"holds": [number]})


def holds(database: Database) -> list[Hold]:
    """Those in force, the first one first."""
    return database.read(_holds)


def holding(database: Database, uid: str) -> str:
    """What holds a study, in words; empty when nothing does."""

    def work(session: Session) -> str:
        number = held.among(session, [uid]).get(uid)
        return held.words(session, number) if number else ""

    return database.read(work)


def _holds(session: Session) -> list[Hold]:
    numbers = [int(row[0]) for row in session.rows("SELECT DISTINCT operation FROM hold ORDER BY operation")]
    found = [corrections.by_number(session, number) for number in numbers]
    return [
        Hold(each.number, said["scope"], said["owner"], each.actor, each.reason, each.when, tuple(said["studies"]))
        for each in found if each and (said := each.draft.arguments)
    ]  # fmt: skip
