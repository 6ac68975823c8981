"""The A-ASSOCIATE PDUs, item by item: read and written (PS3.8 9.3.2-9.3.4 and annex D, PS3.7 annex D.3).

Rules that hold here: bytes in, values out; every item is compared with the item it lies in before it is
looked at; what an implementation must not ignore (PS3.8 9.3) raises ProtocolError with the A-ABORT
reason, user information that is not known here is skipped as PS3.7 D.3.3 asks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

from archive.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, IMPLICIT_LITTLE
from archive.dimse.associate import (
    ACCEPTANCE,
    AE_LENGTH,
    APPLICATION_CONTEXT_NAME,
    PROTOCOL_VERSION,
    AssociateAccept,
    AssociateRequest,
    Memory,
    Proposed,
    UserIdentity,
    UserInformation,
)
from archive.dimse.reasons import INVALID_PARAMETER, UNEXPECTED_PARAMETER, UNRECOGNIZED_PARAMETER, ProtocolError
from archive.dimse.wire import ASSOCIATE_AC, ASSOCIATE_RQ, PDU_HEADER

T = TypeVar("T")

FIXED = struct.Struct(">HH16s16s32s")  # version, reserved, called, calling, reserved

# PS3.8 tables 9-12 to 9-20 and D.1-1, PS3.7 tables D.3-1 to D.3-15: item types.
APPLICATION_CONTEXT, CONTEXT_RQ, CONTEXT_AC, ABSTRACT_SYNTAX, TRANSFER_SYNTAX, USER_INFORMATION = (
    0x10, 0x20, 0x21, 0x30, 0x40, 0x50,
)  # fmt: skip
MAXIMUM_LENGTH, IMPLEMENTATION_CLASS, WINDOW, ROLE, IMPLEMENTATION_VERSION = 0x51, 0x52, 0x53, 0x54, 0x55
EXTENDED, COMMON_EXTENDED, IDENTITY_RQ, IDENTITY_AC = 0x56, 0x57, 0x58, 0x59

_ITEM = struct.Struct(">BxH")
_SHORT = struct.Struct(">H")
_LONG = struct.Struct(">I")
_WINDOW = struct.Struct(">HH")
_SEEN, _LARGEST_SEEN = 64, 32 * 1024  # requests, and bytes of one: 128 contexts with three syntaxes are 14 kB
_MEMORABLE = 512  # bytes of a context worth remembering; longer ones would let a stranger fill our memory
_CONTEXTS = 1024  # remembered: those of eight callers who propose all they can


def read_request(body: bytes) -> AssociateRequest:
    """An A-ASSOCIATE-RQ from what follows its PDU header."""
    version, called, calling = _fixed(body)
    items = body[FIXED.size :]
    read = _seen.get(items) or _read_items(items)
    name, contexts, user, memory = read
    return AssociateRequest(calling, called, contexts, user, version, name, body[4 : FIXED.size], memory)


_Read = tuple[str, tuple[Proposed, ...], UserInformation, Memory | None]
# A modality proposes the same every time. What names a user is never kept.
_seen: dict[bytes, _Read] = {}


def _read_items(items: bytes) -> _Read:
    contexts: list[Proposed] = []
    name: str | None = None
    user: UserInformation | None = None
    for kind, content in _items(items, 0, len(items)):
        if kind == CONTEXT_RQ:
            contexts.append(_memorized(content) if len(content) <= _MEMORABLE else _proposed(content))
        elif kind == APPLICATION_CONTEXT:
            name = _once(name, _uid(content), "application context", UNEXPECTED_PARAMETER)
        elif kind == USER_INFORMATION:
            user = _once(user, _user_information(content), "user information")
        elif kind == CONTEXT_AC:
            raise ProtocolError("an accepted presentation context in a request")
        else:
            raise ProtocolError(f"unrecognized item {kind:02x}", UNRECOGNIZED_PARAMETER)
    if name is None or user is None:
        raise ProtocolError("no application context" if name is None else "no user information")
    _check_ids(contexts)
    proposed = tuple(contexts)
    if user.identity is not None or len(items) > _LARGEST_SEEN:
        return name, proposed, user, None
    if len(_seen) >= _SEEN:
        _seen.clear()
    _seen[items] = read = name, proposed, user, Memory(proposed)
    return read


def read_accept(body: bytes) -> AssociateAccept:
    """An A-ASSOCIATE-AC from what follows its PDU header."""
    if not _fixed(body)[0] & PROTOCOL_VERSION:
        raise ProtocolError("the acceptance is of another protocol version")
    results: dict[int, tuple[int, str]] = {}
    name: str | None = None
    user: UserInformation | None = None
    for kind, content in _items(body, FIXED.size, len(body)):
        if kind == CONTEXT_AC:
            number, result, syntax = _result(content)
            if number in results:
                raise ProtocolError(f"presentation context {number} answered twice")
            results[number] = (result, syntax)
        elif kind == APPLICATION_CONTEXT:
            name = _once(name, _uid(content), "application context", UNEXPECTED_PARAMETER)
        elif kind == USER_INFORMATION:
            user = _once(user, _user_information(content), "user information")
        else:
            raise ProtocolError(f"unrecognized item {kind:02x}", UNRECOGNIZED_PARAMETER)
    if name is None or user is None:
        raise ProtocolError("no application context" if name is None else "no user information")
    return AssociateAccept(results, user)


def _fixed(body: bytes) -> tuple[int, str, str]:
    if len(body) < FIXED.size:
        raise ProtocolError("an A-ASSOCIATE PDU that ends before its items")
    version, _, called, calling, _ = FIXED.unpack_from(body)
    return version, _title(called), _title(calling)


def _title(value: bytes) -> str:
    """An AE title without its padding; some pad with NUL. Whether it is a title is `is_title`'s question."""
    return value.rstrip(b"\0").decode("latin-1").strip(" ")


