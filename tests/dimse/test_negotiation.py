from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ

from archive.dimse import contexts
from archive.dimse.associate import (
    ABSTRACT_UNKNOWN,
    ACCEPTANCE,
    TRANSFER_UNKNOWN,
    USER_REJECTION,
    AssociateAccept,
    AssociateRequest,
    Proposed,
    UserIdentity,
    UserInformation,
)
from archive.dimse.items import read_accept, read_request, write_request, write_user_information
from archive.dimse.negotiation import (
    Accepted,
    Answer,
    Offer,
    Table,
    answer,
    first_proposed,
    prefer_lossless,
    preferring,
    refusal,
)
from archive.dimse.reasons import ProtocolError

from .raw import CT, EXPLICIT, FIND, IMPLICIT, MR, VERIFICATION, association_request

JPEG_LOSSLESS, JPEG_BASELINE = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.50"
EVERYTHING = frozenset((EXPLICIT, IMPLICIT, JPEG_LOSSLESS, JPEG_BASELINE))


def request(*proposed: Proposed, user: UserInformation | None = None) -> AssociateRequest:
    """As it arrives: written and read."""
    default = (Proposed(1, VERIFICATION, (IMPLICIT,)),)
    return read_request(
        write_request(AssociateRequest("CT1", "ARCHIVE", proposed or default, user or UserInformation(16384)))[6:]
    )


def answered(asked: AssociateRequest, accepted: Accepted, max_pdu: int = 0) -> tuple[Answer, AssociateAccept]:
    found = answer(asked, accepted, max_pdu)
    return found, read_accept(found.pdu[6:])


def table(*names: str, scp: bool = True, scu: bool = False) -> Table:
    return Table({name: Offer(EVERYTHING, scp, scu) for name in names})


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


FIXED = struct.pack(">HH16s16s32s", 1, 0, b"ARCHIVE".ljust(16), b"CT1".ljust(16), b"")
NAME = item(0x10, b"1.2.840.10008.3.1.1.1")
CONTEXT = item(0x20, b"\x01\0\0\0" + item(0x30, VERIFICATION.encode()) + item(0x40, IMPLICIT.encode()))
USER = item(0x50, item(0x51, b"\0\0\x40\0"))


def context(number: int, *items: bytes) -> bytes:
    return item(0x20, bytes((number, 0, 0, 0)) + b"".join(items))


# -- reading --------------------------------------------------------------------------------------------


def test_a_request_is_read_back_as_it_was_written() -> None:
    user = UserInformation(
        32768,
        "1.2.3",
        "OTHER",
        (5, 0),
        {CT: (False, True)},
        {FIND: b"\1\1"},
        {},
        UserIdentity(2, b"me", b"secret", True),
    )
    asked = request(Proposed(1, CT, (EXPLICIT, IMPLICIT)), Proposed(255, MR, (IMPLICIT,)), user=user)
    assert (asked.calling, asked.called, asked.user) == ("CT1", "ARCHIVE", user)
    assert asked.contexts == (Proposed(1, CT, (EXPLICIT, IMPLICIT)), Proposed(255, MR, (IMPLICIT,)))


def test_another_implementation_reads_our_request() -> None:
    theirs = A_ASSOCIATE_RQ()
    theirs.decode(association_request(user=UserInformation(0, roles={CT: (True, True)}, window=(3, 4))))
    assert (theirs.calling_ae_title, theirs.called_ae_title) == ("RAW", "ARCHIVE")
    assert [each.abstract_syntax for each in theirs.presentation_context] == [VERIFICATION, CT, MR, FIND]
    assert theirs.user_information.async_ops_window is not None


