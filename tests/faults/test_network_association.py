"""N08, N09, N14, N20, N21, N30-N36: what a peer can do wrong once it was let in."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults import raw
from tests.faults.daemon import SLACK, TIMEOUTS, Daemon, wait_until
from tests.faults.objects import Instance, instance, keys_of, keys_of_instance, study
from tests.faults.raw import (
    COMMAND,
    CT,
    LAST,
    MR,
    ONLY_ECHO,
    STORE_CT,
    VERIFICATION,
    Connection,
    Ended,
    Request,
    element,
    p_data,
    pdv,
)

WAIT = max(TIMEOUTS.values()) + SLACK
A900, NOT_SUPPORTED = 0xA900, 0x0122
SLICE = 1 << 14


def store_pdus(one: Instance, message_id: int = 1, piece: int = 700) -> list[bytes]:
    """A whole C-STORE request, cut into the pieces at which it may be cut off."""
    pdus = [p_data(pdv(STORE_CT, COMMAND | LAST, raw.store_rq(CT, one.uid, message_id)))]
    return pdus + [p_data(pdv(STORE_CT, *cut)) for cut in raw.fragments(one.data, piece)]


def is_kept(archive: Daemon, one: Instance) -> bool:
    with raw.association(archive.port) as asking:
        return len(asking.find(keys_of_instance(one))[1]) > 0


def aborted_or_closed(connection: Connection, within: float = WAIT) -> None:
    how = connection.ending(within)
    assert how[0] in ("aborted", "closed"), how
    assert connection.is_closed(WAIT)


# -- silence ------------------------------------------------------------------------------------------


def test_n08_an_idle_association_is_aborted_in_time(archive: Daemon) -> None:
    with Connection(archive.port) as idle:
        idle.associate(Request(contexts=ONLY_ECHO))
        assert idle.echo() == 0
        before = time.monotonic()
        assert idle.ending(WAIT) in [("aborted", 0, 0), ("aborted", 2, 0)]
        assert TIMEOUTS["idle"] - 1 < time.monotonic() - before < WAIT


def test_n09_a_peer_that_keeps_the_connection_after_its_release_is_closed(archive: Daemon) -> None:
    with Connection(archive.port) as clinging:
        clinging.associate(Request(contexts=ONLY_ECHO))
        clinging.send(raw.release_rq())
        assert clinging.ending(WAIT) == ("released",)
        wait_until(lambda: _refuses(clinging), TIMEOUTS["acse"] + 3, "it still takes what is sent")


def test_n09_a_peer_that_keeps_the_connection_after_a_rejection_is_closed(archive: Daemon) -> None:
    with Connection(archive.port) as clinging:
        clinging.send(Request(application="1.2.3").pdu())
        assert clinging.ending(WAIT)[0] == "rejected"
        wait_until(lambda: _refuses(clinging), TIMEOUTS["acse"] + 3, "it still takes what is sent")


def _refuses(connection: Connection) -> bool:
    return not connection.try_send(b"\0")


def test_n34_a_data_set_that_was_announced_and_never_comes(archive: Daemon) -> None:
    one, half = instance(), instance(size=3_000_000)
    with Connection(archive.port) as silent, Connection(archive.port) as stuck:
        silent.associate().write(STORE_CT, raw.store_rq(CT, one.uid))
        stuck.associate().write(STORE_CT, raw.store_rq(CT, half.uid))
        for cut in list(raw.fragments(half.data, SLICE))[:100]:
            stuck.send(p_data(pdv(STORE_CT, *cut)))
        wait_until(archive.spool, 3, "a large data set is not written to the spool")
        aborted_or_closed(silent)
        aborted_or_closed(stuck)
        assert not archive.spool()
    assert not is_kept(archive, one)


# -- being cut off --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["abort", "reset", "close"])
@pytest.mark.parametrize("size", [12_000, 2_500_000], ids=["small", "large"])
def test_n14_a_store_that_is_cut_off_leaves_nothing(archive: Daemon, how: str, size: int) -> None:
    one = instance(size=size)
    pdus = store_pdus(one, piece=size // 18)
    assert len(pdus) >= 18
    for point in range(len(pdus)):
        with Connection(archive.port) as cut:
            cut.associate()
            cut.send(b"".join(pdus[:point]) + (pdus[point][: len(pdus[point]) // 2] if point % 2 else b""))
            if how == "abort":
                cut.send(raw.abort())
                assert point % 2 or cut.is_closed(WAIT)
            elif how == "reset":
                cut.reset()
    wait_until(lambda: not archive.spool(), 1.5, "a part file is still there")
    assert not is_kept(archive, one)


def test_n14_a_store_that_is_not_cut_off_is_kept(archive: Daemon, acknowledged: list[Instance]) -> None:
    """The twin."""
    one = instance(size=12_000)
    with raw.association(archive.port) as whole:
        whole.send(b"".join(store_pdus(one)))
        assert whole.message().status == 0
    acknowledged.append(one)


def test_n14_a_peer_that_is_gone_before_the_answer_may_send_again(
    archive: Daemon, acknowledged: list[Instance]
) -> None:
    one = instance()
    with Connection(archive.port) as cut:
        cut.associate().send(b"".join(store_pdus(one)))
        cut.reset()
    wait_until(lambda: is_kept(archive, one), 5, "a whole object was thrown away")
    with raw.association(archive.port) as again:
        assert again.store(CT, one.uid, one.data) == 0
    acknowledged.append(one)


# -- release and cancel ------------------------------------------------------------------------------------


def test_n21_a_release_during_a_query_is_answered_after_it(archive: Daemon) -> None:
    with Connection(archive.port) as hasty:
        hasty.associate()
        hasty.write(raw.FIND, raw.query_rq(raw.C_FIND, raw.STUDY_FIND), keys_of("STUDY"))
        hasty.send(raw.release_rq())
        assert hasty.ending(WAIT)[0] in ("released", "aborted")


def test_n21_a_release_during_a_store_is_an_end(archive: Daemon) -> None:
    one = instance()
    with Connection(archive.port) as hasty:
        hasty.associate().send(b"".join(store_pdus(one)[:3]) + raw.release_rq())
        assert hasty.ending(WAIT)[0] in ("released", "aborted", "closed")
    assert not is_kept(archive, one)


@pytest.mark.parametrize("cancels", [[1], [1, 1], [7], list(range(1, 12))], ids=["late", "twice", "wrong id", "eleven"])
def test_n21_cancels_that_come_too_late_change_nothing(archive: Daemon, cancels: list[int]) -> None:
    with raw.association(archive.port) as asking:
        status, _ = asking.find(keys_of("STUDY", study="1.2.3.4"))
        assert status == 0
        for message_id in cancels:
            asking.write(raw.FIND, raw.cancel_rq(message_id))
        assert asking.echo(99) == 0


def test_n21_a_cancel_ends_a_query(archive: Daemon, acknowledged: list[Instance]) -> None:
    images = study(400, size=200)
    with Connection(archive.port, receive_buffer=4096) as asking:
        asking.associate()
        for one in images:
            assert asking.store(CT, one.uid, one.data) == 0
        identifier = keys_of("IMAGE", study=images[0].study, series=images[0].series)
        asking.write(raw.FIND, raw.query_rq(raw.C_FIND, raw.STUDY_FIND, 5), identifier)
        asking.write(raw.FIND, raw.cancel_rq(5))
        pending = 0
        while (answer := asking.message()).status == raw.PENDING:
            pending += 1
        assert answer.status in (raw.CANCELLED, raw.SUCCESS)
        assert (answer.status == raw.SUCCESS) == (pending == len(images))
        assert asking.echo(6) == 0
        asking.release()


# -- fragments ------------------------------------------------------------------------------------------------

ECHO_PDV = pdv(raw.ECHO, COMMAND | LAST, raw.echo_rq())
BAD_FRAGMENTS = {
    "length 0": p_data(pdv(1, 3, b"", 0)),
    "length 1": p_data(pdv(1, 3, b"", 1)),
    "past the end": p_data(pdv(1, 3, raw.echo_rq(), 5000)),
    "four gigabytes": p_data(pdv(1, 3, raw.echo_rq(), 0xFFFFFFFF)),
    "empty PDU": raw.pdu(raw.DATA),
    "PDU of three bytes": raw.pdu(raw.DATA, b"\0\0\0"),
    "rubbish behind": raw.pdu(raw.DATA, pdv(1, COMMAND, raw.echo_rq()) + b"\0\0\0"),
    "unknown context": p_data(pdv(77, 3, raw.echo_rq())),
    "context 0": p_data(pdv(0, 3, raw.echo_rq())),
}


@pytest.mark.parametrize("what", BAD_FRAGMENTS)
def test_n30_a_fragment_that_cannot_be_ends_the_association(archive: Daemon, what: str) -> None:
    with Connection(archive.port) as wrong:
        wrong.associate().send(BAD_FRAGMENTS[what])
        assert wrong.ending(WAIT) in [("aborted", 2, 6), ("aborted", 2, 2)]
        assert wrong.is_closed(WAIT)


def test_n30_a_command_in_many_fragments_is_one_command(archive: Daemon) -> None:
    """The twin: what is unusual but right."""
    whole = raw.echo_rq()
    with raw.association(archive.port) as odd:
        odd.send(
            p_data(
                *(
                    pdv(1, COMMAND | (LAST if at == len(whole) - 1 else 0), whole[at : at + 1])
                    for at in range(len(whole))
                )
            )
        )
        assert odd.message().status == 0
        for at in range(0, len(whole), 3):
            odd.send(p_data(pdv(1, COMMAND | (LAST if at + 3 >= len(whole) else 0), whole[at : at + 3])))
        assert odd.message().status == 0


# -- commands ---------------------------------------------------------------------------------------------------


def echo_but(**changes: Any) -> bytes:
    elements: dict[str, Any] = {
        "AFFECTED_CLASS": VERIFICATION,
        "FIELD": raw.C_ECHO,
        "MESSAGE_ID": 1,
        "DATA_SET_TYPE": raw.NONE,
    }
    elements |= changes
    return raw.command({getattr(raw, name): value for name, value in elements.items() if value is not None})


BAD_COMMANDS = {
    "no field": echo_but(FIELD=None),
    "unknown field": echo_but(FIELD=0x7777),
    "no data set type": echo_but(DATA_SET_TYPE=None),
    "no message id": echo_but(MESSAGE_ID=None),
    "field of one byte": echo_but(FIELD=b"\x30"),
    "random": bytes(range(7, 250)),
    "empty": b"",
    "four gigabytes": element(0, b"\0\0\0\0") + b"\0\0\2\0\xf0\xff\xff\xff" + b"1.2",
    "another group": b"\x08\0\x18\0\4\0\0\0" + b"1.2\0",
    "one megabyte": raw.command(
        {0x0002: VERIFICATION, 0x0100: raw.C_ECHO, 0x0110: 1, 0x0800: 0x101, 0x0902: b" " * 2**20}
    ),
    "uid of rubbish": echo_but(AFFECTED_CLASS=b"\xff\n%s\0\x1b[31m"),
    "no class": echo_but(AFFECTED_CLASS=None),
    "not printable": echo_but(AFFECTED_CLASS=bytes(64)),
}


@pytest.mark.parametrize("what", BAD_COMMANDS)
def test_n31_a_wrong_command_is_answered_or_ends_the_association(archive: Daemon, what: str) -> None:
    data = BAD_COMMANDS[what]
    with Connection(archive.port) as wrong:
        wrong.associate()
        pieces = list(raw.fragments(data, SLICE))
        if not all(wrong.try_send(p_data(pdv(1, COMMAND | control, piece))) for control, piece in pieces):
            return
        try:
            answer = wrong.message()
        except Ended as end:
            assert end.how[0] in ("aborted", "closed")
        else:
            assert answer.status != raw.SUCCESS or what in ("no class", "not printable", "uid of rubbish")
            assert wrong.echo(2) == 0
            wrong.release()


def test_n31_an_operation_nobody_knows_is_answered_0211(archive: Daemon) -> None:
    with raw.association(archive.port) as asking:
        asking.write(raw.ECHO, echo_but(FIELD=0x0150))  # N-DELETE-RQ
        assert asking.message().status in (0x0211, 0x0122, 0x0110)
        assert asking.echo(2) == 0


# -- data sets in the wrong place ----------------------------------------------------------------------------------


def test_n32_a_data_set_without_a_command_ends_the_association(archive: Daemon) -> None:
    with Connection(archive.port) as wrong:
        wrong.associate().send(p_data(pdv(STORE_CT, LAST, instance().data)))
        assert wrong.ending(WAIT)[0] == "aborted"
        assert wrong.is_closed(WAIT)


def test_n32_a_command_inside_a_data_set_ends_the_association(archive: Daemon) -> None:
    one = instance()
    with Connection(archive.port) as wrong:
        wrong.associate().send(b"".join(store_pdus(one)[:2]) + p_data(ECHO_PDV))
        assert wrong.ending(WAIT)[0] == "aborted"
    assert not is_kept(archive, one)


def test_n32_a_data_set_on_another_context_than_its_command_is_not_kept(archive: Daemon) -> None:
    one = instance()
    with Connection(archive.port) as wrong:
        wrong.associate().write(STORE_CT, raw.store_rq(CT, one.uid))
        try:
            wrong.write_data(raw.STORE_MR, one.data)
            assert wrong.message().status & 0xF000 == 0xC000
            assert wrong.echo(2) == 0
            wrong.release()
        except Ended as end:
            assert end.how[0] in ("aborted", "closed")
    assert not is_kept(archive, one)


def test_n33_two_messages_in_one_pdu_are_both_served(archive: Daemon, acknowledged: list[Instance]) -> None:
    images = study(3, size=500)
    pdvs = []
    for number, one in enumerate(images, 1):
        pdvs += [pdv(STORE_CT, 3, raw.store_rq(CT, one.uid, number)), pdv(STORE_CT, LAST, one.data)]
    with raw.association(archive.port) as packed:
        packed.send(p_data(*pdvs, pdv(raw.ECHO, 3, raw.echo_rq(9))))
        answers = [packed.message() for _ in range(4)]
    assert [answer.number(raw.RESPONDED_TO) for answer in answers] == [1, 2, 3, 9]
    assert {answer.status for answer in answers} == {0}
    acknowledged += images


# -- the wrong context ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "sop_class"), [(raw.ECHO, CT), (raw.FIND, CT), (raw.STORE_MR, CT), (raw.GET, CT), (STORE_CT, MR)]
)
def test_n35_a_store_on_a_context_of_something_else_is_refused(archive: Daemon, context: int, sop_class: str) -> None:
    one, aside = instance(sop_class=sop_class), archive.quarantined()
    with raw.association(archive.port) as wrong:
        assert wrong.store(sop_class, one.uid, one.data, context=context) in (A900, NOT_SUPPORTED)
        assert wrong.echo(2) == 0
    assert not is_kept(archive, one)
    assert archive.quarantined() == aside


def test_n35_a_query_on_a_context_of_something_else_is_refused(archive: Daemon) -> None:
    with raw.association(archive.port) as wrong:
        for context in (raw.ECHO, STORE_CT):
            wrong.write(context, raw.query_rq(raw.C_FIND, raw.STUDY_FIND), keys_of("STUDY"))
            assert wrong.message().status in (A900, NOT_SUPPORTED)
        assert wrong.echo(2) == 0


# -- what nobody asked for ---------------------------------------------------------------------------------------------


def test_n36_responses_and_reports_nobody_asked_for_cost_no_thread(archive: Daemon) -> None:
    before = archive.usage().threads
    event = raw.command(
        {
            0x0002: "1.2.840.10008.1.20.1",
            0x0100: raw.N_EVENT_REPORT,
            0x0110: 1,
            0x0800: raw.NONE,
            0x1000: "1.2.840.10008.1.20.1.1",
            raw.EVENT_TYPE: 1,
        }
    )
    reply = raw.command({0x0002: VERIFICATION, 0x0100: 0x8030, 0x0120: 1, 0x0800: raw.NONE, 0x0900: 0})
    for message in (event, reply):
        with Connection(archive.port) as flooding:
            flooding.associate()
            drain = threading.Thread(target=_read_all, args=(flooding,), daemon=True)
            drain.start()
            for _ in range(100):
                if not flooding.try_send(p_data(pdv(1, 3, message)) * 100):
                    break
            assert archive.usage().threads - before <= 8
            assert archive.echo() == 0
            flooding.try_send(raw.abort())
            drain.join(WAIT)
            assert not drain.is_alive()


def _read_all(connection: Connection) -> None:
    try:
        connection.ending(WAIT)
    except OSError:
        pass


# -- slow operations ----------------------------------------------------------------------------------


def test_n20_an_operation_longer_than_the_idle_timeout_ends_in_its_answer(
    own_archive: Callable[..., Daemon],
) -> None:
    """The database is locked for longer than an association may be idle."""

    archive = own_archive({"timeouts": {"idle": "2s", "dimse": "2s"}})
    first, second = instance(), instance()
    with Connection(archive.port) as slow:
        slow.associate()
        assert slow.store(CT, first.uid, first.data) == 0
        database = sqlite3.connect(archive.folder / "index.db", isolation_level=None)
        database.execute("begin exclusive")
        slow.write(STORE_CT, raw.store_rq(CT, second.uid), second.data)
        time.sleep(3)
        database.execute("rollback")
        database.close()
        assert slow.message().status == 0
        assert slow.echo(3) == 0
        slow.release()