def _items(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    while start < end:
        if end - start < 4:
            raise ProtocolError("an item that ends before its length")
        kind, length = _ITEM.unpack_from(data, start)
        start += 4
        if length > end - start:
            raise ProtocolError(f"item {kind:02x} is longer than what it lies in")
        yield kind, data[start : start + length]
        start += length


def _once(before: object, value: T, what: str, reason: int = INVALID_PARAMETER) -> T:
    if before is not None:
        raise ProtocolError(f"{what} twice", reason)
    return value


def _uid(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("latin-1")


def _proposed(content: bytes) -> Proposed:
    if len(content) < 4:
        raise ProtocolError("a presentation context that ends before its id")
    abstract: str | None = None
    syntaxes: list[str] = []
    for kind, value in _items(content, 4, len(content)):
        if kind == TRANSFER_SYNTAX:
            syntaxes.append(_uid(value))
        elif kind == ABSTRACT_SYNTAX:
            if abstract is not None:
                raise ProtocolError("abstract syntax twice", UNEXPECTED_PARAMETER)
            abstract = _uid(value)
        else:
            raise ProtocolError(f"unrecognized item {kind:02x} in a context", UNRECOGNIZED_PARAMETER)
    if not abstract:
        raise ProtocolError("a presentation context without abstract syntax")
    return Proposed(content[0], abstract, tuple(syntaxes))


_memorized = lru_cache(maxsize=_CONTEXTS)(_proposed)


def _check_ids(contexts: Sequence[Proposed]) -> None:
    ids = {context.id for context in contexts}
    if not ids:
        raise ProtocolError("no presentation contexts")
    if len(ids) < len(contexts):
        raise ProtocolError("a presentation context id twice")
    if not all(number & 1 for number in ids):
        raise ProtocolError("an even presentation context id")


def _result(content: bytes) -> tuple[int, int, str]:
    if len(content) < 4:
        raise ProtocolError("a presentation context that ends before its result")
    syntaxes = [_uid(value) for kind, value in _items(content, 4, len(content)) if kind == TRANSFER_SYNTAX]
    if content[2] == ACCEPTANCE and len(syntaxes) != 1:
        raise ProtocolError("an accepted context without its transfer syntax")
    return content[0], content[2], syntaxes[0] if syntaxes else ""


def _user_information(content: bytes) -> UserInformation:
    single: dict[int, bytes] = {}
    roles: dict[str, tuple[bool, bool]] = {}
    extended: dict[str, bytes] = {}
    common: dict[str, str] = {}
    for kind, value in _items(content, 0, len(content)):
        if kind == ROLE:
            uid, rest = _counted(value)
            _exactly(rest, 2, kind)
            roles[_uid(uid)] = (rest[0] == 1, rest[1] == 1)
        elif kind == EXTENDED:
            uid, rest = _counted(value)
            extended[_uid(uid)] = rest
        elif kind == COMMON_EXTENDED:
            uid, rest = _counted(value)
            common[_uid(uid)] = _uid(_counted(rest)[0])
        else:
            if kind in single:
                raise ProtocolError(f"user information {kind:02x} twice")
            single[kind] = value
    return UserInformation(**_singles(single), roles=roles, extended=extended, common=common)  # type: ignore[arg-type]


def _singles(items: Mapping[int, bytes]) -> dict[str, object]:
    if MAXIMUM_LENGTH not in items:
        raise ProtocolError("no maximum length")
    identity = items.get(IDENTITY_RQ)
    response = items.get(IDENTITY_AC)
    window = items.get(WINDOW)
    return {
        "max_pdu": _LONG.unpack(_exactly(items[MAXIMUM_LENGTH], 4, MAXIMUM_LENGTH))[0],
        "implementation_class": _uid(items.get(IMPLEMENTATION_CLASS, b"")),
        "implementation_version": _uid(items.get(IMPLEMENTATION_VERSION, b"")).strip(),
        "window": None if window is None else _WINDOW.unpack(_exactly(window, 4, WINDOW)),
        "identity": None if identity is None else _identity(identity),
        "identity_response": None if response is None else _counted(response)[0],
    }


def _identity(value: bytes) -> UserIdentity:
    if len(value) < 2:
        raise ProtocolError("a user identity that ends before its type")
    primary, rest = _counted(value[2:])
    return UserIdentity(value[0], primary, _counted(rest)[0], value[1] == 1)


def _counted(value: bytes) -> tuple[bytes, bytes]:
    """A field behind its two-byte length, and what follows it."""
    if len(value) < 2 or _SHORT.unpack_from(value)[0] > len(value) - 2:
        raise ProtocolError("a field of the user information is longer than its item")
    end = 2 + _SHORT.unpack_from(value)[0]
    return value[2:end], value[end:]


def _exactly(value: bytes, size: int, kind: int) -> bytes:
    if len(value) != size:
        raise ProtocolError(f"user information {kind:02x} of {len(value)} bytes")
    return value


# -- writing ----------------------------------------------------------------------------------------


def write_request(request: AssociateRequest) -> bytes:
    """The A-ASSOCIATE-RQ PDU."""
    contexts = (_context_item(CONTEXT_RQ, each.id, 0, _syntaxes(each)) for each in request.contexts)
    fixed = FIXED.pack(request.version, 0, _padded(request.called), _padded(request.calling), b"")
    return _pdu(ASSOCIATE_RQ, fixed, request.application_context, b"".join(contexts), request.user)


def write_accept(fixed: bytes, results: Sequence[tuple[int, int, str]], user: UserInformation) -> bytes:
    """The A-ASSOCIATE-AC PDU: `fixed` as the request had it, and (id, result, transfer syntax) per context."""
    contexts = (_context_item(CONTEXT_AC, number, result, _syntax(syntax)) for number, result, syntax in results)
    start = _SHORT.pack(PROTOCOL_VERSION) + b"\0\0" + fixed
    return _pdu(ASSOCIATE_AC, start, APPLICATION_CONTEXT_NAME, b"".join(contexts), user)


def repeat_accept(pdu: bytes, fixed: bytes) -> bytes:
    """The same acceptance in answer to a request with other titles."""
    start = PDU_HEADER.size + 4  # protocol version, reserved
    return b"".join((pdu[:start], fixed, pdu[start + len(fixed) :]))


def _pdu(kind: int, fixed: bytes, name: str, contexts: bytes, user: UserInformation) -> bytes:
    information = _item(USER_INFORMATION, write_user_information(user))
    body = b"".join((fixed, _item(APPLICATION_CONTEXT, name.encode()), contexts, information))
    return PDU_HEADER.pack(kind, len(body)) + body


def write_user_information(user: UserInformation) -> bytes:
    """The content of the user information item, its sub-items in ascending order."""
    parts = [
        _item(MAXIMUM_LENGTH, _LONG.pack(user.max_pdu)),
        _item(IMPLEMENTATION_CLASS, (user.implementation_class or IMPLEMENTATION_CLASS_UID).encode("ascii")),
    ]
    if user.window is not None:
        parts.append(_item(WINDOW, _WINDOW.pack(*user.window)))
    parts += [_item(ROLE, _field(uid.encode()) + bytes(may)) for uid, may in user.roles.items()]
    parts.append(
        _item(IMPLEMENTATION_VERSION, (user.implementation_version or IMPLEMENTATION_VERSION_NAME).encode("ascii"))
    )
    parts += [_item(EXTENDED, _field(uid.encode()) + value) for uid, value in user.extended.items()]
    if user.identity is not None:
        identity = user.identity
        start = bytes((identity.kind, identity.respond))
        parts.append(_item(IDENTITY_RQ, start + _field(identity.primary) + _field(identity.secondary)))
    if user.identity_response is not None:
        parts.append(_item(IDENTITY_AC, _field(user.identity_response)))
    return b"".join(parts)


def _item(kind: int, content: bytes) -> bytes:
    return _ITEM.pack(kind, len(content)) + content


def _field(value: bytes) -> bytes:
    return _SHORT.pack(len(value)) + value


def _context_item(kind: int, number: int, result: int, content: bytes) -> bytes:
    return _ITEM.pack(kind, 4 + len(content)) + bytes((number, 0, result, 0)) + content


def _syntaxes(context: Proposed) -> bytes:
    return _item(ABSTRACT_SYNTAX, context.abstract_syntax.encode()) + b"".join(
        _syntax(syntax) for syntax in context.transfer_syntaxes
    )


@lru_cache(maxsize=256)
def _syntax(uid: str) -> bytes:
    """A transfer syntax sub-item; of a refused context it is there but says nothing (PS3.8 9.3.3.2)."""
    return _item(TRANSFER_SYNTAX, (uid or IMPLICIT_LITTLE).encode("latin-1"))


def _padded(title: str) -> bytes:
    return title.encode("ascii", "replace")[:AE_LENGTH].ljust(AE_LENGTH)
