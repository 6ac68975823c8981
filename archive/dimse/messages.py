"""DIMSE messages put together from fragments: a command set, and its data set handed on or collected (PS3.7 6.3).

Rules that hold here: messages keep their order; a command set is bounded, a data set streams into its
sink or is collected within bounds; a sink that will not get the rest of its data set is told so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from archive.dimse import wire
from archive.dimse.associate import Context
from archive.dimse.fragments import Fragments
from archive.dimse.reasons import NOT_SPECIFIED, UNEXPECTED_PARAMETER, ProtocolError
from archive.dimse.wire import COMMAND_BIT, LAST_BIT, Command


class Sink(Protocol):
    """Takes a data set as it comes. A fragment is a view of a buffer that is used again after `write`."""

    def write(self, fragment: memoryview) -> object: ...

    def discard(self) -> object:
        """The rest will never come."""
        ...


class Message(NamedTuple):
    """A message: its data set if it has one and was collected, or the sink that took it."""

    command: Command
    context: Context
    data: bytes | None = None
    sink: Sink | None = None
    astray: bool = False  # the data set came on another context than its command; a sink was told to discard


SinkFor = Callable[[Command, Context], Sink | None]


class MessageReader:
    """The messages of one association."""

    def __init__(self, fragments: Fragments, contexts: Mapping[int, Context], largest_collected: int) -> None:
        self._fragments = fragments
        self._contexts = contexts
        self._largest_collected = largest_collected

    def read(self, sink: SinkFor | None) -> Message | None:
        """The next message; None when the peer asks for the release instead."""
        found = self._command()
        if found is None or not found[0].has_data:
            return found and Message(*found)
        command, context = found
        target = sink(command, context) if sink is not None else None
        if target is None:
            return self._collected(command, context)
        return self._streamed(command, context, target)

    def _command(self) -> tuple[Command, Context] | None:
        parts = b""
        first = 0
        while True:
            fragment = self._fragments.next(started=bool(parts))
            if fragment is None:
                return None
            size, context_id, control = fragment
            if not control & COMMAND_BIT:
                raise ProtocolError("a data set before its command", UNEXPECTED_PARAMETER)
            if context_id not in self._contexts or (parts and context_id != first):
                raise ProtocolError(f"presentation context {context_id} was not accepted")
            if len(parts) + size > wire.LARGEST_COMMAND:
                raise ProtocolError("a command set of more than 64 kB")
            first = context_id
            parts += self._fragments.read(size)
            if control & LAST_BIT:
                return wire.decode_command(parts), self._contexts[context_id]

    def _collected(self, command: Command, context: Context) -> Message | None:
        collected = _Collected(self._largest_collected)
        astray = self._stream(context.id, collected.write)
        if astray is None:
            return None
        return Message(command, context, collected.join(), None, astray)

    def _streamed(self, command: Command, context: Context, target: Sink) -> Message | None:
        astray: bool | None = None
        try:
            astray = self._stream(context.id, target.write)
        finally:
            if astray is not False:
                target.discard()
        return None if astray is None else Message(command, context, None, target, astray)

    def _stream(self, context_id: int, write: Callable[[memoryview], object]) -> bool | None:
        """The fragments of a data set. Returns whether any came on another context; None = it was broken off."""
        astray = False
        while True:
            fragment = self._fragments.next(started=True)
            if fragment is None:
                return None
            size, number, control = fragment
            if control & COMMAND_BIT:
                raise ProtocolError("a command inside a data set", UNEXPECTED_PARAMETER)
            if number != context_id:
                if number not in self._contexts:
                    raise ProtocolError(f"presentation context {number} was not accepted")
                astray = True
            if size:
                self._fragments.hand_on(size, write)
            if control & LAST_BIT:
                return astray


class _Collected:
    """A data set in memory, bounded."""

    def __init__(self, largest: int) -> None:
        self._parts = bytearray()
        self._largest = largest

    def write(self, fragment: memoryview) -> None:
        if len(self._parts) + len(fragment) > self._largest:
            raise ProtocolError(f"a data set of more than {self._largest} bytes", NOT_SPECIFIED)
        self._parts += fragment

    def join(self) -> bytes:
        return bytes(self._parts)


def delivered(message: Message, sink: SinkFor | None) -> Message:
    """A message that was read ahead, its data set given to the sink after all."""
    if sink is None or message.data is None:
        return message
    target = sink(message.command, message.context)
    if target is None:
        return message
    target.write(memoryview(message.data))
    return message._replace(data=None, sink=target)
