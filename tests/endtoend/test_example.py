"""The example configuration config/examples/upper-case-and-provenance.yaml, clause by clause, by DCMTK clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from pydicom.dataset import Dataset

from archive import __version__
from archive.app.store import index_of
from archive.config import load
from archive.dicom.compressed import JPEG_LOSSLESS_SV1
from tests import builders
from tests.endtoend.dcmtk import Client, run, storescp
from tests.endtoend.test_receiving import Site, like
from tests.faults.daemon import ROOT, wait_until

EXAMPLE = ROOT / "config/examples/upper-case-and-provenance.yaml"
CREATOR = "BRIT Systems, Inc."


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The example with this machine's addresses, free ports and folders of its own; all else as it is written."""
    folder = tmp_path_factory.mktemp("example")
    with storescp(folder / "moved", "+xa", "+B") as port:
        made = Site(folder, {})
        ports = made.daemon.port, made.daemon.port + 1
        made.daemon.tls_port = ports[1]
        made.daemon.settings = adapted(made.daemon.folder, ports, port)
        rsa_certificate(made.daemon.folder)
        made.daemon.configure()
        with made.daemon:
            yield made


def rsa_certificate(folder: Path) -> None:
    """server.pem and server.key: the profile AES_128_CBC knows RSA only."""
    key, certificate = folder / "server.key", folder / "server.pem"
    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost")
    run("openssl", *new, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate)
    key.chmod(0o600)


def adapted(folder: Path, ports: tuple[int, int], receiver: int) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.load(EXAMPLE.read_text(), yaml.BaseLoader)  # noqa: S506 - texts only
    for listener, port in zip(settings["listeners"], ports, strict=True):
        listener |= {"host": "127.0.0.1", "port": port}
    settings["listeners"][1]["tls"] |= {"cert": "server.pem", "key": "server.key"}
    for peer in settings["peers"].values():
        peer |= {"host": "127.0.0.1", "port": receiver}
    settings["peers"]["SENDER"] = {"host": "127.0.0.1", "allow": ["echo", "store", "get", "move"]}
    return settings | {"processes": 1, "storage": settings["storage"] | {"path": "files", "reserve": 0}, "index": {
        "url": "sqlite:///index.db"}}  # fmt: skip


def test_the_example_loads_as_it_is_written(tmp_path: Path) -> None:
    rsa_certificate(tmp_path)
    names = {"ARCHIVE_CERT": "server.pem", "ARCHIVE_KEY": "server.key"}
    config = load(EXAMPLE, environ={name: str(tmp_path / file) for name, file in names.items()})
    assert [listener.port for listener in config.listeners] == [3200, 3222]
    assert config.listeners[1].tls is not None and config.listeners[1].tls.client_cert == "ignore"


def test_anybody_may_verify_but_only_peers_store(site: Site) -> None:
    Client(site.daemon, calling="NOBODY").call("echoscu")
    path = builders.write(site.folder / "nobody.dcm")
    Client(site.daemon, calling="NOBODY").call("storescu", rest=[path], good=range(1, 256))


def test_tls_is_spoken_on_a_port_of_its_own_without_certificates_of_callers(site: Site) -> None:
    names = ("-aet", "SENDER", "-aec", "ARCHIVE", "127.0.0.1", site.daemon.tls_port)
    run("echoscu", "+tla", "-ic", "+cs", "TLS_RSA_WITH_AES_128_CBC_SHA", *names)


def test_names_and_numbers_are_stored_in_upper_case(site: Site) -> None:
    data = builders.ct(PatientName="Doe^Jane", PatientID="id7", AccessionNumber="acc1", StudyID="s1")
    assert site.store(data) == (0, "")
    got = site.fetched(data)
    assert (got.PatientName, got.PatientID, got.AccessionNumber, got.StudyID) == ("DOE^JANE", "ID7", "ACC1", "S1")
    assert site.store(data) == (0, ""), "the same object again"


def test_conflicts_are_refused_with_the_reason(site: Site) -> None:
    first = builders.ct(PatientID="CONFLICT")
    site.store(first)
    assert site.store(like(first, PatientID="OTHER")) == (0xC000, "Study Instance UID belongs to another patient")
    assert site.store(builders.ct(PatientID="conflict", PatientName="Else^Some")) == (0xC000, "patient name mismatch")
    assert site.aside() == []


@pytest.mark.parametrize(("option", "syntax"), [("-xi", "1.2.840.10008.1.2"), ("-xe", "1.2.840.10008.1.2.1")])
def test_the_first_proposed_syntax_is_stored(site: Site, option: str, syntax: str) -> None:
    data = builders.ct(PatientID="SYNTAX")
    path = builders.write(site.folder / "syntax.dcm", data)
    Client(site.daemon).call("storescu", option, rest=[path])
    assert syntaxes(site, data)[0] == syntax


def syntaxes(site: Site, data: Dataset) -> tuple[str, str]:
    """In which transfer syntax an image came, and in which it is stored now."""
    with closing(index_of(load(site.daemon.config_file))) as index:
        known = index.known(str(data.SOPInstanceUID))
        assert known is not None
        received = index.upkeep.received(known)
        assert received is not None
        return received.transfer_syntax, known.transfer_syntax


def test_images_become_lossless_jpeg_and_stay_what_they_were(site: Site) -> None:
    pixels = bytes(range(256)) * 512
    size = {"Rows": 256, "Columns": 256, "PixelData": pixels}
    data = builders.ct(PatientID="JPEG", BitsAllocated=16, BitsStored=16, HighBit=15, **size)
    assert site.store(data) == (0, "")
    wait_until(lambda: syntaxes(site, data)[1] == JPEG_LOSSLESS_SV1, 60, "it was never compressed")
    assert site.fetched(data).PixelData == pixels
    assert site.store(data) == (0, ""), "the same object again"
    assert "compressed to jpeg-lossless-sv1" in site.archive("status")


def test_the_private_block_says_who_sent_it_and_what_was_done(site: Site) -> None:
    data = builders.ct(PatientID="provenance")
    data.add_new((0x0021, 0x0010), "LO", "SOMEBODY ELSE")
    data.add_new((0x0021, 0x1090), "LO", "theirs")
    site.store(data, "CT1")
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={data.StudyInstanceUID}"]
    Client(site.daemon).call("movescu", "-S", "-aem", "WS1", rest=keys)
    moved = [pydicom.dcmread(path) for path in (site.folder / "moved").iterdir()]
    (got,) = [each for each in moved if each.SOPInstanceUID == data.SOPInstanceUID]
    assert (got[0x0021, 0x0010].value, got[0x0021, 0x1090].value) == ("SOMEBODY ELSE", "theirs")
    assert (got[0x0021, 0x0011].value, got[0x0021, 0x1190].value) == (CREATOR, "CT1")
    done = got[0x0021, 0x11A0].value
    assert [item[0x0021, 0x10A1].value for item in done] == ["RECEIVED", "MODIFIED", "SENT"]
    assert {item[0x0021, 0x0010].value for item in done} == {CREATOR}
    assert {item[0x0021, 0x1092].value for item in done} == {__version__}
    received, _, sent = done
    for item, remote in ((received, "CT1"), (sent, "WS1")):
        ends = [item[0x0021, tag].value for tag in range(0x10A5, 0x10A9)]
        assert ends == ["ARCHIVE", "127.0.0.1", remote, "127.0.0.1"]
