"""The ``archive`` command: parse, call, print.

Rules that hold here: exit status 0 is done, 1 failed, 2 wrong usage or configuration; answers go to
standard output and nothing else does; with ``--json`` an answer is one JSON document; each command is a
module with ``add(commands)`` and a function that returns the exit status.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

# numpy comes with pydicom; the idle threads of its linear algebra would stand in every process, and before a fork.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from archive import __version__
from archive.cli.commands import COMMANDS
from archive.errors import ArchiveError, ConfigurationError

DONE, FAILED, WRONG_USAGE = 0, 1, 2


def parser(wanted: str = "") -> argparse.ArgumentParser:
    """All commands by their names, and the wanted one with what it takes."""
    top = argparse.ArgumentParser(prog="archive", description="A DICOM network archive.")
    top.add_argument("--version", action="version", version=f"archive {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    whole = COMMANDS[wanted].module if wanted in COMMANDS else ""
    for name, (module, text) in COMMANDS.items():
        if module != whole:
            commands.add_parser(name, help=text)
        elif name not in commands.choices:
            importlib.import_module(f"archive.cli.{module}").add(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; every expected failure is one clear line on standard error."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parser(next((word for word in given if not word.startswith("-")), "")).parse_args(given)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except ConfigurationError as error:
        from archive.config import Complaints  # ponderous, and seldom asked for

        print(error if isinstance(error, Complaints) else f"archive: {error}", file=sys.stderr)
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
