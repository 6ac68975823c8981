"""Storage commitment between the daemon and an independent implementation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.sop_class import StorageCommitmentPushModel

from tests.dimse.archives import instance
from tests.endtoend.modality import Modality, ask, ct, store
from tests.faults.daemon import Daemon, wait_until

UNKNOWN = ("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5")
MR = "1.2.840.10008.5.1.4.1.1.4"


QUIRKS: dict[str, list[str]] = {
    "CT_NEW": ["commit_new_association"],
    "CT_SAME": ["commit_same_association"],
    "CT_BOTH": ["commit_both"],
    "CT_IMPLICIT": ["commit_implicit_only"],
    "CT_IMPLICIT_BOTH": ["commit_implicit_only", "commit_both"],
}
PORTLESS = ("CT_SAME", "CT_DEAF")


def entry(modality: Modality) -> dict[str, object]:
    """A modality as a peer, by an address that can be called."""
    found = {"host": ["127.0.0.1", "127.0.0.0/8"], "allow": ["echo", "store", "commit"]}
    return found | ({} if modality.aet in PORTLESS else {"port": modality.port})


def archive(folder: Path, *modalities: Modality, **changes: object) -> Daemon:
    """A daemon that knows these."""
    peers = {each.aet: entry(each) | {"quirks": QUIRKS.get(each.aet, [])} for each in modalities}
    patient = dict.fromkeys(("acse", "pdu", "dimse", "idle"), "30s")
    settings = {"processes": 1, "peers": peers, "commitment": {"retry": "1s*30"}, "timeouts": patient}
    return Daemon(folder, settings | changes)


def fill(daemon: Daemon, modality: Modality, *numbers: int) -> None:
    with modality.calling(daemon.port) as assoc:
        assert {store(assoc, instance(number, size=4)) for number in numbers} == {0}


def queue(daemon: Daemon) -> list[tuple[str, str, str]]:
    """Kind, lane and reason of what waits, runs or has failed."""
    text = "select kind, lane, reason from task where kind like 'commit-%'"
    return [(str(kind), str(lane), str(reason)) for kind, lane, reason in daemon.select(text)]


def states(daemon: Daemon, peer: str = "") -> list[str]:
    found = daemon.select("select peer, state from commitment where direction = 'asked' order by id")
    return [str(state) for name, state in found if peer in ("", name)]


class Department:
    """One daemon and all its modalities, each with its own way."""

    def __init__(self, folder: Path) -> None:
        self.modalities = {aet: Modality(aet) for aet in ("CT1", "CT_ALIAS", "CT_OLD", *QUIRKS, *PORTLESS[1:])}
        self["CT_OLD"].syntaxes, self["CT_OLD"].selects_roles = [ImplicitVRLittleEndian], False
        self["CT_ALIAS"].aet = "CT_ALIAS"
        self.daemon = archive(folder, *self.modalities.values(), ae={"aliases": ["OLDPACS"]})
        self.daemon.configure({"unknown_peers": {"loopback": ["echo", "store", "commit"]}})
        alias = self.daemon.settings["peers"].pop("CT_ALIAS")
        self.daemon.configure({"peers": {"CT_PROPER": alias | {"aliases": ["CT_ALIAS"]}}})

    def __getitem__(self, aet: str) -> Modality:
        return self.modalities[aet]

    def settled(self, aet: str, *wanted: str) -> None:
        """All requests of a peer have come to their ends, and nothing of it is left in the queue."""
        wait_until(lambda: states(self.daemon, aet)[-len(wanted) :] == list(wanted), 10)
        assert [lane for _, lane, _ in queue(self.daemon) if lane == aet] == []


@pytest.fixture(scope="module")
def department(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Department]:
    found = Department(tmp_path_factory.mktemp("department"))
    with found.daemon:
        for modality in found.modalities.values():
            modality.listen()
        fill(found.daemon, found["CT1"], *range(1, 6))
        yield found
        for modality in found.modalities.values():
            modality.deaf()


@pytest.fixture
def daemon(department: Department) -> Daemon:
    return department.daemon


@pytest.fixture
def modality(department: Department) -> Modality:
    found = department["CT1"]
    found.answer = 0
    assert found.has_none()
    return found


def test_what_is_whole_damaged_missing_unknown_and_misnamed_is_told_apart(
    department: Department, daemon: Daemon, modality: Modality
) -> None:
    paths = {row.uid: daemon.files / row.path for row in daemon.rows()}
    damaged, missing = paths[ct(2)[1]], paths[ct(3)[1]]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    missing.unlink()
    asked = [ct(1), ct(2), ct(3), (MR, ct(4)[1]), ct(5), UNKNOWN]
    status, _, transaction = modality.ask(daemon.port, asked)
    assert status == 0
    report = modality.report()
    assert (report.type, report.transaction, report.committed) == (2, transaction, {ct(1), ct(5)})
    assert report.failed == {ct(2)[1]: 0x0110, ct(3)[1]: 0x0112, ct(4)[1]: 0x0119, UNKNOWN[1]: 0x0112}
    assert (report.calling, report.called, report.same) == ("ARCHIVE", modality.aet, False)
    assert report.roles == {StorageCommitmentPushModel: (False, True)}
    assert report.syntax == ExplicitVRLittleEndian
    department.settled("CT1", "reported")


def test_a_peer_is_called_by_the_titles_it_used(department: Department, daemon: Daemon) -> None:
    """It calls under an alias, and calls us by an alias; so does the report, the other way round."""
    assert department["CT_ALIAS"].ask(daemon.port, [UNKNOWN], called="OLDPACS")[0] == 0
    report = department["CT_ALIAS"].report()
    assert (report.calling, report.called) == ("OLDPACS", "CT_ALIAS")


def test_a_peer_that_knows_implicit_and_no_role_selection_gets_its_report(
    department: Department, daemon: Daemon
) -> None:
    assert department["CT_OLD"].ask(daemon.port, [UNKNOWN])[0] == 0
    assert department["CT_OLD"].report().syntax == ImplicitVRLittleEndian


@pytest.mark.parametrize(
    ("aet", "stays", "same", "syntax"),
    [
        ("CT_NEW", True, False, ExplicitVRLittleEndian),
        ("CT_SAME", True, True, ExplicitVRLittleEndian),
        ("CT_BOTH", True, True, ExplicitVRLittleEndian),
        ("CT_BOTH", False, False, ExplicitVRLittleEndian),
        ("CT_IMPLICIT", True, False, ImplicitVRLittleEndian),
        ("CT_IMPLICIT_BOTH", True, False, ImplicitVRLittleEndian),
        ("CT1", False, False, ExplicitVRLittleEndian),
    ],
)
def test_each_quirk_brings_the_report_where_the_peer_takes_it(
    department: Department, daemon: Daemon, aet: str, stays: bool, same: bool, syntax: str
) -> None:
    """Also when the association is aborted as soon as the request is answered."""
    modality = department[aet]
    for _ in range(1 if stays else 20):  # a report may be quicker than an abort
        with modality.calling(daemon.port) as assoc:
            assert ask(assoc, [ct(1), UNKNOWN])[0] == 0
            if not stays:
                assoc.abort()
            report = modality.report()
        if report.same == same:
            break
    assert (report.same, report.syntax, report.type) == (same, syntax, 2)
    assert (report.committed, report.failed) == ({ct(1)}, {UNKNOWN[1]: 0x0112})
    department.settled(aet, "reported")
    assert modality.has_none(), "reported once"


def test_a_peer_that_takes_reports_on_its_association_only_is_told_when_it_asks_again(
    department: Department, daemon: Daemon
) -> None:
    modality = department["CT_SAME"]
    modality.answer = 0x0110
    with modality.calling(daemon.port) as assoc:
        transaction = ask(assoc, [UNKNOWN])[2]
        modality.report()
        wait_until(lambda: states(daemon, "CT_SAME")[-1] == "undelivered", 10)
        assert [reason for _, lane, reason in queue(daemon) if lane == "CT_SAME"] == [
            "peer takes reports only on the association it asked on: CT_SAME"
        ]
    modality.answer = 0
    with modality.calling(daemon.port) as assoc:
        assert ask(assoc, [UNKNOWN], transaction)[0] == 0
        assert modality.report().transaction == transaction
    department.settled("CT_SAME", "reported")


def test_what_the_peer_answers_to_a_report_counts(department: Department, daemon: Daemon, modality: Modality) -> None:
    modality.answer = 0x0110
    assert modality.ask(daemon.port, [UNKNOWN])[0] == 0
    first = modality.report()
    wait_until(lambda: any("peer refused the report" in reason for _, _, reason in queue(daemon)), 10)
    modality.answer = 0
    assert modality.report() == first, "the same again"
    department.settled("CT1", "reported")
    while not modality.has_none():
        assert modality.report() == first


def test_what_could_never_be_reported_is_refused_at_once(department: Department, daemon: Daemon) -> None:
    status, comment, _ = department["CT_DEAF"].ask(daemon.port, [UNKNOWN])
    assert (status, comment) == (0x0110, "no port is configured to send the report to")
    status, comment, _ = Modality("STRANGER").ask(daemon.port, [UNKNOWN])
    assert (status, comment) == (0x0124, "caller is no configured peer: no way to report to it")
    assert states(daemon, "CT_DEAF") == states(daemon, "STRANGER") == []


def test_a_request_that_cannot_be_meant_is_refused(daemon: Daemon, modality: Modality) -> None:
    before = states(daemon)
    with modality.calling(daemon.port) as assoc:
        assert ask(assoc, [])[:2] == (0x0115, "Referenced SOP Sequence is empty")
        assert ask(assoc, [("", ct(1)[1])])[:2] == (0x0115, "Referenced SOP Class UID is missing")
        assert ask(assoc, [UNKNOWN], action=2)[:2] == (0x0123, "no such action type")
        assert ask(assoc, [UNKNOWN], instance="1.2.3")[:2] == (0x0112, "not the well-known SOP instance")
    assert states(daemon) == before


def test_a_transaction_is_told_again_but_its_uid_means_one_set_of_instances(
    department: Department, daemon: Daemon, modality: Modality
) -> None:
    _, _, transaction = modality.ask(daemon.port, [ct(1)])
    first = modality.report()
    department.settled("CT1", "reported")
    assert modality.ask(daemon.port, [ct(1)], transaction)[0] == 0
    assert modality.report() == first
    status, comment, _ = modality.ask(daemon.port, [UNKNOWN], transaction)
    assert (status, comment) == (0x0110, "Transaction UID is in use for other instances")
    department.settled("CT1", "reported")


def test_five_thousand_references_are_checked_in_one_request(daemon: Daemon, modality: Modality) -> None:
    unknown = [(ct(1)[0], f"1.2.3.{number}") for number in range(4998)]
    assert modality.ask(daemon.port, [ct(1), ct(5), *unknown])[0] == 0
    report = modality.report(60)
    assert report.committed == {ct(1), ct(5)}
    assert len(report.failed) == 4998 and set(report.failed.values()) == {0x0112}


# -- with a daemon that comes and goes ----------------------------------------------------------------


def test_a_report_survives_kill_9_and_a_dead_peer_delays_nobody(tmp_path: Path) -> None:
    modality, other = Modality(), Modality("CT2")
    daemon = archive(tmp_path, modality, other)
    with daemon, other:
        fill(daemon, modality, 1, 2)
        transaction = modality.ask(daemon.port, [ct(1), ct(2)])[2]
        wait_until(lambda: any("not reached" in reason for _, _, reason in queue(daemon)), 10)
        ((kind, lane, reason),) = queue(daemon)
        assert (kind, lane) == ("commit-report", "CT1") and "Connection refused" in reason
        assert other.ask(daemon.port, [ct(1)])[0] == 0
        assert other.report().committed == {ct(1)}
        daemon.kill()
    with daemon:
        (daemon.files / daemon.rows()[0].path).unlink()
        with modality:
            report = modality.report()
            assert (report.transaction, report.type) == (transaction, 1), "told as it was found"
            assert modality.ask(daemon.port, [ct(1), ct(2)])[0] == 0
            assert modality.report().type == 2


def test_requests_that_were_answered_survive_kill_9_at_once(tmp_path: Path) -> None:
    """Whatever of checking and reporting was under way; and no peer has more than so many under way."""
    modality, count = Modality(), 20
    daemon = archive(tmp_path, modality, commitment={"retry": "1s*30", "max_pending": count})
    with daemon:
        fill(daemon, modality, *range(count))
        with modality.calling(daemon.port) as assoc:
            transactions = {ask(assoc, [ct(number), UNKNOWN])[2] for number in range(count)}
            assert ask(assoc, [UNKNOWN])[:2] == (0x0213, "too many commitment requests are pending")
            daemon.kill()
    with modality, daemon:
        wait_until(lambda: states(daemon) == ["reported"] * count, 20)
        reports = [modality.report() for _ in range(modality.reports.qsize())]
    assert {report.transaction for report in reports} == transactions
    assert {report.type for report in reports} == {2} and all(len(report.committed) == 1 for report in reports)
