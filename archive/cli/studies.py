"""`archive studies`: what the archive holds, in which state it is, and how it came there."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from archive.app.life import lifecycle_of
from archive.app.store import index_of
from archive.cli import holds
from archive.cli.common import Commands, command, configuration, show, show_json, show_table, user, warn, when
from archive.index import Index, StudySummary
from archive.index.holds import holding
from archive.services.lifecycle import COMPLETE, READ, READY, REPORTED, STATES, UNMATCHED, Lifecycle

STUDIES = {
    "study_date": "date",
    "state": "state",
    "modalities": "modalities",
    "patient_id": "patient id",
    "patient_name": "name",
    "accession_number": "accession",
    "series": "series",
    "instances": "instances",
    "study_uid": "study",
}
SAID = (READY, READ, REPORTED, COMPLETE)  # what a person may say of a study
HISTORY = {"since": "since", "state": "state", "instances": "instances", "cause": "cause"}


def add(commands: Commands) -> None:
    made = command(commands, "studies", studies)
    words = "list them (the default), show one, say what one is, hold (nobody deletes it), release, or list the holds"
    choices = ("list", "show", *SAID, "hold", "release", "holds")
    made.add_argument("action", nargs="?", choices=choices, default="list", help=words)
    made.add_argument("studies", nargs="*", metavar="STUDY", help="Study Instance UIDs, for all but list")
    holds.add(made)
    made.add_argument("--limit", type=int, default=50, help="how many (50)")
    made.add_argument("--state", choices=STATES, help="only studies in this state")
    made.add_argument(
        "--unmatched", dest="state", action="store_const", const=UNMATCHED, help="only studies that no order fits"
    )


def studies(options: argparse.Namespace) -> int:
    if options.action in ("hold", "release"):
        return (holds.hold if options.action == "hold" else holds.release)(options)
    if options.action == "holds":
        return holds.holds(options)
    config = configuration(options)
    if len(options.studies) != (options.action != "list"):
        warn(f"studies {options.action} takes {'no study' if options.action == 'list' else 'one Study Instance UID'}")
        return 2
    options.study = options.studies[0] if options.studies else None
    index = index_of(config)
    if options.action == "list":
        show(options, STUDIES, (_row(options, each) for each in _listed(index, options)))
        return 0
    lifecycle = lifecycle_of(index, config)
    return _show(options, index, lifecycle) if options.action == "show" else _say(options, lifecycle)


def _listed(index: Index, options: argparse.Namespace) -> list[StudySummary]:
    return index.studies(limit=options.limit, state=options.state or "")


def _row(options: argparse.Namespace, study: StudySummary) -> dict[str, Any]:
    row = dataclasses.asdict(study)
    row["modalities"] = row["modalities"] if options.json else " ".join(row["modalities"])
    return row


def _show(options: argparse.Namespace, index: Index, lifecycle: Lifecycle) -> int:
    found = index.studies(uid=options.study, limit=1)
    history = [dataclasses.asdict(change) for change in lifecycle.history(options.study)]
    held = holding(index.database, options.study)
    if not found and not history:
        warn(f"no such study: {options.study}")
        return 1
    study = _row(options, found[0]) if found else {"study_uid": options.study, "state": "not here any more"}
    study["hold"] = held
    if options.json:
        show_json(study | {"history": history})
        return 0
    for key, heading in {**STUDIES, "hold": "legal hold"}.items():
        if study.get(key) not in (None, ""):
            print(f"{heading:<12}{study[key]}")
    print()
    rows = [each | {"since": when(each["since"])} for each in history]
    show_table(list(HISTORY.values()), [[row[key] for key in HISTORY] for row in rows])
    return 0


def _say(options: argparse.Namespace, lifecycle: Lifecycle) -> int:
    """Put a study into a state; ready is tech complete: nobody waits for a quiet time."""
    changed = lifecycle.set_state(options.study, options.action, f"said by {user()}")
    said = {"study_uid": options.study, "state": lifecycle.state(options.study), "changed": changed}
    show_json(said) if options.json else print(options.action if changed else f"was {options.action} already")
    return 0
