"""Every bundled sample, with DCMTK: stored in its own transfer syntax, found, moved and fetched, byte for byte."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pydicom
import pytest

from tests.endtoend.dcmtk import Client, query, storescp, tls_relay
from tests.endtoend.samples import Sample, content, distinct
from tests.faults.daemon import Daemon

# What DCMTK 3.6.7 calls a transfer syntax: `+xs` prefers it (getscu), `-xs` proposes it (storescu).
SYNTAX = {
    "1.2.840.10008.1.2": "xi",
    "1.2.840.10008.1.2.1": "xe",
    "1.2.840.10008.1.2.2": "xb",
    "1.2.840.10008.1.2.1.99": "xd",
    "1.2.840.10008.1.2.4.50": "xy",
    "1.2.840.10008.1.2.4.51": "xx",
    "1.2.840.10008.1.2.4.70": "xs",
    "1.2.840.10008.1.2.4.80": "xt",
    "1.2.840.10008.1.2.4.81": "xu",
    "1.2.840.10008.1.2.4.90": "xv",
    "1.2.840.10008.1.2.4.91": "xw",
    "1.2.840.10008.1.2.5": "xr",
}
# Damaged on purpose, so that storescu itself cannot read them: nothing of these reaches the archive.
UNREADABLE = {
    "SC_rgb_jpeg.dcm",
    "MR_truncated.dcm",
    "rtdose_rle.dcm",
    "rtdose_rle_1frame.dcm",
    "rtplan_truncated.dcm",
}
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"  # getscu's +xi proposes Explicit VR in truth
PLAIN, TLS = "plain", "TLS with a client certificate"


class Full:
    """A daemon that was offered every sample, and a storescp that it may move to."""

    def __init__(self, folder: Path, tls: bool) -> None:
        self.moved, self.fetched = folder / "moved", folder / "fetched"
        self._receiver = storescp(self.moved, "+xa", "+B")
        port = self._receiver.__enter__()
        receiver = {"RECEIVER": {"host": "127.0.0.1", "port": port, "allow": ["echo"]}}
        self.daemon = Daemon(folder, {"peers": receiver, "storage": {"journal": "16MB"}}, tls=tls)
        if tls:  # callers must show a certificate; the daemon's own will do, it signed itself
            self.daemon.settings["listeners"][1]["tls"] |= {"client_cert": "require", "ca": "server.pem"}
            self.daemon.configure()
        self.daemon.start()
        certificate, key = folder / "server.pem", folder / "server.key"
        options = ["+tls", key, certificate, "+cf", certificate] if tls else []
        self._relay = tls_relay(self.daemon.tls_port, certificate, key)
        self.client = Client(self.daemon, tls=options, relay=self._relay.__enter__() if tls else 0)
        (folder / "samples").mkdir()
        answers = {sample: self._store(sample) for sample in distinct(folder / "samples")}
        self.stored = [sample for sample, words in answers.items() if not words]
        self.refused = {sample.path.name: words for sample, words in answers.items() if words}

    def _store(self, sample: Sample) -> str:
        """Send one sample as it is; empty, or how it was refused."""
        syntax = "-" + SYNTAX.get(sample.transfer_syntax, "x=")
        text = self.client.call("storescu", "-v", "-R", syntax, rest=[sample.path], good=range(256))
        if "Received Store Response (Success)" in text:
            return ""
        return next((line for line in text.splitlines() if "Store Response" in line or line.startswith("E:")), text)

    def close(self) -> None:
        self.daemon.stop()
        self._receiver.__exit__(None, None, None)


@pytest.fixture(scope="module", params=[PLAIN, TLS])
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Full]:
    made = Full(tmp_path_factory.mktemp("full"), request.param == TLS)
    yield made
    made.close()


def test_every_sample_that_can_be_sent_is_stored(full: Full) -> None:
    assert {name: words for name, words in full.refused.items() if name not in UNREADABLE} == {}
    assert len(full.stored) >= 150


def test_every_sample_is_found_at_every_level(full: Full) -> None:
    for level, key, wanted in (
        ("STUDY", "StudyInstanceUID", {sample.study for sample in full.stored}),
        ("SERIES", "SeriesInstanceUID", {sample.series for sample in full.stored}),
        ("IMAGE", "SOPInstanceUID", {sample.sop_instance for sample in full.stored}),
    ):
        found = set()
        # One sample of each study and series stands for the others above the level of images.
        some = {
            getattr(sample, {"STUDY": "study", "SERIES": "study"}.get(level, "series")): sample
            for sample in full.stored
        }
        for sample in some.values():
            above = {"StudyInstanceUID": sample.study, "SeriesInstanceUID": sample.series}
            keys = {name: uid for name, uid in above.items() if level == "IMAGE" or name == "StudyInstanceUID"}
            text = full.client.call("findscu", rest=query(level, **{**keys, key: ""} if level != "STUDY" else keys))
            found |= set(re.findall(r"UI \[([0-9.]+)", text))
        assert wanted <= found


def test_every_patient_is_found(full: Full) -> None:
    keys = ("-k", "QueryRetrieveLevel=PATIENT", "-k", "PatientID=", "-k", "PatientName=")
    text = full.client.call("findscu", "-P", *keys)
    patients = {str(pydicom.dcmread(each.path, stop_before_pixels=True).get("PatientID", "")) for each in full.stored}
    assert text.count("(0010,0020)") - 1 >= len(patients - {""})


def test_every_sample_comes_back_by_c_move_as_it_was_sent(full: Full) -> None:
    for study in sorted({sample.study for sample in full.stored}):
        full.client.call("movescu", "-aem", "RECEIVER", rest=query("STUDY", StudyInstanceUID=study))
    assert_equal(full.stored, full.moved)


def test_every_sample_comes_back_by_c_get_as_it_was_sent(full: Full) -> None:
    shutil.rmtree(full.fetched, ignore_errors=True)
    full.fetched.mkdir()
    for sample in full.stored:
        keys = {"StudyInstanceUID": sample.study, "SeriesInstanceUID": sample.series}
        syntax = "+" + SYNTAX.get(sample.transfer_syntax, "x=")
        asked = query("IMAGE", **keys, SOPInstanceUID=sample.sop_instance)
        full.client.call("getscu", "+B", syntax, "-od", full.fetched, rest=asked)
    assert_equal(full.stored, full.fetched, {IMPLICIT: EXPLICIT})


def assert_equal(samples: list[Sample], folder: Path, converted: Mapping[str, str] = MappingProxyType({})) -> None:
    """Element for element, pixel byte for pixel byte, in the transfer syntax they were stored in.

    `converted` are the syntaxes that the receiver does not take, and what it takes in their place.
    """
    got = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in folder.iterdir()}
    assert sorted(got) == sorted(sample.sop_instance for sample in samples)
    different = [
        sample.path.name
        for sample in samples
        if content(got[sample.sop_instance]) != content(sample.path)
        or pydicom.dcmread(got[sample.sop_instance], stop_before_pixels=True).file_meta.TransferSyntaxUID
        != converted.get(sample.transfer_syntax, sample.transfer_syntax)
    ]
    assert different == []


def test_without_a_client_certificate_there_is_no_association(full: Full) -> None:
    if not full.daemon.tls_port:
        assert "refused" not in full.client.call("echoscu")
        return
    options = ["+tla", "-ic"]
    text = Client(full.daemon, tls=options).call("echoscu", good=range(1, 256))
    assert "TLS" in text or "Peer aborted" in text or "Association Request Failed" in text
