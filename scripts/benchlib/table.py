"""Results as a Markdown table: medians, ratios against Orthanc, CPU per item, and what could not be measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchlib.rounds import Results
from benchlib.systems import System
from benchlib.workloads import Workload

YARDSTICK = "orthanc"
VARIANT_TITLES = {
    "tuned": "Tuned: TCP_NODELAY=1 for DCMTK-based clients and servers",
    "shipped": "Shipped: DCMTK as Debian installs it, with Nagle's algorithm",
    "tls": "TLS with client certificates, tuned",
}


def markdown(results: Results, systems: Sequence[System], workloads: Sequence[Workload]) -> str:
    parts = []
    for variant, title in VARIANT_TITLES.items():
        chosen = [workload for workload in workloads if workload.variant == variant]
        if chosen:
            parts += [f"### {title}", "", *_table(results, systems, chosen), ""]
    parts += _remarks(results, systems, workloads)
    return "\n".join(parts)


def as_json(results: Results) -> list[dict[str, object]]:
    """Every round's figures, for whoever wants to draw or compare them."""
    documents: list[dict[str, object]] = []
    for (workload, system), measured in results.measured.items():
        rounds = [{"value": one.value, "cpu_ms": one.cpu, "note": one.note} for one in measured]
        median = _median(results, workload, system)
        documents.append({"workload": workload, "system": system, "median": median, "rounds": rounds})
    for (workload, system), why in results.troubles.items():
        documents.append({"workload": workload, "system": system, "trouble": why})
    return documents


def _table(results: Results, systems: Sequence[System], workloads: Sequence[Workload]) -> list[str]:
    titles = [system.title for system in systems]
    compared = any(system.name == YARDSTICK for system in systems) and systems[0].name != YARDSTICK
    head = ["", *titles]
    if compared:
        head.append(f"{titles[0]} : Orthanc")
    head.append("CPU ms per item: " + " / ".join(titles))
    lines = [_row(head), _row(["---", *["---:"] * (len(head) - 2), "---"])]
    for workload in workloads:
        cells = [_title(workload), *(_value(results, workload, system) for system in systems)]
        if compared:
            cells.append(_ratio(results, workload, systems[0].name))
        cells.append(" / ".join(_cpu(results, workload, system) for system in systems))
        lines.append(_row(cells))
    return lines


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _title(workload: Workload) -> str:
    return workload.title if workload.unit == "a second" else f"{workload.title}, {workload.unit}"


def _median(results: Results, workload: str, system: str) -> float | None:
    measured = results.measured.get((workload, system))
    return statistics.median(one.value for one in measured) if measured else None


def _value(results: Results, workload: Workload, system: System) -> str:
    median = _median(results, workload.name, system.name)
    if median is None:
        return "–"
    return f"{median:,.0f}" if median >= 100 else f"{median:.1f}"


def _ratio(results: Results, workload: Workload, system: str) -> str:
    ours, theirs = _median(results, workload.name, system), _median(results, workload.name, YARDSTICK)
    if not workload.more_is_better or ours is None or not theirs:
        return "–"
    return f"{ours / theirs:.2f}"


def _cpu(results: Results, workload: Workload, system: System) -> str:
    costs = [one.cpu for one in results.measured.get((workload.name, system.name), []) if one.cpu is not None]
    return f"{statistics.median(costs):.2f}" if costs else "–"


def _remarks(results: Results, systems: Sequence[System], workloads: Sequence[Workload]) -> list[str]:
    """Notes of the last round, and why a cell is empty."""
    lines = []
    titles = {system.name: system.title for system in systems}
    for workload in workloads:
        for system in systems:
            measured = results.measured.get((workload.name, system.name))
            if measured and measured[-1].note:
                lines.append(f"- {workload.title}, {system.title}: {measured[-1].note}")
    for (name, system_name), why in results.troubles.items():
        lines.append(f"- {name}, {titles[system_name]}: not measured, {why}")
    return lines
