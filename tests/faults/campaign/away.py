"""Q04: a destination that is away while much is queued, and the archive is killed meanwhile.

Rules that hold here: what is received meanwhile is received as ever; a destination that is away is asked after pauses
that grow; when it is back everything comes, each object once and those of a study in their order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.faults.campaign.destinations import ONE_BY_ONE, ROUND, TRIES, Trial, peer, send, settings, studies
from tests.faults.campaign.run import Run, fault, percentile
from tests.faults.destination import hang_up
from tests.faults.moody import Moody
from tests.faults.raw import Connection


class Returning(Moody):
    """Hangs up whenever it is called, until it is `there`; then it is in order."""

    def __init__(self, seed: str) -> None:
        self.there = False
        super().__init__(seed)
        self.calm = True

    def _serve(self, connection: Connection) -> None:
        if self.there:
            super()._serve(connection)
        else:
            hang_up(connection)


@fault(
    "Q04", "a destination that is away while much is queued", goal="G15", tries=20_000, seconds=900, few=20,
    twins=("newest first", "no pause before a destination is asked again"),
    proves="another order, and a destination that is asked without a pause, are seen",
)  # fmt: skip
def destination_away_for_long(run: Run) -> None:
    there = run.enter(Returning(f"{run.seed}"))
    brief = run.tries < ROUND
    longest = 0.3 if brief else 5.0  # seconds between two questions
    retry = {"max": TRIES, "delay": "100ms", "factor": 2, "cap": f"{longest}s"}
    archive = run.daemon(settings({ONE_BY_ONE: peer(there.port)}, retry=retry)).start()
    trial, stores, began, lives = Trial(run, archive, {ONE_BY_ONE: there}), list[float](), time.monotonic(), 1
    kills = [run.tries // 2] if brief else [run.tries // 3, run.tries * 2 // 3]
    while run.goes_on() and run.taken < run.seconds / 3:
        made = studies(run, min(ROUND // 2, run.tries - run.tried, max(1, run.tries // 2)))
        trial.images |= {one.uid: one for images in made for one in images}
        stores += send(archive, made)
        run.count(tries=sum(map(len, made)))
        if kills and run.tried >= kills[0]:
            del kills[0]
            archive.kill()
            archive.start()
            lives += 1
    away = time.monotonic() - began
    run.count(_asked_too_often(there.connections, away, longest, lives), tries=0)
    trial.new = set(trial.images)
    there.there = True
    run.count(trial.wait(), tries=0)
    run.count(trial.judge(), tries=0)
    run.count(_each_once(trial, there), tries=0)
    run.count(trial.check(), tries=0)
    usual, slow = (percentile(stores, part) * 1000 for part in (0.5, 0.99))
    run.figure("a store meanwhile p50/p99", f"{usual:.0f}/{slow:.0f} ms")
    run.figure("asked", f"{there.connections} times in {away:.0f} s")


def _asked_too_often(times: int, seconds: float, longest: float, lives: int) -> Iterator[str]:
    """Pauses of 100 ms and twice as long each time up to the longest, less a tenth; a new process asks at once."""
    growing, pause = 0, 0.1
    while pause < longest:
        growing, pause = growing + 1, pause * 2
    most = seconds / (longest * 0.9) + (growing + 3) * lives
    if times > most:
        yield f"it was asked {times} times in {seconds:.0f} s"


def _each_once(trial: Trial, there: Moody) -> Iterator[str]:
    for uid, one in trial.images.items():
        if not 1 <= there.came[uid] <= 1 + there.unsure[uid] or there.received.get(uid) != one.data:
            yield f"{uid} came {there.came[uid]} times"
