"""The results of a campaign as a Markdown table, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.faults.campaign.run import Run


def markdown(runs: Sequence[Run], *, twins: bool) -> str:
    head = ["fault", "database", "what", "tries", "violations", "seconds", "figures"]
    if twins:
        head = ["fault", "database", "switched off", "noticed", "after tries", "seconds", "what was seen"]
    rows = [_twin(run) if twins else _row(run) for run in runs]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def _row(run: Run) -> list[str]:
    figures = "; ".join(f"{name} {value}" for name, value in run.figures.items())
    goal = f" ({run.fault.goal})" if run.fault.goal else ""
    counts = [f"{run.tried:,}", str(len(run.violations)), f"{run.taken:.0f}"]
    return [run.fault.number + goal, run.database, run.fault.title, *counts, figures]


def _twin(run: Run) -> list[str]:
    seen = run.violations[0].replace("\n", " ").replace("|", "/")[:110] if run.violations else "nothing"
    noticed = "yes" if run.violations else "**no**"
    return [run.fault.number, run.database, run.seams[0], noticed, str(run.tried), f"{run.taken:.0f}", seen]


def as_json(runs: Sequence[Run]) -> list[dict[str, Any]]:
    return [
        {
            "fault": run.fault.number, "title": run.fault.title, "goal": run.fault.goal, "database": run.database,
            "without": list(run.seams), "seed": run.seed, "tries": run.tried, "seconds": round(run.taken, 1),
            "violations": run.violations, "figures": run.figures,
        }
        for run in runs
    ]  # fmt: skip