def test_another_implementation_reads_our_acceptance() -> None:
    found = answer(request(Proposed(1, CT, (EXPLICIT,)), Proposed(3, "1.2.3", (EXPLICIT,))), Accepted(table(CT)), 0)
    theirs = A_ASSOCIATE_AC()
    theirs.decode(found.pdu)
    assert [(each.context_id, each.result) for each in theirs.presentation_context] == [(1, 0), (3, 3)]
    assert theirs.presentation_context[0].transfer_syntax == EXPLICIT


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", 6),
        (FIXED[:60], 6),
        (FIXED + NAME + USER, 6),  # no contexts
        (FIXED + CONTEXT + USER, 6),  # no application context
        (FIXED + NAME + CONTEXT, 6),  # no user information
        (FIXED + NAME + CONTEXT + item(0x50, b""), 6),  # no maximum length
        (FIXED + NAME + NAME + CONTEXT + USER, 5),
        (FIXED + NAME + CONTEXT + USER + USER, 6),
        (FIXED + NAME + CONTEXT + CONTEXT + USER, 6),  # the same id twice
        (FIXED + NAME + context(2, item(0x30, b"1.2"), item(0x40, b"1.2")) + USER, 6),
        (FIXED + NAME + context(1, item(0x40, b"1.2")) + USER, 6),  # no abstract syntax
        (FIXED + NAME + context(1, item(0x30, b"1.2"), item(0x30, b"1.2")) + USER, 5),
        (FIXED + NAME + context(1, item(0x31, b"1.2")) + USER, 4),
        (FIXED + NAME + item(0x20, b"\1\0") + USER, 6),
        (FIXED + NAME + item(0x21, b"\1\0\0\0") + USER, 6),  # the answer's item in a request
        (FIXED + NAME + CONTEXT + item(0x77, b"") + USER, 4),
        (FIXED + NAME + CONTEXT + USER + b"\x10\0\0", 6),  # ends inside an item
        (FIXED + NAME + CONTEXT + struct.pack(">BxH", 0x50, 9) + b"\x51\0\0\4", 6),  # longer than the PDU
        (FIXED + NAME + context(1, struct.pack(">BxH", 0x30, 900) + b"1.2") + USER, 6),
        (FIXED + NAME + CONTEXT + item(0x50, item(0x51, b"\0\0")), 6),
        (FIXED + NAME + CONTEXT + item(0x50, item(0x51, bytes(4)) * 2), 6),
        (FIXED + NAME + CONTEXT + item(0x50, item(0x51, bytes(4)) + item(0x53, b"\0")), 6),
        (FIXED + NAME + CONTEXT + item(0x50, item(0x51, bytes(4)) + item(0x54, b"\0\x09abc")), 6),
        (FIXED + NAME + CONTEXT + item(0x50, item(0x51, bytes(4)) + item(0x54, b"\0\3abc\1")), 6),
        (FIXED + NAME + CONTEXT + item(0x50, item(0x51, bytes(4)) + item(0x56, b"\0\x09abc")), 6),
        (FIXED + NAME + CONTEXT + item(0x50, item(0x51, bytes(4)) + item(0x58, b"\1")), 6),
        (FIXED + NAME + CONTEXT + item(0x50, item(0x51, bytes(4)) + item(0x58, b"\1\0\0\xffa")), 6),
    ],
)
def test_a_request_that_cannot_be_read_has_its_abort_reason(body: bytes, reason: int) -> None:
    with pytest.raises(ProtocolError) as raised:
        read_request(body)
    assert (raised.value.source, raised.value.reason) == (2, reason)


def test_the_smallest_request_is_read() -> None:
    assert read_request(FIXED + NAME + CONTEXT + USER).calling == "CT1"


def test_titles_may_be_padded_with_nul() -> None:
    fixed = FIXED.replace(b"CT1".ljust(16), b"CT1".ljust(16, b"\0"))
    assert read_request(fixed + NAME + CONTEXT + USER).calling == "CT1"


def test_user_information_that_is_not_known_is_skipped() -> None:
    user = item(0x50, item(0x51, bytes(4)) + item(0x99, b"anything") + item(0x57, b"\0\x011\0\x012\0\0"))
    assert dict(read_request(FIXED + NAME + CONTEXT + user).user.common) == {"1": "2"}


