"""The archives that are compared: how each is found, configured and started.

Rules that hold here: every system gets an empty folder, listens on loopback, knows one C-MOVE destination,
lets the benchmark do everything, and is otherwise as it is shipped (its syncs above all).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchlib import processes
from benchlib.certificates import Certificates
from benchlib.client import VERIFICATION, Association, Failed, Offer, Target

SCRIPTS = Path(__file__).resolve().parent.parent
DESTINATION = "BENCHDEST"
ORTHANC_PLACES = ("/usr/sbin/Orthanc", "/usr/local/sbin/Orthanc")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one instance of a system runs."""

    folder: Path
    port: int
    destination_port: int
    tls: Certificates | None = None


@dataclass(frozen=True, slots=True)
class System:
    """`found` says which version is here or "" for none; `prepare` writes the configuration, returns the command."""

    name: str
    title: str
    ae: str
    found: Callable[[], str]
    prepare: Callable[[Place], list[str | Path]]
    has_tls: bool = True


class Running:
    """A started system: answers C-ECHO when the constructor returns."""

    def __init__(self, system: System, place: Place, environment: Mapping[str, str]) -> None:
        self.system, self.place = system, place
        place.folder.mkdir(parents=True)
        self.process = processes.Process(system.prepare(place), place.folder / "output.log", environment)
        self.pid = self.process.pid
        try:
            processes.wait_until(self._answers, self.process)
        except RuntimeError:
            self.process.stop()
            raise

    def target(self, timeout: float = 30.0) -> Target:
        return Target(self.place.port, self.system.ae, self._tls_context(), timeout)

    def stop(self) -> None:
        self.process.stop()
        _empty(self.place.folder)

    def _tls_context(self) -> ssl.SSLContext | None:
        return self.place.tls.client_context() if self.place.tls else None

    def _answers(self) -> bool:
        try:
            with Association(self.target(timeout=2.0), [Offer(VERIFICATION)]) as association:
                association.echo()
        except (OSError, Failed):
            return False
        return True


def _empty(folder: Path) -> None:
    """Give the space back, but delete nothing: for minutes ext4 passes over each deleted file whenever it makes one, so
    that whoever is measured next would pay for it. What is left goes at the end of the whole run."""
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            with contextlib.suppress(OSError):
                os.truncate(file, 0)


def _archive_found() -> str:
    program = Path(sys.executable).parent / "archive"
    if not program.exists():
        return ""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return said.strip().removeprefix("archive ")


def _archive(place: Place) -> list[str | Path]:
    listener: dict[str, object] = {"host": "127.0.0.1", "port": place.port}
    if place.tls:
        listener["tls"] = {
            "cert": str(place.tls.certificate), "key": str(place.tls.key), "ca": str(place.tls.authority),
            "client_cert": "require",
        }  # fmt: skip
    everything = ["echo", "store", "find", "move", "get"]
    configuration = {
        "ae": {"title": "ARCHIVE"},
        "listeners": [listener],
        "limits": dict.fromkeys(("max_associations", "reserved_for_peers", "per_ae", "per_ip"), 0)
        | {"max_instance_size": "4GB"},
        "unknown_peers": {"allow": ["echo"], "loopback": everything},
        "peers": {DESTINATION: {"host": "127.0.0.1", "port": place.destination_port, "allow": everything}},
        "storage": {"path": str(place.folder / "files")},
        "index": {"url": f"sqlite:///{place.folder / 'index.db'}"},
    }
    file = place.folder / "archive.yaml"
    file.write_text(json.dumps(configuration, indent=1))  # JSON is YAML too
    return [Path(sys.executable).parent / "archive", "serve", "--config", file]


def _orthanc_program() -> str:
    return next((place for place in ORTHANC_PLACES if Path(place).exists()), shutil.which("Orthanc") or "")


def _orthanc_found() -> str:
    program = _orthanc_program()
    if not program:
        return ""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return said.splitlines()[0].split()[-1]


def _orthanc(place: Place) -> list[str | Path]:
    configuration: dict[str, object] = {
        "Name": "bench", "StorageDirectory": str(place.folder / "files"), "IndexDirectory": str(place.folder / "index"),
        "RemoteAccessAllowed": False, "HttpPort": processes.free_port(), "AuthenticationEnabled": False,
        "DicomServerEnabled": True, "DicomAet": "ORTHANC", "DicomPort": place.port,
        "DicomAlwaysAllowEcho": True, "DicomAlwaysAllowStore": True, "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True, "DicomAlwaysAllowMove": True,
        "DicomModalities": {"destination": [DESTINATION, "127.0.0.1", place.destination_port]},
    }  # fmt: skip
    if place.tls:
        configuration |= {
            "DicomTlsEnabled": True, "DicomTlsCertificate": str(place.tls.certificate),
            "DicomTlsPrivateKey": str(place.tls.key), "DicomTlsTrustedCertificates": str(place.tls.authority),
        }  # fmt: skip
    file = place.folder / "orthanc.json"
    file.write_text(json.dumps(configuration, indent=1))
    return [_orthanc_program(), file]


def _dcmqrscp_found() -> str:
    if not shutil.which("dcmqrscp"):
        return ""
    said = subprocess.run(["dcmqrscp", "--version"], capture_output=True, text=True, check=False).stdout
    return " ".join(said.split()[2:4])


def _dcmqrscp(place: Place) -> list[str | Path]:
    files = place.folder / "files"
    files.mkdir()
    file = place.folder / "dcmqrscp.cfg"
    file.write_text(
        f"NetworkTCPPort = {place.port}\nMaxPDUSize = 16384\nMaxAssociations = 1200\n"
        f"HostTable BEGIN\ndestination = ({DESTINATION}, 127.0.0.1, {place.destination_port})\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nDCMQRSCP {files} RW (5000, 8000mb) ANY\nAETable END\n"
    )
    return ["dcmqrscp", "-c", file]


def _stock_found() -> str:
    return f"pynetdicom {version('pynetdicom')}"


def _stock(place: Place) -> list[str | Path]:
    tls = [place.tls.certificate, place.tls.key, place.tls.authority] if place.tls else []
    return [
        sys.executable,
        SCRIPTS / "benchlib" / "stock.py",
        str(place.port),
        place.folder,
        str(place.destination_port),
        *tls,
    ]


SYSTEMS = (
    System("archive", "archive", "ARCHIVE", _archive_found, _archive),
    System("orthanc", "Orthanc", "ORTHANC", _orthanc_found, _orthanc),
    System("dcmqrscp", "dcmqrscp", "DCMQRSCP", _dcmqrscp_found, _dcmqrscp, has_tls=False),
    System("stock", "stock pynetdicom", "STOCK", _stock_found, _stock),
)
