"""ZIPs and DICOMDIRs that are imported: measured first, taken up again, and never a way out."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from archive.errors import TooLarge
from archive.index import Outcome
from archive.services import media
from archive.services.importing import Import
from tests import builders
from tests.services.test_importing import importing, outcomes
from tests.services.test_store import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site", f"sqlite:///{tmp_path}/index.db")


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "five.zip", "w", zipfile.ZIP_DEFLATED) as made:
        for number in range(5):
            made.writestr(f"sub/{number}.dcm", builders.part10(builders.ct()))
    return tmp_path / "five.zip"


def test_an_interrupted_zip_goes_on_where_it_stopped(site: Site, packed: Path) -> None:
    work = importing(site, packed)
    run = work.run(work.files())
    for _ in range(4):
        next(run)
    run.close()
    again: Import = importing(site, packed)
    assert len(again.files()) == 2  # the fourth was stored and not yet written down
    assert outcomes(list(again.run(again.files()))) == {Outcome.STORED: 1, Outcome.EQUAL: 1}
    assert site.index.statistics().instances == 5


def test_a_zip_that_would_become_too_large_is_not_opened(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(bomb := tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("zeros", bytes(1 << 20))
    assert len(list(media.members(bomb))) == 1
    monkeypatch.setattr(media, "HARMLESS", 1 << 19)
    with pytest.raises(TooLarge):
        list(media.members(bomb))
    assert len(list(media.members(packed))) == 5
    monkeypatch.setattr(media, "LARGEST_CATALOGUE", 100)
    with pytest.raises(TooLarge):
        list(media.members(packed))


def test_an_encrypted_or_strangely_packed_member_is_named(site: Site, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as made:
        made.writestr("a.dcm", builders.part10(builders.ct()), compress_type=zipfile.ZIP_BZIP2)
        made.writestr("b.dcm", builders.part10(builders.ct()))
    data = bytearray((tmp_path / "odd.zip").read_bytes())
    data[data.rfind(b"PK\1\2") + 8] |= 1
    (tmp_path / "odd.zip").write_bytes(data)
    work = importing(site, tmp_path / "odd.zip")
    assert [each.reason for each in work.run(work.files())] == [
        "member of the ZIP is compressed in an unknown way",
        "member of the ZIP is encrypted",
    ]


def test_a_file_id_finds_nothing_through_a_link(tmp_path: Path) -> None:
    outside = builders.write(tmp_path / "OUTSIDE")
    (tmp_path / "cd" / "REAL").mkdir(parents=True)
    (tmp_path / "cd" / "LINK").symlink_to(outside)
    (tmp_path / "cd" / "FOLDER").symlink_to(tmp_path)
    inside = builders.write(tmp_path / "cd" / "REAL" / "IM000001")
    medium = media._Medium(tmp_path / "cd")
    assert medium.find(("REAL", "IM000001")) == inside
    for file_id in (("LINK",), ("FOLDER", "OUTSIDE"), ("..", "OUTSIDE"), ("../OUTSIDE",), ("REAL",), ("REAL", "X"), ()):
        assert isinstance(medium.find(file_id), media.Absent)
