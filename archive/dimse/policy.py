"""Who may associate and on what terms: the access decision, as the association engine wants it.

Rules that hold here: one object per configuration, prepared once; a reload makes a new one, and
associations that run keep the grant the old one gave them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from archive.dimse.access import Access, Asking, Denied, Grant
from archive.dimse.negotiation import (
    WINDOW,
    Accepted,
    AssociateRequest,
    Choice,
    Rejected,
    Table,
    first_proposed,
    prefer_lossless,
    preferring,
)

if TYPE_CHECKING:
    from archive.config import Peer


NoteCaller = Callable[[str, str, str, str], None]
"""Called with calling AE title, address, called AE title and the reason of every refusal."""


class AccessPolicy:
    """Answers for one configuration."""

    def __init__(
        self,
        access: Access,
        table: Table,
        *,
        note_caller: NoteCaller = lambda *_: None,
        admit: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._access = access
        self._table = table
        self._note_caller = note_caller
        self._admit = admit

    def admit(self, address: str) -> bool:
        """Whether a connection from this address is worth an association."""
        return self._admit(address)

    def negotiate(
        self, request: AssociateRequest, address: str, tls_names: tuple[str, ...] | None
    ) -> Accepted | Rejected:
        asking = Asking(request.calling, request.called, address, request.abstract_syntaxes, tls_names)
        decision = self._access.decide(asking)
        if isinstance(decision, Denied):
            return self._rejected(asking, decision)
        return self._accepted(decision)

    def _rejected(self, asking: Asking, denied: Denied) -> Rejected:
        self._note_caller(asking.calling.strip(), asking.address, asking.called.strip(), denied.words)
        return Rejected.of(denied.why.code, denied.words)

    def _accepted(self, grant: Grant) -> Accepted:
        peer = grant.peer
        return Accepted(
            self._table,
            choice=choice_of(peer),
            permits=lambda abstract_syntax, as_scp: grant.permits_class(abstract_syntax, as_scp=as_scp),
            aet=grant.aet,
            known=peer is not None,
            grant=grant,
            window=0 if peer is not None and "no_async" in peer.quirks else WINDOW,
            terms=(peer.aet if peer is not None else None, grant.allow),
        )


def choice_of(peer: Peer | None) -> Choice:
    """The peer's ``accept_syntaxes`` as a choice among what it proposes."""
    wanted = peer.accept_syntaxes if peer is not None else "first-proposed"
    if wanted == "first-proposed":
        return first_proposed
    return prefer_lossless if isinstance(wanted, str) else preferring(*wanted)
