"""Who may come in, what may they do, and what are the others told."""

from __future__ import annotations

import ipaddress

import pytest

from archive.config import Peer, PeerTLS
from archive.dimse.access import VERIFICATION, Access, Asking, Denied, Grant, Why

CT, FIND, MOVE, GET = "1.2.840.10008.5.1.4.1.1.2", *(f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
PIN = "sha256:" + "ab" * 32


def peer(aet: str, *hosts: str, allow: tuple[str, ...] = ("echo", "store"), **more: object) -> Peer:
    networks = tuple(ipaddress.ip_network(host) for host in hosts)
    return Peer(aet=aet, host=hosts, allow=allow, networks=networks, **more)  # type: ignore[arg-type]


PEERS = [
    peer("CT1", "10.1.2.30"),
    peer("WS_RAD", "10.1.3.0/24", "2001:db8::/64", allow=("find", "get", "move"), aliases=("WS_OLD",)),
    peer("SAFE", "10.1.2.31", tls=PeerTLS(), certificate=PIN),
    peer("Case", "10.1.2.40"),
    peer("CASE", "10.1.2.41"),
]


def access(open_to: tuple[str, ...] = ("echo",), loopback: tuple[str, ...] = ()) -> Access:
    def everyone(address: str) -> tuple[str, ...]:
        return (*open_to, *loopback) if address == "127.0.0.1" else open_to

    return Access(["ARCHIVE", "QUERY"], PEERS, everyone)


def asking(calling: str, address: str, *classes: str, called: str = "ARCHIVE", **more: object) -> Asking:
    return Asking(calling, called, address, classes or (CT,), **more)  # type: ignore[arg-type]


def granted(decision: Grant | Denied) -> Grant:
    assert isinstance(decision, Grant), decision
    return decision


def denied(decision: Grant | Denied) -> Denied:
    assert isinstance(decision, Denied), decision
    return decision


@pytest.mark.parametrize(
    ("calling", "address"),
    [
        ("CT1", "10.1.2.30"),
        ("  CT1 ", "10.1.2.30"),
        ("ct1", "10.1.2.30"),
        ("CT1", "::ffff:10.1.2.30"),
        ("WS_RAD", "10.1.3.77"),
        ("WS_RAD", "2001:db8::5"),
        ("WS_OLD", "10.1.3.77"),
    ],
)
def test_a_peer_is_known_by_title_and_address(calling: str, address: str) -> None:
    grant = granted(access().decide(asking(calling, address)))
    assert grant.peer is not None


def test_the_exact_spelling_of_a_title_goes_first() -> None:
    assert granted(access().decide(asking("Case", "10.1.2.40"))).aet == "Case"
    assert granted(access().decide(asking("CASE", "10.1.2.41"))).aet == "CASE"


@pytest.mark.parametrize(
    ("question", "why", "hint"),
    [
        (asking("MR7", "10.9.9.9"), Why.UNKNOWN_CALLER, ""),
        (asking("CT_1", "10.9.9.9"), Why.UNKNOWN_CALLER, "calling AE 'CT_1' resembles CT1"),
        (asking("MODALITY", "10.1.2.30"), Why.UNKNOWN_CALLER, "10.1.2.30 is configured as CT1"),
        (asking("ARCHIVE", "10.9.9.9", called="CT1"), Why.UNKNOWN_CALLER, "the wrong way round"),
        (asking("CT1", "10.1.2.9"), Why.WRONG_ADDRESS, "known AE CT1 from another address 10.1.2.9"),
        (asking("CT1", "fe80::1%eth0"), Why.WRONG_ADDRESS, "10.1.2.30/32"),
        (asking("SAFE", "10.1.2.31"), Why.TLS_REQUIRED, "plain port"),
        (asking("SAFE", "10.1.2.31", names=("other", "sha256:00")), Why.WRONG_CERTIFICATE, "'other'"),
        (asking("CT1", "10.1.2.30", called="ARCHIVES"), Why.WRONG_CALLED, "called AE 'ARCHIVES' resembles ARCHIVE"),
        (asking("CT1", "10.1.2.30", called="WS_RAD"), Why.WRONG_CALLED, "is the AE title of a peer"),
        (asking("CT1", "10.1.2.30", called="ANY-SCP"), Why.WRONG_CALLED, "ours: ARCHIVE, QUERY"),
        (asking("A\nB\x1b", "10.9.9.9", called="\n"), Why.UNKNOWN_CALLER, ""),
    ],
)
def test_a_refusal_names_its_reason_and_what_would_do(question: Asking, why: Why, hint: str) -> None:
    decision = denied(access().decide(question))
    assert decision.why is why
    assert hint in decision.words
    assert decision.words.isprintable()


def test_the_codes_of_a_refusal_are_those_of_the_standard() -> None:
    assert denied(access().decide(asking("MR7", "10.9.9.9"))).why.code == (1, 1, 3)
    assert denied(access().decide(asking("CT1", "10.1.2.30", called="NO"))).why.code == (1, 1, 7)


def test_a_pinned_certificate_lets_its_owner_in() -> None:
    assert granted(access().decide(asking("SAFE", "10.1.2.31", names=("safe.example", PIN)))).peer is PEERS[2]


def test_a_name_that_looks_like_the_pinned_fingerprint_is_none() -> None:
    question = asking("SAFE", "10.1.2.31", names=(PIN, "sha256:00"))
    assert denied(access().decide(question)).why is Why.WRONG_CERTIFICATE


@pytest.mark.parametrize("calling", ["MR7", "CT1", "ARCHIVE", ""])
@pytest.mark.parametrize("called", ["ARCHIVE", "WRONG", ""])
def test_anyone_may_verify_with_any_called_title(calling: str, called: str) -> None:
    grant = granted(access().decide(asking(calling, "10.9.9.9", VERIFICATION, called=called)))
    assert grant.peer is None
    assert grant.allow == {"echo"}


def test_a_stranger_that_proposes_more_than_verification_is_rejected_as_a_whole() -> None:
    assert denied(access().decide(asking("MR7", "10.9.9.9", VERIFICATION, CT))).why is Why.UNKNOWN_CALLER


def test_echo_can_be_closed() -> None:
    denied(access(()).decide(asking("MR7", "10.9.9.9", VERIFICATION)))
    assert granted(access(()).decide(asking("CT1", "10.1.2.30", VERIFICATION, called="WRONG"))).permits("echo")


def test_what_is_open_to_everybody_is_open_and_the_rest_is_not() -> None:
    grant = granted(access(("echo", "store")).decide(asking("MR7", "10.9.9.9", CT, FIND)))
    assert grant.permits_class(CT) and not grant.permits_class(FIND)
    assert denied(access(("echo", "store")).decide(asking("MR7", "10.9.9.9", FIND))).why is Why.UNKNOWN_CALLER
    assert denied(access(("store",)).decide(asking("MR7", "10.9.9.9", called="X"))).why is Why.WRONG_CALLED


def test_this_machine_may_be_given_more() -> None:
    both = access(loopback=("store",))
    granted(both.decide(asking("ANY", "127.0.0.1")))
    denied(both.decide(asking("ANY", "10.9.9.9")))


def test_what_is_open_to_everybody_does_not_widen_a_peer_beyond_echo() -> None:
    grant = granted(access(("echo", "store")).decide(asking("WS_RAD", "10.1.3.7", CT)))
    assert grant.allow == {"echo", "find", "get", "move"}


def test_permissions_decide_which_classes_are_accepted() -> None:
    grant = granted(access().decide(asking("WS_RAD", "10.1.3.7")))
    assert grant.permits_class(FIND) and grant.permits_class(MOVE) and grant.permits_class(GET)
    assert not grant.permits_class(CT)
    assert grant.permits_class(CT, as_scp=True), "a storage class in the SCP role is for C-GET"
    assert not grant.permits_class("1.2.840.10008.5.1.4.31")
