"""Q03: SIGKILL in the midst of what is sent on to another archive.

Rules that hold here: nothing is called sent that the destination does not have; everything that was acknowledged comes
to it; an object comes once, and once more at most for each kill.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

from tests.faults import raw
from tests.faults.campaign.deeds import PATIENCE, Deed, every_call, random_moments
from tests.faults.campaign.run import POSTGRESQL, SQLITE, Run, fault
from tests.faults.daemon import EVERYTHING
from tests.faults.destination import Destination
from tests.faults.objects import Instance, instance
from tests.faults.raw import CT, Connection, Ended

BOTH = (SQLITE, POSTGRESQL)
TWINS, PROVES = ("sent before it is answered",), "what is called sent and is not there is seen"
ROUTE = {"name": "all", "to": ["THERE"], "retry": "100x1s"}


class Kept(Destination):
    """Another archive: it counts how often an object came, and holds it before it answers."""

    def __init__(self) -> None:
        self.came: Counter[str] = Counter()
        super().__init__(self._serve)

    def _serve(self, connection: Connection) -> None:
        request = connection.read()
        assert request is not None and request.kind == raw.RQ
        connection.send(raw.accept(request.body))
        while True:
            try:
                message = connection.message()
            except Ended as end:
                if end.how == ("PDU", raw.RELEASE_RQ):
                    connection.send(raw.release_rp())
                    connection.close()
                return
            uid = message.text(raw.AFFECTED_INSTANCE)
            if message.number(raw.FIELD) == raw.C_STORE:
                self.received[uid] = message.data
                self.came[uid] += 1
                connection.write(message.context, raw.store_rsp(message.command))


class Routing(Deed):
    """Three objects that come, and go on to another archive."""

    def __init__(self, run: Run) -> None:
        self.there = run.enter(Kept())
        there = {"host": ["127.0.0.1"], "port": self.there.port, "allow": EVERYTHING}
        super().__init__(run, {"peers": {"THERE": there}, "routes": [ROUTE]})
        self.images: list[Instance] = []

    def prepare(self) -> list[int]:
        self.images = [instance(size=size) for size in (800, 60_000, 1_300_000)]
        self.told: list[Instance] = []
        self._sending = Connection(self.archive.port, patience=PATIENCE).associate()
        self._thread = threading.Thread(target=self._send, daemon=True)
        return self.archive.pids()

    def begin(self) -> None:
        self._thread.start()

    def _send(self) -> None:
        with contextlib.suppress(OSError, Ended):
            for one in self.images:
                if self._sending.store(CT, one.uid, one.data) == 0:
                    self.told.append(one)

    def is_done(self) -> bool:
        return not self._thread.is_alive() and not self._left()

    def _left(self) -> list[tuple[str, str]]:
        """What is not sent yet: tasks, and objects that were acknowledged and have none."""
        tasks = self.archive.select("select payload, state from task where kind in ('deliver', 'route')")
        found = [(payload, state) for payload, state in tasks if state != "done"]
        known = "".join(str(payload) for payload, _ in tasks)
        return found + [(one.uid, "no task") for one in self.told if f'"{one.uid}"' not in known]

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._sending.sock.shutdown(2)
        self._thread.join(PATIENCE)
        self._sending.close()
        self.owed += self.told

    def before(self) -> Iterator[str]:
        yield from self._untrue()

    def _untrue(self) -> Iterator[str]:
        """Called sent and not there."""
        tasks = self.archive.select("select payload from task where kind = 'deliver' and state = 'done'")
        done = "".join(str(payload) for (payload,) in tasks)
        for one in self.images:
            if f'"{one.uid}"' in done and self.there.received.get(one.uid) != one.data:
                yield f"{one.uid} is called sent and is not there"

    def after(self) -> Iterator[str]:
        if not self.comes(lambda: not self._left()):
            yield f"what is to be sent on is not: {self._left()}"
        yield from self._untrue()
        for one in self.images:
            if one in self.told and self.there.received.get(one.uid) != one.data:
                yield f"{one.uid} was acknowledged and has not been sent"
            if self.there.came[one.uid] > 2:
                yield f"{one.uid} came {self.there.came[one.uid]} times"
        self.there.received.clear()


@fault(
    "Q03", "kill -9 at random moments of what is sent on", goal="G15", tries=1000, seconds=600, few=2, databases=BOTH,
    twins=TWINS, proves=PROVES,
)  # fmt: skip
def random_kills_of_routes(run: Run) -> None:
    random_moments(run, Routing)


@fault(
    "Q03b", "kill -9 at every call of what is sent on", goal="G2", tries=2000, seconds=900, few=4, databases=BOTH,
    twins=TWINS, proves=PROVES,
)  # fmt: skip
def every_call_of_a_route(run: Run) -> None:
    every_call(run, Routing)
