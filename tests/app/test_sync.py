"""Syncs wired: each has a thread of its own."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import yaml

from archive.app.store import Archive
from archive.app.sync import synchronise
from archive.config import load
from archive.index.sync import SyncRows
from archive.services.comparing import Plan
from archive.services.sync import BY_HAND, task_of
from archive.workers.worker import Workers
from tests.dimse import archives
from tests.faults.daemon import wait_until

SILENT = [f"A{number}" for number in range(6)]
GOOD = "Z"  # its turn would be the last one


def test_peers_that_are_silent_hold_up_no_other(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with ExitStack() as stack:
        there = stack.enter_context(archives.serving(tmp_path / "there", [archives.peer("HERE")], title=GOOD))
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in SILENT]
        ports = dict(zip(SILENT, (server.getsockname()[1] for server in servers), strict=True)) | {GOOD: there.port}
        file = tmp_path / "archive.yaml"
        settings = {
            "ae": {"title": "HERE"}, "storage": {"path": "files", "reserve": 0}, "listeners": [{"port": 0}],
            "index": {"url": f"sqlite:///{tmp_path}/index.db"}, "timeouts": {"acse": "10m"},
            "peers": {name: {"host": "127.0.0.1", "port": port} for name, port in ports.items()},
            "sync": [{"name": name, "peer": name, "reconcile": "off"} for name in ports],
        }  # fmt: skip
        file.write_text(yaml.safe_dump(settings))
        config = load(file, insecure=True)
        archive = stack.enter_context(Archive(config))
        rows = SyncRows(archive.index.database)
        for name in ports:
            rows.begin(name, name, BY_HAND, asdict(Plan()), time.time(), tasks=[task_of(name)])
        workers = Workers(list(synchronise(archive, config)), archive.index.listen)
        workers.start()
        try:
            wait_until(lambda: rows.runs(GOOD, 1)[0].finished is not None, 60)
            assert [rows.runs(name, 1)[0].finished for name in SILENT] == [None] * len(SILENT)
        finally:
            for server in servers:
                server.close()  # ends their waiting
            workers.stop()
