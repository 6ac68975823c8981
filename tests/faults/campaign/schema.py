"""D27: SIGKILL at every system call while the schema is made.

Rules that hold here: what is left is the schema of some migration, whole, and the next start makes the rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.faults.campaign.run import POSTGRESQL, SQLITE, Run, fault
from tests.faults.daemon import ROOT
from tests.faults.site import Site

BOTH = (SQLITE, POSTGRESQL)
MAKE_SCHEMA = """
import sys
from tests.faults.seams import switch_off
switch_off([name for name in sys.argv[2].split(",") if name])
from archive.index import open_index
open_index(sys.argv[1]).close()
"""
# The names of all tables and indexes after each migration, a line each.
EVERY_SCHEMA = """
import json, sys
from archive.index import migrations, open_index
for count in range(1, len(migrations.MIGRATIONS) + 1):
    migrations.migrate.__defaults__ = (migrations.MIGRATIONS[:count],)
    index = open_index(sys.argv[1])
    print(json.dumps(sorted(name for (name,) in index.read(lambda session: session.rows(sys.argv[2])))))
    index.close()
"""
NAMES = {
    SQLITE: "select name from sqlite_master where name not like 'sqlite_%'",
    POSTGRESQL: "select relname from pg_class where relnamespace = 'public'::regnamespace",
}
SCHEMA_CALLS = {SQLITE: ("pwrite64", "fdatasync", "unlink", "openat"), POSTGRESQL: ("sendto", "poll", "recvfrom")}


@fault(
    "D27", "kill -9 at every system call while the schema is made", tries=2000, seconds=300, few=1, databases=BOTH,
    twins=("schema in pieces",), proves="a schema that is half made is seen",
)  # fmt: skip
def kills_of_migration(run: Run) -> None:
    """After a kill the schema is that of some migration, whole, and the next start makes the rest."""
    allowed = [[], *_every_schema(run)]
    step = 1 if run.tries > 100 and not run.seams else 6
    for name in SCHEMA_CALLS[run.database]:
        for which in range(run.rng.randint(1, step), 4000, step):
            if not run.goes_on():
                return
            folder, url = run.place(), run.new_url()
            kill = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={name}:signal=KILL:when={which}")
            if _make_schema(run, url, folder, kill):
                break
            before = _objects(run, url, folder)
            found = [] if before in allowed else [f"killed at {name} {which}: half a schema: {before}"]
            _make_schema(run, url, folder)
            if _objects(run, url, folder) != allowed[-1]:
                found.append(f"killed at {name} {which}: the schema is not whole after another start")
            run.count(found)


def _every_schema(run: Run) -> list[list[str]]:
    """What each migration leaves, the first to the last."""
    url = _whole(run.new_url(), run.place())
    done = _python(EVERY_SCHEMA, url, NAMES[run.database])
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _make_schema(run: Run, url: str, folder: Path, wrapper: tuple[str, ...] = ()) -> bool:
    """Whether it was made: whoever is killed did not make it."""
    return _python(MAKE_SCHEMA, _whole(url, folder), ",".join(run.seams), wrapper=wrapper).returncode == 0


def _whole(url: str, folder: Path) -> str:
    return url.replace("sqlite:///", f"sqlite:///{folder}/")


def _python(program: str, *arguments: str, wrapper: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*wrapper, sys.executable, "-c", program, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, check=False, capture_output=True, env=environment, timeout=120, text=True, cwd="/")


def _objects(run: Run, url: str, folder: Path) -> list[str]:
    """Names of tables and indexes."""
    if run.database == SQLITE and not (folder / "index.db").exists():
        return []
    return sorted(name for (name,) in Site(folder, {"index": {"url": url}}).select(NAMES[run.database]))