# -- what no policy can allow -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"version": 2}, (1, 2, 2)),
        ({"application_context": "1.2.3"}, (1, 1, 2)),
        ({"calling": ""}, (1, 1, 3)),
        ({"calling": "A\nB"}, (1, 1, 3)),
        ({"calling": "A\0B"}, (1, 1, 3)),
        ({"calling": "A\\B"}, (1, 1, 3)),
        ({"calling": "\xc4"}, (1, 1, 3)),
        ({"called": ""}, (1, 1, 7)),
        ({"user": UserInformation(1)}, (1, 2, 1)),
        ({"user": UserInformation(6)}, (1, 2, 1)),
    ],
)
def test_a_request_against_the_standard_is_rejected(changes: dict[str, object], codes: tuple[int, int, int]) -> None:
    values = {"calling": "CT1", "called": "A", "contexts": (), "user": UserInformation(7)} | changes
    found = refusal(AssociateRequest(**values))  # type: ignore[arg-type]
    assert found is not None and (found.result, found.source, found.reason) == codes and found.words


def test_other_version_bits_beside_ours_do_no_harm() -> None:
    assert refusal(AssociateRequest("A", "B", (), UserInformation(0), version=3)) is None


# -- contexts -----------------------------------------------------------------------------------------------


def test_each_context_is_answered_for_itself() -> None:
    offers = Table({CT: Offer(EVERYTHING), MR: Offer(frozenset((JPEG_LOSSLESS,)))})
    asked = request(
        Proposed(1, CT, (EXPLICIT,)), Proposed(3, "1.2.3", (EXPLICIT,)), Proposed(5, MR, (EXPLICIT,)),
        Proposed(7, CT, ()), Proposed(9, CT, (IMPLICIT,)),
    )  # fmt: skip
    found, accept = answered(asked, Accepted(offers))
    assert {number: result for number, (result, _) in accept.results.items()} == {
        1: ACCEPTANCE, 3: ABSTRACT_UNKNOWN, 5: TRANSFER_UNKNOWN, 7: TRANSFER_UNKNOWN, 9: ACCEPTANCE,
    }  # fmt: skip
    assert {number: each.transfer_syntax for number, each in found.contexts.items()} == {1: EXPLICIT, 9: IMPLICIT}
    assert found.contexts[1].scp and not found.contexts[1].scu


@pytest.mark.parametrize(
    ("proposed", "first", "lossless", "ours"),
    [
        ((EXPLICIT, IMPLICIT), EXPLICIT, EXPLICIT, EXPLICIT),
        ((JPEG_BASELINE, IMPLICIT), JPEG_BASELINE, IMPLICIT, JPEG_BASELINE),
        (("1.2.3", EXPLICIT, IMPLICIT), IMPLICIT, EXPLICIT, IMPLICIT),
        (("1.2.3", EXPLICIT), EXPLICIT, EXPLICIT, EXPLICIT),
        ((JPEG_BASELINE,), JPEG_BASELINE, JPEG_BASELINE, JPEG_BASELINE),
        ((EXPLICIT, JPEG_LOSSLESS), EXPLICIT, EXPLICIT, JPEG_LOSSLESS),
        (("1.2.3",), None, None, None),
        ((), None, None, None),
    ],
)
def test_transfer_syntaxes_are_chosen_by_policy(
    proposed: Sequence[str], first: str | None, lossless: str | None, ours: str | None
) -> None:
    assert first_proposed(proposed, EVERYTHING) == first
    assert prefer_lossless(proposed, EVERYTHING) == lossless
    assert preferring(JPEG_LOSSLESS)(proposed, EVERYTHING) == ours


def test_classes_in_no_table_are_offered_what_is_offered_for_the_unknown() -> None:
    offers = Table({}, unknown=Offer(EVERYTHING))
    asked = request(Proposed(1, "1.2.999.5", (EXPLICIT,)), Proposed(3, "not a uid", (EXPLICIT,)))
    assert list(answered(asked, Accepted(offers))[0].contexts) == [1]


