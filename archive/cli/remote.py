"""`archive echo`, `find`, `retrieve`: ask another AE, or the archive's own index."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

from tqdm import tqdm

from archive.app.store import Archive
from archive.cli.common import Commands, command, configuration, show_json, show_table, warn
from archive.config import Config
from archive.dicom.attributes import Level
from archive.dicom.extra import ExtraKeys
from archive.dicom.identifier import Identifier, decode_identifier
from archive.dicom.matching import read_query
from archive.dicom.query import Root
from archive.dicom.uids import EXPLICIT_LITTLE
from archive.dimse import scu
from archive.dimse.destinations import Destination, Destinations
from archive.dimse.question import question_in
from archive.dimse.store import StoreObject
from archive.errors import InvalidQuery
from archive.index import open_index
from archive.services.caller import Caller
from archive.services.find import Find

ROOTS = {"patient": Root.PATIENT, "study": Root.STUDY, "patient-study": Root.PATIENT_STUDY}
LEVELS = {level.name.lower(): level for level in Level}
ALWAYS = {
    Level.PATIENT: ("PatientID", "PatientName"),
    Level.STUDY: ("StudyInstanceUID", "StudyDate", "ModalitiesInStudy", "PatientID", "PatientName"),
    Level.SERIES: ("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription"),
    Level.IMAGE: ("SOPInstanceUID", "SOPClassUID", "InstanceNumber"),
}
US = Caller("archive")


def add(commands: Commands) -> None:
    made = command(commands, "echo", echo)
    _where(made, "peer", nargs="?")
    made = command(commands, "find", find)
    made.add_argument("--peer", metavar="AET", help="whom to ask; without it the own index is searched")
    what(made)
    made.add_argument("--limit", type=int, default=0, help="stop after so many answers")
    made = command(commands, "retrieve", retrieve)
    made.add_argument("--from", dest="peer", metavar="AET", required=True, help="the peer")
    made.add_argument("--get", action="store_true", help="by C-GET; else by C-MOVE to the running daemon")
    what(made)


def _where(made: argparse.ArgumentParser, name: str, **more: Any) -> None:
    made.add_argument(name, metavar="AET", help="the peer's AE title", **more)
    made.add_argument("--host", help="for an AE that is no peer: its address")
    made.add_argument("--port", type=int, default=104, help="and its port (104)")


def what(made: argparse.ArgumentParser) -> None:
    """The options that name objects."""
    made.add_argument("--root", choices=ROOTS, default="study", help="information model (study)")
    made.add_argument("--level", choices=LEVELS, default="study", help="query/retrieve level (study)")
    made.add_argument(
        "-k",
        "--key",
        metavar="KEYWORD=VALUE",
        action="append",
        default=[],
        help="a key, e.g. PatientID=123; repeatable",
    )


def keys(options: argparse.Namespace) -> dict[str, str]:
    """The keys of the command line; raises InvalidQuery for one that is none."""
    found: dict[str, str] = {}
    for text in options.key:
        keyword, _, value = text.partition("=")
        if not keyword:
            raise InvalidQuery("a key is KEYWORD=VALUE", text)
        found[keyword] = value
    return found


def destination(options: argparse.Namespace, config: Config) -> Destination:
    if getattr(options, "host", None):
        return Destination(options.peer or "ANY-SCP", options.host, options.port, config.ae.title)
    return Destinations.of(config).named(options.peer or "")


# -- echo and find ------------------------------------------------------------------------------------


def echo(options: argparse.Namespace) -> int:
    config = configuration(options)
    if not (options.peer or options.host):
        warn("echo needs the AE title of a peer, or --host")
        return 2
    called = destination(options, config)
    scu.echo(called)
    said = {"aet": called.aet, "host": called.host, "port": called.port, "answers": True}
    show_json(said) if options.json else print(f"{called.aet} at {called.host}:{called.port} answers")
    return 0


def find(options: argparse.Namespace) -> int:
    config = configuration(options)
    level = LEVELS[options.level]
    wanted = {**dict.fromkeys(ALWAYS[level], ""), **keys(options)}
    answers = _ask(options, config, level, wanted) if options.peer else _search(options, config, level, wanted)
    rows = list(answers)
    if options.json:
        show_json(rows)
    else:
        show_table(list(wanted), [[row.get(keyword, "") for keyword in wanted] for row in rows])
    return 0


def _ask(
    options: argparse.Namespace, config: Config, level: Level, wanted: Mapping[str, str]
) -> Iterator[Mapping[str, Any]]:
    answers = scu.find(destination(options, config), ROOTS[options.root], level, wanted, limit=options.limit)
    return map(scu.plain, answers)


def _search(
    options: argparse.Namespace, config: Config, level: Level, wanted: Mapping[str, str]
) -> Iterator[Mapping[str, Any]]:
    extra = ExtraKeys.of(config.index.extra_keys)
    query = read_query(identifier(level, wanted), ROOTS[options.root], relational=True, extra=extra)
    names = scu.keywords(each.tag for each in query.returns)
    index = open_index(config.index.url, extra=extra)
    with closing(Find(index).search(query, US)) as rows:
        for number, row in enumerate(rows, 1):
            yield dict(zip(names, row, strict=True))
            if number == options.limit:
                return


def identifier(level: Level, wanted: Mapping[str, str]) -> Identifier:
    """The keys as a peer would send them, so that both searches understand them alike."""
    return decode_identifier(question_in(EXPLICIT_LITTLE, level, wanted), EXPLICIT_LITTLE)


# -- retrieve -----------------------------------------------------------------------------------------


def retrieve(options: argparse.Namespace) -> int:
    config = configuration(options)
    peer, root, level = destination(options, config), ROOTS[options.root], LEVELS[options.level]
    with _bar() as told:
        if options.get:
            with Archive(config) as archive:
                done = scu.get(peer, root, level, keys(options), store=StoreObject(archive.store), told=told)
        else:
            done = scu.move(peer, config.ae.title, root, level, keys(options), told=told)
    counts = done.progress
    said = {
        "status": done.words,
        "completed": counts.completed,
        "failed": counts.failed,
        "failed_uids": done.failed_uids,
    }
    if options.json:
        show_json(said)
    else:
        print(f"{counts.completed} retrieved, {counts.failed} failed: {done.words}")
    return 0 if done.complete else 1


class _bar:  # noqa: N801 - used like a function
    """A progress bar fed with the peer's counts."""

    def __enter__(self) -> Callable[[scu.Progress], None]:
        self._bar = tqdm(unit="object", disable=None)
        return self._show

    def _show(self, progress: scu.Progress) -> None:
        done = progress.completed + progress.failed + progress.warned
        self._bar.total = done + progress.remaining
        self._bar.n = done
        self._bar.refresh()

    def __exit__(self, *_: object) -> None:
        self._bar.close()
