"""The oracle: what must hold after every fault, whatever it was.

Rules that hold here: nothing of the archive is used, the database and the files are read as they lie on
disk; every violation is named, none hides another; what needs a moment to settle (threads that end) gets
a bounded one.

As a command (exit status 1 when something does not hold):

    python -m tests.faults.checker archive.yaml --acknowledged FILE --log FILE --marker DOE^JOHN
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from tests.faults.daemon import Daemon, Usage
from tests.faults.objects import MARKER, Instance, keys_of_instance
from tests.faults.raw import CONTEXTS, CT, MR, ONLY_ECHO, SUCCESS, Ended, Request, association, role
from tests.faults.site import Row, Site

PATIENCE = 30.0  # seconds for threads to end and sockets to close
MORE_MEMORY = 24 * 2**20  # what caches may take beside the ten per cent
KEPT_THREADS = 16  # that wait for the next caller: four for each of two listeners in two processes
KEPT_DESCRIPTORS = 12  # of connections to the index that wait for the next reader, three each
PROMPT = 0.1  # seconds, one C-ECHO with its association
SIGNS = ("Traceback", "a fault of ours", "by a fault of the archive", "Fatal Python error", "Exception ignored")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


class Known(Protocol):
    """What is looked for: the name of an object and the digest of its data set."""

    @property
    def uid(self) -> str: ...

    @property
    def sha256(self) -> bytes: ...


def violations(
    daemon: Daemon,
    acknowledged: Iterable[Instance] = (),
    *,
    base: Usage | None = None,
    alive: bool = True,
    since: int = 0,
    seen: set[str] | None = None,
    asked: int = 1 << 30,
    patience: float = PATIENCE,
) -> list[str]:
    """All that does not hold. `alive`: the daemon runs, so ask it as well, for as many objects as `asked`;
    `base`: what it held before; `since`: where the part of the log begins that is judged; `seen`: paths whose bytes
    were compared before, and need not be again; `patience`: seconds for what needs a moment.
    """
    acknowledged = list(acknowledged)
    found = list(_on_disk(daemon, acknowledged, set() if seen is None else seen, patience))
    if alive:
        found += _asked(daemon, acknowledged[-asked:] if asked else [])
        found += _usage(daemon, base, patience) if base else []
        found += _prompt(daemon, patience)
    return [*found, *in_log(daemon.log()[since:])]


def check(
    daemon: Daemon,
    acknowledged: Iterable[Instance] = (),
    *,
    base: Usage | None = None,
    alive: bool = True,
    since: int = 0,
) -> None:
    found = violations(daemon, acknowledged, base=base, alive=alive, since=since)
    assert not found, "\n".join(["violations:", *found[:20], "log:", daemon.log()[-2000:]])


# -- on disk ----------------------------------------------------------------------------------------


def rows(site: Site) -> list[Row]:
    return site.rows()


def _on_disk(site: Site, acknowledged: Sequence[Known], seen: set[str], patience: float) -> Iterator[str]:
    files, found, aside, spool = _settled(site, patience)
    by_uid = Counter(row.uid for row in found)
    whole = {row.uid: row for row in found}
    for instance in acknowledged:
        if by_uid[instance.uid] != 1:
            yield f"acknowledged {instance.uid} has {by_uid[instance.uid]} rows"
        elif whole[instance.uid].sha256 != instance.sha256:
            yield f"acknowledged {instance.uid}: the row is of other bytes"
    for row in found:
        if row.path not in seen or row.path not in files:
            yield from _file(site.files / row.path, row)
            seen.add(row.path)
    paths = {row.path for row in found}
    yield from (f"file without row: {path}" for path in sorted(files - paths))
    yield from (f"left in the spool: {path}" for path in spool)
    yield from (f"quarantine: file or row alone: {path}" for path in sorted(aside))


def _settled(site: Site, patience: float) -> tuple[set[str], list[Row], set[str], list[Path]]:
    """Files, rows, what is alone in quarantine, and the spool, of one moment: a store that runs between the looks is
    no fault."""
    end = time.monotonic() + (patience if site.is_running else 0)
    while True:
        found = rows(site)
        files = {str(path.relative_to(site.files)) for path in site.objects()}
        aside = {str(path.relative_to(site.files)) for path in site.quarantined()} ^ site.quarantine_rows()
        spool = site.spool()
        agree = files == {row.path for row in found} and not spool and not aside
        if agree or time.monotonic() > end:
            return files, found, aside, spool
        time.sleep(0.1)


def _file(path: Path, row: Row) -> Iterator[str]:
    if not path.exists():
        yield f"row without file: {row.uid}"
        return
    data = path.read_bytes()[row.offset :]
    if len(data) != row.size or hashlib.sha256(data).digest() != row.sha256:
        yield f"file of {row.uid} has other bytes than were received"
    if not row.study or not row.series:
        yield f"row of {row.uid} has no study or series"


# -- over the network -------------------------------------------------------------------------------


def _asked(daemon: Daemon, acknowledged: list[Instance]) -> Iterator[str]:
    """C-FIND finds every acknowledged instance, C-GET gives equal bytes."""
    if not acknowledged:
        return
    request = Request(contexts=CONTEXTS, user=role(CT, True, True) + role(MR, True, True))
    with association(daemon.port, request) as asking:
        for instance in acknowledged:
            status, matches = asking.find(keys_of_instance(instance))
            if (status, len(matches)) != (SUCCESS, 1):
                yield f"C-FIND of {instance.uid}: {status:04x}, {len(matches)} matches"
            answer, got = asking.get(keys_of_instance(instance))
            if answer.status != SUCCESS or got != {instance.uid: instance.data}:
                yield f"C-GET of {instance.uid}: {answer.status:04x}, {len(got)} came"


def _usage(daemon: Daemon, base: Usage, patience: float) -> list[str]:
    end = time.monotonic() + patience
    while (found := _above(daemon.usage(), base)) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def _above(now: Usage, base: Usage) -> list[str]:
    found = []
    if now.processes != base.processes:
        found.append(f"{now.processes} processes, {base.processes} before")
    if now.threads > base.threads * 1.1 + KEPT_THREADS:
        found.append(f"{now.threads} threads, {base.threads} before")
    if now.descriptors > base.descriptors * 1.1 + KEPT_DESCRIPTORS:
        found.append(f"{now.descriptors} descriptors, {base.descriptors} before")
    if now.resident > base.resident * 1.1 + MORE_MEMORY:
        found.append(f"{now.resident >> 20} MB resident, {base.resident >> 20} MB before")
    return found


def _prompt(daemon: Daemon, patience: float) -> list[str]:
    end = time.monotonic() + patience
    while (taken := daemon.echo_seconds()) > prompt() and time.monotonic() < end:
        pass
    return [f"a C-ECHO takes {taken * 1000:.0f} ms"] if taken > prompt() else []


def prompt() -> float:
    """Seconds a C-ECHO may take here and now."""
    return PROMPT * slowness()


def slowness() -> float:
    """How much longer everything takes here and now: on a machine whose cores have a queue each, as long as that."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


