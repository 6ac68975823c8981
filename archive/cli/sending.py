"""`archive send`: studies, series or images to a destination, through the queue of the daemon or at once."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from tqdm import tqdm

from archive.app.store import Archive
from archive.cli.common import Commands, command, configuration, show_json, warn
from archive.cli.remote import ROOTS, destination, identifier, keys, what
from archive.cli.status import answers
from archive.config import Config
from archive.dicom.attributes import Level
from archive.dicom.matching import read_query
from archive.dicom.query import Query
from archive.dimse import scu, statuses
from archive.dimse.tally import Result, Sent
from archive.errors import InvalidQuery
from archive.index import Index, State, Task, Which, open_index
from archive.services.routing import FOLDER, delivery
from archive.services.waiting import held_up

BY = "archive send"
FIRST = 1  # a person waits for it: before what routes have put there
PIECE = 500  # tasks of one transaction
LOOK = 0.5  # seconds between two looks at the progress


def add(commands: Commands) -> None:
    made = command(commands, "send", send)
    made.add_argument("uid", nargs="*", metavar="UID", help="of studies, series or instances; or use -k")
    made.add_argument("--to", dest="peer", metavar="DESTINATION", required=True, help="a peer, or folder:/path")
    made.add_argument("--now", action="store_true", help="by this command itself, at once")
    made.add_argument("--wait", action="store_true", help="until all are sent or have failed")
    what(made)


def send(options: argparse.Namespace) -> int:
    config = configuration(options)
    if not options.uid and not options.key:
        warn("send needs UIDs, or keys (-k)")
        return 2
    if options.now:
        return _at_once(options, config)
    if not options.peer.startswith(FOLDER):
        destination(options, config)  # an unknown one is said now
    return _queued(options, config, open_index(config.index.url))


def selected(options: argparse.Namespace, index: Index) -> Iterator[str]:
    """The SOP Instance UIDs that are meant, each once."""
    seen: set[str] = set()
    for found in _selected(options, index):
        if found not in seen:
            seen.add(found)
            yield found


def _selected(options: argparse.Namespace, index: Index) -> Iterator[str]:
    for uid in options.uid:
        yield from _below(index, uid)
    if options.key:
        yield from (each.sop_instance_uid for each in index.instances(_query(options, index)))


def _query(options: argparse.Namespace, index: Index) -> Query:
    """All keys count: what is sent is what 'archive find --level image' finds by them, not all of its studies."""
    root = ROOTS[options.root]
    query = read_query(identifier(Level.IMAGE, keys(options)), root, relational=True, extra=index.extra)
    if query.unsupported:
        raise InvalidQuery("a key that the index does not match", " ".join(options.key))
    if not query.conditions:
        raise InvalidQuery("keys without a value would select everything", " ".join(options.key))
    return query


def _below(index: Index, uid: str) -> Iterator[str]:
    """The instances of a study, of a series, or one; raises InvalidQuery for a UID that is nothing."""
    for which in ({"study_uid": uid}, {"series_uid": uid}, {"sop_instance_uids": (uid,)}):
        found = index.queue.described((), **which)
        first = next(iter(found), None)
        if first is not None:
            yield first.instance.sop_instance_uid
            yield from (each.instance.sop_instance_uid for each in found)
            return
    raise InvalidQuery("nothing is stored under this UID", uid)


# -- through the queue ----------------------------------------------------------------------------------------


def _queued(options: argparse.Namespace, config: Config, index: Index) -> int:
    uids, ids = selected(options, index), []
    while piece := list(islice(uids, PIECE)):
        stored = index.queue.stored(piece)
        tasks = [
            delivery(uid, stored[uid][0].study_uid, options.peer, stored[uid][1], by=BY, priority=FIRST)
            for uid in piece
            if uid in stored
        ]
        ids += index.add_tasks(tasks, time.time())
    if not ids:
        warn("nothing in the archive matches")
        return 1
    running = any(answers(listener) for listener in config.listeners)
    if options.wait:
        return _wait(options, index, ids)
    if options.json:
        show_json({"queued": len(ids), "tasks": ids, "daemon": running})
    else:
        later = "" if running else "; the daemon is not running, they go when it is"
        print(f"{len(ids)} instances wait for {options.peer}{later}")
    return 0


def _wait(options: argparse.Namespace, index: Index, ids: list[int]) -> int:
    which = Which(ids=tuple(ids))
    with tqdm(total=len(ids), unit="object", disable=None) as bar:
        while (counts := Counter(index.queue.count(which)))[State.WAITING] + counts[State.LEASED]:
            bar.n = counts[State.DONE] + counts[State.FAILED]
            bar.set_postfix_str(held_up(index.queue.lane(options.peer), time.time())[:60])
            time.sleep(LOOK)
        bar.n = len(ids)
        bar.refresh()
    failed = index.queue.select(Which(ids=tuple(ids), states=(State.FAILED,)), limit=len(ids))
    return _report(options, counts[State.DONE], [(_uid(task), task.reason) for task in failed])


def _uid(task: Task) -> str:
    return str(task.payload["sop"])


# -- at once --------------------------------------------------------------------------------------------------


def _at_once(options: argparse.Namespace, config: Config) -> int:
    called = destination(options, config)
    with Archive(config) as archive:
        instances = [archive.index.queue.stored([uid])[uid][0] for uid in selected(options, archive.index)]
        if not instances:
            warn("nothing in the archive matches")
            return 1
        sent = scu.send(called, instances, archive.retrieve.open, archive.codec, outgoing=archive.outgoing)
        return _finished(options, tqdm(sent, total=len(instances), unit="object", disable=None))


def _finished(options: argparse.Namespace, results: Iterable[Sent]) -> int:
    rows = list(results)
    failed = [(each.sop_instance_uid, _reason(each)) for each in rows if each.result is Result.FAILED]
    return _report(options, len(rows) - len(failed), failed)


def _reason(sent: Sent) -> str:
    return sent.reason or statuses.meaning(sent.status or 0)


def _report(options: argparse.Namespace, sent: int, failed: list[tuple[str, str]]) -> int:
    if options.json:
        reasons = [{"sop_instance_uid": uid, "reason": reason} for uid, reason in failed]
        show_json({"sent": sent, "failed": reasons})
    else:
        for uid, reason in failed:
            warn(f"{uid}: {reason}")
        print(f"{sent} sent, {len(failed)} failed")
    return 1 if failed else 0

