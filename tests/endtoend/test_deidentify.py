"""A daemon whose routes de-identify: nothing of what was planted in a study is in what its receivers have got."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, SecondaryCaptureImageStorage

from archive.cli import main
from archive.services.delivery import IDENTIFIED
from tests.dimse import archives
from tests.endtoend.dcmtk import Client, storescp
from tests.faults.daemon import EVERYTHING, Daemon, wait_until

KEY = "a secret that is long enough for a test of it"
CANARY, DAY, FAR = b"KANARI", b"20240229", "1.3.6.1.4.1.99999.1234"
REFUSED = "not de-identified: it may show patient data in its pixels"


def planted(number: int, **more: Any) -> Dataset:
    """An image with a patient in every corner."""
    ds = archives.instance(number, patient="KANARI-7", size=16, **more)
    ds.PatientName, ds.PatientBirthDate, ds.StudyDate = "KANARI^Anna", "20240229", "20240229"
    ds.AccessionNumber, ds.InstitutionName, ds.StudyDescription = "KANARI-A", "KANARI Clinic", "knee of KANARI"
    ds.ReferringPhysicianName, ds.ImageComments = "KANARI^Doctor", "called KANARI at noon"
    ds.AcquisitionDateTime, ds.FrameOfReferenceUID = "20240229101112.5+0100", f"{FAR}.1"
    ds.ReferencedImageSequence = Sequence([reference(ds, each) for each in (1, 2)])
    inner = Dataset()
    inner.PersonName, inner.TextValue, inner.UID = "KANARI^Observer", "seen by KANARI", f"{FAR}.2"
    inner.ContentSequence = Sequence([reference(ds, 2)])
    ds.ContentSequence = Sequence([inner])
    ds.RequestAttributesSequence = ds.OtherPatientIDsSequence = Sequence([reference(ds, 1)])
    ds.OriginalAttributesSequence = Sequence([planted_item()])
    for tag, vr, value in (
        (0x00090010, "LO", "KANARI PRIVATE"), (0x00091001, "PN", "KANARI^Private"), (0x00091002, "UN", b"KANARI un "),
        (0x00091003, "SQ", Sequence([planted_item()])), (0x00281FFE, "LO", "KANARI nobody knows"),
        (0x50000022, "LO", "KANARI curve"), (0x50003000, "OW", b"KANARI points "), (0x60000010, "US", 16),
        (0x60000022, "LO", "KANARI overlay"), (0x60001500, "LO", "KANARI label"), (0x60004000, "LT", "KANARI text"),
        (0x60003000, "OW", b"KANARI in the bits"), (0x60020022, "LO", "KANARI second"), (0xFFFCFFFC, "OB", b"KANARI"),
    ):  # fmt: skip
        ds.add_new(tag, vr, value)
    return ds


def planted_item() -> Dataset:
    item = Dataset()
    item.PatientName, item.PatientID, item.StudyDate, item.StudyInstanceUID = "KANARI^B", "KANARI-8", "20240229", FAR
    return item


def reference(ds: Dataset, number: int) -> Dataset:
    item = planted_item()
    item.ReferencedSOPClassUID = ds.SOPClassUID
    item.ReferencedSOPInstanceUID = f"{archives.ROOT}.{ds.StudyInstanceUID.rpartition('.')[2]}.1.{number}"
    return item


class Site:
    """The daemon, a receiver that may not know whose images it gets, one that may, and an archive that can be asked."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], **ports: int) -> None:
        peers: dict[str, Any] = {name: {"host": "127.0.0.1", "port": port} for name, port in ports.items()}
        self.routes = [
            {"name": "research", "to": ["RESEARCH"], "deidentify": ["basic", "shift-dates"], "coerce": ["mark"]},
            {"name": "reading", "to": ["READING"], "coerce": ["mark"]},
            {"name": "proven", "to": ["PROVEN"], "deidentify": ["basic"], "verify": "query"},
        ]
        mark = {"on": "route", "name": "mark", "set": {"InstitutionName": "KANARI Marked", "StationName": "KANARI S"}}
        self.daemon = Daemon(folder, {
            "peers": peers | {"SENDER": {"host": "127.0.0.0/8", "allow": EVERYTHING}}, "processes": 1,
            "routes": [each | {"retry": "100x500ms"} for each in self.routes], "coerce": [mark],
            "deidentify": {"key": KEY}, "timeouts": {"dimse": "60s", "send": "60s", "connect": "30s", "acse": "30s"},
        })  # fmt: skip
        self._capsys = capsys

    def run(self, *arguments: object) -> Any:
        self._capsys.readouterr()
        assert main([*map(str, arguments), "--config", str(self.daemon.config_file), "--json"]) == 0
        return json.loads(self._capsys.readouterr().out)

    def ends(self, to: str, state: str) -> list[str]:
        return [each["why"] for each in self.run("queue", "--to", to, "--state", state)]


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    other = archives.peer("ARCHIVE")
    with (
        storescp(tmp_path / "research", "+B") as research, storescp(tmp_path / "reading", "+B") as reading,
        archives.serving(tmp_path / "there", [other], title="PROVEN") as there,
    ):  # fmt: skip
        made = Site(tmp_path / "archive", capsys, RESEARCH=research, READING=reading, PROVEN=there.port)
        with made.daemon:
            yield made


