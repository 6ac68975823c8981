"""The sections ``coerce`` and ``provenance``: what is changed in objects that come in or go out.

Rules that hold here: attributes, rules and regular expressions are understood when the file is read, so that a
mistake is a complaint with its place and what would do; what is refused here is what would refuse objects later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .complaints import Complaint
from .document import Node
from .kinds import Kind, ListOf, Reading, Scalar, Unfit
from .rules import NAME, RULE
from .schema import option
from .values import one_of

if TYPE_CHECKING:
    from archive.dicom.coercion import CoerceRule
    from archive.dicom.paths import Target

    from .sections import Config

COERCE_ON = {
    "receive": "objects that come in, before they are stored",
    "send": "objects that go out, on their way",
    "route": "objects that a route sends which names the rule",
}
PROVENANCE_ON = {
    "receive": "who sent the object first, and that it was received",
    "change": "that rules or people changed it",
    "send": "that it was sent, and to whom",
}
# Attributes that others rely on: what identifies an object is checked and answered for, and history is kept.
_FIXED = {
    "SOPClassUID": "another SOP class is another object",
    "OriginalAttributesSequence": "it records changes and is written by itself",
}
_OURS_ALONE = "SOPInstanceUID"
_AET_PATTERN = re.compile(r"[ -\[\]-~]{1,16}")
_REGEX = "find and replace, such as {find: '^0+', replace: ''}"


def _attribute(text: str) -> Target:
    from archive.dicom.paths import path_text

    target = _source(text)
    first = path_text(target.path[:1])
    if first in _FIXED:
        raise Unfit(f"{first} cannot be changed: {_FIXED[first]}")
    return target


def _source(text: str) -> Target:
    from archive.dicom.paths import NEW, VALUES, parse_path

    try:
        target = parse_path(text)
    except ValueError as error:
        raise Unfit(str(error)) from None
    if target.vr not in VALUES and target.vr != "SQ":
        raise Unfit(f"an attribute of VR {target.vr} has no text")
    assert NEW not in target.path
    return target


def _title(text: str) -> str:
    title = text.strip()
    if not _AET_PATTERN.fullmatch(title):
        raise Unfit("not an AE title, nor a pattern of one")
    return title


def _value(text: str) -> str:
    from archive.dicom.paths import parse_path
    from archive.dicom.rule import WORDS

    for word in re.findall(r"\{([A-Za-z]+)\}", text):
        try:
            known = word in WORDS or bool(parse_path(word))
        except ValueError:
            known = False
        if not known:
            raise Unfit(f"{{{word}}} is neither an attribute nor one of {', '.join(WORDS)}")
    if not all(char.isprintable() or char in "\r\n\t" for char in text):
        raise Unfit("a value with control characters")
    return text


def _creator(text: str) -> str:
    text = text.strip()
    if not 0 < len(text) <= 64 or not text.isascii() or not text.isprintable() or "\\" in text:
        raise Unfit("not of 1 to 64 letters of ASCII without backslash (VR LO, PS3.5 6.2)")
    return text


ATTRIBUTE = Scalar(
    "an attribute such as PatientID, '(0010,0020)' in quotes, RequestAttributesSequence[*].RequestedProcedureID or"
    " '(0021,CREATOR,90)'",
    _attribute,
)
SOURCE = Scalar(ATTRIBUTE.expects, _source)
TITLE = Scalar("an AE title, or a pattern with * and ?", _title)
VALUE = Scalar("a value, in which {CallingAETitle} or {PatientID} stand for what is known", _value)
TEXT = Scalar("a text", str)
ISSUER = Scalar("a name of at most 64 characters", _creator)
CREATOR = Scalar("1 to 64 characters", _creator)


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping from attributes to values of one kind, as pairs."""

    value: Kind
    key: Kind = ATTRIBUTE
    expects: str = "a mapping from attributes to what becomes of them"

    def read(self, node: Node, reading: Reading) -> tuple[tuple[Any, Any], ...]:
        if not isinstance(node.content, dict):
            raise Unfit("not a mapping", "lines of the form 'PatientID: …' would do")
        found = []
        for name, child in node.content.items():
            key = reading.read(self.key, Node(child.where, child.key, name, name))
            value = reading.read(self.value, child)
            if key is not None and value is not None:
                found.append((key, value))
        return tuple(found)

    def show(self, value: Any) -> object:
        return {str(self.key.show(key)): self.value.show(entry) for key, entry in value}


