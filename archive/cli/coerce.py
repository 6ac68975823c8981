"""`archive coerce`: what the rules of the configuration would make of a file."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from archive.app.receiving import changing
from archive.cli.common import Commands, command, configuration, show, show_json, warn
from archive.config import Config
from archive.dicom.attributes import HEADER_TAGS
from archive.dicom.coerce import UNRECORDED, Change, path_text
from archive.dicom.coercion import described
from archive.dicom.header import read_header
from archive.dicom.part10 import read_file_meta
from archive.dicom.peek import Peek
from archive.services.outgoing import Receiver, Subject, mapped
from archive.services.retrieve import OpenFile
from archive.services.store import Origin

TITLES = {"file": "file", "attribute": "attribute", "old": "old", "new": "new"}
HEAD = 1 << 16


def add(commands: Commands) -> None:
    made = command(commands, "coerce", run)
    made.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a DICOM file")
    made.add_argument("--dry-run", action="store_true", required=True, help="say it and change nothing")
    made.add_argument("--from", dest="sender", default="", metavar="AET", help="as if this AE had sent it")
    made.add_argument("--to", default="", metavar="AET", help="as if it went to this AE: ours (receive) or a peer's")


def run(options: argparse.Namespace) -> int:
    config, rows, failed = configuration(options), [], False
    for path in options.files:
        try:
            rows += _rows(config, path, options)
        except (OSError, ValueError) as error:
            warn(f"{path}: {getattr(error, 'strerror', None) or 'not a DICOM file'}")
            failed = True
    if rows or options.json:
        show_json(rows) if options.json else show(options, TITLES, rows)
    elif not failed:
        print("nothing would change")
    return 1 if failed else 0


def _rows(config: Config, path: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Old and new value of each attribute that would change."""
    with open(path, "rb") as file:
        meta = read_file_meta(file.read(HEAD))
        opened = OpenFile(file.fileno(), meta.offset, os.fstat(file.fileno()).st_size - meta.offset, path)
        changes = _changes(config, opened, meta.transfer_syntax, options)
        with mapped(opened) as data:
            peek = Peek(data, meta.transfer_syntax)
        return [
            {"file": str(path), "attribute": path_text(change.path), "old": old, "new": new}
            for change in changes
            if change.reason != UNRECORDED
            for old, new in [described(change, peek)]
        ]


def _changes(config: Config, file: OpenFile, syntax: str, options: argparse.Namespace) -> list[Change]:
    """By the rules for what is sent when --to is a peer, else by those for what is received."""
    rules = changing(config, time.time)
    subject = Subject(_Item(syntax), Receiver(options.to, options.sender or config.ae.title), file)
    if options.to and options.to not in config.ae.titles:
        return list(rules.coerced(subject))
    origin = Origin(options.sender, options.to or config.ae.title, default_charset=_charset(config, options.sender))
    with subject.mapped() as data:
        header = read_header(data, syntax, HEADER_TAGS, default_charset=origin.default_charset)
        return rules.incoming(origin, header, data, syntax)


def _charset(config: Config, sender: str) -> str:
    peer = config.peer(sender)
    return peer.default_charset if peer else ""


class _Item:
    """A file as it is sent; its UIDs do not matter here."""

    sop_class_uid = sop_instance_uid = ""

    def __init__(self, transfer_syntax: str) -> None:
        self.transfer_syntax = transfer_syntax
