"""Several processes on one index at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from archive.index import Index

ROOT = Path(__file__).resolve().parents[2]

CODE = """
import sys
from archive.index import Outcome, open_index
from tests.index.made import arrival
url, name = sys.argv[1:]
index = open_index(url)
print("ready", flush=True)
sys.stdin.readline()
for number in range(60):
    study = f"1.{number % 3}"
    series = f"{study}.{number % 6}" if number % 2 else f"{study}.{number % 6}.{name}"
    batch = [arrival(study, series, f"{name}.{number}.{place}", Modality=f"M{name}") for place in range(2)]
    results = index.add(batch, journal=(int(name), number + 1), durable=number % 2 == 0)
    assert [each.outcome for each in results] == [Outcome.STORED] * 2, results
index.close()
"""


def test_three_processes_add_to_the_same_studies_and_every_count_is_right(index: Index, index_url: str) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, index_url, str(name)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for name in range(1, 4)
    ]
    for child in children:
        assert child.stdout and child.stdout.readline() == b"ready\n"
    for child in children:
        assert child.stdin
        child.stdin.write(b"go\n")
        child.stdin.close()
    assert [child.wait(60) for child in children] == [0, 0, 0]
    counted = index.statistics()
    assert (counted.patients, counted.studies, counted.instances) == (1, 3, 360)
    assert {index.applied(name) for name in range(1, 4)} == {60}
    assert {(each.modalities, each.instances) for each in index.studies()} == {(("M1", "M2", "M3"), 120)}
    lists = index.read(lambda session: session.rows("SELECT study, COUNT(*) FROM series GROUP BY study ORDER BY study"))
    assert [row[1] for row in lists] == [each.series for each in reversed(index.studies())]
    real = index.read(
        lambda session: session.rows("SELECT series, COUNT(*) FROM instance GROUP BY series ORDER BY series")
    )
    kept = index.read(lambda session: session.rows("SELECT id, number_of_instances FROM series ORDER BY id"))
    assert real == kept
