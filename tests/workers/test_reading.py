"""Work in several processes: in order, bounded, and never outliving us."""

from __future__ import annotations

import itertools
import math

from archive.workers.reading import in_processes


def test_results_come_in_the_order_of_the_work() -> None:
    assert list(in_processes(2)(math.sqrt, map(float, range(50)))) == [math.sqrt(n) for n in range(50)]


def test_work_without_end_is_taken_as_it_is_needed() -> None:
    taken = itertools.count()
    results = in_processes(1)(math.sqrt, (float(next(taken)) for _ in itertools.repeat(None)))
    assert list(itertools.islice(results, 10)) == [math.sqrt(n) for n in range(10)]
    results.close()  # type: ignore[attr-defined]
    assert next(taken) < 30


def test_without_processes_it_is_done_here() -> None:
    assert list(in_processes(0)(math.sqrt, [4.0])) == [2.0]
