"""The sections routes and queue: what they take, and what they say when something is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from archive.config import Config, display, load
from archive.config.pacing import Hours

ROOT = Path(__file__).parents[2]
PEERS = """peers:
  WS1: {host: 10.0.0.1, port: 104, aliases: [OLD1]}
  WS2: {host: 10.0.0.0/8, port: 104}
  WS3: {host: 10.0.0.3}
"""


def read(tmp_path: Path, routes: str) -> Config:
    file = tmp_path / "archive.yaml"
    file.write_text(f"{PEERS}{routes}\n")
    return load(file)


def test_a_route_says_little_and_means_much(tmp_path: Path) -> None:
    (route,) = read(tmp_path, "routes: {name: a, to: WS1}").routes
    assert (route.to, route.trigger, route.window, route.give_up) == (("WS1",), "image", (), 7 * 86400)
    assert route.delays == (30, 60, 120, 240, 480, 600, 600, 600, 600, 600)
    (route,) = read(tmp_path, "routes: [{name: a, to: ['folder:out', WS1], retry: '2x1m,1x10m', rate: 2MB/s}]").routes
    assert (route.to, route.delays, route.rate) == ((f"folder:{tmp_path}/out", "WS1"), (60, 60, 600), 2 << 20)


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("22:00-06:00", Hours((0, 1, 2, 3, 4, 5, 6), 1320, 360)),
        ("mon-fri 08:00-24:00", Hours((0, 1, 2, 3, 4), 480, 1440)),
        ("sat,sun 00:00-24:00", Hours((5, 6), 0, 1440)),
        ("fri-mon 10:30-11:00", Hours((0, 4, 5, 6), 630, 660)),
    ],
)
def test_windows_are_read(tmp_path: Path, text: str, hours: Hours) -> None:
    (route,) = read(tmp_path, f"routes: [{{name: a, to: WS1, window: '{text}'}}]").routes
    assert route.window == (hours,)


@pytest.mark.parametrize(
    ("routes", "said"),
    [
        ("[{name: a, to: WS9}]", "routes.0.to = WS9: WS9 is no peer; peers that can be sent to: WS1"),
        ("[{name: a, to: OLD1}]", "OLD1 is no peer"),
        ("[{name: a, to: WS2}]", "peer WS2 cannot be called; give it a port and a host that is no network"),
        ("[{name: a, to: WS3}]", "peer WS3 cannot be called"),
        ("[{name: a, to: []}]", "routes.0.to: an empty list"),
        ("[{name: a, to: WS1, match: 'Modalty = 1'}]", "column 1: Modalty is no indexed attribute"),
        ("[{name: a, to: WS1}, {name: a, to: WS1}]", "routes.1.name = a: 'a' is the name of an earlier one"),
        ("[{name: a, to: WS1, rate: 1MB/s}, {name: b, to: WS1, rate: 2MB/s}]", "contradicts route a, which leads"),
        ("[{name: a, to: WS1, deidentify: basic}]", "pseudonyms need a secret key of at least 32 characters"),
        ("[{name: a, to: WS1, deidentify: basic}]\ndeidentify: {key: short}", "deidentify = basic: pseudonyms need"),
        ("[{name: a, to: WS1, deidentify: shift-dates}]", "options without the profile; basic and they would do"),
        ("[{name: a, to: WS1, deidentify: [basic, shift-dates, retain-dates]}]", "dates cannot stay and move"),
        ("[{name: a, to: WS1, burned_in: send}]", "means nothing without deidentify"),
        ("[{name: a, to: WS1, coerce: [b]}]\ncoerce: [{on: send, upper: PatientID}]", "'b' is no such rule"),
        ("[]\ncoerce: [{on: route, upper: PatientID}]", "coerce.0: a rule for routes that none can name"),
        ("[{name: a, to: WS1, retry: 3 times}]", "not a list such as 2x1m,3x10m"),
        ("[{name: a, to: WS1, retry: 2000x1s}]", "1001 tries"),
        ("[{name: a, to: WS1, retry: {maxx: 3}}]", "unknown option; did you mean max?"),
        ("[{name: a, to: WS1, window: 6-22}]", "not a span such as 22:00-06:00"),
        ("[{name: a, to: WS1, window: '25:00-26:00'}]", "not a span of the day"),
        ("[{name: a, to: WS1, rate: 3B/s}]", "too slow"),
        ("[{name: a, to: WS1, layout: '{SOPInstanceUID}/../x'}]", "leads out of the folder"),
        ("[{name: a, to: WS1, layout: '{PatientID}.dcm'}]", "images would overwrite each other"),
        ("[{name: a, to: WS1, verify: faith}]", "one of none, query, commitment would do"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_what_would_do(tmp_path: Path, routes: str, said: str) -> None:
    with pytest.raises(Exception, match=re.escape(said)):
        read(tmp_path, f"routes: {routes}")


@pytest.mark.parametrize("page", ["routing", "deidentify"])
def test_the_examples_of_the_manual_load(tmp_path: Path, page: str) -> None:
    manual = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    for example in re.findall(r"^```yaml\n(.*?)^```", manual, re.M | re.S):
        file = tmp_path / "archive.yaml"
        file.write_text(example)
        assert load(file, resolve=lambda name: ["10.9.9.9"], environ={"DEIDENTIFY_KEY": "k" * 64}).routes


def test_a_route_deidentifies_with_a_key_that_is_shown_to_nobody(tmp_path: Path) -> None:
    file = tmp_path / "archive.yaml"
    routes = "routes: [{name: a, to: WS1, deidentify: [basic, shift-dates]}]"
    file.write_text(f"{PEERS}{routes}\ndeidentify: {{key: '${{TRIAL_KEY}}'}}\n")
    config = load(file, environ={"TRIAL_KEY": "k" * 32})
    assert config.routes[0].deidentify == ("basic", "shift-dates") and config.deidentify.key == "k" * 32
    assert config.routes[0].burned_in == "refuse" and "k" * 32 not in display(config)
