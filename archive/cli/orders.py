"""`archive orders` and `archive worklist`: what was ordered, what came by HL7, what modalities see."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from tqdm import tqdm

from archive.app.causes import causes
from archive.app.matching import matching_of
from archive.app.orders import field_map
from archive.app.store import index_of
from archive.cli.common import Commands, command, configuration, show, show_json, user, warn, when
from archive.cli.corrections import opened
from archive.config import Config
from archive.dicom.worklist import WorklistQuery
from archive.errors import ArchiveError
from archive.hl7.dryrun import explained
from archive.index import Index, open_index
from archive.index.ordervalues import KeptMessage, OrderSummary
from archive.services.causes import Causes
from archive.services.matching import Candidate, Matching
from archive.services.orders import Orders
from archive.services.worklist import View, Worklist
from archive.services.worklistfiles import read_worklist_file, worklist_files

ORDERS = {
    "state": "state",
    "accession_number": "accession",
    "patient_id": "patient id",
    "patient_name": "name",
    "procedure": "procedure",
    "placer": "placer",
    "filler": "filler",
    "changed": "changed",
    "study_uid": "study",
}
STEPS = {
    "start": "start",
    "station": "station",
    "modality": "modality",
    "accession_number": "accession",
    "patient_id": "patient id",
    "patient_name": "name",
    "description": "step",
    "status": "state",
}
CANDIDATES = {"score": "score", **ORDERS, "for": "for it", "against": "against it"}
MESSAGES = {
    "id": "id",
    "received": "received",
    "kind": "kind",
    "sender": "sender",
    "control_id": "control id",
    "code": "answer",
    "reason": "reason",
    "accession_number": "accession",
    "patient_id": "patient id",
}


def add(commands: Commands) -> None:
    made = command(commands, "orders", orders)
    made.add_argument(
        "action",
        nargs="?",
        choices=["list", "show", "messages", "candidates", "match", "unmatch"],
        default="list",
        help="list the orders (the default), show one whole, list the messages; the orders a study may be of, "
        "say which it is of, take that back",
    )
    made.add_argument(
        "study", nargs="?", metavar="STUDY", help="a Study Instance UID; for show an accession number will do too"
    )
    made.add_argument("order", nargs="?", metavar="ORDER", help="for match: the order's UID or accession number")
    made.add_argument("--reason", default="", metavar="TEXT", help="for match and unmatch: why; kept in the journal")
    made.add_argument("--user", default="", metavar="NAME", help="who says so (the user of this command)")
    made.add_argument("--dry-run", type=Path, metavar="FILE", help="say what a message would do, and do nothing")
    for name in ("patient", "accession", "state", "control-id", "answer"):
        words = f"only those with this {name.replace('-', ' ')}"
        made.add_argument(f"--{name}", default="", metavar="TEXT", help=words)
    made.add_argument("--limit", type=int, default=50, help="how many (50)")
    made = command(commands, "worklist", worklist)
    made.add_argument("action", nargs="?", choices=["list", "import"], default="list", help="list is the default")
    made.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="for import: a folder of worklist files")
    made.add_argument("--station", action="append", default=[], metavar="AET", help="only steps of this station")
    made.add_argument("--modality", action="append", default=[], help="only steps of this modality")
    made.add_argument("--days", type=int, default=None, metavar="N", help="days from today (worklist.days_ahead)")


def orders(options: argparse.Namespace) -> int:
    config = configuration(options)
    if options.dry_run:
        return _dry_run(options, config)
    if options.action in MATCHES:
        return _matching(options, config)
    index = open_index(config.index.url)
    if options.action == "messages":
        return _messages(options, index)
    if options.action == "show":
        return _show(options, index)
    found = index.orders.latest(
        limit=options.limit, patient_id=options.patient, accession_number=options.accession,
        state=options.state.upper(),
    )  # fmt: skip
    show(options, ORDERS, (_order(options, order) for order in found))
    return 0


def _order(options: argparse.Namespace, order: OrderSummary) -> Mapping[str, Any]:
    values = order.attributes
    return {
        "state": order.state,
        "accession_number": order.accession_number,
        "patient_id": order.patient_id,
        "patient_name": values.get("PatientName", ""),
        "procedure": values.get("RequestedProcedureDescription", ""),
        "placer": order.placer,
        "filler": order.filler,
        "changed": order.changed if options.json else when(order.changed),
        "study_uid": order.study_uid,
    }


def _show(options: argparse.Namespace, index: Index) -> int:
    if not options.study:
        warn("name an order by its Study Instance UID or accession number")
        return 2
    found = index.orders.latest(study_uid=options.study) or index.orders.latest(accession_number=options.study)
    if not found:
        warn(f"no order {options.study}")
        return 1
    show_json(
        [
            {
                **_order(options, order),
                "attributes": order.attributes,
                "steps": [{"id": key, "state": state, "attributes": values} for key, state, values in order.steps],
            }
            for order in found
        ]
    )
    return 0


def _matching(options: argparse.Namespace, config: Config) -> int:
    """Candidates, match and unmatch."""
    if not options.study or (options.action == "match") != bool(options.order):
        warn(f"orders {options.action} takes a study" + (" and an order" if options.action == "match" else ""))
        return 2
    if options.action != "candidates" and not options.reason:
        warn(f"say why: orders {options.action} takes a --reason")
        return 2
    index = index_of(config)
    with opened(options) as corrections:
        return MATCHES[options.action](options, matching_of(index, corrections, config), index)


def _candidates(options: argparse.Namespace, matching: Matching, index: Index) -> int:
    show(options, CANDIDATES, (_candidate(options, each) for each in matching.candidates(options.study)))
    return 0


def _candidate(options: argparse.Namespace, found: Candidate) -> Mapping[str, Any]:
    words = {"score": found.score, "for": ", ".join(found.reasons), "against": ", ".join(found.contradictions)}
    return words | dict(_order(options, found.order))


def _match(options: argparse.Namespace, matching: Matching, index: Index) -> int:
    found = index.orders.latest(study_uid=options.order) or index.orders.latest(accession_number=options.order)
    if len(found) != 1:
        warn(f"{len(found) or 'no'} orders {options.order}; name it by its UID")
        return 1
    matching.match(options.study, found[0], user(options.user), options.reason)
    print(f"study {options.study} is of order {found[0].accession_number or found[0].study_uid}")
    return 0


def _unmatch(options: argparse.Namespace, matching: Matching, index: Index) -> int:
    matching.unmatch(options.study, user(options.user), options.reason)
    print(f"study {options.study} is of no order")
    return 0


MATCHES = {"candidates": _candidates, "match": _match, "unmatch": _unmatch}


def _messages(options: argparse.Namespace, index: Index) -> int:
    found = index.orders.messages(
        limit=options.limit, control_id=options.control_id, patient_id=options.patient,
        accession_number=options.accession, code=options.answer.upper(),
    )  # fmt: skip
    show(options, MESSAGES, (_message(options, message) for message in found))
    return 0


def _message(options: argparse.Namespace, message: KeptMessage) -> Mapping[str, Any]:
    row = {key: getattr(message, key) for key in MESSAGES}
    if not options.json:
        return row | {"received": when(message.received)}
    return row | {"content": message.content.decode("utf-8", "replace")}


def _dry_run(options: argparse.Namespace, config: Config) -> int:
    """Exit status 1 when the message would be refused."""
    try:
        data = options.dry_run.read_bytes()
    except OSError as error:
        warn(f"{options.dry_run}: {error.strerror}")
        return 2
    charset = config.hl7.charset if config.hl7 else "UNICODE UTF-8"
    said = explained(data, field_map(config), charset)
    if options.json:
        show_json(said)
    else:
        print(json.dumps(said, ensure_ascii=False, indent=2))
    return 0 if said["answer"] == "AA" else 1


def worklist(options: argparse.Namespace) -> int:
    config = configuration(options)
    index = open_index(config.index.url)
    if options.action == "import":
        return _import(options, index, causes(config))
    section = config.worklist
    ahead = section.days_ahead if options.days is None else options.days
    view = View(options.station, options.modality, (), section.days_back, ahead)
    service = Worklist(index, today=date.today, show_started=section.show_started)
    show(options, STEPS, (_step(above, step) for above, step in service.steps(WorklistQuery(), view)))
    return 0


def _step(above: Mapping[str, Any], step: Mapping[str, Any]) -> Mapping[str, Any]:
    day, clock = (step.get(f"ScheduledProcedureStepStart{part}", "") for part in ("Date", "Time"))
    return {
        "start": f"{day[:4]}-{day[4:6]}-{day[6:]} {clock[:2]}:{clock[2:4]}",
        "station": step.get("ScheduledStationAETitle", ""),
        "modality": step.get("Modality", ""),
        "accession_number": above.get("AccessionNumber", ""),
        "patient_id": above.get("PatientID", ""),
        "patient_name": above.get("PatientName", ""),
        "description": step.get("ScheduledProcedureStepDescription", ""),
        "status": step.get("ScheduledProcedureStepStatus", ""),
    }


def _import(options: argparse.Namespace, index: Index, caused: Causes) -> int:
    if options.folder is None or not options.folder.is_dir():
        warn("name a folder of worklist files")
        return 2
    desk = Orders(index, caused)
    taken, refused = 0, list[dict[str, str]]()
    for path, problem in _imported(desk, list(worklist_files(options.folder))):
        taken += not problem
        if problem:
            refused.append({"path": str(path), "reason": problem})
    if options.json:
        show_json({"taken": taken, "refused": refused})
    else:
        for each in refused:
            warn(f"{each['path']}: {each['reason']}")
        print(f"{taken} taken, {len(refused)} refused")
    return 1 if refused else 0


def _imported(desk: Orders, paths: list[Path]) -> Iterator[tuple[Path, str]]:
    for path in tqdm(paths, unit="file", disable=None):
        try:
            desk.save(read_worklist_file(path.read_bytes()), time.time())
            yield path, ""
        except OSError as error:
            yield path, error.strerror or "cannot be read"
        except ArchiveError as error:
            if error.temporary:
                raise
            yield path, error.comment