@dataclass(frozen=True, slots=True)
class Substitution:
    """What a regular expression finds, and what stands there then."""

    expects: str = _REGEX

    def read(self, node: Node, reading: Reading) -> tuple[re.Pattern[str], str]:
        content = node.content
        if not isinstance(content, dict) or not {"find"} <= set(content) <= {"find", "replace"}:
            raise Unfit("not a pair of find and replace", f"{_REGEX} would do")
        find, replace = (content[name].content if name in content else "" for name in ("find", "replace"))
        try:
            pattern = re.compile(str(find or ""))
            re.compile(pattern.pattern + "|").sub(str(replace or ""), "")
        except (re.error, IndexError) as error:
            raise Unfit(f"no regular expression of Python: {error}", f"{_REGEX} would do") from None
        return pattern, str(replace or "")

    def show(self, value: Any) -> object:
        return {"find": value[0].pattern, "replace": value[1]}


ATTRIBUTES = ListOf(ATTRIBUTE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coerce:
    """One rule."""

    name: str = option(NAME, "", "what routes call it (on: route)")
    on: str = option(one_of(COERCE_ON), None, "when it is applied", required=True)
    from_: tuple[str, ...] = option(ListOf(TITLE), [], "AE titles of who sends (ours but on: receive); empty is all")
    to: tuple[str, ...] = option(ListOf(TITLE), [], "AE titles of who receives; empty is all")
    match: str = option(RULE, "", "which objects, as they are before any rule; empty is all")
    copy: tuple[Any, ...] = option(Table(SOURCE), {}, "first: attribute: the attribute whose value it takes")
    set: tuple[Any, ...] = option(Table(VALUE), {}, "then: attribute: value")
    map: tuple[Any, ...] = option(
        Table(Table(TEXT, TEXT, "a mapping from old values to new ones")), {}, "then: attribute: {old: new, …}"
    )
    regex: tuple[Any, ...] = option(Table(Substitution()), {}, f"then: attribute: {_REGEX}")
    upper: tuple[Any, ...] = option(ATTRIBUTES, [], "then: attributes that become upper case")
    lower: tuple[Any, ...] = option(ATTRIBUTES, [], "then: attributes that become lower case")
    remove: tuple[Any, ...] = option(ATTRIBUTES, [], "last: attributes that are taken out")

    def rule(self) -> CoerceRule:
        """The rule as the archive applies it."""
        from archive.dicom.coercion import Action, CoerceRule
        from archive.dicom.rule import parse_rule

        actions = (
            *(Action("copy", target, source=source) for target, source in self.copy),
            *(Action("set", target, text=text) for target, text in self.set),
            *(Action("map", target, table=table) for target, table in self.map),
            *(Action("regex", target, pattern=made[0], replacement=made[1]) for target, made in self.regex),
            *(Action(kind, target) for kind in ("upper", "lower", "remove") for target in getattr(self, kind)),
        )
        return CoerceRule(self.on, self.from_, self.to, parse_rule(self.match), actions, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What is written into objects of their way, in a private block of group 0021."""

    record: tuple[str, ...] = option(ListOf(one_of(PROVENANCE_ON)), [], "which actions are written down; none is off")
    creator: str = option(CREATOR, "DIMSE ARCHIVE", "the private creator of the block")
    serial_number: str = option(TEXT, "", "the serial number of this system, if it has one")
    title: str = option(TEXT, "archive", "the software title that is written")


def coercions(config: Config, reading: Reading) -> Iterator[Complaint]:
    """Rules do something, and nothing that every object would be refused for."""
    for position, rule in enumerate(config.coerce):
        key = f"coerce.{position}"
        if not rule.rule().actions:
            yield reading.about(key, "a rule that does nothing", f"one of {', '.join(_actions())} would do")
        if rule.on == "route" and not rule.name:
            yield reading.about(key, "a rule for routes that none can name", "a name would do")
        targets = [action.target for action in rule.rule().actions]
        if rule.on != "receive" and any(str(target) == _OURS_ALONE for target in targets):
            problem = f"{_OURS_ALONE} cannot be changed on the way out: the answer of the receiver would name another"
            yield reading.about(key, problem, "leave it out, or change it with on: receive")
        for target, text in rule.set:
            problem = _unfit(target, text)
            if problem:
                yield reading.about(f"{key}.set.{target}", problem, f"a value of VR {target.vr} would do")


def _actions() -> tuple[str, ...]:
    from archive.dicom.coercion import ACTIONS

    return tuple(ACTIONS)


def _unfit(target: Target, text: str) -> str:
    """Why a fixed value cannot be one of an attribute; placeholders are only known with an object."""
    from archive.dicom.charset import UTF_8, charset_of
    from archive.dicom.encoding import TEXT_VRS
    from archive.dicom.values import CHARSET_VRS, bytes_of

    if re.search(r"\{[A-Za-z]+\}", text):
        return ""
    if target.vr == "SQ":
        return "a sequence has no text" if text else ""
    if target.vr in TEXT_VRS - CHARSET_VRS and not text.isascii():
        return f"VR {target.vr} has no letters beyond ASCII"
    return "" if bytes_of(text, target.vr, charset_of(UTF_8)) is not None else f"not a value of VR {target.vr}"
