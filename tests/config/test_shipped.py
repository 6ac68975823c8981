"""The shipped file and the manual name every option with its default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from archive.config import Config, Listener, Peer, load
from archive.config.document import Node, parse
from archive.config.hl7 import Hl7, Hl7Receiver, PeerWorklist
from archive.config.keeping import CompressRule
from archive.config.kinds import Later, Reading
from archive.config.notify import NotifyRule, NotifyTo, Smtp
from archive.config.pacing import Retry
from archive.config.prefetch import PrefetchRule, Priors
from archive.config.receiving import Coerce
from archive.config.reference import default_text, sections, tables
from archive.config.retention import RetentionRule
from archive.config.routing import Route
from archive.config.schema import default_value, key_of, options
from archive.config.sections import TLS, PeerTLS
from archive.config.sync import Sync
from archive.config.telling import TellRule
from archive.config.volumes import VolumeEntry

ROOT = Path(__file__).parents[2]
SHIPPED = (ROOT / "config/archive.yaml").read_text(encoding="utf-8")

# What the shipped file says otherwise, for the reasons it gives.
DIFFERENT = {"unknown_peers.loopback", "storage.path", "index.url"}
IN_REMARKS = (
    TLS, Peer, PeerTLS, Route, Retry, Hl7, PeerWorklist, Coerce, CompressRule, TellRule, Hl7Receiver, Sync,
    RetentionRule, VolumeEntry, NotifyRule, NotifyTo, Smtp, PrefetchRule, Priors,
)  # fmt: skip


def test_the_shipped_file_runs_like_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load(Path("config/archive.yaml"), environ={})
    assert config == load(None)
    assert config.warnings == ()


def node(key: str) -> Node:
    found = parse(SHIPPED, "archive.yaml", [])
    for name in key.replace("[]", ".0").split("."):
        content = found.content
        assert isinstance(content, dict | list), key
        found = content[int(name)] if isinstance(content, list) else content[name]
    return found


def test_the_shipped_file_names_every_option_with_its_default() -> None:
    for key, section in sections(Config, ""):
        for name, metadata in options(section) if section not in IN_REMARKS else ():
            path = f"{key}.{name}".strip(".")
            if isinstance(metadata["kind"], Later):
                assert re.search(rf"^# .*\b{re.escape(path)}\b", SHIPPED, re.M), path
            elif path not in DIFFERENT and metadata["default"] not in ({}, [{}]):
                reading = Reading(Path(), [], {})
                assert metadata["kind"].read(node(path), reading) == default_value(metadata, reading), path


def remarks(start: str, indent: str) -> Any:
    """What the file holds under remarks, from a line to the first line that is none."""
    lines = SHIPPED[SHIPPED.index(start) :].splitlines()
    stop = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return yaml.safe_load("\n".join(line.removeprefix(indent) for line in lines[:stop]))


def test_the_remarks_show_every_option_of_a_tls_listener() -> None:
    (listener,) = remarks("# - host: 0.0.0.0", "# ")
    assert set(listener) == {name for name, _ in options(Listener)}
    assert set(listener["tls"]) == {name for name, _ in options(TLS)}
    assert (listener["tls"]["profile"], listener["tls"]["client_cert"]) == ("bcp195", "require")


def test_the_remarks_show_every_option_of_a_peer(tmp_path: Path) -> None:
    shown = remarks("# peers:", "# ")["peers"]["EVERYTHING"]
    known = dict(options(Peer))
    assert set(shown) == {name for name, metadata in known.items() if not isinstance(metadata["kind"], Later)}
    for name, metadata in known.items():
        if isinstance(metadata["default"], str) and name != "tls":
            assert str(shown[name]).replace("False", "off") == metadata["default"], name
    for name, _ in options(PeerTLS):
        assert re.search(rf"tls: off .*\b{name}: ", SHIPPED), name


def test_the_remarks_show_every_option_of_a_route() -> None:
    _, shown = remarks("# routes:", "# ")["routes"]
    assert set(shown) == {name for name, _ in options(Route)}
    for name, metadata in options(Route):
        if isinstance(metadata["default"], str) and metadata["default"]:
            assert str(shown[name]).replace("False", "off") == metadata["default"], name
    for name, metadata in options(Retry):
        assert str(shown["retry"][name]) == metadata["default"], name


def test_the_remarks_show_every_option_of_a_sync() -> None:
    _, shown = remarks("# sync:\n", "# ")["sync"]
    assert set(shown) == {name for name, _ in options(Sync)}
    for name in ("direction", "reconcile", "within", "compare", "gone", "deleted", "give_up", "verify"):
        assert str(shown[name]) == dict(options(Sync))[name]["default"], name


def test_the_remarks_show_every_option_of_a_rule_of_coercion() -> None:
    (shown,) = remarks("# coerce:\n", "# ")["coerce"]
    assert {str(name).replace("True", "on") for name in shown} == {key_of(name) for name, _ in options(Coerce)}


def test_the_remarks_show_every_option_of_hl7() -> None:
    shown = remarks("# hl7:\n", "# ")["hl7"]
    assert set(shown) == {name for name, _ in options(Hl7)}
    for name, metadata in options(Hl7):
        if isinstance(metadata["default"], str):
            assert str(shown[name]).replace("False", "off") == metadata["default"], name


def test_the_remarks_show_every_option_of_a_receiver_of_messages() -> None:
    (shown,) = remarks("# hl7:\n", "# ")["hl7"]["forward"]
    assert set(shown) == {name for name, _ in options(Hl7Receiver)}


def test_the_remarks_show_every_option_of_a_peers_worklist() -> None:
    shown = remarks("# peers:", "# ")["peers"]["EVERYTHING"]["worklist"]
    assert set(shown) == {name for name, _ in options(PeerWorklist)}


def test_the_remarks_show_every_quirk() -> None:
    from archive.config.words import QUIRKS, VERBS

    for word in [*QUIRKS, *VERBS]:
        assert re.search(rf"^# .*\b{word}\b", SHIPPED, re.M), word


def test_the_manual_holds_the_tables_of_the_options() -> None:
    manual = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert manual.endswith(tables()), "print them again with: python -m archive.config.reference"


def test_the_examples_of_the_manual_load(tmp_path: Path) -> None:
    manual = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```yaml\n(.*?)^```", manual, re.M | re.S)
    assert examples
    for example in examples:
        file = tmp_path / "archive.yaml"
        file.write_text(re.sub(r"\btls: \{cert.*?\}", "tls: off", example))
        assert load(file, resolve=lambda name: ["10.9.9.9"]).peers


def test_every_default_can_be_written_as_it_is_printed() -> None:
    for _, section in sections(Config, ""):
        for name, metadata in options(section):
            text = default_text(metadata)
            if text and text != "[{}]":
                reading = Reading(Path(), [], {})
                written = parse(f"x: {text}\n", "", reading.complaints).content
                assert isinstance(written, dict)
                assert metadata["kind"].read(written["x"], reading) == default_value(metadata, reading), name
