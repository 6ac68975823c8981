"""Where alarms come from: tasks that failed, damage, certificates."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from archive.app.alarming import FAILED, Certificates, PassingOn, damaged, failed
from archive.config import load
from archive.config.notify import EVENTS
from archive.index import Index, NewTask, Settled, State
from archive.services import alarms
from archive.services.alarms import Alarm
from archive.services.causes import DAMAGE, Event


def test_the_configuration_and_the_archive_know_the_same_events() -> None:
    assert tuple(sorted(EVENTS)) == tuple(sorted(alarms.EVENTS))
    assert {on for on, _, _ in FAILED.values()} <= set(EVENTS)


def test_tasks_that_fail_for_good_are_told_with_their_number_and_no_others(index: Index) -> None:
    told: list[Alarm] = []
    index.queue.failed = failed(told.append)
    kinds = [("deliver", "WS_RAD")] * 3 + [("deliver", "WS2"), ("compress", "1.2.3")]
    index.add_tasks([NewTask(kind, {}, lane=lane) for kind, lane in kinds], 1.0)
    leased = [*index.lease("deliver", "me", 2.0, seconds=60, limit=9), *index.lease("compress", "me", 2.0, seconds=60)]
    by_lane = {lane: [task for task in leased if task.lane == lane] for lane in ("WS_RAD", "WS2", "1.2.3")}
    index.queue.settle(
        "me", 3.0,
        [
            *(Settled(task.id, State.FAILED, "A700") for task in by_lane["WS_RAD"][:2]),
            Settled(by_lane["WS_RAD"][2].id, State.DONE, "0000"),
            Settled(by_lane["WS2"][0].id, State.WAITING, "later", 9.0),
        ],
    )  # fmt: skip
    assert told == [Alarm("route", "WS_RAD", "failed for WS_RAD", "A700", noun="image", count=2)]
    told.clear()
    assert not index.fail(by_lane["1.2.3"][0].id, "somebody else", 3.0, "no codec")
    assert index.fail(by_lane["1.2.3"][0].id, "me", 3.0, "no codec")
    assert told == [Alarm("task", "compress", "could not be compressed", "no codec", noun="image")]
    told.clear()
    assert index.queue.expire("deliver", "WS2", 100.0, 101.0, "not reached") == 1
    assert [(each.about, each.why, each.count) for each in told] == [("WS2", "not reached", 1)]


def test_damage_is_an_alarm_that_its_transaction_commits(index: Index) -> None:
    event = Event(DAMAGE, lambda keyword: "", 1.0, sop_instance_uid="1.2.3")
    index.add_tasks(list(damaged(event)) * 2, 1.0)
    told: list[Alarm] = []
    tasks = index.lease("notify", "me", 2.0, seconds=60, limit=9)
    PassingOn(index, told.append)("", tasks, "me")
    assert [(each.on, each.noun) for each in told] == [("damage", "stored file")] * 2
    assert index.tasks(kind="notify") == []


@pytest.mark.parametrize(
    ("after", "said"),
    [(0, ("over", "is good")), (40, ("begins", "expires on")), (90, ("begins", "expired on"))],
)
def test_certificates_are_told_of_before_they_expire(tmp_path: Path, after: int, said: tuple[str, str]) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "60",
         "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.pem"],
        cwd=tmp_path, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (tmp_path / "server.key").chmod(0o600)
    file = tmp_path / "archive.yaml"
    tls = "tls: {cert: server.pem, key: server.key, client_cert: ignore}"
    file.write_text(f"listeners: [{{port: 2762, {tls}}}, {{port: 2763, {tls}}}]\nindex: {{url: sqlite:///i.db}}\n")
    told: list[Alarm] = []
    when = time.time() + after * 86400
    assert Certificates(load(file), told.append, lambda: when).step() == 86400.0
    assert [(each.state, said[1] in each.text) for each in told] == [(said[0], True)]
