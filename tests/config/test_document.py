"""The form of the file: YAML, its traps, the environment, and what was set on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from archive.config import Complaints, Config, document, load

Configured = Callable[..., Config]
Complained = Callable[..., list[str]]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~\n", "{}\n", "\ufeffae: {title: ARCHIVE}\n"])
def test_an_empty_file_means_the_defaults(configured: Configured, text: str) -> None:
    assert configured(text).ae.title == "ARCHIVE"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ae: {title: [\n", "2: not YAML"),
        ("ae:\n\ttitle: X\n", "indent with spaces, not tabs"),
        ("storage: {reserve: ${R}}\n", 'write "${NAME}" in quotes'),
        ("- a\n- b\n", "1: not a mapping"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("ae: {title: A\x07B}\n", "not YAML"),
        ("? [a, b]\n: c\n", "1: a key is not a name"),
        ("ae: {title: A}\nlog: {}\nae: {title: B}\n", "3: ae: given twice, first on line 1"),
        ("peers:\n  CT1: {host: 10.0.0.1}\n  CT1: {host: 10.0.0.2}\n", "3: peers.CT1: given twice, first on line 2"),
        ("a: &a [*a]\n", "nested too deeply"),
    ],
)
def test_what_is_not_yaml_is_said_with_its_line(complaints: Complained, text: str, said: str) -> None:
    assert any(said in complaint for complaint in complaints(text)), complaints(text)


def test_aliases_that_multiply_are_refused(complaints: Complained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_NODES", 10_000)  # each takes the same time
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    assert any("too deeply or too large" in complaint for complaint in complaints("\n".join(lines)))


def test_a_file_that_cannot_be_read_is_a_complaint(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"ae: {title: M\xfcller}\n")
    for path, said in [
        (tmp_path / "none.yaml", "No such file"),
        (tmp_path, "Is a directory"),
        (latin, "not UTF-8 at byte"),
    ]:
        with pytest.raises(Complaints, match=said) as caught:
            load(path)
        assert str(path) in str(caught.value)


def test_an_ae_title_is_the_text_as_written(configured: Configured) -> None:
    config = configured(
        "ae: {title: 0123}\npeers:\n  NO: {host: 10.0.0.1}\n  12:30: {host: 10.0.0.2, aliases: [on, 1e3]}\n"
    )
    assert (config.ae.title, *config.peers) == ("0123", "NO", "12:30")
    assert config.peers["12:30"].aliases == ("on", "1e3")


def test_entries_can_share_what_is_alike(configured: Configured) -> None:
    config = configured("peers:\n  A: &a {host: 10.0.0.1, port: 104, allow: store}\n  B: {<<: *a, host: 10.0.0.2}\n")
    assert (config.peers["B"].host, config.peers["B"].port, config.peers["B"].allow) == (("10.0.0.2",), 104, ("store",))
    assert config.peers["B"].aet == "B"


def test_a_variable_is_replaced_inside_a_value(configured: Configured) -> None:
    text = 'ae: {title: "${SITE}_${ROLE:-MAIN}"}\nstorage: {path: "/$${x}/${N:-}"}\n'
    config = configured(text, SITE="NORTH")
    assert (config.ae.title, str(config.storage.path)) == ("NORTH_MAIN", "/${x}")


def test_a_variable_adds_no_structure(configured: Configured, complaints: Complained) -> None:
    assert "a mapping" not in complaints('ae: {title: "${T}"}\n', T="{x: y, z: long enough}")[0]
    assert configured('ae: {title: "${T}"}\n', T="a: b #c").ae.title == "a: b #c"


def test_a_missing_variable_is_one_complaint(complaints: Complained) -> None:
    assert complaints('\nstorage: {reserve: "${RESERVE}"}\n') == [
        "2: storage.reserve = ${RESERVE}: the environment has no 'RESERVE'; set RESERVE or write ${RESERVE:-default}"
    ]


def test_a_value_from_the_environment_is_not_shown(complaints: Complained) -> None:
    assert "hunter2" not in "".join(complaints('index: {url: "${URL}"}\n', URL="mysql://user:hunter2@host/db"))


def test_a_password_is_not_shown(complaints: Complained) -> None:
    (said,) = complaints('index: {url: "mysql://user:hun/ter@2@host/db"}\n')
    assert "hun" not in said
    assert "mysql://user:***@host/db" in said


def test_set_overrides_the_file(configured: Configured) -> None:
    text = 'listeners: [{port: 1}, {port: 2}]\nstorage: {reserve: "${UNSET}"}\npeers: {A.B: {host: 10.0.0.1}}\n'
    overrides = ["listeners.0.port=104", "listeners.2.port=4", "storage.reserve=2GB", "limits.per_ae=7"]
    config = configured(text, *overrides, 'peers."A.B".port=105', "peers.CT1={host: 10.0.0.2, allow: [echo, store]}")
    assert [listener.port for listener in config.listeners] == [104, 2, 4]
    assert (config.storage.reserve, config.limits.per_ae) == (2**31, 7)
    assert (config.peers["A.B"].port, config.peers["CT1"].allow) == (105, ("echo", "store"))


def test_set_without_a_file_starts_from_the_built_in_listener() -> None:
    config = load(None, overrides=["listeners.0.port=0", "listeners.1.port=2762"])
    assert [(listener.host, listener.port) for listener in config.listeners] == [("127.0.0.1", 0), ("127.0.0.1", 2762)]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("storage.reserve", "--set: storage.reserve: not of the form key.path=value"),
        ("=5", "not of the form"),
        ("a..b=5", "not of the form"),
        ("listeners.5.port=1", "listeners is a list of 1, '5' is none of them; a number from 0 to 1 would do"),
        ("listeners.x=1", "'x' is none of them"),
        ("ae.title.x=1", "ae.title holds a single value"),
        ("ae.title=[", "the value is not YAML"),
        ("ae.tittle=X", "--set: ae.tittle = X: unknown option; did you mean title?"),
        ("storage.reserve=abc", "--set: storage.reserve = abc: not a size"),
        ("nothing.at.all=1", "--set: nothing: unknown option"),
    ],
)
def test_a_wrong_override_is_named(complaints: Complained, override: str, said: str) -> None:
    assert said in complaints("ae: {title: A}\nlisteners: [{port: 1}]\n", override)[0]
