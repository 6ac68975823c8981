"""Run the fault campaign, or a part of it, and print what held as a Markdown table.

    scripts/faults                              a little of every fault, as in every test run
    scripts/faults --tier 2                     the long campaign
    scripts/faults --tier 2 --only 'D0*,N37' --seconds 600
    scripts/faults --twins                      each fault against each protection switched off: all must be seen
    scripts/faults --check archive.yaml …       only the oracle, on any archive (--check --help)

Exit status: 0 when everything held, 1 when not, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults import checker
from tests.faults.campaign.faults import every_fault
from tests.faults.campaign.run import POSTGRESQL, SQLITE, Fault, Run
from tests.faults.campaign.table import as_json, markdown
from tests.faults.forks import ForkServer

FEW_SECONDS = 60.0  # for a fault of which only a few are tried


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tier", type=int, choices=(1, 2), default=1, help="1: a few tries of each; 2: the campaign")
    parser.add_argument("--only", default="*", metavar="NUMBERS", help="faults, comma-separated, with * and ?")
    parser.add_argument("--seconds", type=float, metavar="N", help="at most so long for each fault")
    parser.add_argument("--tries", type=int, metavar="N", help="so many tries of each fault")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of all choices (default 1)")
    parser.add_argument("--database", choices=(SQLITE, POSTGRESQL), help="only on this one")
    parser.add_argument("--twins", action="store_true", help="switch protections off; every one must be missed")
    parser.add_argument("--folder", type=Path, help="where archives are made (default: a temporary folder)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    parser.add_argument("--list", action="store_true", help="name the faults and stop")
    return parser.parse_args(given)


def chosen(only: str) -> list[Fault]:
    patterns = [pattern.strip() for pattern in only.split(",") if pattern.strip()]
    return [one for one in every_fault() if any(fnmatch.fnmatchcase(one.number, pattern) for pattern in patterns)]


def plans(options: argparse.Namespace) -> Iterator[tuple[Fault, str, tuple[str, ...]]]:
    """What is run: fault, database, protections that are off."""
    for fault in chosen(options.only):
        databases = [name for name in fault.databases if options.database in (None, name)]
        if options.twins:
            for seam, database in fault.every_twin():
                yield fault, database, (seam,)
        else:
            for database in databases:
                yield fault, database, ()


def run_of(
    fault: Fault, database: str, seams: tuple[str, ...], options: argparse.Namespace, folder: Path, forks: ForkServer,
    say: Callable[[str], None],
) -> Run:  # fmt: skip
    long = options.tier == 2 or bool(seams)
    share = len(fault.databases) if long and not options.database and not seams else 1
    tries = options.tries or (fault.tries // share if long else max(1, fault.few))
    seconds = options.seconds or (fault.seconds / share if long else FEW_SECONDS)
    return Run(
        fault, folder, forks, database, seams, options.seed, tries, seconds, say, keep_findings=True
    )  # fmt: skip


def main(given: list[str]) -> int:
    if given[:1] == ["--check"]:
        return checker.main(given[1:])
    options = arguments(given)
    if options.list:
        for fault in every_fault():
            print(f"{fault.number:6} {fault.goal:4} {'+'.join(fault.databases):18} {fault.title}")
        return 0
    wanted = list(plans(options))
    if not wanted:
        print("faults: no such fault; see --list", file=sys.stderr)
        return 2
    done = list(_all(wanted, options))
    print(markdown(done, twins=options.twins))
    if options.json:
        options.json.write_text(json.dumps(as_json(done), indent=1) + "\n")
    return 0 if all(bool(run.violations) == options.twins for run in done) else 1


def _all(wanted: list[tuple[Fault, str, tuple[str, ...]]], options: argparse.Namespace) -> Iterator[Run]:
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    with ForkServer() as forks:
        for number, (fault, database, seams) in enumerate(wanted, 1):
            name = f"[{number}/{len(wanted)}] {fault.number} {database}{' without: ' + seams[0] if seams else ''}"
            with tempfile.TemporaryDirectory(
                prefix="faults-", dir=options.folder, ignore_cleanup_errors=True
            ) as folder:
                Path(folder).chmod(0o755)
                run = run_of(fault, database, seams, options, Path(folder), forks, _sayer(name)).go()
            _say_end(name, run, bool(seams))
            yield run


def _sayer(name: str) -> Callable[[str], None]:
    return lambda words: print(f"{time.strftime('%H:%M:%S')} {name}: {words}", file=sys.stderr, flush=True)


def _say_end(name: str, run: Run, twin: bool) -> None:
    figures = "; ".join(f"{key} {value}" for key, value in run.figures.items())
    say = _sayer(name)
    say(f"done: {run.tried} tries, {len(run.violations)} violations, {run.taken:.0f} s; {figures}")
    for violation in run.violations[: 1 if twin else 10]:
        say(violation[:300 if twin else 3000])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
