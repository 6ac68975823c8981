"""Reading all files again, by and by."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.app.keeping import scrubbers
from archive.app.store import Archive
from archive.config import load
from archive.services.schedule import Schedule
from archive.services.scrub import Scrub, progress
from tests import builders
from tests.services.keeping import known, opened, path_of, put

DAY = 86400.0
NOON = datetime.datetime(2026, 3, 2, 12).timestamp()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with opened(tmp_path, f"sqlite:///{tmp_path}/index.db") as found:
        yield found


class Clock:
    """Time that goes on only when told."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def scrub(archive: Archive, clock: Clock, *, rate: int = 0, hours: Schedule | None = None) -> Scrub:
    return Scrub(
        archive.index, {archive.volume.name: archive.volume}, archive.integrity, every=30 * DAY, rate=rate,
        hours=hours or Schedule(), clock=clock, timer=clock,
    )  # fmt: skip


def test_damage_is_found_within_a_round_and_the_next_one_begins_in_time(archive: Archive) -> None:
    made = [builders.ct() for _ in range(6)]
    for data in made:
        put(archive, data)
    path_of(archive, made[1]).unlink()
    content = bytearray(path_of(archive, made[3]).read_bytes())
    content[-1] ^= 1
    path_of(archive, made[3]).write_bytes(content)
    clock = Clock()
    work = scrub(archive, clock)
    assert work.step() == 30 * DAY
    found = progress(archive.index)
    assert (found.files, found.damaged, found.ended) == (6, 2, NOON)
    assert {each.sop_instance_uid for each in archive.index.upkeep.damaged()} == {
        made[1].SOPInstanceUID, made[3].SOPInstanceUID,
    }  # fmt: skip
    clock.now += 10 * DAY
    assert work.step() == 20 * DAY and scrub(archive, clock).step() == 20 * DAY
    clock.now += 20 * DAY
    assert work.step() == 30 * DAY and progress(archive.index).began == clock.now


def test_no_more_is_read_than_the_rate_allows(archive: Archive) -> None:
    for _ in range(40):
        put(archive, builders.ct())
    clock = Clock()
    work = scrub(archive, clock, rate=100_000)
    waits = []
    while not progress(archive.index).ended:
        waits.append(work.step())
        clock.now += waits[-1]
    # Forty files count 16 kB each; a second has 100 kB.
    assert len(waits) >= 6 and sum(waits[:-1]) == pytest.approx(40 * 16384 / 100_000, rel=0.3)


def test_a_large_file_is_read_in_slices(archive: Archive) -> None:
    data = builders.ct()
    data.add_new(0x00091010, "OB", bytes(1_000_000))
    put(archive, data)
    clock = Clock()
    work = scrub(archive, clock, rate=200_000)
    assert [work.step() for _ in range(3)] == pytest.approx([1.0, 1.0, 1.0], rel=0.1)
    path_of(archive, data).unlink()  # removed in the middle
    archive.index.remove([known(archive, data).id])
    while not progress(archive.index).ended:
        clock.now += work.step()
    assert progress(archive.index).damaged == 0


def test_it_goes_on_after_a_restart(archive: Archive) -> None:
    for _ in range(10):
        put(archive, builders.ct())
    clock = Clock()
    first = scrub(archive, clock, rate=40_000)
    first.step()
    first.rest()
    read = progress(archive.index).files
    assert 0 < read < 10
    second = scrub(archive, clock)
    second.step()
    assert progress(archive.index).files == 10


def test_outside_of_its_hours_it_waits(archive: Archive) -> None:
    put(archive, builders.ct())
    clock = Clock()
    work = scrub(archive, clock, hours=Schedule([(range(7), 22 * 60, 6 * 60)]))
    assert work.step() == 10 * 3600 and not progress(archive.index).began
    clock.now += 10 * 3600
    assert work.step() == 30 * DAY


def test_the_configuration_asks_for_it(tmp_path: Path, archive: Archive) -> None:
    assert list(scrubbers(archive, archive.config)) == []
    file = tmp_path / "archive.yaml"
    file.write_text(file.read_text() + '\nscrub: {every: 30d, rate: 1MB/s, window: "22:00-06:00"}\n')
    (worker,) = scrubbers(archive, load(file))
    assert worker.kinds == frozenset()
    worker.close()
