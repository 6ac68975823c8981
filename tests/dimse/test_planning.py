"""Presentation contexts are proposed so that stored bytes can go out as they are."""

from __future__ import annotations

from dataclasses import dataclass

from archive.dimse.contexts import PRIVATE, STORAGE
from archive.dimse.planning import RARE, Routes, proposals, to_receive

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT, EXPLICIT, JPEG, RLE = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".4.70", ".5"))


@dataclass(frozen=True)
class Context:
    abstract_syntax: str
    transfer_syntax: str
    scu: bool = True


def test_each_stored_syntax_gets_a_context_of_its_own_and_the_class_a_fallback() -> None:
    assert proposals([(CT, JPEG), (CT, JPEG), (CT, EXPLICIT)]) == [
        [(CT, (JPEG,)), (CT, (EXPLICIT,)), (CT, (IMPLICIT,))]
    ]


def test_nothing_is_proposed_twice_when_both_little_endian_syntaxes_are_stored() -> None:
    assert proposals([(MR, IMPLICIT), (MR, EXPLICIT)]) == [[(MR, (IMPLICIT,)), (MR, (EXPLICIT,))]]


def test_the_fallback_is_one_context_or_one_each() -> None:
    assert proposals([(MR, JPEG)]) == [[(MR, (JPEG,)), (MR, (EXPLICIT, IMPLICIT))]]
    assert proposals([(MR, JPEG)], single=True) == [[(MR, (JPEG,)), (MR, (EXPLICIT,)), (MR, (IMPLICIT,))]]


def test_what_a_codec_can_produce_is_proposed_last() -> None:
    assert proposals([(MR, EXPLICIT)], extra=(EXPLICIT, JPEG, RLE))[0][-1] == (MR, (JPEG, RLE))
    assert proposals([(MR, EXPLICIT)], extra=(JPEG, RLE), single=True)[0][-2:] == [(MR, (JPEG,)), (MR, (RLE,))]


def test_more_than_128_contexts_need_more_associations() -> None:
    rounds = proposals([(f"1.2.{number}", JPEG) for number in range(100)])
    assert [len(each) for each in rounds] == [128, 72]
    assert {abstract for abstract, _ in rounds[0]} & {abstract for abstract, _ in rounds[1]} == set()


def test_what_may_come_back_by_c_get_fits_beside_the_question() -> None:
    found = to_receive(STORAGE, (EXPLICIT, JPEG))
    assert len(found) == 126 and len(STORAGE) > 126
    left_out = set(STORAGE) - {sop_class for sop_class, _ in found}
    assert all(RARE.match(sop_class) for sop_class in left_out) and not left_out & set(PRIVATE)


def test_only_contexts_in_our_role_are_routes() -> None:
    routes = Routes([Context(CT, JPEG, scu=False), Context(CT, EXPLICIT), Context(MR, JPEG)])
    assert routes.stored(CT, JPEG) is None
    assert routes.syntaxes(CT) == [EXPLICIT]
    assert routes.stored(MR, JPEG) == Context(MR, JPEG)


def test_uncompressed_syntaxes_are_tried_first() -> None:
    assert Routes([Context(CT, JPEG), Context(CT, IMPLICIT), Context(CT, EXPLICIT)]).syntaxes(CT) == [
        EXPLICIT,
        IMPLICIT,
        JPEG,
    ]