def test_receivers_get_nothing_that_tells_whose_it_is(site: Site, tmp_path: Path) -> None:
    sent = [planted(1), planted(2, syntax=ImplicitVRLittleEndian), planted(3, syntax=ExplicitVRBigEndian)]
    shows = planted(4, sop_class=SecondaryCaptureImageStorage)
    Client(site.daemon).call("storescu", "-R", rest=archives.write(tmp_path / "in", *sent, shows))
    wait_until(lambda: len(site.ends("READING", "sent")) == 4, 60, site.daemon.log)
    for to in ("RESEARCH", "PROVEN"):
        wait_until(lambda to=to: len(site.ends(to, "sent")) == 3 and site.ends(to, "failed") == [REFUSED], 60)  # type: ignore[misc]
    assert site.ends("PROVEN", "sent") == ["0000 (success), found there"] * 3
    told = [each.read_bytes() for each in (tmp_path / "reading").iterdir()]
    assert len(told) == 4 and all(CANARY in each and DAY in each and archives.ROOT.encode() in each for each in told)
    assert all(b"KANARI Marked" in each for each in told)

    paths = sorted((tmp_path / "research").iterdir())
    assert len(paths) == 3 and not any(archives.ROOT in path.name for path in paths)
    there = list((tmp_path / "there" / "files").rglob("*.dcm"))
    for path in [*paths, *there]:
        raw = path.read_bytes()
        for secret in (CANARY, DAY, archives.ROOT.encode(), FAR.encode(), b"KANARI".lower()):
            assert secret not in raw, (path.name, secret, raw[max(0, raw.find(secret) - 40) :][:80])
    check_they_fit([pydicom.dcmread(path) for path in paths], sent[0])
    says_so(site)


def check_they_fit(got: list[Dataset], sent: Dataset) -> None:
    """One study of one patient still, whose images name each other; and each says what was done to it."""
    uids_of = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    for name in ("PatientID", "PatientName", "StudyDate", *uids_of):
        (value,) = {str(ds[name].value) for ds in got}
        assert value and value != str(sent[name].value), name
    uids = {int(ds.InstanceNumber): str(ds.SOPInstanceUID) for ds in got}
    assert len(set(uids.values())) == 3
    for ds in got:
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert [item.ReferencedSOPInstanceUID for item in ds.ReferencedImageSequence] == [uids[1], uids[2]]
        assert ds.ContentSequence[0].ContentSequence[0].ReferencedSOPInstanceUID == uids[2]
        assert (ds.PatientIdentityRemoved, ds.LongitudinalTemporalInformationModified) == ("YES", "MODIFIED")
        assert [each.CodeValue for each in ds.DeidentificationMethodCodeSequence] == ["113100", "113107"]
        assert ds.PixelData == planted(ds.InstanceNumber).PixelData and ds.AcquisitionDateTime[8:] == "101112.5+0100"


def says_so(site: Site) -> None:
    """What the administrator is shown, and that the log holds nothing of the patient."""
    (failed,) = site.run("queue", "--to", "RESEARCH", "--state", "failed")
    (shown,) = site.run("queue", "show", failed["id"])
    assert (shown["route"], shown["deidentify"], shown["why"]) == ("research", True, REFUSED)
    rows = {row["route"]: row for row in site.run("routes", "test", f"{archives.ROOT}.1")["routes"]}
    assert (rows["research"]["to"], rows["research"]["instances"]) == ({"RESEARCH": 4}, 4)
    assert rows["research"]["changes"] == "coerced: mark; de-identified: basic, shift-dates"
    assert (rows["reading"]["changes"], rows["proven"]["changes"]) == ("coerced: mark", "de-identified: basic")
    assert "KANARI" not in site.daemon.log() and KEY not in site.daemon.log()


def test_what_waits_for_a_route_that_has_gone_does_not_go_out_as_it_is(site: Site, tmp_path: Path) -> None:
    site.run("queue", "pause", "RESEARCH")
    Client(site.daemon).call("storescu", rest=archives.write(tmp_path / "in", planted(1)))
    wait_until(lambda: len(site.ends("RESEARCH", "waiting")) == 1, 60)
    assert site.daemon.stop(120) == 0
    site.daemon.configure({"routes": [{"name": "research", "to": ["RESEARCH"], "match": "Modality = 'MR'"}]})
    site.daemon.start()
    site.run("queue", "resume", "RESEARCH")
    wait_until(lambda: site.ends("RESEARCH", "failed") == [IDENTIFIED], 60, site.daemon.log)
    assert list((tmp_path / "research").iterdir()) == []
