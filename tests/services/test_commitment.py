"""Storage commitment on both databases: what is kept, found, tried again and given up, by a clock that tests turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest

from archive.dicom.references import Failure, Outcome, Reference
from archive.errors import (
    ArchiveError,
    Conflict,
    Damaged,
    InvalidQuery,
    Missing,
    NotDelivered,
    OutOfResources,
    Refused,
    StorageFailed,
    Unreachable,
)
from archive.index import Index, NewTask, State, StoredInstance
from archive.index.commitment_tasks import CHECK, REPORT, Lease
from archive.index.commitments import ASKED, NewTransaction, Transaction
from archive.services.commitment import Asking, Commitment
from archive.services.integrity import Integrity
from archive.workers.commitment import Checking, Forgetting, Reporting
from archive.workers.lanes import LaneWorker
from tests.dimse.archives import fill, instance, parts
from tests.faults.daemon import wait_until
from tests.index.made import CT, arrival

PAUSES = (60.0, 300.0, 600.0)
WHOLE, DAMAGED, GONE, UNKNOWN = "1.1.1.901", "1.1.1.902", "1.1.1.903", "1.1.1.904"
MR = "1.2.840.10008.5.1.4.1.1.4"
ASKED_FOR = tuple(Reference(CT, uid) for uid in (WHOLE, DAMAGED, GONE, UNKNOWN)) + (Reference(MR, WHOLE),)
FOUND = [
    Failure(CT, DAMAGED, 0x0110), Failure(CT, GONE, 0x0112), Failure(CT, UNKNOWN, 0x0112), Failure(MR, WHOLE, 0x0119),
]  # fmt: skip


class Site:
    """An index with three instances, and the two jobs of commitment; `deliver` is what peers do."""

    def __init__(self, index: Index, max_pending: int = 100) -> None:
        self.index = index
        self.now = 1000.0
        self.mounted = True
        self.verified: list[str] = []
        self.delivered: list[tuple[str, Outcome]] = []
        self.answer: ArchiveError | None = None
        self.down = False
        index.add([arrival(sop=uid) for uid in (WHOLE, DAMAGED, GONE)])
        self.commitment = Commitment(index, self.verify, clock=lambda: self.now, max_pending=max_pending)
        self.checking = Checking(self.commitment, index, lambda: self.now)
        self.reporting = Reporting(self.commitment, index, self.deliver, pauses=PAUSES, clock=lambda: self.now)

    def verify(self, instance: StoredInstance) -> None:
        self.verified.append(instance.sop_instance_uid)
        if not self.mounted:
            raise StorageFailed("storage is not mounted")
        if instance.sop_instance_uid == DAMAGED:
            raise Damaged("stored file is damaged")
        if instance.sop_instance_uid == GONE:
            raise Missing("stored file is missing")

    def deliver(self, peer: str, reports: list[tuple[Transaction, Outcome]]) -> Iterator[ArchiveError | None]:
        if self.down:
            raise Unreachable("The remote AE could not be reached", "Connection refused")
        for _, outcome in reports:
            self.delivered.append((peer, outcome))
            yield self.answer

    def ask(self, transaction: str = "1.9", peer: str = "CT1", items: tuple[Reference, ...] = ASKED_FOR) -> Transaction:
        return self.commitment.take(NewTransaction(ASKED, peer, transaction, items, peer, "ARCHIVE"))[0]

    def run(self, later: float = 0.0) -> None:
        """Whatever is due, in both kinds."""
        self.now += later
        for kind, job in ((CHECK, self.checking), (REPORT, self.reporting)):
            for lane in self.index.lanes(kind, self.now):
                tasks = self.index.lease(kind, "me", self.now, seconds=30, limit=10, lane=lane)
                job(lane, tasks, "me")

    def state(self, transaction: str = "1.9", peer: str = "CT1") -> str:
        found = self.commitment.transactions.known(ASKED, peer, transaction)
        return found.state if found else ""


@pytest.fixture
def site(index: Index) -> Site:
    return Site(index)


def test_what_is_whole_damaged_missing_unknown_and_misnamed_is_told_apart(site: Site) -> None:
    site.ask()
    assert site.state() == "checking"
    site.run()
    assert site.delivered == [("CT1", Outcome("1.9", (Reference(CT, WHOLE),), tuple(FOUND)))]
    assert site.state() == "reported" and site.index.tasks(kind=CHECK) == site.index.tasks(kind=REPORT) == []


def test_a_disk_that_is_not_there_is_no_answer(site: Site) -> None:
    site.mounted = False
    site.ask()
    site.run()
    assert site.state() == "checking" and site.delivered == []
    site.mounted = True
    site.run(30)
    assert site.state() == "reported"


def test_thousands_of_references_are_looked_up_in_pieces(site: Site) -> None:
    unknown = tuple(Reference(CT, f"1.7.{number}") for number in range(5000))
    site.ask(items=(*unknown, Reference(CT, WHOLE)))
    site.run()
    ((_, outcome),) = site.delivered
    assert outcome.committed == (Reference(CT, WHOLE),) and len(outcome.failed) == 5000


def test_a_repeated_request_is_the_same_one(site: Site) -> None:
    first = site.ask()
    assert site.ask().id == first.id
    site.run()
    assert len(site.delivered) == 1
    site.verified.clear()
    assert site.ask().id == first.id and site.state() == "reporting"
    site.run()
    assert site.delivered[1] == site.delivered[0] and site.verified == [], "told again, not found again"
    assert site.ask(peer="CT2").id != first.id, "another peer's UIDs are its own"


def test_a_transaction_uid_means_one_set_of_instances(site: Site) -> None:
    site.ask()
    with pytest.raises(Conflict):
        site.ask(items=ASKED_FOR[:1])


def test_too_many_pending_requests_are_refused_until_some_are_reported(index: Index) -> None:
    site = Site(index, max_pending=2)
    site.ask("1.1")
    site.ask("1.2")
    with pytest.raises(OutOfResources):
        site.ask("1.3")
    site.ask("1.3", peer="CT2")
    site.run()
    site.ask("1.3")


def test_a_report_is_tried_by_the_schedule_and_then_given_up_visibly(site: Site) -> None:
    site.answer = NotDelivered("peer refused the report", "0110")
    site.ask()
    site.run()
    for pause in PAUSES:
        assert len(site.delivered) == PAUSES.index(pause) + 1
        site.run(pause - 1)
        assert len(site.delivered) == PAUSES.index(pause) + 1
        assert site.state() == "reporting"
        site.run(1)
    assert len(site.delivered) == 4 and site.state() == "undelivered"
    (task,) = site.index.tasks(kind=REPORT)
    assert (task.state, task.lane, task.reason) == (State.FAILED, "CT1", "peer refused the report: 0110")
    assert len({outcome for _, outcome in site.delivered}) == 1
    site.answer = None
    site.index.requeue([task.id], site.now)
    site.run()
    assert site.state() == "reported" and site.index.tasks(kind=REPORT) == []


def test_what_no_other_try_can_help_is_given_up_at_once(site: Site) -> None:
    site.answer = Refused("peer takes reports only on the association it asked on")
    site.ask()
    site.run()
    assert site.state() == "undelivered" and len(site.delivered) == 1
    site.answer = None
    site.ask()
    site.run()
    assert site.state() == "reported"


def test_a_peer_that_is_down_costs_one_try_for_all_and_is_tried_when_it_asks_again(site: Site) -> None:
    site.down = True
    for number in range(25):
        site.ask(f"1.{number}")
    for _ in range(3):
        site.run()
    tasks = site.index.tasks(kind=REPORT)
    assert len(tasks) == 25 and {task.due for task in tasks} == {site.now + PAUSES[0]}
    assert {task.attempts for task in tasks} <= {0, 1}
    assert all("not reached" in task.reason and "Connection refused" in task.reason for task in tasks)
    site.down = False
    site.ask("1.99")
    for _ in range(4):
        site.run()
    assert len(site.delivered) == 26 and site.index.tasks(kind=REPORT) == []


def test_a_report_that_gets_through_calls_the_others_forward(site: Site) -> None:
    site.down = True
    site.ask("1.1")
    site.run()
    site.now += 1
    site.down = False
    site.ask("1.2", items=ASKED_FOR[:1])
    site.run()
    site.run()
    assert site.state("1.1") == site.state("1.2") == "reported"


def test_whoever_asks_on_an_association_holds_the_task_until_its_lease_ends(site: Site) -> None:
    new = NewTransaction(ASKED, "CT1", "1.9", ASKED_FOR, "CT1", "ARCHIVE")
    found, task = site.commitment.take(new, Lease("association", 30.0))
    site.run()
    assert site.state() == "checking" and site.verified == []
    report = site.commitment.check(found, task, "association", lambda: None, Lease("association", 30.0))
    site.run()
    assert site.state() == "reporting" and site.delivered == []
    assert not site.commitment.check(found, task, "association", lambda: None), "the task is over"
    site.run(31)
    assert site.state() == "reported", "its process died, others went on"
    assert not site.commitment.transactions.put_off(found.id, report, "association", site.now, "too late")
    assert site.state() == "reported"


def test_what_was_reported_is_forgotten_after_its_time(site: Site) -> None:
    site.ask("1.1")
    site.run()
    site.down = True
    site.ask("1.2")
    Asking(site.index, clock=lambda: site.now).begin("PACS", "1.3", ASKED_FOR)
    forgetting = Forgetting(site.commitment, 5000.0, lambda: site.now)
    assert (forgetting.step() or 0) > 0 and len(site.commitment.transactions.latest(limit=9)) == 3
    site.run(5001)
    assert forgetting.step() == 0.0 and (forgetting.step() or 0) > 0
    assert [each.transaction for each in site.commitment.transactions.latest(limit=9)] == ["1.2"], "it may yet be told"


# -- what we ask --------------------------------------------------------------------------------------


def test_a_report_of_a_peer_is_kept_with_all_that_it_does_not_promise(index: Index) -> None:
    asking = Asking(index, clock=lambda: 1.0)
    key = asking.begin("PACS", "1.9", ASKED_FOR[:3], "1.1")
    found = asking.answered("PACS", Outcome("1.9", ASKED_FOR[:1], (Failure(*ASKED_FOR[1], 0x0110),)))
    assert (found.id, found.state, found.items, found.failures) == (key, "incomplete", 3, 2)
    assert asking.transactions.contents(key).failures == (Failure(CT, DAMAGED, 0x0110), Failure(CT, GONE, 0))
    again = asking.answered("PACS", Outcome("1.9", ASKED_FOR[:3], ()))
    assert (again.state, again.failures) == ("committed", 0), "a later report is the better one"
    with pytest.raises(InvalidQuery):
        asking.answered("OTHER", Outcome("1.9", ASKED_FOR[:3], ()))


def test_a_report_that_came_before_the_refusal_stays(index: Index) -> None:
    asking = Asking(index, clock=lambda: 1.0)
    key = asking.begin("PACS", "1.9", ASKED_FOR[:1])
    asking.answered("PACS", Outcome("1.9", ASKED_FOR[:1], ()))
    asking.refused(key, "association lost")
    found = asking.transactions.get(key)
    assert found is not None and found.state == "committed"


# -- lanes --------------------------------------------------------------------------------------------


def test_a_lane_that_hangs_holds_up_no_other_and_keeps_its_lease(index: Index) -> None:
    began, hanging, done = threading.Event(), threading.Event(), threading.Event()
    now = 1000.0

    def job(lane: str, tasks: object, owner: str) -> None:
        if lane == "DEAD":
            began.set()
            assert hanging.wait(60)
        for task in tasks:  # type: ignore[attr-defined]
            index.finish(task.id, owner, now, keep=False)
        if lane == "GOOD":
            done.set()

    worker = LaneWorker("lanes", "kind", index, job, clock=lambda: now)
    index.add_tasks([NewTask("kind", {}, lane="DEAD"), NewTask("kind", {}, lane="GOOD")], now)
    worker.step()
    assert began.wait(60) and done.wait(60)
    wait_until(lambda: len(index.tasks(kind="kind")) == 1, 10)
    now += 20
    worker.step()
    (task,) = index.tasks(kind="kind")
    assert (task.lane, task.state) == ("DEAD", State.LEASED) and (task.lease_until or 0) > now + 20
    hanging.set()
    wait_until(lambda: index.tasks(kind="kind") == [], 10)
    worker.close()


# -- with files ---------------------------------------------------------------------------------------


def flip(path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1 - crc32(path.name.encode()) % 1000] ^= 1 << crc32(path.name.encode()) % 8
    path.write_bytes(content)


def truncate(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[: -2 - crc32(path.name.encode()) % 1000])


def delete(path: Path, other: Path) -> None:
    path.unlink()


def swap(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


DAMAGES = ((flip, 0x0110), (truncate, 0x0110), (delete, 0x0112), (swap, 0x0110))


def test_of_many_damaged_files_none_is_promised(tmp_path: Path) -> None:
    count = 80
    with parts(tmp_path) as archive:
        images = [instance(number, size=32) for number in range(2 * count + 1)]
        fill(archive, *images)
        stored = [archive.index.known(str(image.SOPInstanceUID)) for image in images]
        paths = [archive.store.volume.root / each.location.path for each in stored if each]
        expected = {}
        for number in range(count):
            damage, reason = DAMAGES[number % len(DAMAGES)]
            damage(paths[number], paths[-1])
            expected[str(images[number].SOPInstanceUID)] = reason
        integrity = Integrity(archive.index, {archive.store.volume.name: archive.store.volume}, time.time)
        commitment = Commitment(archive.index, integrity.verify, clock=time.time, max_pending=1)
        references = [Reference(str(image.SOPClassUID), str(image.SOPInstanceUID)) for image in images]
        failures = commitment.examine(references)
        assert {each.sop_instance: each.reason for each in failures} == expected
