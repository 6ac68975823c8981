"""The commands for jobs, without a daemon."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from archive.cli import main
from archive.index import open_index
from archive.index.jobs import CARRY
from tests.faults.daemon import free_port


def test_the_same_command_again_carries_on_a_job_that_has_lost_its_task(
    tmp_path: Path, index_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "archive.yaml"
    settings.write_text(
        f"peers: {{FAR: {{host: 127.0.0.1, port: 104}}}}\nstorage: {{path: {tmp_path}/files}}\n"
        f"index: {{url: '{index_url}'}}\nlisteners: [{{port: {free_port()}}}]\n"
    )
    command = ["migrate", "--from", "FAR", "--json", "--config", str(settings)]
    assert main(command) == 0
    with closing(open_index(index_url)) as index:
        index.delete_tasks([task.id for task in index.tasks(kind=CARRY)])
        capsys.readouterr()
        assert main(command) == 0
        assert json.loads(capsys.readouterr().out)["known"]
        (task,) = index.tasks(kind=CARRY)
        assert task.payload["job"] == 1