def test_the_policy_can_withhold_a_class() -> None:
    asked = request(Proposed(1, CT, (EXPLICIT,)), Proposed(3, VERIFICATION, (EXPLICIT,)))
    accepted = Accepted(table(CT, VERIFICATION), permits=lambda name, as_scp: name == VERIFICATION)
    found, accept = answered(asked, accepted)
    assert accept.results[1][0] == USER_REJECTION and list(found.contexts) == [3]


# -- roles, window, extensions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proposed", "offered", "answer_", "ours"),
    [
        (None, (True, True), None, (False, True)),
        ((True, False), (True, True), (True, False), (False, True)),
        ((False, True), (True, True), (False, True), (True, False)),
        ((True, True), (True, True), (True, True), (True, True)),
        ((True, True), (True, False), (True, False), (False, True)),
        ((False, True), (True, False), None, None),
        (None, (False, True), None, None),
    ],
)
def test_roles_are_agreed_both_ways(
    proposed: tuple[bool, bool] | None,
    offered: tuple[bool, bool],
    answer_: tuple[bool, bool] | None,
    ours: tuple[bool, bool] | None,
) -> None:
    user = UserInformation(0, roles={CT: proposed} if proposed else {})
    asked = request(Proposed(1, CT, (EXPLICIT,)), user=user)
    found, accept = answered(asked, Accepted(table(CT, scp=offered[0], scu=offered[1])))
    assert accept.user.roles.get(CT) == answer_
    assert ({1: ours} if ours else {}) == {n: (each.scu, each.scp) for n, each in found.contexts.items()}


@pytest.mark.parametrize(
    ("proposed", "ours", "said", "agreed"),
    [
        (None, 8, None, (1, 1)),
        ((1, 1), 8, (1, 1), (1, 1)),
        ((5, 1), 8, (5, 1), (5, 1)),
        ((0, 0), 8, (8, 8), (8, 8)),
        ((100, 3), 8, (8, 3), (8, 3)),
        ((5, 5), 1, (1, 1), (1, 1)),
        ((5, 5), 0, None, (1, 1)),
    ],
)
def test_the_asynchronous_window_is_never_more_than_was_proposed(
    proposed: tuple[int, int] | None, ours: int, said: tuple[int, int] | None, agreed: tuple[int, int]
) -> None:
    asked = request(user=UserInformation(0, window=proposed))
    found, accept = answered(asked, Accepted(table(VERIFICATION), window=ours))
    assert (accept.user.window, found.window) == (said, agreed)


def test_extensions_are_answered_for_accepted_contexts_only() -> None:
    user = UserInformation(0, extended={FIND: b"\1\1\1\1\1\1", MR: b"\0", CT: b"\1"})
    wanted = ((1, FIND, IMPLICIT), (3, CT, EXPLICIT), (5, MR, "1.2.3"))
    asked = request(*(Proposed(number, name, (syntax,)) for number, name, syntax in wanted), user=user)
    accept = answered(asked, Accepted(contexts.table(), extended={CT: b"\3"}))[1]
    assert accept.user.extended == {FIND: b"\1\1\1\1\0\1", CT: b"\3"}


def test_the_identity_is_confirmed_when_that_was_asked_for() -> None:
    for respond, said in ((True, b"ticket"), (False, None)):
        user = UserInformation(0, identity=UserIdentity(1, b"me", b"", respond))
        accepted = Accepted(table(VERIFICATION), identity_response=b"ticket")
        assert answered(request(user=user), accepted)[1].user.identity_response == said


def test_passcodes_are_never_shown() -> None:
    assert "secret" not in repr(UserIdentity(2, b"me", b"secret"))


def test_our_maximum_is_announced() -> None:
    assert answered(request(), Accepted(table(VERIFICATION)), 65536)[1].user.max_pdu == 65536


