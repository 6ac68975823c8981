"""Several store associations to one destination: what a C-MOVE, or ``archive send``, drives.

Rules that hold here: one lane is one thread with one association, and only ``Lanes`` starts them; a
lane connects when it has something to send, and again after its association broke; a lane that cannot
connect gives its object back and ends, so that a destination with room for fewer associations is still
served by those it took; every object handed in comes out as one ``Sent``, or is left over when no lane
is left. Results wake the owner through a descriptor it can wait on beside its own socket.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from archive.dimse.association import Association
from archive.dimse.planning import Pair, Proposal, proposals
from archive.dimse.reasons import Ended, TimedOut
from archive.dimse.sender import Sender
from archive.dimse.tally import Result, Sent
from archive.errors import ArchiveError
from archive.services.sendable import Sendable

LOG = logging.getLogger(__name__)

BREAKS = 3  # associations lost in a row, without an object sent between, before a lane gives up

SOON = 0.2  # seconds after which an owner hears of every result, however many it takes together

GRACE = 2.0  # seconds for an object under way when its requester is gone: sub-operations end within 5

I = TypeVar("I", bound=Sendable)  # noqa: E741 - the item


class Connect(Protocol):
    """Opens an association with these contexts; raises Unreachable."""

    def __call__(self, contexts: Sequence[Proposal]) -> Association: ...


class Lanes(Generic[I]):
    """The lanes to one destination, and what they have done; used by one owner thread as a context manager."""

    def __init__(
        self,
        connect: Connect,
        sender: Callable[[Association], Sender[I]],
        count: int,
        *,
        single_context: bool = False,
        extra: Sequence[str] = (),
        woken: Callable[[], None] = lambda: None,
        together: int = 1,
    ) -> None:
        """``woken`` is called, by any lane, when there may be results; so many ``together`` while they come fast."""
        self.connect = connect
        self.sender = sender
        self._single = single_context
        self._extra = extra
        self._woken = woken
        self._together = together
        self._told = 0.0
        self._pairs: dict[Pair, None] = {}
        self._work: deque[I] = deque()
        self._results: deque[Sent] = deque()
        self._changed = threading.Condition()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ending = False
        self._stopped = False
        self._busy = 0
        self._lanes = [_Lane(self, number) for number in range(count)]
        self._left = False
        self.reason = ""

    # -- the owner's side ---------------------------------------------------------------------

    def __enter__(self) -> Lanes[I]:
        for lane in self._lanes:
            lane.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for lane in self._lanes:
            lane.thread.join()
        os.close(self._wake)

    def fileno(self) -> int:
        """Readable when there may be results."""
        return self._wake

    def put(self, items: Sequence[I]) -> None:
        """Hand over objects to be sent."""
        with self._changed:
            self._pairs.update(((item.sop_class_uid, item.transfer_syntax), None) for item in items)
            self._work.extend(items)
            self._changed.notify(len(items))

    def finish(self) -> None:
        """No more objects will come: lanes release their associations when all is sent."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def leave(self, grace: float = 0.0) -> None:
        """In place of leaving the context: what is under way gets ``grace`` seconds, and nobody waits for the rest.

        Without grace the lanes send what they have and release their associations by themselves.
        """
        if grace:
            self.stop(grace)
        else:
            self.finish()
        self._left = True
        self._tidy()

    def results(self) -> list[Sent]:
        """What was done since the last call. Never blocks."""
        with self._changed:
            if self._wake >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            found = list(self._results)
            self._results.clear()
        return found

    @property
    def waiting(self) -> int:
        """Objects that no lane has begun yet."""
        return len(self._work)

    @property
    def alive(self) -> bool:
        """Whether anything more can come of this: a lane that runs or will."""
        return any(lane.running for lane in self._lanes)

    def give_up(self) -> list[Sent]:
        """The objects left over when no lane is left, as failed."""
        with self._changed:
            left = list(self._work)
            self._work.clear()
        return self.lost(left)

    def lost(self, items: Sequence[I]) -> list[Sent]:
        """Objects that will not be sent because no lane is left, as failed."""
        return [Sent(item.sop_instance_uid, Result.FAILED, reason=self.reason) for item in items]

    def stop(self, grace: float = GRACE) -> None:
        """Begin nothing more; what is under way gets ``grace`` seconds and is then cut off."""
        with self._changed:
            self._stopped = self._ending = True
            self._changed.notify_all()
        until = time.monotonic() + grace
        for lane in self._lanes:
            lane.thread.join(max(0.0, until - time.monotonic()))
            lane.cut()

    # -- the lanes' side ----------------------------------------------------------------------

    def take(self) -> I | None:
        """The next object, as soon as there is one; None at the end, which is when nobody can give one back."""
        with self._changed:
            while not self._stopped and not self._work and (self._busy or not self._ending):
                self._changed.wait()
            if self._stopped or not self._work:
                return None
            self._busy += 1
            return self._work.popleft()

    def peek(self) -> I | None:
        """The object that will probably be next, for reading ahead."""
        with self._changed:
            return self._work[0] if self._work else None

    def give_back(self, item: I) -> None:
        with self._changed:
            self._work.appendleft(item)
            self._done()

    def report(self, sent: Sent) -> None:
        with self._changed:
            self._results.append(sent)
            self._done()
            tell = self._is_worth_telling()
        if tell:
            self.wake()

    def _is_worth_telling(self) -> bool:
        """Waking the owner costs as much as a third of sending a small object."""
        now = time.monotonic()
        enough = len(self._results) >= self._together or now - self._told >= SOON
        tell = enough or not (self._busy or self._work)  # nobody would tell of the last ones
        if tell:
            self._told = now
        return tell

    def _done(self) -> None:
        self._busy -= 1
        if self._work or not self._busy:
            self._changed.notify_all()

    def wake(self) -> None:
        with self._changed:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)
        self._woken()

    def ended(self) -> None:
        """A lane has come to its end."""
        self.wake()
        self._tidy()

    def _tidy(self) -> None:
        """When nobody will come back, the last lane takes the descriptor along."""
        with self._changed:
            if self._left and not self.alive and self._wake >= 0:
                os.close(self._wake)
                self._wake = -1

    def contexts_for(self, item: I) -> list[Proposal]:
        """The contexts of an association that can carry this object, and as many of the others as fit."""
        with self._changed:
            rounds = proposals(list(self._pairs), single=self._single, extra=self._extra)
        return next(each for each in rounds if any(abstract == item.sop_class_uid for abstract, _ in each))


