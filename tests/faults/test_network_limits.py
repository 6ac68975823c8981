"""N07, N10, N12, N13, N22-N25: many at once, too much at once, and nobody reading."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Iterator

import pytest

from tests.faults import raw
from tests.faults.checker import check, prompt
from tests.faults.daemon import SLACK, TIMEOUTS, Daemon, many, wait_until
from tests.faults.objects import Instance, instance, keys_of, keys_of_instance, study
from tests.faults.raw import CT, ONLY_ECHO, STORE_CT, Connection, Ended, Request, p_data, pdv, role
from tests.faults.rest import warm_up

Archives = Callable[..., Daemon]
WAIT = max(TIMEOUTS.values()) + SLACK
LIMIT_EXCEEDED, CONGESTION = ("rejected", 2, 3, 2), ("rejected", 2, 3, 1)


@contextlib.contextmanager
def associations(
    archive: Daemon, count: int, calling: str = "SENDER", source: str = "127.0.0.1"
) -> Iterator[list[Connection]]:
    """As many as are let in."""
    let_in: list[Connection] = []
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(Connection(archive.port, source=source))
            with contextlib.suppress(Ended):
                let_in.append(connection.associate(Request(calling=calling, contexts=ONLY_ECHO)))
        yield let_in


def refusal(archive: Daemon, calling: str, source: str = "127.0.0.1") -> tuple[object, ...]:
    with Connection(archive.port, source=source) as one_more:
        one_more.send(Request(calling=calling, contexts=ONLY_ECHO).pdu())
        return one_more.ending(WAIT)


# -- counts ---------------------------------------------------------------------------------------------


def test_n07_one_ae_title_takes_no_more_than_its_share(own_archive: Archives) -> None:
    archive = own_archive({"limits": {"per_ae": 5}})
    with associations(archive, 40) as let_in:
        assert len(let_in) == 5
        assert refusal(archive, "SENDER") == LIMIT_EXCEEDED
        assert archive.echo(calling="OTHER") == 0
        let_in[0].release()
        wait_until(lambda: archive.answers("SENDER"), 3)
    check(archive)


def test_n07_without_the_limit_it_takes_what_it_wants(own_archive: Archives) -> None:
    """The twin."""
    archive = own_archive({"limits": {"per_ae": 0}})
    with associations(archive, 40) as let_in:
        assert len(let_in) == 40


def test_n07_strangers_leave_room_for_peers(own_archive: Archives) -> None:
    archive = own_archive({"limits": {"max_associations": 10, "reserved_for_peers": 4}})
    with associations(archive, 20, "STRANGER", "127.0.0.7") as strangers:
        assert len(strangers) == 6
        assert refusal(archive, "STRANGER2", "127.0.0.8") == CONGESTION
        with associations(archive, 20) as peers:
            assert len(peers) == 4
            assert refusal(archive, "SENDER")[:3] == ("rejected", 2, 3)
    wait_until(lambda: archive.answers("STRANGER"), 3)


def test_n07_one_address_takes_no_more_than_its_share(own_archive: Archives) -> None:
    archive = own_archive({"limits": {"per_ip": 6}})
    with associations(archive, 20, source="127.0.0.9") as let_in:
        assert len(let_in) == 6
        assert refusal(archive, "OTHER", "127.0.0.9") == LIMIT_EXCEEDED
        assert archive.echo("127.0.0.10", "SENDER") == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_n07_a_race_for_the_last_places_has_no_more_winners_than_places(own_archive: Archives, processes: int) -> None:
    archive = own_archive({"processes": processes, "limits": {"per_ae": 10}})
    with many(archive.port, 40) as racing:
        for connection in racing:
            connection.send(Request(contexts=ONLY_ECHO).pdu())
        answers = [connection.read() for connection in racing]
    assert sum(answer is not None and answer.kind == raw.AC for answer in answers) == 10


# -- sizes ----------------------------------------------------------------------------------------------


def test_n10_a_pdu_above_the_maximum_agreed_ends_the_association(own_archive: Archives) -> None:
    archive = own_archive({"limits": {"max_pdu": 16384}})
    before = archive.usage().resident
    size = 64 * 2**20
    with Connection(archive.port) as large:
        large.associate()
        assert large.max_pdu == 16384
        large.write(STORE_CT, raw.store_rq(CT, "1.2.3"))
        large.send(raw.pdu(raw.DATA, pdv(STORE_CT, 2, b"", size - 4), size))
        sent = 0
        while sent < size and large.try_send(bytes(1 << 16)):
            sent += 1 << 16
        assert large.ending(WAIT) in [("aborted", 2, 6), ("closed",)]
        # What the buffers of both sockets took before the end was noticed, which is several megabytes, but not the PDU.
        assert sent < size // 2
    assert archive.usage().resident - before < 4 * 2**20
    check(archive)


def test_n10_without_a_maximum_it_streams(archive: Daemon, acknowledged: list[Instance]) -> None:
    """The twin: the same PDU where none is too large; memory does not grow with it."""
    one = instance(size=32 * 2**20)
    before = archive.usage().resident
    with raw.association(archive.port) as large:
        large.write(STORE_CT, raw.store_rq(CT, one.uid))
        body = pdv(STORE_CT, 2, one.data)
        large.send(raw.pdu(raw.DATA, body[:-1000], len(body)))
        assert archive.usage().resident - before < 8 * 2**20
        large.send(body[-1000:])
        assert large.message().status == 0
    acknowledged.append(one)


def test_n12_a_peer_that_never_waits_for_answers_is_held_back(archive: Daemon, acknowledged: list[Instance]) -> None:
    images = study(300, size=100_000)
    before = archive.usage().resident
    most = 0
    with raw.association(archive.port) as hasty:
        for number, one in enumerate(images, 1):
            hasty.write(STORE_CT, raw.store_rq(CT, one.uid, number), one.data)
            if number % 50 == 0:
                most = max(most, archive.usage().resident - before)
        assert [hasty.message().status for _ in images] == [0] * len(images)
    assert most < 32 * 2**20
    acknowledged += images[::50]


def test_n12_a_peer_that_never_reads_answers_is_aborted(archive: Daemon) -> None:
    with Connection(archive.port, receive_buffer=4096, patience=WAIT) as deaf:
        deaf.associate()
        echoes = p_data(pdv(raw.ECHO, 3, raw.echo_rq())) * 1000
        with contextlib.suppress(TimeoutError):
            for _ in range(2000):
                if not deaf.try_send(echoes):
                    break
            else:
                raise AssertionError("two million echoes were taken and none was read")


# -- nobody reads -----------------------------------------------------------------------------------------


def ended_in_the_log(archive: Daemon, since: int) -> bool:
    return "does not read" in archive.log()[since:] or "reads too slowly" in archive.log()[since:]


def test_n13_a_query_whose_answers_nobody_reads_is_aborted(archive: Daemon) -> None:
    images = study(200, size=100)
    said = len(archive.log())
    with Connection(archive.port, receive_buffer=4096) as deaf:
        deaf.associate()
        for one in images:
            assert deaf.store(CT, one.uid, one.data) == 0
        identifier = keys_of("IMAGE", study=images[0].study, series=images[0].series)
        for number in range(200):
            deaf.write(raw.FIND, raw.query_rq(raw.C_FIND, raw.STUDY_FIND, number + 1), identifier)
        wait_until(lambda: ended_in_the_log(archive, said), WAIT, "still sending to a peer that does not read")


def test_n13_an_object_that_nobody_reads_is_given_up(archive: Daemon) -> None:
    one = instance(size=16 * 2**20)
    said = len(archive.log())
    with Connection(archive.port, receive_buffer=4096) as deaf:
        deaf.associate(Request(user=role(CT, True, True)))
        assert deaf.store(CT, one.uid, one.data) == 0
        deaf.write(raw.GET, raw.query_rq(raw.C_GET, raw.STUDY_GET), keys_of_instance(one))
        wait_until(lambda: ended_in_the_log(archive, said), WAIT, "still sending to a peer that does not read")


# -- descriptors --------------------------------------------------------------------------------------------


def test_n22_out_of_descriptors_it_waits_and_recovers(own_archive: Archives) -> None:
    archive = own_archive({"processes": 1, "timeouts": {"acse": "4s"}}, wrapper=["prlimit", "--nofile=128:128"])
    base = archive.usage()
    with contextlib.ExitStack() as stack:
        for number in range(4):
            stack.enter_context(many(archive.port, 50, source=f"127.0.1.{number}"))
        wait_until(lambda: "cannot accept" in archive.log(), 5, "no word about it")
        before, began = archive.cpu_seconds(), time.monotonic()
        time.sleep(1)
        assert (archive.cpu_seconds() - before) / (time.monotonic() - began) < 0.2
        assert archive.log().count("cannot accept") < 6
    wait_until(lambda: archive.echo_seconds() < 0.2, 8, "it does not recover")
    check(archive, base=base)


def test_n23_descriptors_above_1023_are_like_others(own_archive: Archives) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    limits = {"max_associations": 0, "per_ae": 0, "per_ip": 0}
    archive = own_archive(
        {"processes": 1, "limits": limits, "timeouts": {"idle": "60s"}}, wrapper=["prlimit", "--nofile=4096:4096"]
    )
    with associations(archive, 1050) as let_in:
        assert len(let_in) == 1050
        assert archive.usage().descriptors > 1050
        one = instance()
        with raw.association(archive.port) as high:
            assert high.store(CT, one.uid, one.data) == 0
            assert high.find(keys_of_instance(one))[0] == 0
        assert let_in[-1].echo() == let_in[0].echo() == 0
        for connection in let_in:
            connection.send(raw.release_rq())
    check(archive, [one])


# -- long runs, short here ------------------------------------------------------------------------------------


def test_n24_associations_leave_nothing_behind(archive: Daemon) -> None:
    warm_up(archive)
    before = archive.usage()
    one = instance()
    for number in range(600):
        with Connection(archive.port) as connection:
            connection.associate()
            if number % 10 == 0:
                connection.write(STORE_CT, raw.store_rq(CT, one.uid))
                connection.send(raw.abort())
            else:
                connection.echo()
                connection.release()
    after = archive.usage()
    assert after.resident - before.resident < 10 * 2**20
    assert after.threads <= before.threads + 3


def test_n25_idle_associations_cost_next_to_nothing(archive: Daemon) -> None:
    with associations(archive, 200) as idle, raw.association(archive.port, Request(calling="OTHER")) as active:
        assert len(idle) == 200
        before = archive.cpu_seconds()
        time.sleep(1)
        spent = archive.cpu_seconds() - before
        taken = []
        for number in range(100):
            began = time.monotonic()
            assert active.echo(number + 1) == 0
            taken.append(time.monotonic() - began)
        for connection in idle:
            connection.send(raw.release_rq())
    assert spent < 0.1
    assert sorted(taken)[50] < prompt()
