"""What all commands share: options, configuration, and how answers are printed."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from archive import log
from archive.cli.commands import COMMANDS
from archive.config import Config, find_file, load

Commands = Any  # argparse's type for a group of sub-parsers has no public name


def command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str = "", *, as_json: bool = True
) -> argparse.ArgumentParser:
    """A sub-parser with the options that every command has; ``text`` is for those below a command."""
    text = text or COMMANDS[name].text
    made: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    made.set_defaults(run=run)
    made.add_argument(
        "--config", metavar="FILE", help="configuration file (else $ARCHIVE_CONFIG, ./config, /etc/archive)"
    )
    made.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="override one value, e.g. listeners.0.port=104"
    )
    if as_json:
        made.add_argument("--json", action="store_true", help="print machine-readable output")
    return made


def configuration(options: argparse.Namespace, *, insecure: bool = True) -> Config:
    """The configuration the options name; raises Complaints.

    Only `serve` has to refuse an open door, so other commands read the file as if ``--insecure`` was given.
    """
    config = load(find_file(options.config), overrides=options.set, insecure=insecure)
    log.configure("warning")
    return config


def show_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def show_table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as they need to be; control characters escaped."""
    cells = [[log.escape("" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(titles), *cells]) for column in range(len(titles))]
    for row in [list(titles), *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show(options: argparse.Namespace, titles: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as a table of `titles` (key to heading), or as JSON."""
    found = list(rows)
    if options.json:
        show_json(found)
    else:
        show_table(list(titles.values()), [[row.get(key) for key in titles] for row in found])


def when(seconds: float | None) -> str:
    """Local time, to the second."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S") if seconds else ""


def user(named: str = "") -> str:
    """Who acts: the one that is named, else the user of this command; a container's may have no name."""
    try:
        return named or getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def warn(text: object) -> None:
    print(f"archive: {text}", file=sys.stderr)
