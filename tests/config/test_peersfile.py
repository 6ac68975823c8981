"""Adding a peer changes nothing else in the file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from archive.config import Complaints, add_peer, load
from archive.config.peersfile import with_peer

ENTRY = {"host": "10.1.2.30", "port": 104, "allow": ["echo", "store"]}
LINE = "CT9: {host: 10.1.2.30, port: 104, allow: [echo, store]}"

# text before -> text after
CASES = {
    "an empty file": ("", f"peers:\n  {LINE}\n"),
    "only remarks": ("# nothing yet", f"# nothing yet\npeers:\n  {LINE}\n"),
    "no peers": ("ae: {title: A}\n# end\n", f"ae: {{title: A}}\n# end\npeers:\n  {LINE}\n"),
    "no line end": ("ae: {title: A}", f"ae: {{title: A}}\npeers:\n  {LINE}\n"),
    "document end": ("ae: {title: A}\n...\n", f"ae: {{title: A}}\npeers:\n  {LINE}\n...\n"),
    "empty braces": ("peers: {}   # none\nlog: {}\n", f"peers:   # none\n  {LINE}\nlog: {{}}\n"),
    "null": ("peers: ~\nlog: {}\n", f"peers:\n  {LINE}\nlog: {{}}\n"),
    "nothing after the colon": ("peers:\n  # CT1: {}\nlog: {}\n", f"peers:\n  {LINE}\n  # CT1: {{}}\nlog: {{}}\n"),
    "nothing at the end": ("peers:", f"peers:\n  {LINE}\n"),
    "one line each": (
        "peers:\n    A: {host: 10.0.0.1} # a\n    B: {host: 10.0.0.2} # b\n    # C\n\nlog: {}\n",
        f"peers:\n    A: {{host: 10.0.0.1}} # a\n    B: {{host: 10.0.0.2}} # b\n    {LINE}\n    # C\n\nlog: {{}}\n",
    ),
    "several lines each": (
        "peers:\n  A:\n    host:\n      - 10.0.0.1\n      - 10.0.0.2 # two\n\n# logging\nlog: {}\n",
        f"peers:\n  A:\n    host:\n      - 10.0.0.1\n      - 10.0.0.2 # two\n  {LINE}\n\n# logging\nlog: {{}}\n",
    ),
    "last without line end": ("peers:\n  A: {host: 10.0.0.1}", f"peers:\n  A: {{host: 10.0.0.1}}\n  {LINE}\n"),
    "inside braces": ("peers: {A: {host: 10.0.0.1}}\n", f"peers: {{A: {{host: 10.0.0.1}}, {LINE}}}\n"),
    "all inside braces": ("{ae: {title: A}}\n", f"{{ae: {{title: A}}, peers: {{{LINE}}}}}\n"),
    "empty inside braces": ("{peers: {}, log: {}}\n", f"{{peers: {{{LINE}}}, log: {{}}}}\n"),
    "other line ends": (
        "peers:\r\n  A: {host: 10.0.0.1}\r\nlog: {}\r\n",
        f"peers:\r\n  A: {{host: 10.0.0.1}}\r\n  {LINE}\r\nlog: {{}}\r\n",
    ),
    "an alias at the end": (
        "peers:\n  A: &a {host: 10.0.0.1}\n  B: {<<: *a}\nlog: {}\n",
        f"peers:\n  A: &a {{host: 10.0.0.1}}\n  B: {{<<: *a}}\n  {LINE}\nlog: {{}}\n",
    ),
    "letters beyond ASCII before": (
        "# Röntgen 日本 🩻\npeers:\n  A: {host: 10.0.0.1} # ü\n",
        f"# Röntgen 日本 🩻\npeers:\n  A: {{host: 10.0.0.1}} # ü\n  {LINE}\n",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_entry_is_added_and_nothing_else_changes(name: str) -> None:
    before, after = CASES[name]
    assert with_peer(before, "archive.yaml", "CT9", ENTRY) == after


def test_braces_over_several_lines_take_the_entry_after_the_last() -> None:
    before = "peers: {\n  A: {host: 10.0.0.1}, # a\n  B: {host: 10.0.0.2},\n}\n"
    after = with_peer(before, "archive.yaml", "CT9", ENTRY)
    assert after == before.replace("10.0.0.2},", f"10.0.0.2}}, {LINE},")


def test_the_shipped_file_takes_a_peer(tmp_path: Path) -> None:
    shipped = (Path(__file__).parents[2] / "config/archive.yaml").read_text()
    file = tmp_path / "archive.yaml"
    file.write_text(shipped)
    add_peer(file, "CT9", ENTRY)
    assert file.read_text() == shipped.replace("peers: {}\n", f"peers:\n  {LINE}\n")
    assert load(file).peers["CT9"].port == 104


def test_a_name_that_yaml_would_misread_is_quoted(tmp_path: Path) -> None:
    file = tmp_path / "archive.yaml"
    file.touch()
    for title in ("0123", "NO", "A: B", "#1", "'x'"):
        add_peer(file, title, {"host": "::1"})
    assert list(load(file).peers) == ["0123", "NO", "A: B", "#1", "'x'"]


def test_mode_is_kept_and_nothing_is_left_behind(tmp_path: Path) -> None:
    file = tmp_path / "real.yaml"
    file.write_text("log: {}\n")
    file.chmod(0o640)
    link = tmp_path / "archive.yaml"
    link.symlink_to(file)
    add_peer(link, "CT9", ENTRY)
    assert link.is_symlink()
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.yaml", "real.yaml"]
    assert "CT9" in file.read_text()


@pytest.mark.parametrize(
    ("text", "title", "entry", "said"),
    [
        ("log: {}\npeers:\n  CT9: {host: 10.0.0.1}\n", "CT9", ENTRY, ":3: peers.CT9: is configured already"),
        ("peers:\n  A: {aet: CT9, host: 10.0.0.1}\n", "CT9", ENTRY, "'CT9' is an AE title of A already"),
        ("log: {}\n", "ABCDEFGHIJKLMNOPQ", ENTRY, "an AE title of 17 characters"),
        ("log: {}\n", "CT9", {"host": "10.0.0.300"}, "not an address"),
        ("log: {}\n", "CT9", {"hsot": "10.0.0.1"}, "did you mean host?"),
        ("log: {level: loud}\n", "CT9", ENTRY, ":1: log.level = loud"),
        ("log: [\n", "CT9", ENTRY, "not YAML"),
        (
            "log: {}\n? peers\n",
            "CT9",
            ENTRY,
            ":2: peers: the form of this file leaves no place for a new entry; add by hand",
        ),
        ("peers:\t{A: {host: 10.0.0.1}}\n", "CT9", ENTRY, "add by hand"),
        ("peers: 5\n", "CT9", ENTRY, ":1: peers: not a mapping; add by hand: CT9: {host"),
    ],
)
def test_what_would_not_load_leaves_the_file_as_it_is(
    tmp_path: Path, text: str, title: str, entry: dict[str, object], said: str
) -> None:
    file = tmp_path / "archive.yaml"
    file.write_text(text)
    with pytest.raises(Complaints) as caught:
        add_peer(file, title, entry)
    assert said in str(caught.value)
    assert file.read_text() == text
    assert list(tmp_path.iterdir()) == [file]
