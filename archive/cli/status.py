"""`archive status`: how much there is, how much room is left, and whether the daemon answers."""

from __future__ import annotations

import argparse
import dataclasses
import os
import socket
from typing import Any

from archive import __version__
from archive.cli.common import Commands, command, configuration, show_json
from archive.cli.queue import destinations
from archive.config import Config, Listener
from archive.index import open_index
from archive.log import escape

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def add(commands: Commands) -> None:
    command(commands, "status", status, "say how much there is, how much room is left, and whether the daemon answers")


def status(options: argparse.Namespace) -> int:
    """Exit status 1 when a listener does not answer."""
    config = configuration(options)
    answering = {f"{listener.host}:{listener.port}": answers(listener) for listener in config.listeners}
    said = {
        "version": __version__,
        "ae": config.ae.title,
        "listeners": {name: "answers" if good else "does not answer" for name, good in answering.items()},
        "index": dataclasses.asdict(open_index(config.index.url).statistics()),
        "storage": _storage(config),
        "destinations": destinations(open_index(config.index.url)),
    }
    if options.json:
        show_json(said)
    else:
        _print(said)
    return 0 if all(answering.values()) else 1


def answers(listener: Listener) -> bool:
    """Whether somebody listens there."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listener.host, listener.host)
    try:
        socket.create_connection((host, listener.port), timeout=2).close()
    except OSError:
        return False
    return True


def _storage(config: Config) -> dict[str, Any]:
    path = config.storage.path
    if not path.is_dir():
        return {"path": str(path), "free": None, "spool": 0}
    space = os.statvfs(path)
    spool = sum(file.stat().st_size for file in (path / "spool").glob("*/*") if file.is_file())
    return {"path": str(path), "free": space.f_bavail * space.f_frsize, "spool": spool}


def _print(said: dict[str, Any]) -> None:
    print(f"{said['ae']}, version {said['version']}")
    for name, words in said["listeners"].items():
        print(f"  {name} {words}")
    counts = said["index"]
    print("  {patients} patients, {studies} studies, {series} series, {instances} instances".format(**counts))
    free = said["storage"]["free"]
    room = "not there yet" if free is None else f"{readable(free)} free"
    print(f"  {readable(counts['size'])} in {said['storage']['path']}, {room}")
    for row in said["destinations"]:
        said_of = "{destination}: {waiting} waiting, {sending} sending, {failed} failed".format(**row)
        print(f"  {said_of}{'; ' if row['why'] else ''}{escape(row['why'])}")


def readable(size: float) -> str:
    """1536 -> 1.5 kB."""
    for unit in UNITS:
        if size < 1000 or unit == UNITS[-1]:
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
