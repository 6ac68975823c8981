"""`archive prefetch`: the rules, and which priors each would fetch for an order or a study. Nothing is fetched here."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

from archive.app.prefetch import Asked, priors_of
from archive.app.prefetchcauses import prefetch_rules
from archive.cli.common import Commands, command, configuration, show, show_json, show_table, warn, when
from archive.config import Config
from archive.errors import ArchiveError
from archive.index import open_index
from archive.services.prefetch import Rule, Subject, Subjects, timing
from archive.services.priors import HERE, Judged, Priors
from archive.workers.prefetch import is_fetched

LIST = {"name": "name", "on": "on", "match": "match", "max": "max", "from": "from", "to": "to", "ahead": "ahead"}
TITLES = ("study", "date", "modality", "from", "points", "outcome", "why")


def add(commands: Commands) -> None:
    made = command(commands, "prefetch", run)
    made.add_argument("action", nargs="?", choices=("list", "test"), default="list")
    made.add_argument(
        "what", nargs="?", metavar="ORDER", help="for test: an accession, placer's or filler's number, or a study's UID"
    )


def run(options: argparse.Namespace) -> int:
    config = configuration(options)
    if options.action == "list":
        return _list(options, config)
    if not options.what:
        warn("prefetch test needs the number of an order, or a Study Instance UID")
        return 2
    return _test(options, config)


def _list(options: argparse.Namespace, config: Config) -> int:
    rows: list[dict[str, Any]] = [
        {"name": each.name, "on": list(each.on), "match": each.match, "max": each.priors.max,
         "same": list(each.priors.same), "from": list(each.from_), "to": list(each.to), "ahead": each.ahead}
        for each in config.prefetch
    ]  # fmt: skip
    if not options.json:
        rows = [row | {name: " ".join(row[name]) for name in ("on", "from", "to")} for row in rows]
        rows = [row | {"ahead": f"{row['ahead'] / 3600:g} h"} for row in rows]
    show(options, LIST, rows)
    return 0


def _test(options: argparse.Namespace, config: Config) -> int:
    index, rules = open_index(config.index.url), prefetch_rules(config)
    subjects = Subjects(index).named(options.what)
    if not subjects:
        warn("there is no such order or study")
        return 1
    priors = priors_of(index, config, Asked(index, config))
    said = [_explained(rule, subject, priors) for subject in subjects for rule in rules]
    if options.json:
        show_json(said)
    else:
        for each in said:
            _print(each)
    return 1 if any(each["failed"] for each in said) else 0


def _explained(rule: Rule, subject: Subject, priors: Priors) -> dict[str, Any]:
    """What a rule would do now or when its time comes, with every study it would look at."""
    now = time.time()
    kind = "study" if subject.on == "image" else "order"
    said: dict[str, Any] = {
        "rule": rule.name, kind: subject.study_uid, "when": None, "words": _trigger(rule, subject), "priors": [],
        "failed": {},
    }  # fmt: skip
    due = timing(rule, subject, now)
    if said["words"] or due.never:
        return said | {"words": said["words"] or due.never}
    said |= {"when": due.due, "words": f"at {when(due.due)}, {due.waits}" if due.waits else "at once"}
    try:
        found = priors.look(subject.patient, subject.coming, rule.wish, rule.sources, subject.day(now))
    except ArchiveError as error:
        return said | {"failed": {"": str(error)}}
    return said | {"priors": list(_rows(rule, found.judged)), "failed": dict(found.failed)}


def _trigger(rule: Rule, subject: Subject) -> str:
    """Why this kind of subject is none of the rule's, empty when it is."""
    wanted = {"image"} if subject.on == "image" else {"order", "worklist"}
    return "" if rule.on & wanted else f"the rule looks only on: {', '.join(sorted(rule.on))}"


def _rows(rule: Rule, judged: tuple[Judged, ...]) -> Iterator[dict[str, Any]]:
    for each in judged:
        candidate, verdict = each.candidate, each.verdict
        prior = candidate.examination
        taken = "fetch" if is_fetched(rule, each) else "here"
        yield {
            "study": prior.study_uid, "date": prior.date, "modality": " ".join(sorted(prior.modalities)),
            "from": "here" if candidate.source == HERE else candidate.source, "points": verdict.points,
            "outcome": taken if each.is_wanted else "not", "instances": candidate.instances, "here": each.here,
            "why": verdict.against or ", ".join(verdict.reasons),
        }  # fmt: skip


def _print(said: dict[str, Any]) -> None:
    about = f"study {said['study']}" if "study" in said else f"order of study {said['order']}"
    print(f"rule {said['rule']}, {about}: {said['words']}")
    for source, words in said["failed"].items():
        warn(f"{source or 'prefetch'}: {words}")
    if said["priors"]:
        show_table(TITLES, [[row[name] for name in TITLES] for row in said["priors"]])
    print()
