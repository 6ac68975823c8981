#!/usr/bin/env python3
"""Compare automatic routing: images sent to the archive, or to Orthanc, until a storescp has got all of them.

Orthanc routes by its Lua script OnStoredInstance with SendToModality, the archive by a route. Several storescu send a
study each at the same time; the two systems take turns, round by round, on empty folders. Figures are images a second
from the first image sent to the last one stored, and to the last one received.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 300.0
LUA = """
function OnStoredInstance(instanceId, tags, metadata)
   SendToModality(instanceId, 'destination')
end
"""


def own_interpreter() -> None:
    """Run under the virtual environment, which has pydicom; scripts/serve or scripts/test makes it."""
    wanted = Path(os.environ.get("ARCHIVE_VENV", ROOT / ".venv")) / "bin" / "python"
    if Path(sys.prefix).resolve() != wanted.parent.parent.resolve():
        if not wanted.exists():
            sys.exit("bench_routing: no virtual environment yet; scripts/test makes it and installs DCMTK")
        os.execv(wanted, [str(wanted), *sys.argv])


class Receiver:
    """A storescp that counts by its folder."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        folder.mkdir()
        self.folder, self.port = folder, processes.free_port()
        command = ["storescp", "--fork", "-od", str(folder), str(self.port)]
        self.process = processes.Process(command, folder.parent / "storescp.log", environment)

    def count(self) -> int:
        return sum(1 for entry in os.scandir(self.folder) if entry.is_file())

    def wait_for(self, count: int) -> None:
        end = time.monotonic() + PATIENCE
        while self.count() < count:
            if time.monotonic() > end:
                raise RuntimeError(f"{self.count()} of {count} images arrived")
            time.sleep(0.01)

    def stop(self) -> None:
        self.process.stop()


def with_routes(system: System) -> System:
    """The system of the benchmark, told to send on everything that comes."""
    def prepare(place: Place) -> list[str | Path]:
        command = system.prepare(place)
        file = Path(command[-1])
        settings = json.loads(file.read_text())
        if system.name == "orthanc":
            script = place.folder / "route.lua"
            script.write_text(LUA)
            settings["LuaScripts"] = [str(script)]
        else:
            settings["routes"] = [{"name": "all", "to": [DESTINATION]}]
        file.write_text(json.dumps(settings))
        return command

    return replace(system, prepare=prepare)


def send(system: System, port: int, images: Path, environment: dict[str, str]) -> None:
    command = ["storescu", "-R", "-xe", "-aec", system.ae, "127.0.0.1", str(port), "+sd", str(images)]
    subprocess.run(command, env=environment, check=True, timeout=PATIENCE, capture_output=True)


def run(
    system: System, folder: Path, images: list[Path], count: int, environment: dict[str, str]
) -> tuple[float, float]:
    """Images a second until all were stored, and until all were received."""
    folder.mkdir()
    receiver = Receiver(folder / "received", environment)
    place = Place(folder / system.name, processes.free_port(), receiver.port)
    server = Running(with_routes(system), place, environment)
    try:
        begun = time.perf_counter()
        with ThreadPoolExecutor(len(images)) as senders:
            list(senders.map(lambda one: send(system, place.port, one, environment), images))
        stored = time.perf_counter() - begun
        receiver.wait_for(count)
        routed = time.perf_counter() - begun
        return count / stored, count / routed
    finally:
        server.stop()
        receiver.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--senders", type=int, default=4, help="associations that send at the same time (default 4)")
    parser.add_argument("--rounds", type=int, default=3, help="how often (default 3)")
    parser.add_argument("--kind", choices=("CT", "MR"), default="MR", help="512x512 or 128x128 of 16 bit (MR)")
    parser.add_argument("--shipped", action="store_true", help="with Nagle's algorithm, as Debian ships DCMTK")
    options = parser.parse_args()
    environment = processes.variant_environment(not options.shipped)
    systems = [system for system in SYSTEMS if system.name in ("archive", "orthanc") and system.found()]
    figures: dict[str, list[tuple[float, float]]] = {system.name: [] for system in systems}
    with tempfile.TemporaryDirectory(prefix="bench-routing-", dir=os.environ.get("TMPDIR", ROOT / "var")) as name:
        folder = Path(name)
        share, kind = options.images // options.senders, getattr(data, options.kind)
        images = [data.build(folder / f"images{n}", kind, share).folder for n in range(options.senders)]
        for number in range(options.rounds):
            for system in systems if number % 2 == 0 else systems[::-1]:
                count = share * options.senders
                found = run(system, folder / f"{system.name}-{number}", images, count, environment)
                figures[system.name].append(found)
                print(f"{system.title}: stored {found[0]:.0f}/s, routed {found[1]:.0f}/s", file=sys.stderr)
    medians = {name: list(map(statistics.median, zip(*rows, strict=True))) for name, rows in figures.items()}
    print("| images a second | " + " | ".join(system.title for system in systems) + " |")
    print("| --- |" + " ---: |" * len(systems))
    for line, title in enumerate(("stored, while routing", "stored and routed")):
        print(f"| {title} | " + " | ".join(f"{medians[system.name][line]:.0f}" for system in systems) + " |")
    return 0


if __name__ == "__main__":
    own_interpreter()
    import json
    from dataclasses import replace

    sys.path.insert(0, str(ROOT / "scripts"))
    from benchlib import data, processes
    from benchlib.systems import DESTINATION, SYSTEMS, Place, Running, System

    sys.exit(main())
