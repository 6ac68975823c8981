"""What happens to a connection before, instead of and after an association, and how a listener stops."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pynetdicom import AE

from archive.dimse import contexts, wire
from archive.dimse.associate import AssociateRequest, UserInformation
from archive.dimse.association import Association
from archive.dimse.limits import Limits
from archive.dimse.listener import Listener, bind
from archive.dimse.negotiation import Accepted, Rejected
from archive.dimse.wire import HAS_DATA, encode_response

from .raw import (
    CT,
    PATIENT,
    QUICK,
    VERIFICATION,
    Everyone,
    Raw,
    Served,
    association_request,
    data_pdu,
    echo,
    serving,
    store,
)

REJECTED = wire.ASSOCIATE_RJ


def reject(codes: tuple[int, int, int]) -> tuple[int, bytes]:
    return REJECTED, bytes((0, *codes))


def threads_of(listener: Listener) -> int:
    with listener._lock:
        return len(listener._live)


def wait_until_empty(listener: Listener) -> bool:
    return listener.wait_until_empty(time.monotonic() + 60)


# -- peers that mean well ------------------------------------------------------------------------------------


def test_pynetdicom_verifies_and_stores() -> None:
    with serving() as served:
        ae = AE("PEER")
        ae.add_requested_context(VERIFICATION)
        ae.add_requested_context(CT)
        association = ae.associate("127.0.0.1", served.port, max_pdu=0)
        assert association.is_established
        assert association.send_c_echo().Status == 0
        association.release()
        assert association.is_released


def test_echoscu_verifies() -> None:
    with serving() as served:
        for options in ([], ["--max-pdu", "4096"], ["-pts", "30"], ["--repeat", "20"], ["--abort"]):
            subprocess.run(["echoscu", *options, "127.0.0.1", str(served.port)], check=True, timeout=300)


def test_128_contexts_with_every_transfer_syntax_are_answered() -> None:
    with serving() as served, Raw(served.port) as raw:
        syntaxes = tuple(contexts.STORED)
        raw.associate(association_request([VERIFICATION, *list(contexts.STORAGE)[:127]], syntaxes))
        raw.send(data_pdu((1, 3, echo())))
        assert raw.command().status == 0


# -- peers that do not ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "codes"),
    [
        (data_pdu((1, 3, echo())), (2, 2)),
        (wire.RELEASE_REQUEST, (2, 2)),
        (wire.RELEASE_REPLY, (2, 2)),
        (wire.reject_pdu(1, 1, 1), (2, 2)),
        (wire.abort_pdu(0, 0), None),
        (bytes.fromhex("0900000000040000000000"), (2, 1)),
        (b"GET / HTTP/1.1\r\n\r\n", (2, 1)),
        (bytes.fromhex("16030100c8010000c40303"), (2, 1)),  # a TLS client on the plain port
        (wire.PDU_HEADER.pack(wire.ASSOCIATE_RQ, 300_000_000), (2, 6)),
        (wire.PDU_HEADER.pack(wire.ASSOCIATE_RQ, 0xFFFFFFFF), (2, 6)),
        (wire.PDU_HEADER.pack(wire.ASSOCIATE_RQ, 0), (2, 6)),
        (wire.PDU_HEADER.pack(wire.ASSOCIATE_RQ, 80) + bytes(80), (2, 4)),
    ],
)
def test_what_is_no_request_is_aborted_and_leaves_nothing(sent: bytes, codes: tuple[int, int] | None) -> None:
    with serving() as served, Raw(served.port) as raw:
        raw.send(sent)
        assert raw.abort() == codes
        assert raw.closed()
        raw.sock.close()
        assert wait_until_empty(served.listener)


@pytest.mark.parametrize("sent", [b"", b"\1", b"\1\0\0\0\1\0", association_request()[:100]])
def test_silence_before_the_request_ends_at_the_deadline(sent: bytes) -> None:
    with serving(timeouts=QUICK) as served, Raw(served.port) as raw:
        raw.send(sent)
        assert raw.closed()
        assert served.limits.associations == 0


def test_a_request_that_drips_ends_at_the_same_deadline() -> None:
    with serving(timeouts=QUICK) as served, Raw(served.port) as raw:
        with pytest.raises(OSError):
            for byte in association_request()[:200]:
                raw.send(bytes((byte,)))
                time.sleep(0.01)
        assert served.associations == []


@pytest.mark.parametrize(
    ("request_", "codes"),
    [
        (association_request(calling=""), (1, 1, 3)),
        (association_request(calling="A\nB"), (1, 1, 3)),
        (association_request(called="\x1b[2J"), (1, 1, 7)),
        (association_request(user=UserInformation(3)), (1, 2, 1)),
        (association_request().replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2"), (1, 1, 2)),
        (association_request()[:6] + b"\0\2" + association_request()[8:], (1, 2, 2)),
    ],
)
def test_requests_against_the_standard_are_rejected(
    request_: bytes, codes: tuple[int, int, int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "archive.dimse")
    with serving() as served, Raw(served.port) as raw:
        raw.send(request_)
        assert raw.pdu() == reject(codes)
        assert raw.closed()
        raw.sock.close()
        assert wait_until_empty(served.listener)
    assert str(codes).replace(" ", "") in caplog.text
    assert all(character.isprintable() or character == "\n" for character in caplog.text)


def test_the_policy_rejects_with_its_own_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "archive.dimse")
    policy = Everyone(lambda request: Rejected.of((1, 1, 3), f"{request.calling} is no configured peer"))
    with serving(policy=policy) as served, Raw(served.port) as raw:
        raw.send(association_request())
        assert raw.pdu() == reject((1, 1, 3))
    assert "RAW is no configured peer" in caplog.text


def test_a_policy_that_fails_rejects_and_the_listener_lives() -> None:
    def fail(request: AssociateRequest) -> Accepted:
        raise RuntimeError("a fault")

    with serving(policy=Everyone(fail)) as served:
        for _ in range(3):
            with Raw(served.port) as raw:
                raw.send(association_request())
                assert raw.pdu() == reject((1, 2, 1))


# -- limits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "known", "codes"),
    [
        (Limits(max_associations=2, kept_for_known=0), True, (2, 3, 1)),
        (Limits(max_associations=3, kept_for_known=1), False, (2, 3, 1)),
        (Limits(per_ae=2), True, (2, 3, 2)),
        (Limits(per_ip=2), True, (2, 3, 2)),
    ],
)
def test_a_third_association_is_refused_until_one_ends(
    limits: Limits, known: bool, codes: tuple[int, int, int]
) -> None:
    policy = Everyone(lambda request: Accepted(contexts.table(), known=known))
    with serving(limits=limits, policy=policy) as served, Raw(served.port) as one, Raw(served.port) as two:
        one.associate()
        two.associate()
        with Raw(served.port) as three:
            three.send(association_request())
            assert three.pdu() == reject(codes)
        one.release()
        served.over.acquire(timeout=60)
        while served.limits.associations == 2:
            time.sleep(0.001)
        with Raw(served.port) as three:
            three.associate()


def test_silent_sockets_take_no_slot_and_are_capped_by_address() -> None:
    limits = Limits(max_associations=1, kept_for_known=0, pending_per_ip=8)
    with serving(limits=limits) as served:
        silent = [Raw(served.port) for _ in range(40)]
        with Raw(served.port, source="127.0.0.2") as raw:
            raw.associate()
            raw.send(data_pdu((1, 3, echo())))
            assert raw.command().status == 0
            assert threads_of(served.listener) <= 9
        for each in silent:
            each.sock.close()
        assert wait_until_empty(served.listener)
        with Raw(served.port) as raw:
            raw.associate()


def test_connections_that_close_at_once_leave_nothing() -> None:
    with serving() as served:
        for _ in range(300):
            Raw(served.port).sock.close()
        with Raw(served.port) as raw:
            raw.associate()
            raw.release()
        assert wait_until_empty(served.listener)
        assert served.limits.associations == 0 and not served.limits._pending


def test_many_descriptors_do_not_hinder() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    burnt = [os.dup(0) for _ in range(1100)]
    try:
        with serving() as served, Raw(served.port) as raw:
            assert raw.sock.fileno() > 1024
            raw.associate()
            raw.send(data_pdu((1, 3, echo())))
            assert raw.command().status == 0
    finally:
        for each in burnt:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_running_out_of_descriptors_pauses_and_recovers(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving() as served, Raw(served.port) as raw:
        raw.associate()
        waiting = socket.socket()
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            before = time.process_time()
            waiting.connect(("127.0.0.1", served.port))
            time.sleep(0.5)
            assert time.process_time() - before < 0.2
            raw.send(data_pdu((1, 3, echo())))
            assert raw.command().status == 0
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        waiting.sendall(association_request())
        assert waiting.recv(1) == b"\2"
        waiting.close()
    assert caplog.text.count("cannot accept for now") == 1


# -- stopping -----------------------------------------------------------------------------------------------------


def test_stopping_ends_idle_and_unborn_associations_at_once() -> None:
    with serving() as served:
        idle = [Raw(served.port) for _ in range(20)]
        for each in idle:
            each.associate()
        silent = Raw(served.port)
        started = time.monotonic()
        served.listener.stop(20)
        assert time.monotonic() - started < 19
        assert all(each.abort() == (0, 0) for each in idle)
        assert silent.closed()
        with pytest.raises(OSError):
            Raw(served.port)


def test_an_operation_may_finish_while_stopping() -> None:
    go = threading.Event()

    def slow(served: Served, association: Association) -> None:
        while (message := association.read_message()) is not None:
            served.over.release()
            assert go.wait(60)
            association.send_message(message.context, encode_response(message.command, 0))

    with serving(slow) as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(data_pdu((1, 3, echo())))
        assert served.over.acquire(timeout=60)
        stopping = threading.Thread(target=served.listener.stop, args=(10,))
        stopping.start()
        assert threads_of(served.listener) == 1
        go.set()
        assert raw.command().status == 0
        assert raw.abort() == (0, 0)
        stopping.join(60)
        assert not stopping.is_alive()


def test_a_stalled_store_is_cut_at_the_deadline() -> None:
    with serving() as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(data_pdu((3, 3, store()), (3, 0, b"half")))
        while not served.sinks:
            time.sleep(0.001)
        started = time.monotonic()
        served.listener.stop(1.0)
        assert time.monotonic() - started < 20  # the data set is waited for longer
        assert served.over.acquire(timeout=60) and served.sinks[0].discarded


def test_a_handler_that_never_returns_does_not_hold_up_the_stop() -> None:
    for_ever = threading.Event()

    def stuck(served: Served, association: Association) -> None:
        for_ever.wait()

    with serving(stuck) as served, Raw(served.port) as raw:
        raw.associate()
        started = time.monotonic()
        served.listener.stop(0.5)
        assert time.monotonic() - started < 60
        for_ever.set()


def test_stopping_twice_does_no_harm() -> None:
    with serving() as served:
        served.listener.stop(1)
        served.listener.stop(1)


# -- cost -----------------------------------------------------------------------------------------------------------


def test_idle_associations_cost_nothing() -> None:
    with serving(limits=Limits(per_ae=0, per_ip=0), timeouts=PATIENT) as served:
        idle = []
        for _ in range(100):
            idle.append(Raw(served.port))
            idle[-1].associate()
        before = time.process_time()
        time.sleep(1.0)
        assert time.process_time() - before < 0.1
        for each in idle:
            each.sock.close()
        assert wait_until_empty(served.listener)


def test_several_listeners_share_an_inherited_socket() -> None:
    sock = bind("127.0.0.1", 0)
    listeners = [Listener(sock.dup()) for _ in range(2)]
    for listener in listeners:
        listener.start(Served(listener, Limits()).answer_all, Everyone())
    port = sock.getsockname()[1]
    sock.close()
    for _ in range(20):
        with Raw(port) as raw:
            raw.associate()
            raw.release()
    listeners[0].stop(2)
    with Raw(port) as raw:
        raw.associate()
        raw.release()
    listeners[1].stop(2)


def test_an_ipv4_caller_on_an_ipv6_socket_has_its_ipv4_address() -> None:
    listener = Listener(bind("::", 0))
    served = Served(listener, Limits())
    listener.start(served.answer_all, Everyone())
    with Raw(listener.port) as raw:
        raw.associate()
        raw.send(data_pdu((1, 3, echo())))
        raw.command()
        assert [each.address for each in listener.associations()] == ["127.0.0.1"]
    listener.stop(2)


@pytest.fixture
def objects(tmp_path: Path) -> Iterator[Path]:
    """A few small objects for storescu."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    for number in range(3):
        found = Dataset()
        found.SOPClassUID, found.SOPInstanceUID = CT, f"1.2.3.{number}"
        found.StudyInstanceUID, found.SeriesInstanceUID, found.PatientID = "1.2", "1.2.1", "P"
        found.PixelData = os.urandom(70_000)
        found["PixelData"].VR = "OW"
        found.file_meta = FileMetaDataset()
        found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        found.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    yield tmp_path


@pytest.mark.parametrize("options", [[], ["--max-send-pdu", "4096"], ["--repeat", "3"], ["-xi"]])
def test_storescu_stores(objects: Path, options: list[str]) -> None:
    with serving() as served:
        command = ["storescu", *options, "+sd", "127.0.0.1", str(served.port), str(objects)]
        subprocess.run(command, check=True, timeout=300, capture_output=True)
        assert len(served.sinks) == (9 if "--repeat" in options else 3)
        assert all(len(sink.data) > 70_000 for sink in served.sinks)


def test_storescu_that_aborts_leaves_nothing(objects: Path) -> None:
    with serving() as served:
        command = ["storescu", "--abort", "+sd", "127.0.0.1", str(served.port), str(objects)]
        subprocess.run(command, check=False, timeout=300, capture_output=True)
        assert wait_until_empty(served.listener)
        assert served.limits.associations == 0 and len(served.sinks) == 3


def test_a_message_that_announces_a_data_set_says_so() -> None:
    assert wire.decode_command(store()).elements[0x0800] == HAS_DATA.to_bytes(2, "little")
