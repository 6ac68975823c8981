"""Fifty modalities at once, DCMTK's storescu each: all that they were promised is there, and nothing else is left."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from archive.dicom.part10 import file_meta
from tests.endtoend.dcmtk import SECONDS
from tests.faults.checker import check
from tests.faults.daemon import Daemon
from tests.faults.objects import Instance, instance

CROWD = 50
ROUNDS = 2
EXPLICIT = "1.2.840.10008.1.2.1"
SIZES = (2_000, 34_000, 300_000)


def write(folder: Path, one: Instance) -> None:
    (folder / f"{one.uid}.dcm").write_bytes(file_meta(one.sop_class, one.uid, EXPLICIT) + one.data)


def sent(archive: Daemon, folder: Path, number: int) -> subprocess.Popen[bytes]:
    """A storescu under way; more than one caller has the same AE title, as fifty cannot be told apart by ten."""
    who = ("-aet", f"MODALITY{number % 10}", "-aec", "ARCHIVE", "127.0.0.1", str(archive.port))
    return subprocess.Popen(
        ["storescu", "-xe", *who, "+sd", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def test_fifty_storescu_at_once_all_keep_what_was_acknowledged(tmp_path: Path) -> None:
    made: list[Instance] = []
    peer = {"host": "127.0.0.1", "port": 104, "allow": ["echo", "store"]}
    peers = {f"MODALITY{number}": peer for number in range(10)}
    with Daemon(tmp_path / "archive", {"processes": 2, "peers": peers}) as archive:
        base = archive.usage()
        for round_ in range(ROUNDS):
            folders = [tmp_path / f"{round_}-{number}" for number in range(CROWD)]
            for folder in folders:
                folder.mkdir()
                study = instance().uid
                for size in SIZES:
                    made.append(instance(study=study, size=size))
                    write(folder, made[-1])
            clients = [sent(archive, folder, number) for number, folder in enumerate(folders)]
            end = time.monotonic() + SECONDS
            for client in clients:
                _, words = client.communicate(timeout=max(0.1, end - time.monotonic()))
                assert client.returncode == 0, words.decode(errors="replace")
        lines = archive.log().splitlines()
        served = [sum(f" {pid} [MODALITY" in line for line in lines) for pid in archive.acceptors()]
        assert min(served) > CROWD * ROUNDS // 4, served  # each process had its share
        check(archive, made)
        assert archive.usage().processes == base.processes
        assert archive.stop() == 0
