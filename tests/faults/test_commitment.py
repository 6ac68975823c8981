"""C03, C05, C06, C08: storage commitment when its peer repeats itself, is not there, or asks for too much.

What is whole, damaged, gone, unknown or of another class (C01, C02, C04), and kills in between (C07), are faults of the
campaign.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import raw
from tests.faults.campaign.commitments import NO_SUCH_INSTANCE, RETRY, peer
from tests.faults.checker import check
from tests.faults.committing import ASKING, Report, Reports, ask
from tests.faults.daemon import Daemon, free_port, wait_until
from tests.faults.destination import Destination
from tests.faults.objects import Instance, instance, new_uid
from tests.faults.raw import COMMIT, COMMITMENT, CT, EXPLICIT, Connection, Request

NEW = "commit_new_association"
IN_USE, EMPTY, NOT_ALLOWED = 0x0110, 0x0115, 0x0124
MANY = 10_000
PATIENT = {"timeouts": dict.fromkeys(("idle", "dimse", "pdu"), "60s")}


class Site:
    """An archive with one object, and a modality that is told what it asked for."""

    def __init__(self, folder: Path) -> None:
        self.reports = Reports()
        self.modality: Destination = self.reports.listen()
        strict = {"OTHER": {"host": "127.0.0.0/8", "port": free_port(), "allow": ["echo", "store"]}}
        peers = {"SENDER": peer(self.modality.port, NEW)} | strict
        self.archive = Daemon(folder, {"processes": 1, "peers": peers, "commitment": RETRY} | PATIENT).start()
        self.image: Instance = instance()
        with raw.association(self.archive.port) as sending:
            assert sending.store(CT, self.image.uid, self.image.data) == 0

    def comes(self, transaction: str, count: int = 1) -> list[Report]:
        wait_until(lambda: len(self.reports.of(transaction)) >= count, 60, "no report")
        return self.reports.of(transaction)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("commitment"))
    yield made
    check(made.archive, [made.image])
    assert made.archive.stop() == 0
    made.modality.close()


def test_c03_a_transaction_is_told_again_and_its_uid_is_of_one_request(site: Site) -> None:
    transaction, unknown = new_uid(), new_uid()
    with raw.association(site.archive.port, ASKING) as asking:
        assert ask(asking, transaction, [(CT, site.image.uid)]) == 0
        (first,) = site.comes(transaction)
        assert first == Report(frozenset([site.image.uid]), ())
        assert ask(asking, transaction, [(CT, site.image.uid)]) == 0
        assert site.comes(transaction, 2) == [first, first]
        assert ask(asking, transaction, [(CT, unknown)]) == IN_USE


def test_c06_who_leaves_at_once_is_called(site: Site) -> None:
    transaction = new_uid()
    with Connection(site.archive.port) as asking:
        assert ask(asking.associate(ASKING), transaction, [(CT, site.image.uid)]) == 0
        asking.reset()
    assert site.comes(transaction) == [Report(frozenset([site.image.uid]), ())]


def test_c08_ten_thousand_references_are_one_request(site: Site) -> None:
    transaction, unknown = new_uid(), [new_uid() for _ in range(MANY - 1)]
    with raw.association(site.archive.port, ASKING, patience=60) as asking:
        assert ask(asking, transaction, [(CT, site.image.uid), *((CT, uid) for uid in unknown)]) == 0
        (report,) = site.comes(transaction)
        assert report.committed == {site.image.uid}
        assert dict(report.failed) == dict.fromkeys(unknown, NO_SUCH_INSTANCE)


def test_c08_what_asks_for_nothing_or_may_not_ask_is_refused(site: Site) -> None:
    with raw.association(site.archive.port, ASKING) as asking:
        assert ask(asking, new_uid(), []) == EMPTY
    contexts = {COMMIT: (COMMITMENT, (EXPLICIT,))}
    with Connection(site.archive.port) as asking:
        answer = asking.request(Request(calling="OTHER", contexts=contexts))
        assert answer is not None
        if answer.kind == raw.AC and raw.results(answer.body)[COMMIT] == 0:
            assert ask(asking, new_uid(), [(CT, site.image.uid)]) == NOT_ALLOWED


def test_c05_a_peer_that_is_not_there_is_told_later_even_after_kill_9(own_archive: Callable[..., Daemon]) -> None:
    port, transaction, unknown = free_port(), new_uid(), new_uid()
    archive = own_archive({"processes": 1, "peers": {"SENDER": peer(port, NEW)}, "commitment": RETRY})
    with raw.association(archive.port, ASKING) as asking:
        assert ask(asking, transaction, [(CT, unknown)]) == 0
    waiting = "select reason from task where kind = 'commit-report'"
    wait_until(lambda: any("not reached" in reason for (reason,) in archive.select(waiting)), 60, "nothing waits")
    archive.kill()
    archive.start()
    reports = Reports()
    with reports.listen(port):
        wait_until(lambda: reports.of(transaction), 60, "no report")
        wait_until(lambda: not archive.select(waiting), 60, "it is reported again")
    assert reports.of(transaction) == [Report(frozenset(), ((unknown, NO_SUCH_INSTANCE),))]
