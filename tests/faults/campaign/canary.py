"""S20-S22, G17: a patient whose name is everywhere goes through everything, and must be in no log.

Rules that hold here: the log is at its most talkative; what an administrator or a peer is told counts as a log:
Error Comments, the command line's output, what systemd hears; the name may be in stored files, the journal, the
quarantine and the index, and nowhere else below the archive's folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.faults import badobjects, fuzz, raw
from tests.faults.badobjects import Case
from tests.faults.campaign.fuzzing import Sender
from tests.faults.campaign.run import PATIENT, POSTGRESQL, SQLITE, Run, fault
from tests.faults.daemon import ROOT, Daemon
from tests.faults.objects import MARKER, Instance, instance, keys_of
from tests.faults.raw import CT, FIND, GET, MOVE, Connection, Ended, Request, p_data, pdv

MAY_HOLD = ("files/objects/", "files/journal/", "files/quarantine/", "files/spool/", "index.db", "audit", "studies")
KEYS = f"{MARKER}^PATIENT"
COMMANDS = (["quarantine", "list"], ["status"], ["peers", "list"], ["check-config"], ["status", "--json"])


@fault(
    "S20-22", "a patient's name through everything, in no log, comment or command", goal="G17", tries=400, seconds=120,
    few=25, databases=(SQLITE, POSTGRESQL), twins=("talkative", "raw log"),
    proves="a name in the log and a forged line are seen",
)  # fmt: skip
def canary(run: Run) -> None:
    archive = run.daemon({"log": {"level": "debug"}, "processes": 1, "timeouts": PATIENT}).start()
    steps = [*_stores(run, archive), *_queries(archive), *_strangers(archive)]
    if run.tries < 100:
        run.rng.shuffle(steps)
    said: list[str] = []
    while run.goes_on():
        for name, step in steps:
            comment = step()
            if MARKER in comment.upper():
                run.count([f"{name}: the peer is told {comment!r}"], tries=0)
            run.count()
            if not run.goes_on():
                break
    for command in COMMANDS[: 2 if run.tries < 100 else None]:
        said.append(_command(archive, command))
    found = [f"a command says {text[:200]}" for text in said if MARKER in text.upper()]
    archive.signal(1)  # SIGHUP
    found += run.check(archive)
    found += _elsewhere(archive)
    archive.stop()
    log = archive.log()
    found += [f"a forged line: {line[:100]!r}" for line in log.splitlines() if line.startswith("FORGED")]
    found += [f"the log has a line of {len(line)} characters" for line in log.splitlines() if len(line) > 1400][:1]
    run.figure("log", f"{len(log.splitlines()):,} lines at debug")
    run.count(found, tries=0)


Step = tuple[str, "Call"]


class Call:
    """Something a peer does; gives the comment that it is answered with."""

    def __init__(self, archive: Daemon, data: bytes, request: Request | None = None) -> None:
        self._archive, self._data, self._request = archive, data, request

    def __call__(self) -> str:
        try:
            with Connection(self._archive.port, patience=1) as connection:
                connection.associate(self._request)
                connection.send(self._data)
                return _comment(connection) if self._data else ""
        except (OSError, Ended, AssertionError):
            return ""


def _comment(connection: Connection) -> str:
    while True:
        message = connection.message()
        if message.number(raw.FIELD) == raw.C_STORE:
            connection.write(message.context, raw.store_rsp(message.command))
        elif message.status not in (raw.PENDING, raw.PENDING + 1):
            return message.command.get(raw.COMMENT, b"").decode("latin-1")


class Stored(Call):
    def __init__(self, sender: Sender, case: Case) -> None:
        self._sender, self._case = sender, case

    def __call__(self) -> str:
        self._sender.store(self._case)
        return ""


def _stores(run: Run, archive: Daemon) -> Iterator[Step]:
    """Objects that are right, that contradict one another, and that are wrong, each with the name."""
    first = instance(patient=f"{MARKER}-1")
    same_uid = Instance(CT, first.uid, first.study, first.series, "", first.data.replace(b"120000", b"130000"))
    other_patient = instance(study=first.study, patient=f"{MARKER}-2")
    for name, one in {"right": first, "other content": same_uid, "another patient": other_patient}.items():
        store = p_data(pdv(raw.STORE_CT, 3, raw.store_rq(CT, one.uid))) + p_data(pdv(raw.STORE_CT, 2, one.data))
        yield name, Call(archive, store)
    sender = Sender(archive)
    for group in ("missing", "mismatches", "nonsense", "structures", "texts", "uids"):
        for case in badobjects.GROUPS[group]():
            yield str(case), Stored(sender, case)
    for how in fuzz.STRATEGIES:
        uid = instance().uid
        data = how(run.rng, badobjects.made(uid))
        yield how.__name__, Stored(sender, Case("S21", how.__name__, data, frozenset(), uid))


def _queries(archive: Daemon) -> Iterator[Step]:
    """The name as a key of every kind of query, right and wrong."""
    for level in ("PATIENT", "STUDY", "SERIES", "IMAGE", KEYS):
        for patient in (KEYS, f"{MARKER}*", f"{MARKER}\\{MARKER}", f"{MARKER}\nFORGED line", f"{MARKER}%s\x1b[31m"):
            keys = keys_of(level, patient=patient)
            for context, field, sop_class in (
                (FIND, raw.C_FIND, raw.STUDY_FIND), (MOVE, raw.C_MOVE, raw.STUDY_MOVE), (GET, raw.C_GET, raw.STUDY_GET),
            ):  # fmt: skip
                query = raw.query_rq(field, sop_class, 1, "SENDER" if field == raw.C_MOVE else "")
                data = p_data(pdv(context, 3, query)) + p_data(pdv(context, 2, keys))
                yield f"{field:02x} at {level}", Call(archive, data)


def _strangers(archive: Daemon) -> Iterator[Step]:
    """Titles and identities that try to write lines of their own."""
    for title in (b"A\nFORGED 1", b"A\r\nFORGED\x1b[3", b"%s%s%n%d", b"\x9bFORGED"):
        yield ascii(title), Call(archive, b"", Request(calling=title))
    identity = b"\n".join([b"FORGED line"] * 3) + KEYS.encode()
    user = raw.item(0x58, bytes([1, 0]) + len(identity).to_bytes(2, "big") + identity + bytes(2))
    yield "user identity", Call(archive, raw.release_rq(), Request(user=user))


def _command(archive: Daemon, words: list[str]) -> str:
    command = [sys.executable, "-m", "archive", *words, "--config", str(archive.config_file)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, check=False, cwd=archive.folder, env=environment, capture_output=True, timeout=300)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def _elsewhere(archive: Daemon) -> list[str]:
    """Files below the archive's folder that hold the name although they may not, and arguments of its processes."""
    marker, found = MARKER.encode(), []
    for path in archive.folder.rglob("*"):
        name = str(path.relative_to(archive.folder))
        if path.is_file() and not name.startswith(MAY_HOLD) and marker in path.read_bytes():
            found.append(f"the name is in {name}")
    for pid in archive.pids():
        if marker in Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes():
            found.append("the name is in /proc")
    return found


