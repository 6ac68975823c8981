"""`archive peers`: who may do what, who knocked in vain, and how a stranger becomes a peer."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archive.cli.common import Commands, command, configuration, show, show_json, warn, when
from archive.config import Config, Peer, add_peer
from archive.errors import ConfigurationError
from archive.index import open_index

PEERS = {"aet": "AE title", "host": "host", "port": "port", "tls": "tls", "allow": "may"}
STRANGERS = {
    "aet": "AE title",
    "address": "address",
    "called": "called",
    "times": "tries",
    "last": "last",
    "reason": "reason",
}
USUAL = "echo,store"


def add(commands: Commands) -> None:
    made = command(commands, "peers", run)
    made.add_argument("action", nargs="?", choices=("list", "add", "promote"), default="list")
    made.add_argument("aet", nargs="?", metavar="AET", help="the peer's AE title")
    made.add_argument("--host", help="its address, network or name; for promote the address it called from")
    made.add_argument("--port", type=int, help="where it listens, if it does")
    made.add_argument("--allow", default=USUAL, help=f"what it may do, with commas ({USUAL})")


def run(options: argparse.Namespace) -> int:
    config = configuration(options)
    if options.action == "list":
        return _list(options, config)
    if not options.aet:
        warn(f"peers {options.action} needs an AE title")
        return 2
    host = options.host or (_address(config, options.aet) if options.action == "promote" else None)
    if not host:
        warn(
            "peers add needs --host" if options.action == "add" else f"{options.aet} has not called; see archive peers"
        )
        return 2
    return _add(options, config, host)


def _list(options: argparse.Namespace, config: Config) -> int:
    peers = [_peer(peer) for peer in config.peers.values()]
    strangers = [_stranger(options, caller) for caller in open_index(config.index.url).callers()]
    if options.json:
        show_json({"peers": peers, "unknown": strangers})
        return 0
    show(options, PEERS, peers)
    if strangers:
        print("\nrefused callers (archive peers promote AET makes one a peer):")
        show(options, STRANGERS, strangers)
    return 0


def _peer(peer: Peer) -> Mapping[str, Any]:
    return {
        "aet": peer.aet,
        "host": ", ".join(peer.host),
        "port": peer.port,
        "tls": "on" if peer.tls else "off",
        "allow": ", ".join(peer.allow),
    }


def _stranger(options: argparse.Namespace, caller: Any) -> Mapping[str, Any]:
    last = caller.last if options.json else when(caller.last)
    return {key: getattr(caller, key) for key in STRANGERS} | {"last": last}


def _address(config: Config, aet: str) -> str | None:
    """Where a refused caller with this title called from last."""
    found = [caller for caller in open_index(config.index.url).callers() if caller.aet == aet]
    return max(found, key=lambda caller: caller.last).address if found else None


def _add(options: argparse.Namespace, config: Config, host: str) -> int:
    if config.file is None:
        raise ConfigurationError("there is no configuration file to add a peer to; name one with --config")
    entry: dict[str, object] = {"host": host}
    if options.port:
        entry["port"] = options.port
    entry["allow"] = [verb.strip() for verb in options.allow.split(",") if verb.strip()]
    add_peer(Path(config.file), options.aet, entry)
    index = open_index(config.index.url)
    index.forget_caller(options.aet, host)
    print(f"{options.aet} is a peer now, in {config.file}; send the daemon SIGHUP (systemctl reload archive)")
    return 0
