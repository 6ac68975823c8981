"""`archive corrections`: merge, link and split patients, move studies, series and instances, edit; list and undo.

One group for all of it, beside `studies` and the rest: whatever is done here is an operation of one journal with
numbers of its own, and `list`, `show` and `undo` are about all of them alike.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from archive.app import store
from archive.app.ledgers import corrections_of
from archive.cli.commands import COMMANDS
from archive.cli.common import Commands, command, configuration, show, show_json, show_table, user, when
from archive.dicom.attributes import Level
from archive.errors import NotPossible
from archive.index.corrections import By, Operation
from archive.index.person import Person
from archive.services.corrections import Corrections, by

TITLES = {"number": "number", "when": "when", "kind": "what", "about": "about", "actor": "by", "reason": "why",
          "undone_by": "undone by"}  # fmt: skip
LEVELS = {"patient": Level.PATIENT, "study": Level.STUDY, "series": Level.SERIES}
PATIENT = "Patient ID, or ID^^^ISSUER"

Act = Callable[[Corrections, argparse.Namespace, By], Operation | None]


def add(commands: Commands) -> None:
    group = commands.add_parser(
        "corrections", help=COMMANDS["corrections"].text,
        description="Correct what was received. Files stay as they are; what is found and sent is what is right.",
    )  # fmt: skip
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_reading(actions)
    _add_patients(actions)
    _add_places(actions)
    made = _acting(actions, "edit", edit, "give attributes of a patient, study or series other values")
    made.add_argument("level", choices=LEVELS)
    made.add_argument("owner", metavar="OWNER", help=f"{PATIENT}; or the UID")
    made.add_argument("values", nargs="+", metavar="KEYWORD=VALUE", help="KEYWORD alone takes the attribute away")
    made = _acting(actions, "undo", undo, "take an operation back")
    made.add_argument("number", type=int, help="of the operation, as `list` shows it")


def _add_reading(actions: Commands) -> None:
    made = command(actions, "list", listed, "list the operations, the last one first")
    made.add_argument("about", nargs="?", default="", help="only those about a UID or a Patient ID")
    made.add_argument("--limit", type=int, default=50, help="how many (50)")
    made.add_argument("--before", type=int, metavar="NUMBER", help="only those before an operation")
    made = command(actions, "show", shown, "show one operation: what it did, to what, and what was there before")
    made.add_argument("number", type=int)
    made = command(actions, "links", linked, "list the other patients that are the same person")
    made.add_argument("patient", type=person, help=PATIENT)


def _add_patients(actions: Commands) -> None:
    made = _acting(actions, "merge", merge, "give all studies of a patient to another, those that come later too")
    made.add_argument("patient", type=person, help=PATIENT)
    made.add_argument("into", type=person, help="the patient that is right")
    made.add_argument("--value", action="append", default=[], metavar="KEYWORD=VALUE", help="make that one with these")
    made.add_argument("--unknown", action="store_true", help="also when nothing came for one of them yet")
    made = _acting(actions, "unmerge", unmerge, "take back the merge of a patient")
    made.add_argument("patient", type=person, help=PATIENT)
    for name, act, text in (
        ("link", link, "note that two patients are one person; they stay apart"), ("unlink", unlink, "undo a link"),
    ):  # fmt: skip
        made = _acting(actions, name, act, text)
        made.add_argument("patient", type=person, help=PATIENT)
        made.add_argument("other", type=person, help=PATIENT)
    made = _acting(actions, "split", split, "give some studies of a patient to one whom nobody knows yet")
    made.add_argument("patient", type=person, help=PATIENT)
    made.add_argument("new", type=person, help="the new patient")
    made.add_argument("studies", nargs="+", metavar="STUDY", help="Study Instance UIDs")
    made.add_argument("--value", action="append", default=[], metavar="KEYWORD=VALUE", help="the new patient's own")


def _add_places(actions: Commands) -> None:
    made = _acting(actions, "move", move, "give studies to another patient")
    made.add_argument("patient", type=person, help=f"the patient that is right: {PATIENT}")
    made.add_argument("studies", nargs="+", metavar="STUDY", help="Study Instance UIDs")
    made.add_argument("--value", action="append", default=[], metavar="KEYWORD=VALUE", help="make that one with these")
    made = _acting(actions, "move-series", move_series, "give series to another study")
    made.add_argument("study", help="Study Instance UID, or `new` for one like theirs")
    made.add_argument("series", nargs="+", metavar="SERIES", help="Series Instance UIDs")
    made = _acting(actions, "move-instances", move_instances, "give instances to another series")
    made.add_argument("series", help="Series Instance UID, or `new` for one like theirs")
    made.add_argument("instances", nargs="+", metavar="INSTANCE", help="SOP Instance UIDs")
    made.add_argument("--study", default="", metavar="UID", help="where the new series is made")


def _acting(actions: Commands, name: str, act: Act, text: str) -> argparse.ArgumentParser:
    """A command that changes something: who, why, and whether it is only tried."""
    made = command(actions, name, lambda options: perform(options, act), text)
    made.add_argument("--reason", required=True, metavar="TEXT", help="why; kept in the journal")
    made.add_argument("--user", default="", metavar="NAME", help="who (the name you are logged in by)")
    made.add_argument("--name", default="", metavar="NAME", help="of the operation: the same again has no effect")
    made.add_argument("--dry-run", action="store_true", help="say what would be done and do nothing")
    return made


def person(text: str) -> Person:
    """``ID`` or ``ID^^^ISSUER``."""
    patient_id, _, issuer = text.partition("^^^")
    return Person(patient_id, issuer)


def pairs(given: Sequence[str]) -> dict[str, Any]:
    """``KEYWORD=VALUE`` as mapping; None for a keyword alone."""
    split = (text.partition("=") for text in given)
    return {keyword: value if equals else None for keyword, equals, value in split}


def full(given: Sequence[str]) -> dict[str, str]:
    if any("=" not in text for text in given):
        raise NotPossible("a value is KEYWORD=VALUE")
    return pairs(given)


@contextlib.contextmanager
def opened(options: argparse.Namespace) -> Iterator[Corrections]:
    with store.opened(configuration(options)) as (index, volume):
        yield corrections_of(index, volume)


def perform(options: argparse.Namespace, act: Act) -> int:
    actor = by(user(options.user), options.reason, options.name)
    with opened(options) as corrections:
        done = act(corrections, options, actor)
    if options.json:
        show_json(described(done) | {"dry_run": options.dry_run} if done else None)
    elif done is None:
        print("nothing to do: all is so already")
    else:
        print(f"{'would be ' if options.dry_run else ''}operation {done.number}: {done.kind}, {about(done)}")
    return 0


# -- what is done ---------------------------------------------------------------------------------


def merge(corrections: Corrections, options: argparse.Namespace, who: By) -> Operation | None:
    return corrections.merge(
        options.patient, options.into, who, values=full(options.value), unknown=options.unknown, dry_run=options.dry_run
    )


def unmerge(corrections: Corrections, options: argparse.Namespace, who: By) -> Operation | None:
    return corrections.unmerge(options.patient, who, dry_run=options.dry_run)


def link(corrections: Corrections, options: argparse.Namespace, who: By) -> Operation | None:
    return corrections.link(options.patient, options.other, who, dry_run=options.dry_run)


def unlink(corrections: Corrections, options: argparse.Namespace, who: By) -> Operation | None:
    return corrections.unlink(options.patient, options.other, who, dry_run=options.dry_run)


def split(corrections: Corrections, options: argparse.Namespace, who: By) -> Operation | None:
    return corrections.split(
        options.patient, options.studies, options.new, who, values=full(options.value), dry_run=options.dry_run
    )


def move(corrections: Corrections, options: argparse.Namespace, who: By) -> Operation | None:
    return corrections.move_studies(
        options.studies, options.patient, who, values=full(options.value), dry_run=options.dry_run
    )


def move_series(corrections: Corrections, options: argparse.Namespace, who: By) -> Operation | None:
    study = "" if options.study == "new" else options.study
    return corrections.move_series(options.series, study, who, dry_run=options.dry_run)


def move_instances(corrections: Corrections, options: argparse.Namespace, who: By) -> Operation | None:
    series = "" if options.series == "new" else options.series
    return corrections.move_instances(options.instances, series, who, study=options.study, dry_run=options.dry_run)


def edit(corrections: Corrections, options: argparse.Namespace, who: By) -> Operation | None:
    level = LEVELS[options.level]
    owner = person(options.owner) if level is Level.PATIENT else options.owner
    return corrections.edit(level, owner, pairs(options.values), who, dry_run=options.dry_run)


def undo(corrections: Corrections, options: argparse.Namespace, who: By) -> Operation | None:
    return corrections.undo(options.number, who, dry_run=options.dry_run)


# -- the journal ----------------------------------------------------------------------------------


def listed(options: argparse.Namespace) -> int:
    with opened(options) as corrections:
        found = corrections.operations(limit=options.limit, before=options.before, about=options.about)
    rows = [described(each) for each in found]
    if not options.json:
        rows = [row | {"when": when(row["when"]), "undone_by": row["undone_by"] or ""} for row in rows]
    show(options, TITLES, rows)
    return 0


def shown(options: argparse.Namespace) -> int:
    with opened(options) as corrections:
        row = described(corrections.operation(options.number))
    if options.json:
        show_json(row)
        return 0
    row["when"] = when(row["when"])
    arguments = {key: value for key, value in row.pop("arguments").items() if value not in ([], "", None)}
    show_table(("", ""), [*row.items(), *((key, _words(value)) for key, value in arguments.items())])
    return 0


def linked(options: argparse.Namespace) -> int:
    with opened(options) as corrections:
        found = corrections.links(options.patient)
    show(options, {"patient": "patient"}, [{"patient": str(each)} for each in found])
    return 0


def described(operation: Operation) -> dict[str, Any]:
    return {
        "number": operation.number, "when": operation.when, "kind": operation.kind, "about": about(operation),
        "actor": operation.actor, "reason": operation.reason, "name": operation.id, "undone_by": operation.undone_by,
        "arguments": dict(operation.draft.arguments),
    }  # fmt: skip


def about(operation: Operation) -> str:
    """In one line, what an operation is about."""
    said = operation.draft.arguments
    if operation.kind == "undo":
        return f"operation {said['operation']}"
    if operation.kind == "edit":
        return f"{said['level'].lower()} {said['of']}: {', '.join(said['values'])}"
    if operation.kind == "delete":
        return f"{said['level'].lower()} {said['of']}: {said['instances']} instances"
    if operation.kind == "hold":
        return f"{said['scope']} {said['owner'].rstrip(chr(92))}"
    if operation.kind == "release":
        return f"hold {_words(said['holds'])}"
    things = next((said[key] for key in ("studies", "series", "instances") if key in said), "")
    whom = said.get("patient") or _words(things)
    where = said.get("into") or said.get("with") or said.get("to") or ""
    return f"{whom} -> {where}" if where else str(whom)


def _words(value: object) -> str:
    """Some of many."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={'(none)' if text is None else text}" for key, text in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value[:3])) + (f" and {len(value) - 3} more" if len(value) > 3 else "")
    return str(value)
