"""The sections studies and commitment."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from archive.config import Config
from archive.config.studies import schedule, show_schedule

Configured = Callable[..., Config]
Complained = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("text", "pauses", "shown"),
    [
        ("1m,5m,30m,2h,6h,24h*2", (60, 300, 1800, 7200, 21600, 86400, 86400), "60s,300s,30m,2h,6h,1d*2"),
        ("10 , 1m30s * 3", (10, 90, 90, 90), "10s,90s*3"),
    ],
)
def test_a_schedule_is_a_list_of_pauses(text: str, pauses: tuple[float, ...], shown: str) -> None:
    assert schedule(text) == pauses
    assert show_schedule(pauses) == shown and schedule(shown) == pauses


@pytest.mark.parametrize("text", ["", "1m,,5m", "0s", "31d", "1m*", "1m*0", "1m*x", "1m*999,1m*2", "soon"])
def test_what_is_no_schedule_is_complained_about(complaints: Complained, text: str) -> None:
    (said,) = complaints(f"commitment: {{retry: '{text or ','}'}}")
    assert "commitment.retry" in said


def test_the_release_of_an_association_counts_only_when_it_is_asked_for(configured: Configured) -> None:
    assert configured("studies: {}").studies.on_association_close is None
    assert configured("studies: {on_association_close: off}").studies.on_association_close is None
    assert configured("studies: {on_association_close: 0s, ready_after: 5m}").studies.on_association_close == 0.0


def test_a_peer_takes_its_reports_in_one_way(complaints: Complained, configured: Configured) -> None:
    peer = "peers: {A: {host: 10.0.0.1, allow: [commit], quirks: [%s]}}"
    (said,) = complaints(peer % "commit_both, commit_same_association")
    assert "peers.A.quirks" in said and "contradicts" in said
    warned = [str(each) for each in configured(peer % "commit_same_association").warnings]
    assert not any("without a port" in each for each in warned)
