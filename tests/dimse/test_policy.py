"""An access decision becomes the terms of an association."""

from __future__ import annotations

import pytest

from archive.dimse.access import Access, Grant
from archive.dimse.associate import AssociateRequest, Proposed, UserInformation
from archive.dimse.contexts import table
from archive.dimse.negotiation import Accepted, Rejected, first_proposed, prefer_lossless
from archive.dimse.policy import AccessPolicy, choice_of

from .archives import peer

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT, JPEG, LOSSLESS = (f"1.2.840.10008.1.2{end}" for end in (".1", "", ".4.50", ".4.70"))


def request(calling: str = "CT1", called: str = "ARCHIVE") -> AssociateRequest:
    return AssociateRequest(calling, called, (Proposed(1, CT, (EXPLICIT,)),), UserInformation(0))


def policy(noted: list[tuple[str, ...]], *quirks: str) -> AccessPolicy:
    access = Access(["ARCHIVE"], [peer("CT1", quirks=quirks)], lambda _: ("echo",))
    return AccessPolicy(access, table(), note_caller=lambda *caller: noted.append(caller))


def test_a_peer_is_accepted_with_its_grant() -> None:
    accepted = policy([]).negotiate(request(), "127.0.0.1", None)
    assert isinstance(accepted, Accepted) and isinstance(accepted.grant, Grant)
    assert accepted.known and accepted.aet == "CT1" and accepted.window > 1
    assert accepted.permits is not None and accepted.permits(CT, False)


def test_a_peer_that_cannot_stand_the_asynchronous_item_is_not_answered_one() -> None:
    accepted = policy([], "no_async").negotiate(request(), "127.0.0.1", None)
    assert isinstance(accepted, Accepted) and accepted.window == 0


def test_a_refusal_is_noted_in_words() -> None:
    noted: list[tuple[str, ...]] = []
    rejected = policy(noted).negotiate(request("CT_1 "), "127.0.0.1", None)
    assert isinstance(rejected, Rejected)
    assert (rejected.result, rejected.source, rejected.reason) == (1, 1, 3)
    assert noted == [("CT_1", "127.0.0.1", "ARCHIVE", rejected.words)]


@pytest.mark.parametrize(
    ("wanted", "proposed", "chosen"),
    [
        ("first-proposed", [JPEG, EXPLICIT], JPEG),
        ("prefer-lossless", [JPEG, LOSSLESS], LOSSLESS),
        ((IMPLICIT, EXPLICIT), [EXPLICIT, IMPLICIT], IMPLICIT),
    ],
)
def test_a_peer_s_list_decides_between_transfer_syntaxes(
    wanted: str | tuple[str, ...], proposed: list[str], chosen: str
) -> None:
    choice = choice_of(peer("CT1", accept_syntaxes=wanted))
    assert choice(proposed, frozenset([JPEG, LOSSLESS, EXPLICIT, IMPLICIT])) == chosen


def test_callers_that_are_no_peers_get_what_they_propose_first() -> None:
    assert choice_of(None) is first_proposed
    assert choice_of(peer("X", accept_syntaxes="prefer-lossless")) is prefer_lossless
