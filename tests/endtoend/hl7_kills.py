"""Orders by HL7 while the process that takes them is killed: ``python -m tests.endtoend.hl7_kills SECONDS``.

Every order that was acknowledged must be there, once, with one step; what was not acknowledged may be there or not.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

from tests.endtoend.test_orders import Sender, Site
from tests.faults.daemon import wait_until

SEED = 11


def campaign(folder: Path, seconds: float) -> dict[str, int]:
    site = Site(folder)
    with site.daemon:
        senders = [Sender(site.send, name) for name in ("A", "B")]
        for sender in senders:
            sender.start()
        kills = _kill(site, senders, seconds)
        for sender in senders:
            sender.going_on = False
            sender.join(60)
        return {"kills": kills, **judged(site, senders)}


def _kill(site: Site, senders: list[Sender], seconds: float) -> int:
    rng, until, kills = random.Random(SEED), time.monotonic() + seconds, 0
    while time.monotonic() < until:
        before = sum(len(sender.acknowledged) for sender in senders)
        site.kill_background()
        kills += 1
        wait_until(lambda before=before: sum(len(each.acknowledged) for each in senders) > before, 60)  # type: ignore[misc]
        time.sleep(rng.uniform(0, 0.05))
    return kills


def judged(site: Site, senders: list[Sender]) -> dict[str, int]:
    acknowledged = [accession for sender in senders for accession in sender.acknowledged]
    found = site.index.orders.latest(limit=1_000_000)
    numbers = [each.accession_number for each in found]
    return {
        "acknowledged": len(acknowledged),
        "lost": len(set(acknowledged) - set(numbers)),
        "twice": len(numbers) - len(set(numbers)) + sum(len(each.steps) != 1 for each in found),
        "there without acknowledgement": len(set(numbers) - set(acknowledged)),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(campaign(Path(name) / "site", float(sys.argv[1])))
