"""What a configuration says about changing objects, as the services take it.

Rules that hold here: where nothing can change there is nothing to ask, so that a site without rules pays for none.
"""

from __future__ import annotations

from collections.abc import Callable

from archive import __version__
from archive.config import Config
from archive.dicom.provenance import System
from archive.services.changing import Changing
from archive.services.outgoing import Outgoing, Source
from archive.services.sources import Sources


def sources(config: Config) -> Sources:
    peers = [(title, peer) for peer in config.peers.values() for title in (peer.aet, *peer.aliases)]
    return Sources(
        {title: peer.default_charset for title, peer in peers if peer.default_charset},
        {title: peer.default_issuer for title, peer in peers if peer.default_issuer},
    )


def changing(config: Config, clock: Callable[[], float]) -> Changing:
    said = config.provenance
    system = System(said.creator, said.title, __version__, said.serial_number) if said.record else None
    return Changing(config.ae.title, clock, [each.rule() for each in config.coerce], system, said.record)


def outgoing(config: Config, clock: Callable[[], float], *others: Source) -> Outgoing | None:
    """``others`` are sources of changes besides coercion, asked before it. None when there is nothing to ask."""
    found = changing(config, clock)
    if not others and not found.on_send:
        return None
    sent = found.sent if found.system is not None else None
    coerced = [found.coerced] if any(rule.on != "receive" for rule in found.rules) else []
    return Outgoing([*others, *coerced], system=config.ae.title, clock=clock, sent=sent)
