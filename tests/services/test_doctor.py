"""What the doctor says, from values."""

from __future__ import annotations

import pytest

from archive.index import CallerSeen, Lane, State, Task
from archive.services import doctor
from archive.services.doctor import Call, Entry

NOW = 1_800_000_000.0
DAY = 86400.0
CT = Entry("CT1", "CT_ONE", aliases=("CT_OLD",), allow=("echo", "store"), networks=("10.0.0.5/32",))
CALLER = CallerSeen("CT_ONE", "10.9.9.9", "ARCHIVE", "calling AE title is known, but …", NOW - DAY, NOW - 60, 3)


@pytest.mark.parametrize(
    ("title", "known", "how"),
    [
        ("ct_one", "CT_ONE", "by case alone"),
        ("CT_ONE ", "CT_ONE", "by spaces around it alone"),
        ("CT ONE", "CT_ONE", "by spaces, hyphens"),
        ("CTONE", "CT_ONE", "by spaces, hyphens"),
        ("CT_ON", "CT_ONE", "by one character"),
        ("CT_ONES", "CT_ONE", "by one character"),
        ("CT_0NE", "CT_ONE", "by one character"),
        ("CT_OEN", "CT_ONE", "by one character"),
        ("CT_TWO", "STORESCP", ""),
        ("", "CT", ""),
        ("CT_ONE", "CT_ONE", ""),
    ],
)
def test_titles_that_look_alike_are_told_apart_in_words(title: str, known: str, how: str) -> None:
    assert doctor.difference(title, known).startswith(how)
    assert bool(how) == bool(doctor.difference(title, known))
    assert doctor.difference(known, title) == doctor.difference(title, known)


def test_a_title_is_a_peer_an_alias_a_near_miss_or_nobody() -> None:
    for title, wrong, says in (
        ("CT_ONE", False, "is the peer peers.CT1"),
        ("CT_OLD", False, "is an alias of CT_ONE"),
        ("ct_old", False, "differs from CT_OLD (peers.CT1) by case alone"),
        ("CT_OME", True, "differs from CT_ONE (peers.CT1) by one character"),
        ("archive", True, "the archive's own AE title"),
        ("WHO", True, "none looks like it"),
    ):
        found = doctor.identity(title, [CT], ("ARCHIVE",))[0]
        assert (found.wrong, says in found.says) == (wrong, True), found
        assert not wrong or found.remedy


def test_what_a_caller_calls_itself_is_quoted_where_a_person_copies_it() -> None:
    [stranger] = doctor.identity("$(reboot)", [CT], ("ARCHIVE",))
    assert "promote '$(reboot)' once" in stranger.remedy
    [near] = doctor.identity("CT ONE", [CT], ("ARCHIVE",))[:1]
    assert near.remedy.endswith('peers.CT1.aliases: ["CT ONE"]')


def test_the_exact_spelling_comes_first_as_for_callers() -> None:
    upper, lower = Entry("A", "CT"), Entry("B", "ct")
    assert doctor.entry_of("ct", [upper, lower]) is lower
    assert doctor.entry_of(" Ct ", [upper]) is upper


def test_what_a_peer_may_not_do_is_said_and_where_it_is_accepted_from() -> None:
    rights, host, port = doctor.permissions(CT, ("echo", "store", "find", "move"))
    assert "may echo, store; may not find, move" in rights.says
    assert "10.0.0.5/32" in host.says
    assert "C-MOVE" in port.says
    assert not any(each.wrong for each in (rights, host, port))


def test_a_refusal_is_wrong_while_it_stands_and_is_not_long_ago() -> None:
    for stands, since, wrong in ((True, NOW - DAY, True), (True, NOW, False), (False, NOW - DAY, False)):
        found = doctor.refusal(CALLER, NOW, stands=stands, since=since, remedy="do")
        assert found.wrong is wrong
        assert "3 times" in found.says
        assert "10.9.9.9" in found.says


@pytest.mark.parametrize(
    ("failed", "remedy"),
    [
        ("Connection refused", "peers.CT1.port"),
        ("its certificate is not accepted: Hostname mismatch, certificate is not valid for 'x'", "peers.CT1.host"),
        ("its certificate is not accepted: unable to get local issuer certificate", "peers.CT1.tls.ca"),
        ("its certificate is not accepted: certificate has expired", "new certificate"),
        ("rejected permanently: calling AE title not recognized (1,1,3)", "make US"),
        ("rejected permanently: called AE title not recognized (1,1,7)", "peers.CT1.aet"),
        ("no answer in time", "firewall"),
        ("timed out waiting for the peer", "said nothing"),
        ("something new", "the log of CT_ONE"),
    ],
)
def test_each_way_to_fail_names_what_would_do(failed: str, remedy: str) -> None:
    [found] = doctor.answer(Call("CT_ONE", "peers.CT1", "10.0.0.5:104", "US", failed), NOW)
    assert found.wrong
    assert failed in found.says
    assert remedy in found.remedy


def test_a_certificate_that_soon_ends_is_wrong_though_the_peer_answers() -> None:
    for days, count in ((29, 1), (31, 0)):
        call = Call("CT_ONE", "peers.CT1", "ct:2762", "US", seconds=0.012, expires=NOW + days * DAY)
        answered, *others = doctor.answer(call, NOW)
        assert "12 ms" in answered.says
        assert not answered.wrong
        assert len(others) == count


def test_lanes_that_stand_still_say_why_and_who_goes_on_is_not_named() -> None:
    held = {
        "PACS": Lane("PACS", down_since=NOW - 60, down_until=NOW + 60, down_why="Connection refused"),
        "WS": Lane("WS", paused=NOW - 5, paused_why="new disk"),
        "GOOD": Lane("GOOD"),
    }
    down, paused = doctor.lanes(held, {("PACS", State.WAITING): 7}, NOW)
    assert "7 tasks" in down.says
    assert "Connection refused" in down.says
    assert "new disk" in paused.says
    assert paused.remedy == "archive queue resume WS"


def test_failed_tasks_are_counted_by_destination_and_older_ones_are_past() -> None:
    tasks = [task(1, NOW - 2 * DAY, "old"), task(2, NOW - 60, "first"), task(3, NOW - 5, "A900, saying: of Doe Jane")]
    [found] = doctor.failures(tasks, NOW - DAY, NOW, most=100)
    assert found.says.startswith("2 tasks have failed (deliver)")
    assert found.says.endswith(": A900")
    assert "--to PACS" in found.remedy
    assert doctor.failures(tasks, NOW, NOW, most=100) == []


def task(key: int, finished: float, reason: str) -> Task:
    return Task(
        id=key, kind="deliver", lane="PACS", study_uid="1.2", payload={}, priority=0, state=State.FAILED, attempts=3,
        created=NOW - 3 * DAY, due=NOW - 3 * DAY, lease_until=None, finished=finished, reason=reason,
        owner="",
    )  # fmt: skip


def test_room_is_measured_against_the_reserve() -> None:
    for free, wrong in ((None, True), (999, True), (1999, True), (2000, False)):
        [found] = doctor.space("files", free, 1000)
        assert found.wrong is wrong, free


def test_only_what_is_there_waits_for_a_person() -> None:
    found = doctor.counted(damaged=0, quarantined=2, unmatched=1000, most=1000)
    assert [each.about for each in found] == ["quarantine", "unmatched"]
    assert found[1].says.startswith("1000 or more")
