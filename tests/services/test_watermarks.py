"""Watermarks: crossings are told once, room is made of what rules let go, and stores are refused in time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.errors import OutOfResources
from archive.index.retention import ROOM
from archive.services.alarms import BEGINS, OVER, Alarm
from archive.services.corrections import by
from archive.services.holds import of_study
from archive.services.retention import DAY, PURGE, Policy, Rule
from archive.services.watermarks import LATEST, SOONEST, Marks, Watermarks, crossed, reserve
from archive.storage.space import Space, space_of
from tests.services.retiring import Site, ct

CACHE = Rule("cache", None, years=1, then=PURGE)
MARKS = Marks(warn=80, purge=90, purge_to=85, refuse=97)
TOTAL = 100_000


@pytest.fixture
def site(tmp_path: Path, index_url: str) -> Iterator[Site]:
    made = Site(tmp_path, index_url)
    yield made
    made.close()


class Disk:
    """A file system that is as full as is said, and who hears of it."""

    def __init__(self, site: Site, *rules: Rule) -> None:
        self.site = site
        self.policy = Policy(rules)
        self.percent = 50.0
        self.told: list[Alarm] = []

    def measure(self, root: Path) -> Space:
        return Space(TOTAL, int(TOTAL * (100 - self.percent) / 100))

    def look(self, percent: float, *, believed: bool = True) -> float:
        """By a process that was started just now: nothing may depend on its memory."""
        self.percent = percent
        watermarks = Watermarks(
            self.site.index, self.site.volume.root, MARKS, self.policy, clock=lambda: self.site.now,
            believed=lambda: believed, raise_alarm=self.told.append, measure=self.measure,
        )  # fmt: skip
        return watermarks.look()

    @property
    def words(self) -> list[tuple[str, str]]:
        return [(alarm.about.removeprefix("watermark "), alarm.state) for alarm in self.told]


def test_a_crossing_is_told_once_and_its_end_once(site: Site) -> None:
    disk = Disk(site)
    for percent in (79.0, 80.0, 85.0, 79.5, 80.5):
        disk.look(percent)
    assert disk.words == [("warn", BEGINS)]
    disk.look(70.0)
    assert disk.words[1:] == [("warn", OVER)]
    disk.look(98.0)
    assert disk.words[2:] == [("warn", BEGINS), ("purge", BEGINS), ("refuse", BEGINS)]
    assert crossed(site.index).times == {"warn": 2, "purge": 1, "refuse": 1}


def test_the_next_look_is_due_when_a_mark_could_be_crossed(site: Site) -> None:
    disk = Disk(site)
    assert disk.look(79.99) == SOONEST  # this file system is tiny
    space = Space(1 << 44, 1 << 43)
    watermarks = Watermarks(
        site.index, site.volume.root, MARKS, disk.policy, clock=lambda: site.now, measure=lambda root: space
    )
    assert watermarks.look() == LATEST


def test_room_is_made_of_the_oldest_that_rules_let_go(site: Site) -> None:
    uids = [site.put(ct(PatientID=f"P{number}", StudyDate=f"20{10 + number}0101")) for number in range(4)]
    site.holds().hold(of_study(uids[0]), by("lawyer", "case"))
    site.run(CACHE)
    assert len(site.studies()) == 4
    site.index.database.transact(lambda session: session.run("UPDATE study SET total_size = 3000"))
    site.index.database.transact(lambda session: session.run("UPDATE instance SET data_size = 3000"))
    disk = Disk(site, CACHE)
    disk.look(89.0)
    assert site.index.tasks(kind=ROOM) == []
    disk.look(90.0)
    assert [task.study_uid for task in site.index.tasks(kind=ROOM)] == uids[1:3]  # 5 % are 5,000 bytes
    assert disk.look(90.0) == SOONEST
    assert len(site.index.tasks(kind=ROOM)) == 2  # one after the other
    site.run(CACHE)
    assert site.studies() == {uids[0], uids[3]}
    disk.look(86.0)
    assert len(site.index.tasks(kind=ROOM)) == 2  # their files are not unlinked yet
    site.unlinking.all()
    disk.look(84.0)
    assert not crossed(site.index).purging
    disk.look(86.0)
    assert len(site.index.tasks(kind=ROOM)) == 2


def test_nothing_goes_for_space_by_a_clock_that_is_not_believed(site: Site) -> None:
    site.put(ct())
    site.run(CACHE)
    Disk(site, CACHE).look(95.0, believed=False)
    assert site.index.tasks(kind=ROOM) == []


def test_what_a_rule_keeps_is_not_deleted_for_space(site: Site) -> None:
    site.put(ct(StudyDate="20260101"))
    site.run(CACHE)
    site.now += 2 * DAY
    assert Disk(site, CACHE).look(95.0) > SOONEST
    assert site.index.tasks(kind=ROOM) == []


def test_stores_are_refused_above_the_mark_and_retrieval_goes_on(site: Site) -> None:
    uid = site.put(ct())
    space = space_of(site.volume.root)
    site.volume.reserve = reserve(Space(10 * space.total, 0), 50, 0)  # as if this one were more than half full
    site.now += 60
    with pytest.raises(OutOfResources, match="out of disk space"):
        site.put(ct(PatientID="P2"))
    assert site.studies() == {uid}
    assert reserve(space, 97, space.total) == space.total
    site.volume.reserve = reserve(space, 0, 0)
    site.now += 60
    site.put(ct(PatientID="P2"))
    assert len(site.studies()) == 2
