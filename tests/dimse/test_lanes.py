"""Several associations share the work, and none of it is lost between them."""

from __future__ import annotations

import select
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from archive.dimse.association import Association
from archive.dimse.destinations import Destination
from archive.dimse.lanes import Lanes
from archive.dimse.planning import Proposal
from archive.dimse.reasons import Ended, TimedOut
from archive.dimse.sender import Sender
from archive.dimse.tally import Result, Sent
from archive.errors import Unreachable
from archive.services.retrieve import OpenFile

from .archives import QUICK
from .receivers import CT, EXPLICIT, IMPLICIT, MR, Receiver, receiving


@dataclass(frozen=True)
class Named:
    sop_instance_uid: str
    sop_class_uid: str = CT
    transfer_syntax: str = EXPLICIT


class Fake(Sender[Named]):
    """Sends nothing; does what it is told for some objects."""

    broken: frozenset[str] = frozenset()
    how: type[Ended] = Ended

    def send(self, item: Named, following: Named | None = None) -> Sent:
        if item.sop_instance_uid in self.broken:
            self._association.abort()
            raise self.how("broken")
        return Sent(item.sop_instance_uid, Result.SENT)


def lanes(
    receiver: Receiver, count: int, *, most: int = 99, broken: Sequence[str] = (), how: type[Ended] = Ended
) -> Lanes[Named]:
    """Lanes to a receiver that takes ``most`` associations."""
    destination = Destination("DEST", "127.0.0.1", receiver.port, "US", QUICK)
    room = threading.Semaphore(most)

    def connect(contexts: Sequence[Proposal]) -> Association:
        if not room.acquire(blocking=False):
            raise Unreachable("no room", "local limit exceeded")
        return destination.connect(contexts)

    def sender(association: Association) -> Sender[Named]:
        made = Fake(association, lambda item: OpenFile(-1, 0, 0))
        made.broken, made.how = frozenset(broken), how
        return made

    return Lanes(connect, sender, count)


def run(these: Lanes[Named], items: Sequence[Named]) -> dict[str, Sent]:
    found: dict[str, Sent] = {}
    with these:
        these.put(items)
        these.finish()
        poll = select.poll()
        poll.register(these.fileno(), select.POLLIN)
        while len(found) < len(items) and these.alive:
            poll.poll(5000)
            found.update({each.sop_instance_uid: each for each in these.results()})
        left = [*these.results(), *these.give_up()]
        found.update({each.sop_instance_uid: each for each in left})
    return found


def items(count: int, **more: str) -> list[Named]:
    return [Named(f"1.2.{number}", **more) for number in range(count)]


def test_every_object_comes_out_once() -> None:
    with receiving() as receiver:
        found = run(lanes(receiver, 4), items(200))
    assert len(found) == 200 and {each.result for each in found.values()} == {Result.SENT}
    assert 1 <= len(receiver.requests) <= 4


def test_a_destination_with_room_for_one_association_gets_everything_over_it() -> None:
    with receiving() as receiver:
        found = run(lanes(receiver, 4, most=1), items(50))
    assert {each.result for each in found.values()} == {Result.SENT} and len(found) == 50
    assert len(receiver.requests) == 1


def test_a_destination_without_room_fails_everything_with_the_reason() -> None:
    with receiving() as receiver:
        found = run(lanes(receiver, 3, most=0), items(5))
    assert {each.result for each in found.values()} == {Result.FAILED} and len(found) == 5
    assert "local limit exceeded" in found["1.2.0"].reason


def test_a_broken_association_fails_its_object_and_a_new_one_takes_the_next() -> None:
    with receiving() as receiver:
        found = run(lanes(receiver, 1, broken=["1.2.3"]), items(10))
    assert [uid for uid, each in found.items() if each.result is Result.FAILED] == ["1.2.3"]
    assert len(receiver.requests) == 2


def test_a_destination_that_always_breaks_is_given_up_after_a_few() -> None:
    with receiving() as receiver:
        found = run(lanes(receiver, 1, broken=[f"1.2.{n}" for n in range(100)]), items(100))
    assert len(found) == 100 and {each.result for each in found.values()} == {Result.FAILED}
    assert len(receiver.requests) == 3


def test_a_destination_that_falls_silent_is_not_waited_for_again() -> None:
    with receiving() as receiver:
        found = run(lanes(receiver, 1, broken=["1.2.0"], how=TimedOut), items(10))
    assert len(found) == 10 and {each.result for each in found.values()} == {Result.FAILED}
    assert len(receiver.requests) == 1


def test_an_object_of_another_kind_gets_an_association_that_can_carry_it() -> None:
    with receiving() as receiver:
        these = lanes(receiver, 1)
        with these:
            these.put([Named("1.2.1")])
            wait(these)
            these.put([Named("1.2.2", MR, IMPLICIT)])
            wait(these)
    first, second = ([each.abstract_syntax for each in request.contexts] for request in receiver.requests)
    assert MR not in first and MR in second


def wait(these: Lanes[Named]) -> None:
    poll = select.poll()
    poll.register(these.fileno(), select.POLLIN)
    assert poll.poll(5000)
    assert [each.result for each in these.results()] == [Result.SENT]


def test_stopping_leaves_no_thread_behind() -> None:
    with receiving() as receiver:
        these = lanes(receiver, 3)
        with these:
            these.put(items(5))
        assert not these.alive
    assert not [thread for thread in threading.enumerate() if " lane " in thread.name]
