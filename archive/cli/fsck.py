"""`archive fsck`: whether index and files agree, and repair."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from archive.app.causes import causes
from archive.app.receiving import sources
from archive.app.store import Archive, opened, recover
from archive.app.volumes import known_volumes
from archive.cli.common import Commands, command, configuration, show_json
from archive.config import Config
from archive.config.units import read_size
from archive.index import Index
from archive.services.fsck import Choice, Fsck, Problem
from archive.services.integrity import Integrity
from archive.services.pace import Throttle
from archive.services.strays import GRACE, Strays
from archive.storage.journal import in_use
from archive.storage.local import Volume


def add(commands: Commands) -> None:
    made = command(commands, "fsck", run)
    made.add_argument("--digest", action="store_true", help="read every file again and compare its SHA-256")
    made.add_argument(
        "--repair", nargs="?", const="adopt", choices=("adopt", "aside"), default="",
        help="settle what is wrong: adopt (default) takes files without row in again, aside moves them to lost+found",
    )  # fmt: skip
    made.add_argument("--study", metavar="UID", default="", help="only this study")
    made.add_argument("--rate", metavar="MB/s", type=_rate, default=0, help="read no more than this in a second")
    made.add_argument("--resume", action="store_true", help="go on where an interrupted check with --digest stopped")


def _rate(text: str) -> int:
    """A bare number is megabytes."""
    text = text.strip().removesuffix("/s")
    return read_size(f"{text}MB" if text.replace(".", "").isdigit() else text)


def run(options: argparse.Namespace) -> int:
    config = configuration(options)
    choice = Choice(options.digest, options.study, options.repair, options.resume)
    with _opened(config, repair=bool(choice.repair)) as (index, volumes, integrity, strays):
        total = index.statistics().instances if not choice.study_uid else None
        with tqdm(total=total, unit="file", disable=None if not options.json else True) as bar:
            work = Fsck(
                index, volumes, integrity, strays, choice, progress=lambda count, size: _advance(bar, count),
                pace=Throttle(options.rate, time.monotonic, time.sleep),
            )  # fmt: skip
            found = list(_said(work.run(), bar, quiet=options.json))
    _report(options, found)
    return 1 if any(not problem.done for problem in found) else 0


@contextmanager
def _opened(config: Config, *, repair: bool) -> Iterator[tuple[Index, Mapping[str, Volume], Integrity, list[Strays]]]:
    """What a check needs. Only repair opens the whole archive, which settles what a crash left."""
    if repair:
        recover(config)
        with Archive(config) as archive:
            grace = _grace(archive.volume, own=1)
            strays = [
                Strays(archive.index, each, archive.integrity, archive.store, time.time, grace, sources(config))
                for each in archive.volumes.values() if each.is_there()
            ]  # fmt: skip
            yield archive.index, archive.volumes, archive.integrity, strays
        return
    with opened(config) as (index, volume):
        volumes = known_volumes(config, index, time.time) | {volume.name: volume}
        integrity, grace = Integrity(index, volumes, time.time, causes(config)), _grace(volume)
        there = [each for each in volumes.values() if each.is_there()]
        yield index, volumes, integrity, [Strays(index, each, integrity, None, time.time, grace) for each in there]


def _grace(volume: Volume, own: int = 0) -> float:
    """Where nobody else has a journal open nothing arrives."""
    return GRACE if in_use(volume.root / "journal") > own else 0.0


def _advance(bar: Any, count: int) -> None:
    bar.update(count)


def _said(problems: Iterator[Problem], bar: Any, *, quiet: bool) -> Iterator[Problem]:
    for problem in problems:
        if not quiet:
            bar.write(_line(problem))
        yield problem


def _line(problem: Problem) -> str:
    what = " ".join(filter(None, (problem.uid, problem.path)))
    done = f" -- {problem.done}" if problem.done else ""
    return f"{problem.kind.value}: {what}: {problem.detail}{done}"


def _report(options: argparse.Namespace, found: list[Problem]) -> None:
    counts = collections.Counter(problem.kind.value for problem in found)
    left = sum(not problem.done for problem in found)
    if options.json:
        problems = [dataclasses.asdict(problem) | {"kind": problem.kind.value} for problem in found]
        show_json({"problems": problems, "counts": counts, "left": left})
    elif not found:
        print("index and files agree")
    else:
        print(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) + f"; {left} not repaired")