class _Lane(Generic[I]):
    """One thread with one association at a time."""

    def __init__(self, lanes: Lanes[I], number: int) -> None:
        self._lanes = lanes
        self._association: Association | None = None
        self._sender: Sender[I] | None = None
        self._proposed: frozenset[Pair] = frozenset()
        self._breaks = 0
        self.running = True
        name = f"{threading.current_thread().name} lane {number + 1}"
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        try:
            while self._breaks < BREAKS and (item := self._lanes.take()) is not None:
                self._deliver(item)
            self._close(broken=False)
        except ArchiveError as error:
            self._lanes.reason = str(error)
        finally:
            self._close(broken=True)
            self.running = False
            self._lanes.ended()

    def _deliver(self, item: I) -> None:
        """Send one object; an association that breaks under it fails it, and the next one gets a new one."""
        sender = self._sender_for(item)
        try:
            sent = sender.send(item, self._lanes.peek())
            self._breaks = 0
        except Ended as ended:
            words = f"association lost: {ended.words}"
            sent = Sent(item.sop_instance_uid, Result.FAILED, reason=words, temporary=True, lost=True)
            self._lanes.reason = sent.reason
            # Whoever was silent for a whole deadline once would cost one more for every further try.
            self._breaks = BREAKS if isinstance(ended, TimedOut) else self._breaks + 1
            self._close(broken=True)
        except Exception:
            LOG.exception("sending %s failed by a fault of the archive", item.sop_instance_uid)
            sent = Sent(item.sop_instance_uid, Result.FAILED, reason="internal error", temporary=True)
            self._close(broken=True)
        self._lanes.report(sent)

    def _sender_for(self, item: I) -> Sender[I]:
        pair = (item.sop_class_uid, item.transfer_syntax)
        if self._sender is not None and pair in self._proposed:
            return self._sender
        self._close(broken=False)
        try:
            contexts = self._lanes.contexts_for(item)
            self._association = self._lanes.connect(contexts)
        except ArchiveError:
            self._lanes.give_back(item)
            raise
        self._proposed = frozenset((abstract, syntax) for abstract, syntaxes in contexts for syntax in syntaxes)
        self._sender = self._lanes.sender(self._association)
        return self._sender

    def _close(self, *, broken: bool) -> None:
        association, self._association = self._association, None
        if self._sender is not None:
            self._sender.close()
            self._sender = None
        if association is not None and broken:
            association.abort()
        elif association is not None:
            association.release()

    def cut(self) -> None:
        """End what is under way, from the owner's thread: the lane's own call on the socket fails at once."""
        association = self._association
        if association is not None and self.thread.is_alive():
            association.connection.cut()
