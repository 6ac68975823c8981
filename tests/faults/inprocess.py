"""A process that gives spoiled PDUs to the archive's readers, and says what came of it as JSON.

Rules that hold here: only a protocol error may come out of a reader; the slowest PDU and what memory grew by are
said; seams are taken away before.

    python -m tests.faults.inprocess COUNT SEED SECONDS SEAMS
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time

from tests.faults import fuzz, raw
from tests.faults.seams import switch_off

WARM = 20_000  # PDUs until caches are as large as they get


def main(arguments: list[str]) -> int:
    count, seed, seconds = int(arguments[0]), int(arguments[1]), float(arguments[2])
    switch_off([name for name in arguments[3].split(",") if name])
    from archive.dimse import incoming, reasons, wire

    commands = [raw.echo_rq(), raw.store_rq(raw.CT, "1.2.3"), raw.query_rq(raw.C_MOVE, raw.STUDY_MOVE, 1, "THERE")]
    requests = [data for inside, data in fuzz.seeds().values() if not inside]
    rng = random.Random(seed)
    slowest, resident, tried, faults = 0.0, 0, 0, []
    end = time.monotonic() + seconds
    rounds = [(kind, number) for kind in (0, 1) for number in range(len(fuzz.STRATEGIES))]
    while tried < count and (tried % 1000 or time.monotonic() < end):
        kind, which = rounds[tried] if tried < len(rounds) else (rng.randrange(2), rng.randrange(len(fuzz.STRATEGIES)))
        strategy = fuzz.STRATEGIES[which]
        data = strategy(rng, rng.choice(requests if kind else commands))
        before = time.perf_counter()
        try:
            if kind:
                incoming.read_request(data[6:])
            else:
                command = wire.decode_command(data)
                str((command.sop_class, command.sop_instance, command.status, command.comment, command.priority))
        except reasons.ProtocolError:
            pass
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            faults.append([f"{'request' if kind else 'command'}, {strategy.__name__}", repr(error), data.hex()])
            if len(faults) >= 20:
                break
        slowest = max(slowest, time.perf_counter() - before)
        tried += 1
        if tried == min(WARM, count // 2):
            resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - (resident or 0)
    print(json.dumps({"tried": tried, "slowest": slowest, "grown": grown * 1024, "faults": faults}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
