"""N26, N27: how the daemon ends and reloads, whoever is connected."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.faults import raw
from tests.faults.checker import check, slowness
from tests.faults.daemon import EVERYTHING, Daemon, many, wait_until
from tests.faults.objects import Instance, instance
from tests.faults.raw import CT, ONLY_ECHO, STORE_CT, Connection, Ended, Request, p_data, pdv

Archives = Callable[..., Daemon]
# As long as in real life, so that it is not they that end anything.
LONG = {"timeouts": dict.fromkeys(("tls", "acse", "pdu", "dimse", "idle", "send"), "60s")}


class Sender(threading.Thread):
    """Stores one object after another until the connection ends."""

    def __init__(self, archive: Daemon, size: int = 200_000) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[Instance] = []
        self._archive, self._size = archive, size
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError, Ended), Connection(self._archive.port) as sending:
            sending.associate()
            while True:
                one = instance(size=self._size)
                if sending.store(CT, one.uid, one.data) == 0:
                    self.acknowledged.append(one)


@contextlib.contextmanager
def stalled(archive: Daemon) -> Iterator[Connection]:
    """A store that stops in the middle of its data set, which is large enough for the spool."""
    one = instance(size=4_000_000)
    with Connection(archive.port) as connection:
        connection.associate().write(STORE_CT, raw.store_rq(CT, one.uid))
        for cut in list(raw.fragments(one.data, 1 << 14))[:200]:
            connection.send(p_data(pdv(STORE_CT, *cut)))
        wait_until(archive.spool, 3, "nothing in the spool")
        yield connection


def test_n26_sigterm_ends_in_time_whoever_is_connected(own_archive: Archives) -> None:
    archive = own_archive(LONG, tls=True)
    with contextlib.ExitStack() as stack:
        idle = stack.enter_context(many(archive.port, 100))
        for connection in idle:
            connection.send(Request(contexts=ONLY_ECHO).pdu())
        assert all(connection.read() for connection in idle)
        stack.enter_context(stalled(archive))
        stack.enter_context(many(archive.tls_port, 2))
        stack.enter_context(many(archive.port, 2))
        senders = [Sender(archive) for _ in range(5)]
        wait_until(lambda: all(len(sender.acknowledged) > 3 for sender in senders), 15)
        before = time.monotonic()
        archive.signal(signal.SIGTERM)
        status = archive.wait(60)
        taken = time.monotonic() - before
    for sender in senders:
        sender.join(60)
    acknowledged = [one for sender in senders for one in sender.acknowledged]
    assert taken <= 40  # ten, and what a slow machine adds; the stalled peer would take a minute
    assert status == 0, archive.log()[-2000:]
    check(archive, acknowledged, alive=False)
    archive.start()
    check(archive, acknowledged[::10])


def test_n26_idle_peers_do_not_delay_the_end(own_archive: Archives) -> None:
    archive = own_archive(LONG)
    with many(archive.port, 30) as idle:
        for connection in idle:
            connection.associate(Request(contexts=ONLY_ECHO))
        before = time.monotonic()
        assert archive.stop() == 0
        assert time.monotonic() - before < 8 * slowness()  # otherwise it takes ten
        assert {connection.ending(60)[0] for connection in idle} <= {"aborted", "closed"}


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_n27_a_second_signal_forces_the_end(own_archive: Archives, first: int) -> None:
    archive = own_archive(LONG)
    with stalled(archive):
        archive.signal(first)
        time.sleep(0.5)
        with pytest.raises(subprocess.TimeoutExpired):
            archive.wait(0.1)
        archive.signal(first)
        archive.wait(6 * slowness())  # otherwise it takes ten
    archive.start()
    check(archive)


def test_n27_sigint_ends_in_order(own_archive: Archives) -> None:
    archive = own_archive(LONG)
    one = instance()
    with Connection(archive.port) as open_one:
        assert open_one.associate().store(CT, one.uid, one.data) == 0
        archive.signal(signal.SIGINT)
        assert archive.wait(60) == 0
    check(archive, [one], alive=False)


def calls(archive: Daemon, calling: str) -> bool:
    """Whether this AE title may store."""
    with Connection(archive.port) as connection:
        answer = connection.request(Request(calling=calling, contexts={3: raw.CONTEXTS[3]}))
        return answer is not None and answer.kind == raw.AC


def test_n27_sighup_takes_a_new_peer_and_keeps_who_is_connected(own_archive: Archives) -> None:
    archive = own_archive(LONG)
    assert not calls(archive, "NEWCOMER")
    with raw.association(archive.port) as running:
        archive.configure({"peers": {"NEWCOMER": {"host": "127.0.0.1", "allow": EVERYTHING}}})
        archive.signal(signal.SIGHUP)
        wait_until(lambda: all(calls(archive, "NEWCOMER") for _ in range(6)), 5, "the new peer is not known")
        assert running.echo() == 0
    assert len(archive.acceptors()) == 2


def test_n27_sighup_takes_new_limits(own_archive: Archives) -> None:
    archive = own_archive(LONG)
    archive.configure({"limits": {"per_ae": 2}})
    archive.signal(signal.SIGHUP)
    wait_until(lambda: _let_in(archive, 5) == 2, 5, "the new limit is not in force")


def _let_in(archive: Daemon, count: int) -> int:
    with many(archive.port, count) as made:
        answers = [connection.request(Request(contexts=ONLY_ECHO)) for connection in made]
    return sum(answer is not None and answer.kind == raw.AC for answer in answers)


@pytest.mark.parametrize("bad", ["peers: {", "peers: {SENDER: {hots: 1}}", "processes: many\n", "\0"])
def test_n27_sighup_with_a_bad_file_changes_nothing(own_archive: Archives, bad: str) -> None:
    archive = own_archive(LONG)
    archive.config_file.write_text(bad)
    archive.signal(signal.SIGHUP)
    wait_until(lambda: "not reloaded" in archive.log(), 5, "nothing is said about the bad file")
    assert calls(archive, "SENDER")
    assert archive.stop() == 0


def test_n27_a_process_that_is_killed_is_replaced_and_nothing_is_lost(own_archive: Archives) -> None:
    archive = own_archive(LONG)
    senders = [Sender(archive, 20_000) for _ in range(3)]
    wait_until(lambda: all(sender.acknowledged for sender in senders), 10)
    for pid in archive.acceptors():
        os.kill(pid, signal.SIGKILL)
    for sender in senders:
        sender.join(60)
    wait_until(lambda: len(archive.acceptors()) == 2, 10, "no new processes")
    wait_until(archive.answers, 10)
    check(archive, [one for sender in senders for one in sender.acknowledged])