# -- in the log -------------------------------------------------------------------------------------


def in_log(text: str, markers: Sequence[str] = (MARKER,)) -> Iterator[str]:
    for sign in SIGNS:
        if sign in text:
            yield f"in the log: {text[max(0, text.index(sign) - 300) :][:1500]}"
    for marker in markers:
        if marker in text:
            yield f"patient data in the log: {text[max(0, text.index(marker) - 200) :][:400]}"
    if found := _CONTROL.search(text):
        yield f"raw control character {found[0]!r} in the log"


# -- the command ------------------------------------------------------------------------------------


class Noted:
    """A line of the list of what was acknowledged: SOP Instance UID and SHA-256 of the data set."""

    def __init__(self, line: str) -> None:
        self.uid, digest = line.split()
        self.sha256 = bytes.fromhex(digest)


def look(site: Site, acknowledged: Sequence[Known], markers: Sequence[str], *, port: int = 0) -> Iterator[str]:
    """What can be said of an archive that somebody else started, or that has ended in order."""
    yield from _on_disk(site, acknowledged, set(), PATIENCE)
    if port:
        before = time.monotonic()
        try:
            with association(port, Request(calling="PROBE", contexts=ONLY_ECHO)) as probe:
                if (status := probe.echo()) != SUCCESS:
                    yield f"C-ECHO is answered with {status:04x}"
        except (OSError, Ended) as error:
            yield f"no C-ECHO: {error}"
        if time.monotonic() - before > prompt():
            yield f"a C-ECHO takes {(time.monotonic() - before) * 1000:.0f} ms"
    yield from in_log(site.log(), markers)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.faults.checker", description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="the archive's configuration file")
    parser.add_argument("--acknowledged", type=Path, help="file with lines `SOP-Instance-UID SHA-256-of-data-set`")
    parser.add_argument("--log", type=Path, help="what the daemon wrote to standard error")
    parser.add_argument("--marker", action="append", default=[], help="text of a patient that no log may hold")
    parser.add_argument("--port", type=int, default=0, help="where the running archive answers a C-ECHO")
    options = parser.parse_args(arguments)
    lines = options.acknowledged.read_text().splitlines() if options.acknowledged else []
    site = Site.of(options.config, options.log or Path("/nonexistent"))
    site.is_running = bool(options.port)
    found = list(look(site, [Noted(line) for line in lines if line.strip()], options.marker, port=options.port))
    print("\n".join(found) or f"{len(site.rows())} instances, {len(lines)} acknowledged, nothing to complain of")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
