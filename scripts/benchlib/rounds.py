"""The order of a run: variant by variant, workload by workload, the systems in turn.

Rules that hold here: all systems of a variant are alive while one works, and idle meanwhile; each round starts
them anew on empty folders and shifts whose turn comes first; dirty pages are written before each measurement,
so that nobody pays for a neighbour's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchlib import certificates, processes
from benchlib.client import Failed
from benchlib.systems import Place, Running, System
from benchlib.workloads import Bench, Measured, Sets, Workload

VARIANTS = ("tuned", "shipped", "tls")


@dataclass(slots=True)
class Results:
    """What was measured, by workload and system; `troubles` says why something was not."""

    measured: dict[tuple[str, str], list[Measured]] = field(default_factory=dict)
    troubles: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run consists of."""

    systems: Sequence[System]
    workloads: Sequence[Workload]
    rounds: int
    scale: float


def run(plan: Plan, folder: Path) -> Results:
    results = Results()
    sets = Sets(folder / "data", plan.scale, {})
    for number in range(plan.rounds):
        (place := folder / f"round-{number + 1}").mkdir()
        for variant in VARIANTS:
            workloads = [one for one in plan.workloads if one.variant == variant and not (one.once and number)]
            if workloads:
                say(f"round {number + 1} of {plan.rounds}, {variant}")
                _variant(plan, workloads, variant, number, sets, place, results)
    return results


def _variant(
    plan: Plan, workloads: Sequence[Workload], variant: str, number: int, sets: Sets, folder: Path, results: Results
) -> None:
    bench = Bench(sets, processes.variant_environment(no_delay=variant != "shipped"))
    systems = [one for one in plan.systems if one.has_tls or variant != "tls"]
    with ExitStack() as stack:
        running = _start(stack, systems, bench, folder, variant, results)
        for workload in workloads:
            for turn in range(len(running)):
                _measure(workload, running[(number + turn) % len(running)], bench, results)


def _start(
    stack: ExitStack, systems: Sequence[System], bench: Bench, folder: Path, variant: str, results: Results
) -> list[Running]:
    """Start the C-MOVE destination and all systems; one that cannot start is said and left out."""
    destination = stack.enter_context(_destination(folder, bench))
    tls = certificates.make(folder / "tls") if variant == "tls" else None
    running = []
    for system in systems:
        place = Place(folder / f"{system.name}-{variant}", processes.free_port(), destination, tls)
        try:
            started = Running(system, place, bench.environment)
        except RuntimeError as error:
            results.troubles[variant, system.name] = str(error)
            say(f"  {system.title} did not start: {error}")
            shutil.rmtree(place.folder, ignore_errors=True)
            continue
        stack.callback(started.stop)
        running.append(started)
    return running


@contextmanager
def _destination(folder: Path, bench: Bench) -> Iterator[int]:
    """The port of a storescp that takes objects and throws them away."""
    port = processes.free_port()
    # A process an association: some senders keep theirs open for seconds, and the next must not wait for it.
    command = ["storescp", "--fork", "--ignore", "-pdu", "131072", str(port)]
    process = processes.Process(command, folder / "storescp.log", bench.environment)
    try:
        yield port
    finally:
        process.stop()


def _measure(workload: Workload, server: Running, bench: Bench, results: Results) -> None:
    key = workload.name, server.system.name
    if key in results.troubles:
        return  # what failed once is not tried again: its deadlines are long
    os.sync()
    try:
        measured = workload.run(bench, server)
    except (Failed, OSError, subprocess.TimeoutExpired) as error:
        why = str(error) if server.process.running else f"the server has ended: {server.process.last_words()}"
        results.troubles[key] = why
        say(f"  {workload.name:18} {server.system.title:17} failed: {why}")
        return
    results.measured.setdefault(key, []).append(measured)
    cpu = f", {measured.cpu:.2f} ms CPU each" if measured.cpu is not None else ""
    note = f" ({measured.note})" if measured.note else ""
    say(f"  {workload.name:18} {server.system.title:17} {measured.value:10.1f} {workload.unit}{cpu}{note}")


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
