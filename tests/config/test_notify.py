"""The sections notify and smtp."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from archive.config import Complaints, Config, display, load
from archive.config.notify import NotifyRule, NotifyTo, Smtp
from archive.config.schema import key_of, options

SHIPPED = (Path(__file__).parents[2] / "config/archive.yaml").read_text(encoding="utf-8")


def loaded(folder: Path, text: str) -> Config:
    file = folder / "archive.yaml"
    file.write_text(text)
    return load(file, environ={"SECRET": "s3cret-value"})


def test_a_receiver_is_read_with_its_defaults(tmp_path: Path) -> None:
    (rule,) = loaded(tmp_path, "notify: [{name: pacs, to: {mail: pacs@hospital.example}}]").notify
    assert rule.to.mail == ("pacs@hospital.example",)
    assert (rule.limit, rule.gather, rule.level) == ((10, 3600.0), 60.0, "warning")


def test_arguments_of_a_command_may_repeat_and_a_text_is_split(tmp_path: Path) -> None:
    text = "notify: [{name: a, to: {command: [x, -v, -v]}}, {name: b, to: {command: \"x 'a b' $HOME\"}}]"
    assert [rule.to.command for rule in loaded(tmp_path, text).notify] == [("x", "-v", "-v"), ("x", "a b", "$HOME")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("notify: [{name: a, to: {}}]", "nobody is told"),
        ("notify: [{name: a, to: {mail: a@b, http: 'http://c'}}]", "mail and http at a time"),
        ("notify: [{name: a, to: {mail: a@b, token: x}}]", "a token without http"),
        ("notify: [{name: a, to: {mail: a@b}}, {name: a, to: {mail: c@d}}]", "name of an earlier one"),
        ("notify: [{name: a, to: {mail: 'Dr. A <a@b>'}}]", "not a mail address"),
        ("notify: [{name: a, to: {http: 'file:///etc/passwd'}}]", "not a URL"),
        ("notify: [{name: a, to: {mail: a@b}, limit: often}]", "not a number of messages"),
        ("notify: [{name: a, to: {mail: a@b}, on: [storm]}]", "not a known word"),
        ("smtp: {user: a}", "user and password belong together"),
    ],
)
def test_what_cannot_be_is_a_complaint(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Complaints, match=re.escape(said)):
        loaded(tmp_path, text)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    text = "notify: [{name: a, to: {http: 'http://c', token: '${SECRET}'}}]\nsmtp: {user: a, password: '${SECRET}'}"
    config = loaded(tmp_path, text)
    assert (config.notify[0].to.token, config.smtp.password) == ("s3cret-value", "s3cret-value")
    assert "s3cret" not in display(config)


def test_the_shipped_file_shows_every_option() -> None:
    start = SHIPPED.index("# notify:\n")
    lines = [line.removeprefix("# ") for line in SHIPPED[start : SHIPPED.index("\nsmtp:")].splitlines()]
    (rule,) = yaml.safe_load("\n".join(lines))["notify"]
    assert {"on" if key is True else key for key in rule} == {name for name, _ in options(NotifyRule)}  # YAML 1.1
    for name, _ in options(NotifyTo):
        assert re.search(rf"#.*\bto: .*\b{name}: ", SHIPPED), name
    smtp = SHIPPED[SHIPPED.index("\nsmtp:") : SHIPPED.index("\nlog:")]
    for name, metadata in options(Smtp):
        assert re.search(rf"^  (# )?{key_of(name)}: {metadata['default'] or ''}", smtp, re.M), name
