"""Calling a remote AE: connect, propose, and come back with an association or the reason why not.

Rules that hold here: every step has a deadline of its own; whatever a remote AE answers is compared with
what was proposed before it is believed; the only error that leaves is Unreachable, in words.
"""

from __future__ import annotations

import itertools
import socket
import ssl
from collections.abc import Mapping, Sequence

from archive.dimse import wire
from archive.dimse.associate import (
    ACCEPTANCE,
    MOST_CONTEXTS,
    AssociateAccept,
    AssociateRequest,
    Context,
    Proposed,
    Roles,
    UserIdentity,
    UserInformation,
)
from archive.dimse.association import Association
from archive.dimse.connection import TIMEOUTS, Connection, Timeouts
from archive.dimse.fragments import abort_received, unexpected
from archive.dimse.incoming import LARGEST_REQUEST
from archive.dimse.items import read_accept, write_request
from archive.dimse.reasons import (
    Aborted,
    Ended,
    ProtocolError,
    rejection_words,
)
from archive.dimse.tls import ClientTLS, peer_names
from archive.errors import Unreachable

Wanted = Proposed | tuple[str, Sequence[str]]
_numbers = itertools.count(1)


def connect(
    host: str,
    port: int,
    *,
    calling: str,
    called: str,
    contexts: Sequence[Wanted],
    roles: Roles | None = None,
    timeouts: Timeouts = TIMEOUTS,
    tls: ClientTLS | None = None,
    max_pdu: int = 0,
    window: tuple[int, int] | None = None,
    extended: Mapping[str, bytes] | None = None,
    identity: UserIdentity | None = None,
) -> Association:
    """An association with the AE `called` at `host`:`port`. Raises Unreachable.

    `contexts` are (abstract syntax, transfer syntaxes); `roles` says which we want to be for an abstract
    syntax, (SCU, SCP), where that is not the SCU. An asynchronous window is proposed only when given.
    """
    user = UserInformation(max_pdu, window=window, roles=roles or {}, extended=extended or {}, identity=identity)
    request = AssociateRequest(calling, called, _numbered(contexts), user)
    connection, names = _connected(host, port, timeouts, tls)
    try:
        accept = _associate(connection, request)
        return _association(connection, request, accept, (host, port), names)
    except Ended as ending:
        if not isinstance(ending, Aborted):
            connection.send_now(wire.abort_pdu(ending.source, ending.reason))
        connection.close()
        raise Unreachable("The remote AE could not be reached", f"{called} at {host}:{port}: {ending}") from ending
    except BaseException:
        connection.close()
        raise


def _numbered(contexts: Sequence[Wanted]) -> tuple[Proposed, ...]:
    if not 0 < len(contexts) <= MOST_CONTEXTS:
        raise ValueError(f"{len(contexts)} presentation contexts; an association has 1 to {MOST_CONTEXTS}")
    return tuple(
        each if isinstance(each, Proposed) else Proposed(2 * index + 1, each[0], tuple(each[1]))
        for index, each in enumerate(contexts)
    )


def _connected(
    host: str, port: int, timeouts: Timeouts, tls: ClientTLS | None
) -> tuple[Connection, tuple[str, ...] | None]:
    sock: socket.socket | None = None
    try:
        sock = socket.create_connection((host, port), timeouts.connect)
        if tls is None:
            return Connection(sock, timeouts), None
        sock.settimeout(timeouts.tls)
        sock = secured = tls.wrap(sock, host)
        secured.do_handshake()
        return Connection(secured, timeouts), peer_names(secured)
    except (OSError, ValueError) as error:  # ValueError: a host name that is none
        if sock is not None:
            sock.close()
        raise Unreachable("The remote AE could not be reached", f"{host}:{port}: {said(error)}") from error


def said(error: Exception) -> str:
    """Why a connection did not come to be, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS handshake failed: {error.reason or error}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _associate(connection: Connection, request: AssociateRequest) -> AssociateAccept:
    """States 5 and 6 of PS3.8 table 9-10."""
    connection.send([write_request(request)])
    connection.expect(connection.timeouts.acse)
    connection.need(wire.PDU_HEADER.size)
    kind, length = wire.PDU_HEADER.unpack_from(connection.buffer, connection.start)
    connection.start += wire.PDU_HEADER.size
    if kind == wire.ASSOCIATE_AC and length <= LARGEST_REQUEST:
        return read_accept(connection.read(length))
    if kind in (wire.ASSOCIATE_RJ, wire.ABORT) and length == 4:
        body = connection.read(length)
        if kind == wire.ABORT:
            raise abort_received(body)
        raise Aborted(rejection_words(body[1], body[2], body[3]))
    raise unexpected(kind, f"of {length} bytes in answer to an A-ASSOCIATE-RQ")


def _association(
    connection: Connection,
    request: AssociateRequest,
    accept: AssociateAccept,
    peer: tuple[str, int],
    names: tuple[str, ...] | None,
) -> Association:
    if 0 < accept.user.max_pdu < wire.SMALLEST_MAXIMUM:
        raise ProtocolError(f"a maximum PDU length of {accept.user.max_pdu} carries nothing")
    contexts, refused = _agreed(request, accept)
    association = Association(
        connection,
        request,
        contexts,
        requestor=True,
        peer_max_pdu=accept.user.max_pdu,
        max_pdu=request.max_pdu,
        peer=peer,
        window=_window(request.window, accept.user.window),
        tls_names=names,
        refused=refused,
        number=next(_numbers),
    )
    association.extended = accept.user.extended
    association.identity_response = accept.user.identity_response
    association.implementation_class = accept.user.implementation_class
    association.implementation_version = accept.user.implementation_version
    return association


def _agreed(request: AssociateRequest, accept: AssociateAccept) -> tuple[dict[int, Context], dict[int, int]]:
    """The contexts that were accepted, and the results of the others."""
    proposed = {each.id: each for each in request.contexts}
    strange = [number for number in accept.results if number not in proposed]
    if strange:
        raise ProtocolError(f"presentation context {strange[0]} was answered but not proposed")
    contexts: dict[int, Context] = {}
    refused = {number: accept.results.get(number, (2, ""))[0] or 2 for number in proposed}
    for number, (result, syntax) in accept.results.items():
        if result != ACCEPTANCE:
            continue
        if syntax not in proposed[number].transfer_syntaxes:
            raise ProtocolError(f"presentation context {number} was answered with a transfer syntax not proposed")
        del refused[number]
        name = proposed[number].abstract_syntax
        scu, scp = _roles(request.roles.get(name), accept.user.roles.get(name))
        contexts[number] = Context(number, name, syntax, scu, scp)
    return contexts, refused


def _roles(wanted: tuple[bool, bool] | None, given: tuple[bool, bool] | None) -> tuple[bool, bool]:
    """An unanswered role selection leaves the requestor the SCU (PS3.7 D.3.3.4)."""
    if wanted is None or given is None:
        return True, False
    return wanted[0] and given[0], wanted[1] and given[1]


def _window(asked: tuple[int, int] | None, given: tuple[int, int] | None) -> tuple[int, int]:
    """What was agreed is never more than was asked; without an answer it is one at a time (PS3.7 D.3.3.3)."""
    if asked is None or given is None:
        return 1, 1
    for ours, theirs in zip(asked, given, strict=True):
        if ours and (not theirs or theirs > ours):
            raise ProtocolError("an asynchronous operations window larger than the one proposed")
    return given
