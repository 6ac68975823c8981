"""The arrows between the rooms of the code, read from the imports.

When one of these fails, ask first whether the picture should change; it is drawn in docs/hacking.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "archive"

# Who may import whom; a room may always import itself. Modules at the top level are rooms of one.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "log": set(),
    "notify": set(),
    "dicom": {"errors"},
    "config": {"dicom", "errors"},
    "storage": {"dicom", "errors", "log"},
    "index": {"dicom", "errors", "log"},
    "services": {"index", "storage", "dicom", "errors", "log"},
    "workers": {"services", "index", "storage", "dicom", "errors", "log"},
    "dimse": {"services", "index", "storage", "dicom", "errors", "log"},
    "hl7": {"services", "index", "storage", "dicom", "errors", "log"},
    "web": {"services", "index", "storage", "dicom", "errors", "log"},
    "notices": {"services", "errors", "log"},
    "supervisor": {"errors", "log", "notify"},
}
# These put the others together, so they may know all of them.
BUILDERS = {"app", "cli", "__main__"}

# Libraries that only one room may touch, and what the pure room may not.
KEPT = {
    "pynetdicom": {"dimse"},
    "peewee": {"index"},
    "playhouse": {"index"},
    "sqlite3": {"index"},
    "psycopg": {"index"},
    "yaml": {"config"},
    "ssl": {"dimse", "config", "hl7", "web", "notices", "app"},
}
IMPURE = {"socket", "ssl", "sqlite3", "psycopg", "peewee", "threading", "multiprocessing", "time", "selectors"}
STARTS_THREADS = {"Thread", "Timer", "ThreadPoolExecutor"}
# Threads belong to the workers' Runner, the edges' listeners and what puts them together; the configuration
# resolves all its host names at once, and the index gives up waiting for a locked file in time.
MAY_START_THREADS = {"workers", "dimse", "hl7", "web", "app", "config", "index"}


def room(module: str) -> str:
    """`archive.dimse.wire` -> `dimse`; the package itself is no room."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@cache
def files() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        found[".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


@cache
def modules() -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in files().items()}


def for_types_alone(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Everything in a module but what stands under `if TYPE_CHECKING:`."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.stmt) and for_types_alone(child)):
            yield from nodes(child)


@cache
def imports(name: str) -> set[str]:
    """Full names of what a module imports; `from archive import log` is `archive.log`."""
    found = set()
    for node in nodes(modules()[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level < 2, f"{name}: line {node.lineno} leaves its folder by dots"
            if node.level:
                continue  # within the room
            whole = node.module == "archive"
            found |= {f"archive.{alias.name}" for alias in node.names} if whole else {node.module or ""}
    return found


@pytest.mark.parametrize("name", [name for name in files() if room(name) not in BUILDERS | {""}])
def test_imports_follow_the_arrows(name: str) -> None:
    here = room(name)
    assert here in ARROWS, f"{here} is a new room: draw its arrows"
    known = {room(module) for module in modules()}
    reached = {room(target) for target in imports(name) if target.startswith("archive.")} & known
    assert reached <= ARROWS[here] | {here}


@pytest.mark.parametrize("library", KEPT)
def test_a_library_stays_in_its_room(library: str) -> None:
    users = {room(name) for name in modules() for target in imports(name) if target.split(".")[0] == library}
    assert users <= KEPT[library]


def test_what_the_data_means_is_worked_out_without_sockets_databases_threads_or_clock() -> None:
    pure = [name for name in modules() if room(name) == "dicom"]
    assert {name: found for name in pure if (found := imports(name) & IMPURE)} == {}


def test_threads_are_started_where_they_are_kept() -> None:
    starters = set()
    for name, tree in modules().items():
        for node in nodes(tree):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                starters |= {room(name)} if called in STARTS_THREADS else set()
    assert starters <= MAY_START_THREADS


def test_nothing_is_imported_in_a_circle_between_rooms() -> None:
    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        waiting = list(ARROWS.get(start, ()))
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting += ARROWS.get(one, ())
        return found

    assert [here for here in ARROWS if here in reachable(here)] == []
