"""`archive studies hold`, `release` and `holds`: legal holds on studies, patients and accession numbers."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from archive.app.ledgers import holds_of
from archive.app.store import index_of, opened
from archive.cli.common import configuration, show, show_json, user, warn, when
from archive.index import holds as rows
from archive.index.corrections import By, Operation
from archive.index.held import Name
from archive.index.holds import Hold
from archive.index.person import Person
from archive.services.corrections import by
from archive.services.holds import PATIENT, Holds, of_accession, of_patient, of_study

LISTED = {"number": "hold", "scope": "of", "owner": "which", "studies": "studies", "since": "since", "actor": "by",
          "reason": "why"}  # fmt: skip


def add(made: argparse.ArgumentParser) -> None:
    """The options of these actions."""
    made.add_argument("--why", metavar="TEXT", help="hold, release: the reason; kept in the journal")
    made.add_argument("--user", metavar="NAME", default="", help="hold, release: who (the name you are logged in by)")
    made.add_argument("--patient", metavar="ID", help="hold, release: all studies of a patient, later ones too")
    made.add_argument("--issuer", metavar="TEXT", default="", help="of the Patient ID")
    made.add_argument("--accession", metavar="NUMBER", help="hold, release: all studies of an accession number")
    made.add_argument("--number", metavar="N", type=int, help="release: one hold")


def hold(options: argparse.Namespace) -> int:
    return _change(options, Holds.hold)


def release(options: argparse.Namespace) -> int:
    if options.number is not None:
        return _with(options, [lambda holds, who: holds.release_number(options.number, who)])
    return _change(options, Holds.release)


def _change(options: argparse.Namespace, do: Callable[[Holds, Name, By], Operation]) -> int:
    names = [of_study(uid) for uid in options.studies]
    names += [of_patient(options.patient, options.issuer)] if options.patient else []
    names += [of_accession(options.accession)] if options.accession else []
    if not names:
        warn(f"studies {options.action} needs a Study Instance UID, --patient or --accession")
        return 2
    return _with(options, [lambda holds, who, name=name: do(holds, name, who) for name in names])  # type: ignore[misc]


def _with(options: argparse.Namespace, steps: Sequence[Callable[[Holds, By], Operation]]) -> int:
    if not options.why:
        warn(f"studies {options.action} needs --why TEXT")
        return 2
    with opened(configuration(options)) as (index, volume):
        holds = holds_of(index, volume)
        done = [step(holds, by(user(options.user), options.why)) for step in steps]
    said = [{"operation": each.number, "kind": each.kind, **each.draft.arguments} for each in done]
    show_json(said) if options.json else print(f"{options.action}: {', '.join(str(each.number) for each in done)}")
    return 0


def holds(options: argparse.Namespace) -> int:
    index = index_of(configuration(options))
    try:
        found = rows.holds(index.database)
        wanted = [each for each in found if not options.studies or {*options.studies} & {*each.studies, each.owner}]
        show(options, LISTED, (_row(options, each) for each in wanted))
    finally:
        index.close()
    return 0


def _row(options: argparse.Namespace, hold: Hold) -> dict[str, Any]:
    row = dataclasses.asdict(hold)
    if hold.scope == PATIENT:
        row["owner"] = str(Person.of(hold.owner))
    return row if options.json else row | {"studies": len(hold.studies), "since": when(hold.since)}
