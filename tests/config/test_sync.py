"""The section sync: what it takes, and what it says when something is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from archive.app.routing import conditions, routing
from archive.config import Complaints, Config, load
from archive.config.pacing import Hours
from archive.config.sync import RECONCILE, Reconcile

PEERS = """peers:
  ARC2: {host: 10.0.0.1, port: 104, aliases: [OLD2]}
  ARC3: {host: 10.0.0.3}
"""
EVERY_DAY = (0, 1, 2, 3, 4, 5, 6)


def read(tmp_path: Path, sync: str, more: str = "") -> Config:
    file = tmp_path / "archive.yaml"
    file.write_text(f"{PEERS}sync: {sync}\n{more}\n")
    return load(file)


def test_a_sync_says_little_and_means_much(tmp_path: Path) -> None:
    (sync,) = read(tmp_path, "{name: second, peer: ARC2}").sync
    assert (sync.direction, sync.mends, sync.within, sync.pushes) == ("push", "push", 30 * 86400, True)
    assert sync.reconcile == Reconcile(hours=Hours(EVERY_DAY, 120, 121))
    (sync,) = read(tmp_path, "{name: second, peer: ARC2, direction: both, mend: report, within: 0}").sync
    assert (sync.mends, sync.within) == ("report", 0)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("off", Reconcile()),
        ("6h", Reconcile(every=21600)),
        ("sun 23:59", Reconcile(hours=Hours((6,), 1439, 1440))),
        ("mon-fri 22:00-06:00", Reconcile(hours=Hours((0, 1, 2, 3, 4), 1320, 360), ends=True)),
    ],
)
def test_times_of_comparing_are_read_and_shown(text: str, meant: Reconcile) -> None:
    assert RECONCILE.convert(text) == meant
    assert RECONCILE.convert(str(RECONCILE.show(meant))) == meant


@pytest.mark.parametrize(
    ("sync", "said"),
    [
        ("{name: a, peer: ARC9}", "sync.0.peer: ARC9 is no peer"),
        ("{name: a, peer: OLD2}", "OLD2 is no peer"),
        ("{name: a, peer: ARC3}", "peer ARC3 cannot be called"),
        ("{name: a, peer: ARC2, mend: pull}", "contradicts direction push; mend: push, mend: report or direction"),
        ("{name: a, peer: ARC2, reconcile: 5s}", "out of range"),
        ("{name: a, peer: ARC2, reconcile: '25:00'}", "not a span"),
        ("{name: a, peer: ARC2, match: 'Modalty = 1'}", "column 1: Modalty is no indexed attribute"),
        ("[{name: a, peer: ARC2}, {name: b, peer: ARC2}]", "sync a is with ARC2 already; one sync for each peer"),
        ("[{name: a, peer: ARC2}, {name: a, peer: ARC2}]", "sync.1.name = a: 'a' is taken already"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, sync: str, said: str) -> None:
    with pytest.raises(Complaints, match=re.escape(said)):
        read(tmp_path, sync)


def test_a_sync_agrees_with_the_routes_to_its_peer(tmp_path: Path) -> None:
    with pytest.raises(Complaints, match="sync.0.rate.*contradicts route a, which leads to ARC2 as well"):
        read(tmp_path, "{name: s, peer: ARC2, rate: 2MB/s}", "routes: {name: a, to: ARC2, rate: 1MB/s}")


def test_what_a_sync_pushes_is_a_route_that_never_leads_back(tmp_path: Path) -> None:
    config = read(tmp_path, "{name: s, peer: ARC2, match: \"Modality = 'CT'\", rate: 2MB/s, verify: query}")
    facts = {"Modality": "CT", "CallingAETitle": "CT1"}
    (decision,) = routing(config).decide("image", lambda keyword: facts.get(keyword, ""))
    assert (decision.route.name, decision.to) == ("sync s", ("ARC2",))
    for title in ("ARC2", "OLD2"):
        facts["CallingAETitle"] = title
        (decision,) = routing(config).decide("image", lambda keyword: facts.get(keyword, ""))
        assert (decision.to, decision.left_out) == ((), {"ARC2": "it came from there"})
    held = conditions(config, "ARC2")
    assert (held.rate, held.terms["sync s"].verify) == (2 << 20, True)


def test_a_sync_that_only_pulls_sends_nothing_by_itself(tmp_path: Path) -> None:
    assert not routing(read(tmp_path, "{name: s, peer: ARC2, direction: pull}")).has("image")
