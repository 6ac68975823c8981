"""`archive quarantine`: what was refused and kept aside is listed, shown, released or discarded.

Rules that hold here: the index may be in use by the daemon at the same time; an entry that fails does not keep the
others from being settled; nothing is deleted without a yes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from archive.app import receiving
from archive.app.store import Archive, index_of
from archive.cli.common import Commands, command, configuration, show, show_json, warn, when
from archive.dicom.dictionary import keyword_of
from archive.errors import ArchiveError
from archive.index import Index, Outcome, Quarantined
from archive.services.releasing import Release, Releasing, failed

ACTIONS = ("list", "show", "release", "discard")
TITLES = {
    "id": "id", "received": "received", "source": "from", "reason": "reason", "study_uid": "study",
    "sop_instance_uid": "instance",
}  # fmt: skip


def add(commands: Commands) -> None:
    made = command(commands, "quarantine", run)
    made.add_argument("action", nargs="?", choices=ACTIONS, default="list", help="what to do (list)")
    made.add_argument("ids", nargs="*", type=int, metavar="ID", help="entries by their number")
    made.add_argument("--study", default="", metavar="UID", help="all entries of a study")
    made.add_argument("--all", action="store_true", help="all entries")
    made.add_argument("--patient-id", default="", metavar="ID", help="release: it belongs to this patient")
    made.add_argument("--issuer", metavar="NAME", help="release: the issuer of that Patient ID")
    made.add_argument(
        "--accept", action="store_true", help="release: it belongs where the archive has its study, or is the newer one"
    )
    made.add_argument("--yes", action="store_true", help="discard: do not ask")


def run(options: argparse.Namespace) -> int:
    if options.action in ("release", "discard") and not (options.ids or options.study or options.all):
        warn(f"{options.action} what? Numbers of entries, --study UID or --all")
        return 2
    return {"list": _list, "show": _show, "release": _release, "discard": _discard}[options.action](options)


def chosen(options: argparse.Namespace, index: Index) -> list[Quarantined]:
    """The entries that the options name, in the order in which they came; warns of numbers that are none."""
    if not options.ids:
        return _pages(index, options.study)
    found = [index.quarantine_entry(key) for key in dict.fromkeys(options.ids)]
    for key, entry in zip(dict.fromkeys(options.ids), found, strict=True):
        if entry is None:
            warn(f"{key} is no entry of the quarantine")
    return [entry for entry in found if entry is not None and options.study in ("", entry.new.header.study_uid)]


def _pages(index: Index, study_uid: str) -> list[Quarantined]:
    found: list[Quarantined] = []
    while page := index.quarantined(after=found[-1].id if found else 0, study_uid=study_uid):
        found += page
    return found


def _list(options: argparse.Namespace) -> int:
    index = index_of(configuration(options))
    show(options, TITLES, [_row(entry, options.json) for entry in chosen(options, index)])
    return 0


def _row(entry: Quarantined, as_json: bool) -> dict[str, Any]:
    new = entry.new
    return {
        "id": entry.id,
        "received": new.received if as_json else when(new.received),
        "source": new.source,
        "reason": entry.reason,
        "study_uid": new.header.study_uid,
        "series_uid": new.header.series_uid,
        "sop_instance_uid": new.header.sop_instance_uid,
        "path": entry.path,
    }


def _show(options: argparse.Namespace) -> int:
    index = index_of(configuration(options))
    entries = chosen(options, index)
    rows = [_details(entry, index, options.json) for entry in entries]
    if options.json:
        show_json(rows)
    else:
        for row in rows:
            _print(row)
    return 0 if rows or not options.ids else 1


def _details(entry: Quarantined, index: Index, as_json: bool) -> dict[str, Any]:
    """An entry with what it says and what the archive has in its place."""
    header = entry.new.header
    said = {keyword_of(tag): text for tag, text in sorted(header.values.items()) if text and len(text) <= 256}
    return _row(entry, as_json) | {
        "address": entry.new.address,
        "size": entry.new.location.size,
        "transfer_syntax": entry.new.transfer_syntax,
        "says": said,
        "archive_has": index.belonging(header),
    }


def _print(row: Mapping[str, Any]) -> None:
    for key, value in row.items():
        if isinstance(value, dict):
            print(f"{key.replace('_', ' ')}:")
            for name, text in value.items():
                print(f"  {name}: {json.dumps(text, ensure_ascii=False)}")
        else:
            print(f"{key.replace('_', ' ')}: {value}")
    print()


def _release(options: argparse.Namespace) -> int:
    how = Release(options.patient_id, options.issuer, options.accept)
    with Archive(configuration(options)) as archive:
        releasing = Releasing(archive.store, archive.index, receiving.sources(archive.config))
        rows = [_released(releasing, entry, how) for entry in chosen(options, archive.index)]
    return _report(options, rows, "released")


def _released(releasing: Releasing, entry: Quarantined, how: Release) -> dict[str, Any]:
    row = {"id": entry.id, "sop_instance_uid": entry.new.header.sop_instance_uid}
    try:
        outcome = releasing.release(entry, how)
        return row | {"outcome": "released" if outcome is Outcome.STORED else "was there already"}
    except ArchiveError as error:
        return row | {"outcome": "failed", "reason": failed(error)}


def _discard(options: argparse.Namespace) -> int:
    with Archive(configuration(options)) as archive:
        entries = chosen(options, archive.index)
        if entries and not (options.yes or _sure(entries)):
            warn("nothing was discarded")
            return 1
        rows = [
            {
                "id": entry.id,
                "sop_instance_uid": entry.new.header.sop_instance_uid,
                "outcome": "discarded" if archive.store.quarantine.discard(entry) else "was gone already",
            }
            for entry in entries
        ]
    return _report(options, rows, "discarded")


def _sure(entries: Sequence[Quarantined]) -> bool:
    """Whether the person at the terminal says so; nobody there has not."""
    if not sys.stdin.isatty():
        warn("discard deletes for good: say --yes")
        return False
    return input(f"Delete {len(entries)} objects for good? [y/N] ").strip().lower() in ("y", "yes")


def _report(options: argparse.Namespace, rows: Sequence[Mapping[str, Any]], word: str) -> int:
    left = [row for row in rows if row["outcome"] == "failed"]
    if options.json:
        show_json(rows)
    else:
        for row in left:
            warn(f"{row['id']}: {row['reason']}")
        print(f"{len(rows) - len(left)} {word}, {len(left)} failed")
    return 1 if left or not rows else 0
