"""D01, D06-D13, D20-D23: what was acknowledged is kept, whatever fails, and nothing else is."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import raw
from tests.faults.checker import check, violations
from tests.faults.daemon import Daemon, wait_until
from tests.faults.objects import Instance, instance, keys_of_instance, study
from tests.faults.raw import CT, STORE_CT, Connection, p_data, pdv
from tests.faults.tracing import WRITES, calls, first, injected, strace

Archives = Callable[..., Daemon]
OUT_OF_RESOURCES = 0xA700
LARGE = 3_000_000  # goes to the spool; smaller objects may go to the journal
ONE = {"processes": 1}
NO_JOURNAL = {"processes": 1, "storage": {"journal": "off"}}
PATIENT = {"timeouts": {"idle": "30s", "dimse": "30s", "pdu": "30s"}}


def stored(archive: Daemon, one: Instance) -> int:
    with raw.association(archive.port, patience=40) as sending:
        return sending.store(CT, one.uid, one.data)


# -- the order ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [ONE, NO_JOURNAL], ids=["journal", "no journal"])
def test_d01_file_then_row_then_answer(own_archive: Archives, tmp_path: Path, changes: dict[str, object]) -> None:
    archive = own_archive(changes)
    one = instance(size=LARGE)
    with raw.association(archive.port) as sending:
        assert sending.store(CT, (before := instance()).uid, before.data) == 0
        with strace(archive, tmp_path / "trace", "-e", f"trace={WRITES}") as file:
            assert sending.store(CT, one.uid, one.data) == 0
            assert sending.echo() == 0  # the tracer has seen the end of the call that answered the store
    made = calls(file)
    written = max(at for at, (name, what) in enumerate(made) if name == "writev" and ".part" in what)
    synced = first(made, "fdatasync|fsync", r"\.part", written)
    named = first(made, "rename|renameat|renameat2", r"\.part.*objects/", synced)
    folder = first(made, "fsync", r"objects/\d+/\w+>", named)
    row = first(made, "pwrite64", "index.db", folder)
    answer = first(made, "sendmsg", "socket:", written)
    assert row < answer
    promised = first(made, "fdatasync|fsync", r"index\.db|journal/")
    assert promised < answer
    check(archive, [one])


def test_d01_a_small_object_is_in_the_synced_journal_before_its_answer(own_archive: Archives, tmp_path: Path) -> None:
    archive = own_archive(ONE)
    one = instance()
    with raw.association(archive.port) as sending:
        assert sending.store(CT, (before := instance()).uid, before.data) == 0
        with strace(archive, tmp_path / "trace", "-e", f"trace={WRITES}") as file:
            assert sending.store(CT, one.uid, one.data) == 0
            assert sending.echo() == 0  # the tracer has seen the end of the call that answered the store
    made = calls(file)
    journal = first(made, "writev|pwrite64|pwritev", r"\.journal>")
    synced = first(made, "fdatasync|fsync", r"\.journal>", journal)
    placed = first(made, "writev|write", "objects/", synced)
    row = first(made, "pwrite64", "index.db", placed)
    assert row < first(made, "sendmsg", "socket:")
    check(archive, [one])


# -- the disk fails ---------------------------------------------------------------------------------------------

WRITE = "writev,pwritev,pwritev2"
RENAME = "rename,renameat,renameat2"
FAILURES = {
    "D06 sync of the file": ("fdatasync", "EIO"),
    "D07 sync of the folder": ("fsync", "EIO"),
    "D08 full while writing": (WRITE, "ENOSPC"),
    "D09 quota": (WRITE, "EDQUOT"),
    "D11 read-only": (f"{WRITE},{RENAME}", "EROFS"),
    "D11 read-only at the end": (RENAME, "EROFS"),
}


@pytest.mark.parametrize("size", [1000, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("changes", [ONE, NO_JOURNAL], ids=["journal", "no journal"])
def test_d06_to_d11_a_disk_that_fails_is_a700_and_passes(
    own_archive: Archives, tmp_path: Path, size: int, changes: dict[str, object]
) -> None:
    archive = own_archive(changes | PATIENT)
    kept = [instance()]
    with raw.association(archive.port) as sending:
        assert sending.store(CT, kept[0].uid, kept[0].data) == 0
        for what, failure in FAILURES.items():
            refused, after = instance(size=size), instance(size=size)
            with strace(archive, tmp_path / "trace", *injected(*failure)) as file:
                status = sending.store(CT, refused.uid, refused.data)
                happened = "INJECTED" in file.read_text()
                assert status == (OUT_OF_RESOURCES if happened else 0), what
                assert len(sending.find(keys_of_instance(kept[0]))[1]) == 1, what
            wait_until(lambda: sending.store(CT, after.uid, after.data) == 0, 5, what, pause=0.2)  # noqa: B023
            assert len(sending.find(keys_of_instance(refused))[1]) == (not happened), what
            kept += [after] if happened else [after, refused]
            on_disk = violations(archive, kept, alive=False)
            assert not on_disk, (what, on_disk)
    check(archive, kept)
    assert archive.stop() == 0
    check(archive, kept, alive=False)


@pytest.mark.parametrize("size", [1000, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("failure", [("fsync", "EIO"), ("mkdir,mkdirat", "ENOSPC"), ("mkdir,mkdirat", "EROFS")])
def test_d09_a_disk_that_fails_at_a_new_folder_is_a700_and_passes(
    own_archive: Archives, tmp_path: Path, failure: tuple[str, str], size: int
) -> None:
    """The first object of a process needs a folder."""
    archive = own_archive(ONE | PATIENT)
    one = instance(size=size)
    with raw.association(archive.port) as sending:
        with strace(archive, tmp_path / "trace", *injected(*failure)) as file:
            assert sending.store(CT, one.uid, one.data) == OUT_OF_RESOURCES
            assert "INJECTED" in file.read_text()
        assert sending.store(CT, one.uid, one.data) == 0
    check(archive, [one])


def test_d10_below_the_reserve_stores_are_refused_and_the_rest_works(own_archive: Archives) -> None:
    archive = own_archive()
    one, more = instance(), study(10)
    assert stored(archive, one) == 0
    archive.configure({"storage": {"reserve": "1000TB"}})
    archive.stop()
    archive.start()
    with raw.association(archive.port) as sending:
        assert {sending.store(CT, other.uid, other.data) for other in more} == {OUT_OF_RESOURCES}
        assert len(sending.find(keys_of_instance(one))[1]) == 1
    check(archive, [one])
    archive.configure({"storage": {"reserve": 0}})
    archive.stop()
    archive.start()
    assert stored(archive, more[0]) == 0


def test_d12_an_empty_mount_point_is_never_written_to(own_archive: Archives) -> None:
    archive = own_archive(PATIENT)
    one, other = instance(), instance(size=LARGE)
    assert stored(archive, one) == 0
    archive.files.rename(archive.folder / "elsewhere")
    archive.files.mkdir()
    assert stored(archive, other) == OUT_OF_RESOURCES
    assert stored(archive, instance()) == OUT_OF_RESOURCES
    assert list(archive.files.iterdir()) == []
    with contextlib.suppress(Exception):
        archive.stop()
    with pytest.raises(AssertionError, match="mounted"):
        archive.start()
    assert list(archive.files.iterdir()) == []
    archive.files.rmdir()
    (archive.folder / "elsewhere").rename(archive.files)
    archive.start()
    check(archive, [one])


@pytest.mark.parametrize("seconds", [1.0, 9.0])
def test_d13_a_locked_database_is_waited_for_or_refused(own_archive: Archives, seconds: float) -> None:
    archive = own_archive(PATIENT)
    before, during = instance(), instance()
    assert stored(archive, before) == 0
    database = sqlite3.connect(archive.folder / "index.db", isolation_level=None)
    database.execute("begin exclusive")
    timer = threading.Timer(seconds, lambda: None)
    timer.start()
    results: list[int] = []
    sender = threading.Thread(target=lambda: results.append(stored(archive, during)))
    sender.start()
    timer.join()
    database.execute("rollback")
    database.close()
    sender.join(60)
    assert results == [0] if seconds < 3 else results in ([0], [OUT_OF_RESOURCES])
    again = stored(archive, during)
    assert again == 0
    check(archive, [before, during])


# -- leftovers ------------------------------------------------------------------------------------------------------


def half_stores(archive: Daemon, count: int) -> list[Connection]:
    """Stores that stop in the middle of a large data set."""
    made = []
    for _ in range(count):
        one = instance(size=LARGE)
        connection = Connection(archive.port).associate()
        connection.write(STORE_CT, raw.store_rq(CT, one.uid))
        for cut in list(raw.fragments(one.data, 1 << 14))[:130]:
            connection.send(p_data(pdv(STORE_CT, *cut)))
        made.append(connection)
    wait_until(lambda: len(archive.spool()) >= count, 5, "nothing in the spool")
    return made


def test_d20_half_objects_leave_the_spool_however_they_end(own_archive: Archives) -> None:
    archive = own_archive()
    for number, connection in enumerate(half_stores(archive, 12)):
        if number % 4 == 0:
            connection.send(raw.abort())
        elif number % 4 == 1:
            connection.reset()
        elif number % 4 == 2:
            connection.close()
    wait_until(lambda: not archive.spool(), 8, "part files are still there")


def test_d20_half_objects_of_a_killed_process_leave_the_spool(own_archive: Archives) -> None:
    archive = own_archive(PATIENT)
    halves = half_stores(archive, 4)
    for pid in archive.acceptors():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(archive.acceptors()) == 2 and archive.answers(), 10)
    wait_until(lambda: not archive.spool(), 5, "the successor does not clear the spool")
    for half in halves:
        half.close()


def test_d20_half_objects_of_a_killed_daemon_leave_the_spool(own_archive: Archives) -> None:
    archive = own_archive(PATIENT)
    halves = half_stores(archive, 4)
    archive.kill()
    assert archive.spool()
    archive.start()
    assert not archive.spool()
    for half in halves:
        half.close()


# -- the same again ---------------------------------------------------------------------------------------------------


def test_d21_the_same_object_twice_is_kept_once(archive: Daemon, acknowledged: list[Instance]) -> None:
    for one in (instance(), instance(size=LARGE)):
        assert [stored(archive, one) for _ in range(3)] == [0, 0, 0]
        acknowledged.append(one)


def test_d22_the_same_object_from_eight_senders_at_once_is_kept_once(
    archive: Daemon, acknowledged: list[Instance]
) -> None:
    for one in (instance(), instance(size=LARGE)):
        results: list[int] = []
        barrier = threading.Barrier(8)

        def send(one: Instance = one, barrier: threading.Barrier = barrier, results: list[int] = results) -> None:
            with raw.association(archive.port) as sending:
                barrier.wait(60)
                results.append(sending.store(CT, one.uid, one.data))

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert results == [0] * 8
        acknowledged.append(one)


def test_d23_a_lost_answer_is_made_up_for_by_sending_again(archive: Daemon, acknowledged: list[Instance]) -> None:
    images = study(10)
    for one in images:
        with Connection(archive.port) as lost:
            lost.associate()
            lost.write(STORE_CT, raw.store_rq(CT, one.uid), one.data)
            lost.reset()
    with raw.association(archive.port) as again:
        assert {again.store(CT, one.uid, one.data) for one in images} == {0}
    acknowledged += images
