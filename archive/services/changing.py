"""What rules and provenance change in objects: those that come in, and those that go out.

Rules that hold here: coercion comes first and provenance speaks of it; who has no rule for an object costs one look at
a list; what a person decides is laid over an object by the same means as what a rule does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from archive.dicom import provenance
from archive.dicom.attributes import HEADER_TAGS
from archive.dicom.coerce import Change, OriginalAttributes, changed, moment
from archive.dicom.coercion import RECEIVE, ROUTE, SEND, CoerceRule, coercions
from archive.dicom.elements import Buffer
from archive.dicom.header import Header, read_header
from archive.dicom.provenance import Deed, System
from archive.dicom.rule import header_facts

if TYPE_CHECKING:
    from archive.services.outgoing import Subject
    from archive.services.store import Origin

ON_RECEIVE, ON_CHANGE, ON_SEND = "receive", "change", "send"


def _top(change: Change) -> int:
    """The tag of a change of the data set itself, 0 for one further inside."""
    step = change.path[0]
    return step if len(change.path) == 1 and isinstance(step, int) else 0


@dataclass(frozen=True, slots=True)
class Changing:
    """The rules of one configuration. ``aet`` is our own title, and what Original Attributes calls us."""

    aet: str
    clock: Callable[[], float]
    rules: Sequence[CoerceRule] = ()
    system: System | None = None  # what provenance writes of us; None writes nothing
    record: Collection[str] = ()  # of ON_RECEIVE, ON_CHANGE and ON_SEND
    on_receive: bool = field(init=False)  # whether anything can happen to what comes in
    on_send: bool = field(init=False)

    def __post_init__(self) -> None:
        incoming = ON_RECEIVE in self.record or any(rule.on == RECEIVE for rule in self.rules)
        outgoing = bool({ON_SEND, ON_CHANGE} & set(self.record)) or any(rule.on != RECEIVE for rule in self.rules)
        object.__setattr__(self, "on_receive", incoming)
        object.__setattr__(self, "on_send", outgoing)

    # -- in -------------------------------------------------------------------------------------

    def incoming(
        self, origin: Origin, header: Header, data: Buffer, syntax: str, more: Sequence[Change] = ()
    ) -> list[Change]:
        """What becomes of an object that comes in; ``more`` is what a person decided about one that was here before."""
        if origin.as_is:
            found = list(more)
        else:
            words = {
                "CallingAETitle": origin.calling,
                "CalledAETitle": origin.called,
                "CallingAddress": origin.address,
                "TransferSyntaxUID": syntax,
            }
            facts = header_facts(header.values, words)
            rules = [rule for rule in self.rules if rule.concerns(RECEIVE, origin.calling, origin.called)]
            known = words.get
            found = coercions(rules, facts, data, syntax, origin.default_charset, lambda word: known(word, ""))
            found += more
        return found + self._received(origin, bool(found))

    def _received(self, origin: Origin, is_changed: bool) -> list[Change]:
        if self.system is None:
            return []
        found: list[Change] = []
        now, own = self.clock(), origin.called or self.aet
        if ON_RECEIVE in self.record and not origin.as_is:
            found = provenance.deed(
                self.system,
                Deed(provenance.RECEIVED, now, "", own, origin.local_address, origin.calling, origin.address),
            )
        if found or (is_changed and ON_CHANGE in self.record):
            found.append(provenance.original_sender(self.system, origin.calling))
        if is_changed and ON_CHANGE in self.record:
            found += provenance.deed(self.system, Deed(provenance.CHANGED, now, "", own), 1)
        return found

    def changed(
        self, data: Buffer, syntax: str, changes: Sequence[Change], source: str, default_charset: str
    ) -> Iterator[bytes]:
        """The object as it is stored. Raises NotUnderstood before the first byte."""
        original = OriginalAttributes(self.aet, moment(self.clock()), source)
        return changed(data, syntax, changes, original=original, default_charset=default_charset)

    # -- out ------------------------------------------------------------------------------------

    def coerced(self, subject: Subject) -> Sequence[Change]:
        """A source of Outgoing: what the rules make of an object for its receiver."""
        receiver = subject.receiver
        rules = [rule for rule in self.rules if rule.concerns(SEND, receiver.local_aet, receiver.aet)]
        for name in subject.hooks.coerce if subject.hooks is not None else ():
            rules += [
                rule for rule in self.rules
                if rule.name == name and rule.concerns(ROUTE, receiver.local_aet, receiver.aet)
            ]  # fmt: skip
        if not rules:
            return ()
        syntax = subject.file.transfer_syntax or subject.instance.transfer_syntax
        words = {
            "CallingAETitle": receiver.local_aet,
            "CalledAETitle": receiver.aet,
            "CallingAddress": receiver.local_address,
            "TransferSyntaxUID": syntax,
        }
        with subject.mapped() as data:
            values = dict(read_header(data, syntax, HEADER_TAGS).values)
            values |= {tag: change.value or "" for change in subject.so_far if (tag := _top(change))}
            facts = header_facts(values, words)
            return coercions(
                rules, facts, data, syntax, known=lambda word: words.get(word, ""), before=subject.so_far
            )

    def sent(self, subject: Subject, is_changed: bool) -> list[Change]:
        """What provenance says of an object that is sent, and was changed on its way if other sources said so."""
        if self.system is None:
            return []
        now, receiver, found = self.clock(), subject.receiver, list[Change]()
        if is_changed and ON_CHANGE in self.record:
            found += provenance.deed(self.system, Deed(provenance.CHANGED, now, "", receiver.local_aet))
        if ON_SEND in self.record:
            places = (receiver.local_aet, receiver.local_address, receiver.aet, receiver.address)
            found += provenance.deed(self.system, Deed(provenance.SENT, now, "", *places), 1)
        return found
