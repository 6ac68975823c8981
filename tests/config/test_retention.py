"""Retention rules as the file says them, and what is complained about."""

from __future__ import annotations

from pathlib import Path

import pytest

from archive.config import Complaints, load
from archive.config.retention import Keep, Need, show_keep

PEERS = "peers: {ARCHIVE2: {host: 127.0.0.1, port: 11113}, MUTE: {host: 127.0.0.1}}\n"


def written(folder: Path, text: str) -> Path:
    file = folder / "archive.yaml"
    file.write_text(PEERS + text)
    return file


def test_a_rule_is_read_as_it_is_written(tmp_path: Path) -> None:
    text = """retention:
  - {name: us, match: "Modality = 'US'", keep: 7y, then: delete, needs: ["commit:ARCHIVE2"], base: study date}
  - {name: rest, keep: forever}
deletion: {window: "22:00-06:00", max_per_day: 50, versions: 90d}
storage: {watermarks: {warn: 70%, purge: off, refuse: 95}}
"""
    config = load(written(tmp_path, text))
    first, second = config.retention
    assert (first.keep, first.needs, first.base) == (Keep(7), (Need("commit", "ARCHIVE2"),), "study date")
    assert second.keep.forever
    assert config.deletion.versions == 90 * 86400
    assert (config.storage.watermarks.warn, config.storage.watermarks.purge) == (70, 0)


@pytest.mark.parametrize(
    ("text", "keep"),
    [("7y", Keep(7)), ("10y6w", Keep(10, 6 * 604800)), ("90d", Keep(0, 90 * 86400)), ("0s", Keep()),
     ("forever", Keep(forever=True)), ("1 year", Keep(1))],
)  # fmt: skip
def test_how_long_is_years_and_more(tmp_path: Path, text: str, keep: Keep) -> None:
    rule = load(written(tmp_path, f"retention: [{{name: a, keep: {text}}}]")).retention[0]
    assert rule.keep == keep
    again = load(written(tmp_path, f"retention: [{{name: a, keep: {show_keep(keep)}}}]")).retention[0]
    assert again.keep == keep


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("retention: [{name: a}]", "keep is missing"),
        ("retention: [{name: a, keep: soon}]", "retention.0.keep"),
        ("retention: [{name: a, keep: 999y}]", "out of range"),
        ("retention: [{name: a, keep: 1y}, {name: a, keep: 2y}]", "name of an earlier one"),
        ("retention: [{name: a, keep: 1y, needs: [\"copy:ARCHIVE2\"]}]", "not something that can be needed"),
        ("retention: [{name: a, keep: 1y, needs: [\"sent:NOBODY\"]}]", "NOBODY is no peer"),
        ("retention: [{name: a, keep: 1y, needs: [\"sent:MUTE\"]}]", "cannot be called"),
        ("retention: [{name: a, keep: 1y, match: \"SliceLocation = '1'\"}]", "SliceLocation is not of a study"),
        ("retention: [{name: a, keep: 1y, match: \"CallingAETitle = 'CT1'\"}]", "CallingAETitle is not of a study"),
        ("storage: {watermarks: {warn: 90, purge: 80, purge_to: 70}}", "80 is not above warn 90"),
        ("storage: {watermarks: {purge: 80}}", "purge_to 85 is not below purge 80"),
    ],
)
def test_what_cannot_be_meant_is_a_complaint(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(Complaints, match=complaint):
        load(written(tmp_path, text))
