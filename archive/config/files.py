"""Finding and loading the configuration.

Rules that hold here: without a file the archive serves this machine alone; a file is read whole or refused with
everything that is wrong with it; nothing is kept between two loads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .checks import complaints as contradictions
from .checks import exposed, key_files, once
from .complaints import Complaint, Complaints, Where
from .document import expand, parse
from .kinds import Reading
from .overrides import apply
from .reader import Resolver, dns, read
from .sections import Config
from .warnings import warnings
from .words import VERBS

VARIABLE = "ARCHIVE_CONFIG"
PLACES = (Path("config/archive.yaml"), Path("/etc/archive/archive.yaml"))

# What holds without a file: every verb, from this machine only.
NO_FILE = f"listeners: [{{host: 127.0.0.1, port: 11112}}]\nunknown_peers: {{loopback: [{', '.join(VERBS)}]}}\n"


def find_file(chosen: str | Path | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file to use: the chosen one, that of $ARCHIVE_CONFIG, the first that exists of PLACES; else None."""
    named = chosen or environ.get(VARIABLE)
    if named:
        return Path(named)
    return next((place for place in PLACES if place.exists()), None)


def load(
    path: Path | None,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    insecure: bool = False,
    resolve: Resolver = dns,
    clock: Callable[[], float] = time.time,
) -> Config:
    """The configuration of a file, or the built-in one for None; raises Complaints with all that is wrong.

    Unless ``insecure``, listening beyond this machine with neither peers nor TLS is refused.
    """
    text = NO_FILE if path is None else read_text(path)
    return load_text(text, path, overrides=overrides, environ=environ, insecure=insecure, resolve=resolve, clock=clock)


def load_text(
    text: str,
    path: Path | None,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    insecure: bool = False,
    resolve: Resolver = dns,
    clock: Callable[[], float] = time.time,
) -> Config:
    """As load, from the text that the file has or shall have."""
    reading = Reading(Path.cwd() if path is None else path.absolute().parent, [], {})
    root = parse(text, "built-in configuration" if path is None else str(path), reading.complaints)
    apply(overrides, root, reading.complaints)
    expand(root, environ, reading.complaints)
    reading.nodes[""] = root
    config = replace(read(root, reading, resolve), file=path)
    return _checked(config, reading, insecure, clock())


def _checked(config: Config, reading: Reading, insecure: bool, now: float) -> Config:
    """The configuration with its warnings, peers by AE title; raises all complaints."""
    unfit, doubtful = key_files(config, reading, now)
    found = once([*reading.complaints, *contradictions(config, reading), *unfit])
    # Whether anybody is configured can only be told from a file that was understood.
    open_door = list(exposed(config, reading)) if not found else []
    if found or (open_door and not insecure):
        raise Complaints(found or open_door)
    return replace(
        config,
        peers={peer.aet: peer for peer in config.peers.values()},
        places={key: node.where for key, node in reading.nodes.items()},
        warnings=tuple(once([*warnings(config, reading), *doubtful, *open_door])),
    )


def read_text(path: Path) -> str:
    """The text of a file, line ends as they are; raises Complaints."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        problem, remedy = f"cannot be read: {error.strerror}", "name a readable file with --config or $ARCHIVE_CONFIG"
    except UnicodeDecodeError as error:
        problem, remedy = f"not UTF-8 at byte {error.start}", "save it as UTF-8"
    raise Complaints([Complaint(Where(str(path)), "", "", problem, remedy)])
