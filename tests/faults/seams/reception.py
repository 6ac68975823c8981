"""What measures and compares an object before it is kept.

Rules that hold here: those of the package.
"""

from __future__ import annotations

from typing import Any

from tests.faults.seams.registry import nothing, replace, seam


@seam("no limits of the header")
def _no_limits_of_the_header() -> None:
    import sys

    from archive.dicom import limits

    for field in limits.Limits.__dataclass_fields__:
        object.__setattr__(limits.LIMITS, field, 1 << 60)
    sys.setrecursionlimit(100_000)


@seam("held in memory")
def _held_in_memory() -> None:
    """An object is written to disk when all of it is there."""
    from archive.services.store import Reception

    write, finish = Reception.write, Reception.finish

    def hold(self: Any, fragment: Any) -> None:
        self._buffer += fragment

    def let_go(self: Any) -> Any:
        held, self._buffer = bytes(self._buffer), bytearray()
        write(self, held)
        return finish(self)

    replace(Reception, "write", hold)
    replace(Reception, "finish", let_go)


@seam("any size")
def _any_size() -> None:
    from archive.services.store import Rules

    replace(Rules, "__init__", _careless_init(Rules))


def _careless_init(rules: Any) -> Any:
    init = rules.__init__

    def without_limit(self: Any, *others: Any, **named: Any) -> None:
        named.pop("max_instance_size", None)
        init(self, *others, max_instance_size=1 << 60, **named)

    return without_limit


@seam("anything is understood")
def _anything_is_understood() -> None:
    """The header gate lets broken data sets pass with the UIDs of their command."""
    from archive.dicom.header import Header
    from archive.errors import ArchiveError
    from archive.services.store import Reception

    gate = Reception._gate

    def lenient(self: Any, data: Any) -> Any:
        try:
            return gate(self, data)
        except ArchiveError:
            uid = self._sop_instance
            return Header(self._sop_class, uid, f"{uid}.1", f"{uid}.2", {}, ())

    replace(Reception, "_gate", lenient)
    replace(Reception, "_check", nothing)


@seam("a fault in the gate")
def _a_fault_in_the_gate() -> None:
    """Some broken data sets hit a mistake: not one of the archive's own errors."""
    from archive.services.store import Reception

    gate = Reception._gate

    def mistaken(self: Any, data: Any) -> Any:
        if len(data) % 7 == 3 and len(data) < 1500:
            raise ValueError("a mistake")
        return gate(self, data)

    replace(Reception, "_gate", mistaken)


@seam("command not compared")
def _command_not_compared() -> None:
    """Command and data set may name different objects, and the context any class."""
    from archive.dimse import store
    from archive.services.store import Reception

    replace(Reception, "_check", nothing)
    replace(store, "check", nothing)


@seam("no contradictions")
def _no_contradictions() -> None:
    """A study may belong to two patients."""
    from archive.index.parents import Parents

    replace(Parents, "contradiction", lambda self, header, check_names: "")


@seam("names from the wire")
def _names_from_the_wire() -> None:
    """The file is called what the sender says."""
    from archive.services.store import Reception

    commit = Reception._commit

    def named(self: Any, header: Any) -> Any:
        volume = self._store.volume
        new_path = volume.new_path
        volume.new_path = lambda: new_path().replace(".dcm", f"-{header.sop_instance_uid}")
        try:
            return commit(self, header)
        finally:
            del volume.new_path

    replace(Reception, "_commit", named)
