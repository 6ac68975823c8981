from __future__ import annotations

from archive.dimse.limits import Limits


def codes(limits: Limits, aet: str = "A", address: str = "10.0.0.1", *, known: bool = True) -> tuple[int, ...] | None:
    """Enter, and what was said against it."""
    refused = limits.enter(aet, address, known=known)
    return None if refused is None else (refused.result, refused.source, refused.reason)


def test_the_total_is_temporary_congestion_and_the_others_are_local_limits() -> None:
    assert [codes(Limits(max_associations=n, kept_for_known=0)) for n in (0, 1)] == [None, None]
    for limits, expected in (
        (Limits(max_associations=1, kept_for_known=0), (2, 3, 1)),
        (Limits(per_ae=1), (2, 3, 2)),
        (Limits(per_ip=1), (2, 3, 2)),
    ):
        assert (codes(limits), codes(limits)) == (None, expected)
        limits.exit("A", "10.0.0.1")
        assert codes(limits) is None


def test_others_are_not_affected_by_one_that_has_too_many() -> None:
    limits = Limits(per_ae=1, per_ip=2)
    assert codes(limits, "A") is None and codes(limits, "A") is not None
    assert codes(limits, "B") is None and codes(limits, "C") is not None
    assert codes(limits, "C", "10.0.0.2") is None


def test_room_is_kept_for_known_peers() -> None:
    limits = Limits(max_associations=10)
    assert [codes(limits, known=False) for _ in range(10)] == [None] * 9 + [(2, 3, 1)]
    assert [codes(limits), codes(limits)] == [None, (2, 3, 1)]


def test_a_refusal_says_which_limit_it_was() -> None:
    limits = Limits(per_ae=1)
    codes(limits)
    refused = limits.enter("A", "10.0.0.1", known=True)
    assert refused is not None and "limits.per_ae" in refused.words


def test_those_that_said_nothing_are_counted_by_address_and_together() -> None:
    limits = Limits(pending_per_ip=2, pending=3)
    assert [limits.admit("a"), limits.admit("a"), limits.admit("a"), limits.admit("b"), limits.admit("c")] == [
        True, True, False, True, False,
    ]  # fmt: skip
    limits.leave("a")
    assert limits.admit("c")


def test_passers_by_leave_no_trace() -> None:
    limits = Limits(pending_per_ip=1)
    for number in range(1000):
        limits.admit(str(number))
        limits.admit(str(number))
        limits.leave(str(number))
        limits.enter(str(number), str(number), known=True)
        limits.exit(str(number), str(number))
    assert not (limits._pending or limits._rows or limits.associations)
