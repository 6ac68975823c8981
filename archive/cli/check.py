"""`archive check-config`: would this configuration serve?"""

from __future__ import annotations

import argparse

from archive.cli.common import Commands, command, show_json, warn
from archive.config import Complaints, display, find_file, load, ports_in_use


def add(commands: Commands) -> None:
    made = command(commands, "check-config", check)
    made.add_argument("--show", action="store_true", help="print the whole configuration as it is understood")
    made.add_argument("--insecure", action="store_true", help="as for serve")
    made.add_argument("--running", action="store_true", help="the daemon is running: do not try its ports")


def check(options: argparse.Namespace) -> int:
    path = find_file(options.config)
    complaints: list[str] = []
    warnings: list[str] = []
    try:
        config = load(path, overrides=options.set, insecure=options.insecure)
        warnings = [str(warning) for warning in config.warnings]
        if not options.running:
            complaints = [str(complaint) for complaint in ports_in_use(config)]
    except Complaints as found:
        complaints = [str(complaint) for complaint in found.complaints]
    if options.json:
        show_json({"file": path, "complaints": complaints, "warnings": warnings})
        return 2 if complaints else 0
    for line in [*complaints, *(f"warning: {text}" for text in warnings)]:
        warn(line)
    if complaints:
        return 2
    print(display(config) if options.show else f"{path or 'built-in configuration'}: good")
    return 0