def test_the_acceptance_repeats_titles_and_reserved_bytes() -> None:
    fixed = FIXED[:36] + b"R" * 32
    asked = read_request(fixed + NAME + CONTEXT + USER)
    assert answer(asked, Accepted(table(VERIFICATION)), 0).pdu[10:74] == fixed[4:]


def test_128_contexts_are_answered() -> None:
    asked = request(*(Proposed(2 * i + 1, f"1.2.{i}", (EXPLICIT, IMPLICIT)) for i in range(128)))
    assert len(answered(asked, Accepted(table(*(f"1.2.{i}" for i in range(128)))))[0].contexts) == 128


def test_an_acceptance_that_cannot_be_read_is_refused() -> None:
    good = item(0x21, b"\1\0\0\0" + item(0x40, IMPLICIT.encode()))
    for items in (
        NAME + USER + good + good, NAME + good, good + USER, NAME + USER + item(0x21, b"\1\0\0\0"),
        NAME + USER + CONTEXT, NAME + USER + good[:-3],
    ):  # fmt: skip
        with pytest.raises(ProtocolError):
            read_accept(FIXED + items)
    with pytest.raises(ProtocolError):
        read_accept(b"\0\2" + FIXED[2:] + NAME + USER + good)


def test_user_information_is_in_ascending_order() -> None:
    written = write_user_information(UserInformation(0, window=(1, 1), roles={CT: (True, True)}, extended={CT: b""}))
    kinds, position = [], 0
    while position < len(written):
        kind, length = struct.unpack_from(">BxH", written, position)
        kinds.append(kind)
        position += 4 + length
    assert kinds == sorted(kinds)


# -- what is remembered -------------------------------------------------------------------------------


def of_caller(title: str) -> AssociateRequest:
    """The same proposal from another caller."""
    proposed = (Proposed(1, CT, (EXPLICIT, IMPLICIT)), Proposed(3, MR, (IMPLICIT,)))
    return read_request(write_request(AssociateRequest(title, "ARCHIVE", proposed, UserInformation(16384)))[6:])


def test_the_same_proposal_is_answered_by_the_permissions_of_each_caller() -> None:
    offers = table(CT, MR)
    everything = Accepted(offers, terms="everything", permits=lambda name, as_scp: True)
    only_ct = Accepted(offers, terms="only CT", permits=lambda name, as_scp: name == CT)
    for _ in range(2):
        assert sorted(answered(of_caller("ONE"), everything)[0].contexts) == [1, 3]
        assert sorted(answered(of_caller("TWO"), only_ct)[0].contexts) == [1]


def test_an_answer_that_is_given_again_repeats_the_titles_of_its_own_request() -> None:
    accepted = Accepted(table(CT, MR), terms="everything")
    first, again = (answer(of_caller(title), accepted, 0).pdu for title in ("FIRST", "AGAIN"))
    assert b"AGAIN" in again and again == first.replace(b"FIRST", b"AGAIN")


def test_another_table_choice_window_or_maximum_makes_another_answer() -> None:
    asked, offers = of_caller("ONE"), table(CT, MR)
    first = answer(asked, Accepted(offers, terms="all"), 0)
    assert answer(asked, Accepted(table(CT), terms="all"), 0).contexts.keys() == {1}
    assert answer(asked, Accepted(offers, choice=preferring(IMPLICIT), terms="all"), 0).contexts[1].transfer_syntax == (
        IMPLICIT
    )
    assert answer(asked, Accepted(offers, terms="all"), 65536).pdu != first.pdu
    assert answer(asked, Accepted(offers, terms="all"), 0) == first


def test_what_an_association_does_to_its_contexts_changes_no_other() -> None:
    accepted = Accepted(table(CT, MR), terms="everything")
    answer(of_caller("ONE"), accepted, 0).contexts.clear()
    assert sorted(answer(of_caller("ONE"), accepted, 0).contexts) == [1, 3]


def test_a_request_that_names_its_user_is_not_remembered() -> None:
    user = UserInformation(0, identity=UserIdentity(2, b"user", b"secret"))
    assert request(user=user).memory is None and request().memory is not None
