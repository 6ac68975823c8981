"""The oracle: what must hold after every fault, whatever it was.

Rules that hold here: nothing of the archive is used, the database and the files are read as they lie on
disk; every violation is named, none hides another; what needs a moment to settle (threads that end) gets
a bounded one.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.faults.daemon import Daemon, Usage
from tests.faults.objects import MARKER, Instance, keys_of_instance
from tests.faults.raw import CONTEXTS, CT, MR, SUCCESS, Request, association, role

PATIENCE = 6.0  # seconds for threads to end and sockets to close
MORE_MEMORY = 24 * 2**20  # what caches may take beside the ten per cent
PROMPT = 0.1  # seconds, one C-ECHO with its association
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


class Row(NamedTuple):
    uid: str
    path: str
    offset: int
    size: int
    sha256: bytes


def violations(
    daemon: Daemon,
    acknowledged: Iterable[Instance] = (),
    *,
    base: Usage | None = None,
    alive: bool = True,
    since: int = 0,
) -> list[str]:
    """All that does not hold. `alive`: the daemon runs, so ask it as well; `base`: what it held before;
    `since`: where the part of the log begins that is judged.
    """
    acknowledged = list(acknowledged)
    found = list(_on_disk(daemon, acknowledged))
    if alive:
        found += _asked(daemon, acknowledged)
        found += _usage(daemon, base) if base else []
        found += _prompt(daemon)
    return [*found, *_log(daemon, since)]


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


def rows(daemon: Daemon) -> list[Row]:
    with contextlib.closing(
        sqlite3.connect(f"file:{daemon.folder / 'index.db'}?mode=ro", uri=True, timeout=10)
    ) as database:
        text = "select sop_instance_uid, path, data_offset, data_size, sha256 from instance"
        return [Row(*row) for row in database.execute(text)]


def quarantine_rows(daemon: Daemon) -> set[str]:
    with contextlib.closing(
        sqlite3.connect(f"file:{daemon.folder / 'index.db'}?mode=ro", uri=True, timeout=10)
    ) as database:
        return {path for (path,) in database.execute("select path from quarantine")}


def _on_disk(daemon: Daemon, acknowledged: list[Instance]) -> Iterator[str]:
    files, found = _settled(daemon)
    by_uid = Counter(row.uid for row in found)
    whole = {row.uid: row for row in found}
    for instance in acknowledged:
        if by_uid[instance.uid] != 1:
            yield f"acknowledged {instance.uid} has {by_uid[instance.uid]} rows"
        elif whole[instance.uid].sha256 != instance.sha256:
            yield f"acknowledged {instance.uid}: the row is of other bytes"
    for row in found:
        yield from _file(daemon.files / row.path, row)
    paths = {row.path for row in found}
    yield from (f"file without row: {path}" for path in sorted(files - paths))
    yield from (f"left in the spool: {path}" for path in daemon.spool())
    aside = {str(path.relative_to(daemon.files)) for path in daemon.quarantined()}
    yield from (f"quarantine: file or row alone: {path}" for path in sorted(aside ^ quarantine_rows(daemon)))


def _settled(daemon: Daemon) -> tuple[set[str], list[Row]]:
    """Files and rows of one moment: a store that runs between the two looks is no fault."""
    end = time.monotonic() + (PATIENCE if daemon.is_running else 0)
    while True:
        found = rows(daemon)
        files = {str(path.relative_to(daemon.files)) for path in daemon.objects()}
        if (files == {row.path for row in found} and not daemon.spool()) or time.monotonic() > end:
            return files, found
        time.sleep(0.1)


def _file(path: Path, row: Row) -> Iterator[str]:
    if not path.exists():
        yield f"row without file: {row.uid}"
        return
    data = path.read_bytes()[row.offset :]
    if len(data) != row.size or hashlib.sha256(data).digest() != row.sha256:
        yield f"file of {row.uid} has other bytes than were received"


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


def _usage(daemon: Daemon, base: Usage) -> list[str]:
    end = time.monotonic() + PATIENCE
    while (found := _above(daemon.usage(), base)) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def _above(now: Usage, base: Usage) -> list[str]:
    found = []
    if now.processes != base.processes:
        found.append(f"{now.processes} processes, {base.processes} before")
    if now.threads > base.threads * 1.1:
        found.append(f"{now.threads} threads, {base.threads} before")
    if now.descriptors > base.descriptors * 1.1:
        found.append(f"{now.descriptors} descriptors, {base.descriptors} before")
    if now.resident > base.resident * 1.1 + MORE_MEMORY:
        found.append(f"{now.resident >> 20} MB resident, {base.resident >> 20} MB before")
    return found


def _prompt(daemon: Daemon) -> list[str]:
    end = time.monotonic() + PATIENCE
    while (taken := daemon.echo_seconds()) > PROMPT and time.monotonic() < end:
        pass
    return [f"a C-ECHO takes {taken * 1000:.0f} ms"] if taken > PROMPT else []


# -- in the log -------------------------------------------------------------------------------------


def _log(daemon: Daemon, since: int) -> Iterator[str]:
    text = daemon.log()[since:]
    for sign in ("Traceback", "a fault of ours", "Fatal Python error", "Exception ignored"):
        if sign in text:
            yield f"in the log: {text[max(0, text.index(sign) - 300) :][:1500]}"
    if MARKER in text:
        yield f"patient data in the log: {text[max(0, text.index(MARKER) - 200) :][:400]}"
    if found := _CONTROL.search(text):
        yield f"raw control character {found[0]!r} in the log"
