"""`archive commit`: ask a peer to commit a study, and see what was asked and answered, by peers and by us."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from archive.app.store import index_of
from archive.cli.common import Commands, command, configuration, show, show_json, show_table, warn, when
from archive.dicom.references import Reference
from archive.dicom.uids import new_uid
from archive.dimse import statuses
from archive.dimse.asking import requesting, wait_elsewhere
from archive.dimse.destinations import Destination, Destinations
from archive.errors import ArchiveError, Unreachable
from archive.index import Index, Wakes
from archive.index.commitments import COMMITTED, WAITING, Transaction
from archive.services.commitment import NOT_MENTIONED, Asking

PIECE = 5000  # instances of one request: what other archives are known to take
PATIENCE = 60.0

LISTED = {
    "id": "id",
    "direction": "by",
    "peer": "peer",
    "state": "state",
    "items": "instances",
    "failures": "failed",
    "created": "since",
    "reason": "reason",
    "transaction": "transaction",
}
BY = {"asked": "the peer", "asking": "us"}


def add(commands: Commands) -> None:
    made = command(commands, "commit", commit)
    made.add_argument("study", nargs="?", metavar="STUDY", help="Study Instance UID")
    made.add_argument("--at", metavar="AET", help="the peer to ask")
    made.add_argument(
        "--wait", nargs="?", type=float, const=PATIENCE, metavar="SECONDS", help=f"for its report ({PATIENCE:.0f} s)"
    )
    made.add_argument("--list", action="store_true", help="the last transactions, those of peers included")
    made.add_argument("--show", type=int, metavar="ID", help="one transaction, with what is not committed")
    made.add_argument("--limit", type=int, default=50, help="how many to list (50)")


def commit(options: argparse.Namespace) -> int:
    config = configuration(options)
    index = index_of(config)
    asking = Asking(index, clock=time.time)
    if options.list:
        rows = asking.transactions.latest(limit=options.limit, peer=options.at or "")
        show(options, LISTED, (_row(options, each) for each in rows))
        return 0
    if options.show is not None:
        return _show(options, asking)
    if not (options.study and options.at):
        warn("commit needs a Study Instance UID and --at AET, or --list, or --show ID")
        return 2
    references = [*_references(index, options.study)]
    if not references:
        warn(f"no such study: {options.study}")
        return 1
    return _ask(options, index, Destinations.of(config).named(options.at), asking, references)


def _row(options: argparse.Namespace, transaction: Transaction) -> dict[str, Any]:
    row = dataclasses.asdict(transaction)
    return row if options.json else row | {"created": when(row["created"]), "direction": BY[row["direction"]]}


def _references(index: Index, study: str) -> Iterator[Reference]:
    for each in index.queue.described((), study_uid=study):
        yield Reference(each.instance.sop_class_uid, each.instance.sop_instance_uid)


# -- asking -------------------------------------------------------------------------------------------


def _ask(
    options: argparse.Namespace, index: Index, peer: Destination, asking: Asking, references: Sequence[Reference]
) -> int:
    wakes = index.listen() if options.wait is not None else None
    keys: list[int] = []
    try:
        _request(options, peer, asking, references, keys, wakes)
    finally:
        if wakes is not None:
            wakes.close()
    return _report(options, asking, keys)


def _request(
    options: argparse.Namespace,
    peer: Destination,
    asking: Asking,
    references: Sequence[Reference],
    keys: list[int],
    wakes: Wakes | None,
) -> None:
    """Ask in pieces on one association, then wait on it and on the index."""

    def settled() -> bool:
        return not any(found and found.state == WAITING for found in map(asking.transactions.get, keys))

    asked, rest, left = False, iter(references), options.wait or 0.0
    try:
        with requesting(peer, asking) as request:
            while piece := list(islice(rest, PIECE)):
                transaction = new_uid()
                keys.append(asking.begin(peer.aet, transaction, piece, options.study))
                request.ask(transaction, piece)
            asked, since = True, time.monotonic()
            if wakes is not None:
                request.wait(wakes, settled, left)
    except Unreachable as error:
        if asked and wakes is not None:  # the association is gone; the report may come to the daemon
            wait_elsewhere(wakes, settled, left - (time.monotonic() - since))
            return
        _refused(asking, keys, error)
        raise
    except ArchiveError as error:
        if not asked:
            _refused(asking, keys, error)
        raise


def _refused(asking: Asking, keys: Sequence[int], error: ArchiveError) -> None:
    """The last request was not taken; those before it are answered by themselves."""
    if keys:
        asking.refused(keys[-1], error.reason)


def _report(options: argparse.Namespace, asking: Asking, keys: Sequence[int]) -> int:
    found = [each for each in map(asking.transactions.get, keys) if each is not None]
    if options.json:
        show_json([dataclasses.asdict(each) for each in found])
    else:
        for each in found:
            print(f"{each.peer}: {_words(each)} (transaction {each.transaction}, id {each.id})")
    if options.wait is None:
        return 0
    return 0 if all(each.state == COMMITTED for each in found) else 1


def _words(transaction: Transaction) -> str:
    if transaction.state == WAITING:
        return f"asked to commit {transaction.items} instances, not answered yet"
    if transaction.state == COMMITTED:
        return f"has committed {transaction.items} instances"
    return f"{transaction.items - transaction.failures} instances committed, {transaction.failures} not"


# -- looking ------------------------------------------------------------------------------------------


def _show(options: argparse.Namespace, asking: Asking) -> int:
    found = asking.transactions.get(options.show)
    if found is None:
        warn(f"no transaction {options.show}")
        return 1
    failures = asking.transactions.contents(found.id).failures
    rows = [{"sop_class": each.sop_class, "sop_instance": each.sop_instance, "reason": _why(each.reason)}
            for each in failures]  # fmt: skip
    if options.json:
        show_json(dataclasses.asdict(found) | {"failed": rows})
        return 0
    for key, heading in LISTED.items():
        print(f"{heading:<12}{_row(options, found)[key]}")
    if rows:
        print()
        show_table(["not committed", "reason"], [[row["sop_instance"], row["reason"]] for row in rows])
    return 0


def _why(reason: int) -> str:
    return "not mentioned in the report" if reason == NOT_MENTIONED else statuses.meaning(reason)
