"""`archive index copy`: move an index from one database to another."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from archive.cli.common import Commands, command, show_json
from archive.config.kinds import Unfit
from archive.config.values import INDEX_URL
from archive.errors import ConfigurationError
from archive.index.copying import copy


def add(commands: Commands) -> None:
    made = command(commands, "index", run)
    made.add_argument("action", choices=("copy",))
    made.add_argument("source", metavar="SRC", help="where it is: sqlite:///path or postgresql://user@host/database")
    made.add_argument("target", metavar="DST", help="where it goes: an empty database, or a new file")


def run(options: argparse.Namespace) -> int:
    source, target = url(options.source), url(options.target)
    with _Bar() as bar:
        counts = copy(source, target, bar.show)
    if options.json:
        show_json(counts)
    else:
        print(f"{counts['instance']} instances of {counts['study']} studies copied; set index.url to {shown(target)}")
    return 0


def url(text: str) -> str:
    """The address of a database, a relative path made absolute; raises ConfigurationError."""
    try:
        return str(INDEX_URL.place(text, Path.cwd()))
    except Unfit as unfit:
        raise ConfigurationError(f"{shown(text)}: {unfit.problem}; {INDEX_URL.expects} would do") from None


def shown(address: str) -> str:
    """Without a password."""
    scheme, separator, rest = address.partition("://")
    account, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{account.partition(':')[0]}{at}{place}"


class _Bar:
    """A progress bar for each table in turn."""

    def __enter__(self) -> _Bar:
        self._bars: dict[str, Any] = {}
        return self

    def show(self, table: str, done: int, total: int) -> None:
        if table not in self._bars:
            self._close()
            self._bars[table] = tqdm(total=total, desc=table, unit="row", disable=None)
        self._bars[table].n = done
        self._bars[table].refresh()

    def _close(self) -> None:
        for bar in self._bars.values():
            bar.close()
        self._bars.clear()

    def __exit__(self, *_: object) -> None:
        self._close()
