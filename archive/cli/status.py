"""`archive status`: how much there is, how much room is left, and whether the daemon answers."""

from __future__ import annotations

import argparse
import dataclasses
import socket
from contextlib import closing
from typing import Any

from archive import __version__
from archive.app.retention import standing
from archive.app.sync import summaries
from archive.app.volumes import overview_of
from archive.cli.common import Commands, command, configuration, show_json, when
from archive.cli.queue import destinations
from archive.config import Config, Listener
from archive.config.keeping import COMPRESSIONS
from archive.index import Index, open_index
from archive.index.upkeep import Saved
from archive.log import escape
from archive.services.compression import KIND as COMPRESS
from archive.services.scrub import progress
from archive.storage.space import space_of

LISTED = 10  # damaged instances that are named
NAMES = {uid: name for name, uid in COMPRESSIONS.items()}
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def add(commands: Commands) -> None:
    command(commands, "status", status)


def status(options: argparse.Namespace) -> int:
    """Exit status 1 when a listener does not answer."""
    config = configuration(options)
    answering = {f"{listener.host}:{listener.port}": answers(listener) for listener in config.listeners}
    with closing(open_index(config.index.url)) as index:
        said = {
            "version": __version__,
            "ae": config.ae.title,
            "listeners": {name: "answers" if good else "does not answer" for name, good in answering.items()},
            "index": dataclasses.asdict(index.statistics()),
            "storage": _storage(config),
            "volumes": _volumes(index, config),
            "quarantine": index.count_quarantined(),
            "keeping": _keeping(index),
            "retention": standing(index),
            "extra_keys": dataclasses.asdict(index.extra_progress()),
            "destinations": destinations(index),
            "sync": summaries(index, config),
        }
    if options.json:
        show_json(said)
    else:
        _print(said)
    return 0 if all(answering.values()) else 1


def _keeping(index: Index) -> dict[str, Any]:
    """What compression has saved, which files are damaged, and how far scrubbing has come."""
    waiting: dict[str, int] = {}
    for (kind, _, state), count in index.task_counts().items():
        if kind == COMPRESS:
            waiting[state.value] = waiting.get(state.value, 0) + count
    scrubbed = progress(index)
    return {
        "compression": [dataclasses.asdict(each) | {"ratio": _ratio(each)} for each in index.upkeep.saved()],
        "compression_tasks": waiting,
        "damaged": index.upkeep.count_damaged(),
        "damaged_instances": [
            {"instance": each.sop_instance_uid, "study": each.study_uid, "damage": each.damage}
            for each in index.upkeep.damaged(limit=LISTED)
        ],
        "scrub": dataclasses.asdict(scrubbed) if scrubbed.began else None,
    }


def _ratio(saved: Saved) -> float:
    return round(saved.bytes_before / max(saved.bytes_after, 1), 2)


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
    spool = sum(file.stat().st_size for file in (path / "spool").glob("*/*") if file.is_file())
    return {"path": str(path), "free": space_of(path).free, "spool": spool}


def _print(said: dict[str, Any]) -> None:
    print(f"{said['ae']}, version {said['version']}")
    for name, words in said["listeners"].items():
        print(f"  {name} {words}")
    counts = said["index"]
    print("  {patients} patients, {studies} studies, {series} series, {instances} instances".format(**counts))
    free = said["storage"]["free"]
    room = "not there yet" if free is None else f"{readable(free)} free"
    print(f"  {readable(counts['size'])} in {said['storage']['path']}, {room}")
    _print_volumes(said["volumes"])
    if said["quarantine"]:
        print(f"  {said['quarantine']} objects in quarantine: archive quarantine")
    _print_keeping(said["keeping"])
    _print_retention(said["retention"])
    extra = said["extra_keys"]
    if extra["filling"]:
        print(f"  {', '.join(extra['filling'])}: being filled in, looked at up to instance {extra['after']}")
    for row in said["destinations"]:
        said_of = "{destination}: {waiting} waiting, {sending} sending, {failed} failed".format(**row)
        print(f"  {said_of}{'; ' if row['why'] else ''}{escape(row['why'])}")
    for row in said["sync"]:
        print(f"  sync {row['sync']} with {row['peer']}: {escape(row['result'])}")


def _volumes(index: Index, config: Config) -> dict[str, Any] | None:
    """Volumes and what moves between them; None where there is one."""
    found = overview_of(config, index)
    if found is None:
        return None
    volumes = [
        {
            "name": each.name, "role": each.role, "path": each.path, "there": each.space is not None,
            "reason": each.reason, "free": each.space and each.space.free, "total": each.space and each.space.total,
            "files": each.files, "size": each.size,
        }
        for each in found.volumes
    ]  # fmt: skip
    names = ("to_copy", "to_recall", "evictable")
    moving = {name: dict(zip(("number", "size"), getattr(found, name), strict=True)) for name in names}
    return {"volumes": volumes, **moving}


def _print_volumes(said: dict[str, Any] | None) -> None:
    if said is None:
        return
    for each in said["volumes"]:
        full = f"{1 - each['free'] / each['total']:.0%} full, {readable(each['free'])} free" if each["there"] else ""
        holds = f", {each['files']} files, {readable(each['size'])}" if each["files"] else ""
        print(f"  {each['role']} {each['name']} in {each['path']}: {full or 'NOT THERE: ' + each['reason']}{holds}")
    words = {
        "to_copy": "studies wait to be copied", "to_recall": "studies wait to be brought back",
        "evictable": "files could leave the cache",
    }  # fmt: skip
    for name, meaning in words.items():
        if said[name]["number"]:
            print(f"  {said[name]['number']} {meaning} ({readable(said[name]['size'])})")


def _print_retention(said: dict[str, Any]) -> None:
    for name, since in said["watermarks"].items():
        print(f"  storage.watermarks.{name} is CROSSED since {when(since)}")
    if said["clock"]:
        print(f"  NOTHING IS DELETED by rules: {said['clock']} (archive retention clock)")
    if said["due"] or said["holds"]:
        print(f"  {said['due']} studies are due by rules of retention, {said['holds']} legal holds: archive retention")


def _print_keeping(said: dict[str, Any]) -> None:
    for each in said["compression"]:
        name = NAMES.get(each["transfer_syntax"], each["transfer_syntax"])
        print(
            f"  {each['objects']} compressed to {name}: {readable(each['bytes_before'])} became"
            f" {readable(each['bytes_after'])} (ratio {each['ratio']:.2f}) in {each['seconds']:.0f} s"
        )
    if waiting := said["compression_tasks"].get("waiting"):
        print(f"  {waiting} wait to be compressed")
    if scrub := said["scrub"]:
        state = "last round read" if scrub["ended"] else "this round has read"
        print(f"  scrub: {state} {scrub['files']} files, {readable(scrub['size'])}, {scrub['damaged']} damaged")
    if said["damaged"]:
        print(f"  {said['damaged']} DAMAGED files, which are not sent (archive fsck tells more):")
        for each in said["damaged_instances"]:
            print(f"    {each['instance']}: {escape(each['damage'])}")


def readable(size: float) -> str:
    """1536 -> 1.5 kB."""
    for unit in UNITS:
        if size < 1000 or unit == UNITS[-1]:
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
