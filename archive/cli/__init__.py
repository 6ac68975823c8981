"""The ``archive`` command: parse, call, print.

Rules that hold here: exit status 0 is done, 1 failed, 2 wrong usage or configuration; answers go to
standard output and nothing else does; with ``--json`` an answer is one JSON document; each command is a
module with ``add(commands)`` and a function that returns the exit status.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

# numpy comes with pydicom; the idle threads of its linear algebra would stand in every process, and before a fork.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from archive import __version__
from archive.cli import (
    check,
    coerce,
    commit,
    corrections,
    delete,
    doctor,
    export,
    fsck,
    importing,
    index,
    jobs,
    notify,
    orders,
    peers,
    prefetch,
    quarantine,
    queue,
    reindex,
    remote,
    retention,
    routes,
    sending,
    serve,
    status,
    studies,
    sync,
)
from archive.config import Complaints
from archive.errors import ArchiveError, ConfigurationError

DONE, FAILED, WRONG_USAGE = 0, 1, 2
COMMANDS = (
    serve, check, status, doctor, peers, remote, importing, jobs, coerce, quarantine, studies, index, orders, queue,
    routes, prefetch, sending, export, fsck, reindex, commit, corrections, delete, retention, sync, notify,
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="archive", description="A DICOM network archive.")
    top.add_argument("--version", action="version", version=f"archive {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; every expected failure is one clear line on standard error."""
    options = parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except Complaints as complaints:
        print(complaints, file=sys.stderr)
        return WRONG_USAGE
    except ConfigurationError as error:
        print(f"archive: {error}", file=sys.stderr)
        return WRONG_USAGE
    except ArchiveError as error:
        print(f"archive: {error.reason}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # The reader of our output went away (`archive find | head`).
        sys.stderr.close()
        return FAILED
    except KeyboardInterrupt:
        return 130
