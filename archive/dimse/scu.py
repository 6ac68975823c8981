"""We ask: echo, find, move, get and send, for the command line, routing and prefetch.

Rules that hold here: one call is one association, released in good order or aborted; what goes wrong is
said in words as Unreachable (nobody there, no association, silence) or Refused (an answer that is a
failure); answers are handed on as they come.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from math import inf
from time import monotonic
from typing import Any, TypeVar

from pydicom.datadict import keyword_for_tag

from archive.dicom.attributes import Level
from archive.dicom.identifier import Identifier, decode_identifier
from archive.dicom.matching import Root
from archive.dimse import statuses
from archive.dimse.access import QUERY_RETRIEVE, VERIFICATION, Grant
from archive.dimse.association import Association, Message, SinkFor
from archive.dimse.contexts import STORAGE, proposed_syntaxes
from archive.dimse.destinations import Destination
from archive.dimse.lanes import Lanes
from archive.dimse.negotiation import Context
from archive.dimse.planning import FALLBACK, LOSSLESS, Proposal, to_receive
from archive.dimse.question import Keys, question
from archive.dimse.reasons import Ended
from archive.dimse.sender import Sender
from archive.dimse.server import perform, respond
from archive.dimse.session import Session, caller_of
from archive.dimse.store import StoreObject
from archive.dimse.tally import Sent
from archive.dimse.wire import HAS_DATA, Command, Field, Value, encode_command
from archive.errors import Refused, Unreachable, saying
from archive.services.outgoing import Outgoing
from archive.services.retrieve import OpenFile
from archive.services.sendable import Codec, Sendable

I = TypeVar("I", bound=Sendable)  # noqa: E741 - the item

ROOT_NUMBER = {Root.PATIENT: 1, Root.STUDY: 2, Root.PATIENT_STUDY: 3}
MEDIUM = 0x0000  # Priority (0000,0700)
FAILED_LIST = 0x00080058
PAGE = 256  # objects handed to the lanes at a time


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a retrieval is, as the peer counts."""

    remaining: int
    completed: int
    failed: int
    warned: int

    @classmethod
    def of(cls, command: Command) -> Progress:
        return cls(*(command.number(element) for element in (0x1020, 0x1021, 0x1022, 0x1023)))


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The end of a retrieval: its status in words, the last counts, and what failed."""

    status: int
    words: str
    progress: Progress
    failed_uids: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        return self.status == statuses.SUCCESS


Told = Callable[[Progress], None]
Opened = Callable[[Association], None]  # hears of the association, to be able to stop it


@dataclass(frozen=True, slots=True)
class Options:
    """What extended negotiation asks for (PS3.4 table C.5-1)."""

    relational: bool = False
    date_time: bool = False
    fuzzy: bool = False
    timezone: bool = False

    def item(self) -> bytes:
        flags = (self.relational, self.date_time, self.fuzzy, self.timezone)
        return bytes(flags) if any(flags) else b""


def echo(destination: Destination) -> None:
    """C-ECHO; returns when the peer has answered success."""
    with calling(destination, VERIFICATION) as association:
        context = context_of(association, VERIFICATION)
        message_id = association.next_message_id()
        association.send_message(context, _command(Field.C_ECHO_RQ, context, message_id))
        _check(_response(association).command, "C-ECHO")


def find(
    destination: Destination,
    root: Root,
    level: Level,
    keys: Keys,
    *,
    charset: str = "ISO_IR 192",
    options: Options | None = None,
    limit: int = 0,
    seconds: float = inf,
) -> Iterator[Identifier]:
    """C-FIND: each answer as its elements; ``limit`` and ``seconds`` are those of `answers`."""
    abstract_syntax = f"{QUERY_RETRIEVE}.{ROOT_NUMBER[root]}.1"
    with calling(destination, abstract_syntax, options=options) as association:
        yield from answers(
            association, destination, root, level, keys, charset=charset, limit=limit, seconds=seconds
        )


def answers(
    association: Association,
    destination: Destination,
    root: Root,
    level: Level,
    keys: Keys,
    *,
    charset: str = "ISO_IR 192",
    limit: int = 0,
    seconds: float = inf,
    ended: Callable[[int], None] = lambda status: None,
) -> Iterator[Identifier]:
    """One C-FIND on an association that may serve others before and after it; ``ended`` hears its final status.

    After ``limit`` answers the peer is asked to stop. One that still answers after so many ``seconds``, asked to
    stop or not, is Unreachable.
    """
    context = context_of(association, f"{QUERY_RETRIEVE}.{ROOT_NUMBER[root]}.1")
    message_id = _ask(association, context, Field.C_FIND_RQ, question(level, keys, context, destination, charset))
    count, until = 0, monotonic() + seconds
    while statuses.is_pending((message := _response(association)).command.status):
        if monotonic() > until:
            raise Unreachable("peer's answers have no end", f"{association.called}: after {seconds:g} s")
        count += 1
        if not limit or count <= limit:
            yield decode_identifier(message.data or b"", context.transfer_syntax)
        if count == limit:
            _cancel(association, context, message_id)
    ended(message.command.status)
    if message.command.status != statuses.CANCELLED or not limit or count < limit:  # not by us
        _check(message.command, "C-FIND")


def move(
    destination: Destination,
    to: str,
    root: Root,
    level: Level,
    keys: Keys,
    *,
    told: Told = lambda _: None,
    opened: Opened = lambda _: None,
    options: Options | None = None,
) -> Retrieved:
    """C-MOVE: have the peer send objects to ``to``, which may be ourselves."""
    abstract_syntax = f"{QUERY_RETRIEVE}.{ROOT_NUMBER[root]}.2"
    with calling(destination, abstract_syntax, options=options) as association:
        opened(association)
        context = context_of(association, abstract_syntax)
        asked = question(level, keys, context, destination, "ISO_IR 192")
        _ask(association, context, Field.C_MOVE_RQ, asked, MoveDestination=to)
        while statuses.is_pending((message := _response(association)).command.status):
            told(Progress.of(message.command))
        return _retrieved(message, "C-MOVE")


def get(
    destination: Destination,
    root: Root,
    level: Level,
    keys: Keys,
    *,
    store: StoreObject,
    storage: Sequence[Proposal] = (),
    told: Told = lambda _: None,
    opened: Opened = lambda _: None,
    options: Options | None = None,
) -> Retrieved:
    """C-GET: have the peer send objects back over this association; they go through the one way in.

    ``storage`` are the contexts for what may come; left out, the storage classes that fit into an association.
    """
    storage = storage or to_receive(STORAGE, proposed_syntaxes(FALLBACK))
    abstract_syntax = f"{QUERY_RETRIEVE}.{ROOT_NUMBER[root]}.3"
    roles = {sop_class: (False, True) for sop_class, _ in storage}
    with calling(destination, abstract_syntax, options=options, more=storage, roles=roles) as association:
        opened(association)
        context = context_of(association, abstract_syntax)
        _ask(association, context, Field.C_GET_RQ, question(level, keys, context, destination, "ISO_IR 192"))
        session = _receiving(association, destination)
        while True:
            message = _message(association, lambda command, where: store.sink(session, command, where))
            if message.command.field == Field.C_STORE_RQ:
                respond(association, message, perform(store, session, message))
            elif not statuses.is_pending(message.command.status):
                return _retrieved(message, "C-GET")
            else:
                told(Progress.of(message.command))


def send(
    destination: Destination,
    items: Iterable[I],
    open_file: Callable[[I], OpenFile],
    codec: Codec | None = None,
    *,
    outgoing: Outgoing | None = None,
) -> Iterator[Sent]:
    """C-STORE every object at the peer, over as many associations as its entry says; results as they come."""

    def sender(association: Association) -> Sender[I]:
        return Sender(association, open_file, codec, outgoing=outgoing)

    source, single = iter(items), destination.has_quirk("single_context")
    extra, count = LOSSLESS if codec is not None else (), destination.store_associations
    with Lanes(destination.connect, sender, count, single_context=single, extra=extra) as lanes:
        waited = select.poll()
        waited.register(lanes.fileno(), select.POLLIN)
        outstanding = 0
        while lanes.alive:
            page = list(islice(source, PAGE - outstanding)) if outstanding < PAGE // 2 else []
            lanes.put(page)
            outstanding += len(page)
            if not outstanding:
                break
            waited.poll()
            results = lanes.results()
            outstanding -= len(results)
            yield from results
        yield from lanes.results()
        yield from lanes.give_up()
        for item in source:
            yield from lanes.lost([item])
        lanes.finish()


def keywords(tags: Iterable[int]) -> list[str]:
    """Names for tags; a tag that the dictionary does not know is its own name."""
    return [keyword_for_tag(tag) or f"{tag:08X}" for tag in tags]


def plain(identifier: Identifier) -> dict[str, Any]:
    """An answer by keywords, sequences as lists, for people and JSON."""
    values = [
        each.value if isinstance(each.value, str) else [plain(item) for item in each.value]
        for each in identifier.values()
    ]
    return dict(zip(keywords(identifier), values, strict=True))


def _receiving(association: Association, destination: Destination) -> Session:
    """Objects of a C-GET come from the AE that was called, which may store here because we asked."""
    grant = Grant(destination.aet, None, frozenset({"store"}))
    return Session(association, grant, caller_of(grant, association.address, 0))


@contextmanager
def calling(
    destination: Destination,
    abstract_syntax: str,
    *,
    options: Options | None = None,
    more: Sequence[Proposal] = (),
    roles: Mapping[str, tuple[bool, bool]] | None = None,
) -> Iterator[Association]:
    """An association for one service; however it ends, what leaves here is an error of the archive."""
    item = (options or Options()).item()
    syntaxes = [(syntax,) for syntax in FALLBACK] if destination.has_quirk("single_context") else [FALLBACK]
    contexts: list[Proposal] = [*((abstract_syntax, each) for each in syntaxes), *more]
    association = destination.connect(contexts, roles=roles, extended={abstract_syntax: item} if item else {})
    try:
        with association:
            yield association
    except Ended as ended:
        raise Unreachable("association lost", ended.words) from ended


def context_of(association: Association, abstract_syntax: str) -> Context:
    context = association.context_for(abstract_syntax)
    if context is None:
        raise Refused("peer does not accept this service", f"{association.called}: {abstract_syntax}")
    return context


def _command(what: Field, context: Context, message_id: int, **more: Value) -> bytes:
    return encode_command(
        {"AffectedSOPClassUID": context.abstract_syntax, "CommandField": int(what), "MessageID": message_id, **more}
    )


def _ask(association: Association, context: Context, what: Field, identifier: bytes, **more: Value) -> int:
    message_id = association.next_message_id()
    command = _command(what, context, message_id, Priority=MEDIUM, CommandDataSetType=HAS_DATA, **more)
    association.send_message(context, command, identifier)
    return message_id


def _cancel(association: Association, context: Context, message_id: int) -> None:
    command = {"CommandField": int(Field.C_CANCEL_RQ), "MessageIDBeingRespondedTo": message_id}
    association.send_message(context, encode_command(command))


def _message(association: Association, sink: SinkFor | None = None) -> Message:
    message = association.read_message(sink)
    if message is None:
        raise Unreachable("peer released before its answer", association.called)
    return message


def _response(association: Association) -> Message:
    message = _message(association)
    if not message.command.is_response:
        raise Unreachable("peer sent a request where an answer was due", f"{association.called}: {message.command!r}")
    return message


def _check(command: Command, what: str) -> None:
    if command.status != statuses.SUCCESS and not statuses.is_warning(command.status):
        raise Refused(f"{what} refused", _words(command))


def _words(command: Command) -> str:
    return saying(statuses.meaning(command.status), command.comment)


def _retrieved(message: Message, what: str) -> Retrieved:
    """The final response; a failure that moved nothing is Refused, anything else is said."""
    command, progress = message.command, Progress.of(message.command)
    failed: tuple[str, ...] = ()
    if message.data:
        listed = decode_identifier(message.data, message.context.transfer_syntax).text(FAILED_LIST)
        failed = tuple(uid for uid in listed.split("\\") if uid)
    usual = command.status in (statuses.SUCCESS, statuses.CANCELLED) or statuses.is_warning(command.status)
    if not usual and not progress.completed and not progress.failed:
        raise Refused(f"{what} refused", _words(command))
    return Retrieved(command.status, _words(command), progress, failed)
