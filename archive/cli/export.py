"""`archive export`: write stored objects into a folder or a ZIP, as files for others."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pydicom.uid import UID
from tqdm import tqdm

from archive.app import receiving
from archive.app.delivery import describer
from archive.app.store import Archive
from archive.cli.common import Commands, command, configuration, show_json, warn
from archive.cli.remote import LEVELS, ROOTS, identifier, keys
from archive.cli.sending import PIECE, selected
from archive.config import Config
from archive.config.keeping import COMPRESSIONS
from archive.config.kinds import Unfit
from archive.config.routing import LAYOUT, LAYOUT_OF_FOLDERS
from archive.dicom.extra import ExtraKeys
from archive.dicom.matching import read_query
from archive.dicom.uids import EXPLICIT_LITTLE, IMPLICIT_LITTLE, TRANSFER_SYNTAXES
from archive.errors import InvalidQuery, StorageFailed
from archive.index import Index, StoredInstance
from archive.services.corrected import corrections_of
from archive.services.export import KEEP, Contents, Export, Exported, Fate, Moment, Target
from archive.services.exporttargets import Folder, Zip
from archive.services.outgoing import Receiver
from archive.services.routing import layout_keywords

RECEIVER = "MEDIA"
SYNTAXES = {"explicit": EXPLICIT_LITTLE, "implicit": IMPLICIT_LITTLE, **COMPRESSIONS}


def add(commands: Commands) -> None:
    made = command(commands, "export", run)
    made.add_argument("uid", nargs="*", metavar="UID", help="of studies, series or instances; or use --from-query")
    made.add_argument("--to", type=Path, required=True, metavar="DIR|FILE.zip", help="a folder, or a ZIP to be made")
    made.add_argument("--dicomdir", action="store_true", help="names of a medium, and a DICOMDIR that lists them")
    made.add_argument(
        "--transcode", default=KEEP, metavar="SYNTAX", help=f"{', '.join(SYNTAXES)}, a UID, or keep (the default)"
    )
    made.add_argument("--layout", metavar="PATH", help=f"names of the files ({LAYOUT_OF_FOLDERS})")
    made.add_argument("--from-query", nargs="+", default=[], metavar="KEY=VALUE", help="what matches, as in find")
    made.add_argument("--root", choices=ROOTS, default="study", help="information model of the query (study)")
    made.add_argument("--level", choices=LEVELS, default="study", help="level of the query (study)")
    made.add_argument(
        "--receiver", default=RECEIVER, metavar="AET", help=f"whose coercion on send applies ({RECEIVER})"
    )
    made.add_argument("--force", action="store_true", help="replace other files of the same names")


def run(options: argparse.Namespace) -> int:
    config = configuration(options)
    options.key = []
    try:
        syntax, layout = _syntax(options.transcode), _layout(options)
    except (Unfit, InvalidQuery) as error:
        warn(error)
        return 2
    if not options.uid and not options.from_query:
        warn("export needs UIDs, or --from-query")
        return 2
    with Archive(config) as archive:
        uids = list(dict.fromkeys([*selected(options, archive.index), *_matching(options, config, archive.index)]))
        if not uids:
            warn("nothing in the archive matches")
            return 1
        try:
            with _target(options) as target:
                work = _export(options, config, archive, target, syntax, layout)
                counts, failed = _watched(work.run(_instances(archive.index, uids)), len(uids))
        except OSError as error:
            raise StorageFailed(f"{error.filename or options.to}: {error.strerror}") from error
    return _report(options, counts, failed)


def _matching(options: argparse.Namespace, config: Config, index: Index) -> Iterator[str]:
    """The instances below what a search would find."""
    if not options.from_query:
        return
    options.key = options.from_query
    asked = identifier(LEVELS[options.level], keys(options))
    query = read_query(asked, ROOTS[options.root], relational=True, extra=ExtraKeys.of(config.index.extra_keys))
    yield from (each.sop_instance_uid for each in index.instances(query))


def _syntax(text: str) -> str:
    """The UID of a transfer syntax, or keep."""
    uid = SYNTAXES.get(text.lower(), text)
    if uid != KEEP and uid not in TRANSFER_SYNTAXES:
        raise InvalidQuery("not a transfer syntax that is known here", text)
    return UID(uid)


def _layout(options: argparse.Namespace) -> str:
    if options.layout and options.dicomdir:
        raise InvalidQuery("a DICOMDIR needs names of its own: no --layout")
    return str(LAYOUT.convert(options.layout or LAYOUT_OF_FOLDERS))


def _target(options: argparse.Namespace) -> Folder | Zip:
    if options.to.suffix.lower() == ".zip" and not options.to.is_dir():
        return Zip(options.to.absolute(), force=options.force)
    return Folder(options.to.absolute())


def _export(
    options: argparse.Namespace, config: Config, archive: Archive, target: Target, syntax: str, layout: str
) -> Export:
    moment = Moment()
    outgoing = receiving.outgoing(config, moment, corrections_of(archive.index))
    receiver = Receiver(options.receiver, config.ae.title)
    contents = Contents(archive.retrieve.open, archive.integrity, archive.codec, outgoing, receiver, syntax)
    return Export(
        target, contents, moment, describe=describer(archive.index, layout_keywords(layout)), layout=layout,
        directory=options.dicomdir, force=options.force,
    )  # fmt: skip


def _instances(index: Index, uids: list[str]) -> Iterator[StoredInstance]:
    """Rows as they are when their turn comes; what is gone by then is left out."""
    for start in range(0, len(uids), PIECE):
        piece = uids[start : start + PIECE]
        stored = index.queue.stored(piece)
        yield from (stored[uid][0] for uid in piece if uid in stored)


def _watched(results: Iterator[Exported], total: int) -> tuple[Counter[Fate], list[Exported]]:
    counts: Counter[Fate] = Counter()
    failed = []
    for each in tqdm(results, total=total, unit="object", disable=None):
        if each.sop_instance_uid:
            counts[each.fate] += 1
        if each.fate is Fate.FAILED:
            failed.append(each)
    return counts, failed


def _report(options: argparse.Namespace, counts: Counter[Fate], failed: list[Exported]) -> int:
    written, left = counts[Fate.WRITTEN], counts[Fate.LEFT]
    if options.json:
        reasons = [
            {"sop_instance_uid": each.sop_instance_uid, "name": each.name, "reason": each.reason} for each in failed
        ]
        show_json({"to": str(options.to), "written": written, "already there": left, "failed": reasons})
    else:
        for each in failed:
            warn(f"{each.sop_instance_uid or each.name}: {each.reason}")
        print(f"{written} written, {left} already there, {len(failed)} failed")
    return 1 if failed else 0
