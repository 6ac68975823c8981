"""`archive import`: take folders of files, ZIPs and media with a DICOMDIR into the archive, or studies of a peer.

Rules that hold here: paths are imported by this command itself, studies of a peer by the daemon (cli/jobs.py).
"""

from __future__ import annotations

import argparse
import collections
from pathlib import Path

from tqdm import tqdm

from archive.app.store import Archive
from archive.cli import jobs
from archive.cli.common import Commands, command, configuration, show_json, warn
from archive.index import Outcome
from archive.services.importing import Import, Imported
from archive.services.store import Origin


def add(commands: Commands) -> None:
    made = command(commands, "import", run)
    made.add_argument(
        "paths", nargs="*", metavar="PATH",
        help="a folder, a file, a ZIP, a medium or its DICOMDIR; or status, show, pause, resume, cancel and jobs",
    )  # fmt: skip
    made.add_argument("--from", dest="peer", metavar="AET", help="fetch from this peer what the keys name")
    made.add_argument(
        "-k", "--key", metavar="KEYWORD=VALUE", action="append", default=[],
        help="with --from: a key of studies or series, e.g. PatientID=123; repeatable",
    )  # fmt: skip
    made.add_argument(
        "--query", metavar="KEYWORD=VALUE", nargs="+", action="extend", default=[], help="the same, several at once"
    )
    jobs.terms(made)
    made.add_argument("--all-files", action="store_true", help="of a medium too, whatever its DICOMDIR names")
    made.add_argument("--quiet", action="store_true", help="do not name the files that were refused")


def run(options: argparse.Namespace) -> int:
    action = options.paths[0] if options.paths else ""
    if options.peer:
        return jobs.fetch(options) if not action else _wrong("import takes paths or --from, not both")
    if action in jobs.ACTIONS:  # a folder of that name is ./status
        return jobs.act(options, action, options.paths[1:])
    if not action:
        return _wrong("import needs paths, or --from and keys")
    if options.key or options.query:
        return _wrong("keys are for import --from")
    return _paths(options)


def _wrong(words: str) -> int:
    warn(words)
    return 2


def _paths(options: argparse.Namespace) -> int:
    config = configuration(options)
    paths = [Path(path) for path in options.paths]
    missing = [path for path in paths if not path.exists()]
    if missing:
        warn(f"{missing[0]} does not exist")
        return 2
    counts: collections.Counter[str] = collections.Counter()
    refused: list[Imported] = []
    with Archive(config) as archive:
        work = Import(
            archive.store, Origin(config.ae.title), paths, notes=config.storage.path / "imports",
            use_dicomdir=not options.all_files,
        )  # fmt: skip
        for imported in tqdm(work.run(files := work.files()), total=len(files), unit="file", disable=None):
            counts[_word(imported)] += 1
            if imported.outcome is None and not imported.skipped:
                refused.append(imported)
    for words in work.unreadable:
        warn(words)
    _report(options, counts, refused)
    return 1 if refused or work.unreadable else 0


def _word(imported: Imported) -> str:
    if imported.skipped:
        return "skipped"
    return {Outcome.STORED: "stored", Outcome.EQUAL: "already there"}.get(imported.outcome, "refused")  # type: ignore[arg-type]


def _report(options: argparse.Namespace, counts: collections.Counter[str], refused: list[Imported]) -> None:
    if options.json:
        reasons = [{"path": str(each.path), "reason": each.reason} for each in refused]
        show_json({**{word: counts[word] for word in ("stored", "already there", "skipped")}, "refused": reasons})
        return
    if not options.quiet:
        for each in refused:
            warn(f"{each.path}: {each.reason}")
    print(", ".join(f"{count} {word}" for word, count in counts.items()) or "nothing to import")
