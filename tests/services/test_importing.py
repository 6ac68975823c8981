"""Importing folders, on a real store."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from archive.index import Outcome
from archive.services.importing import Import, Imported
from tests import builders
from tests.services.test_store import ORIGIN, Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site", f"sqlite:///{tmp_path}/index.db")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(5):
        (tmp_path / "media" / f"sub{number % 2}").mkdir(parents=True, exist_ok=True)
        builders.write(tmp_path / "media" / f"sub{number % 2}" / f"{number}.dcm", builders.ct())
    (tmp_path / "media" / "README.TXT").write_text("not an image")
    (tmp_path / "elsewhere").mkdir()
    builders.write(tmp_path / "elsewhere" / "linked.dcm", builders.ct())
    (tmp_path / "media" / "link.dcm").symlink_to(tmp_path / "elsewhere" / "linked.dcm")
    return tmp_path / "media"


def importing(site: Site, folder: Path) -> Import:
    return Import(site.store, ORIGIN, [folder], notes=site.folder / "imports")


def outcomes(results: list[Imported]) -> Counter[Outcome | None]:
    return Counter(each.outcome for each in results)


def test_every_object_is_stored_and_every_other_file_is_named(site: Site, folder: Path) -> None:
    work = importing(site, folder)
    results = list(work.run(work.files()))
    assert outcomes(results) == {Outcome.STORED: 5, None: 1}
    assert [each.path.name for each in results if each.outcome is None] == ["README.TXT"]
    assert site.index.statistics().instances == 5


def test_an_interrupted_import_goes_on_where_it_stopped(site: Site, folder: Path) -> None:
    work = importing(site, folder)
    run = work.run(work.files())
    for _ in range(4):
        next(run)
    run.close()
    again = importing(site, folder)
    assert len(again.files()) < 6
    results = list(again.run(again.files()))
    assert site.index.statistics().instances == 5
    assert [each.path.name for each in results if each.outcome is None] == ["README.TXT"]


def test_a_second_import_finds_everything_there(site: Site, folder: Path) -> None:
    for expected in ({Outcome.STORED: 5, None: 1}, {Outcome.EQUAL: 5, None: 1}):
        work = importing(site, folder)
        assert outcomes(list(work.run(work.files()))) == expected
    assert len(site.objects()) == 5


def test_a_file_that_vanishes_is_named_and_the_others_go_on(site: Site, folder: Path) -> None:
    work = importing(site, folder)
    files = work.files()
    files[1].unlink()
    results = list(work.run(files))
    assert outcomes(results)[Outcome.STORED] == 4 and outcomes(results)[None] == 2
