"""The ledger: what was appended is there after anything, what was altered is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from archive.errors import Damaged, OutOfResources
from archive.storage.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path / "corrections", largest=300)
    with made.alone():
        for number in range(12):
            made.append({"name": f"Jürgen\ud800 {number}"})
    return made


def names(ledger: Ledger, after: int = 0) -> list[str]:
    return [entry["name"].split()[1] for entry in ledger.entries(after)]


def test_nothing_is_written_before_the_first_entry(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "corrections")
    assert (ledger.last(), list(ledger.entries())) == (0, [])
    assert not (tmp_path / "corrections").exists()


def test_entries_come_back_in_order_from_several_files(ledger: Ledger) -> None:
    assert len(list(ledger.folder.glob("*.jsonl"))) > 2
    assert names(ledger) == [str(number) for number in range(12)]
    assert [names(ledger, after) for after in (0, 5, 11, 12)] == [
        [str(number) for number in range(after, 12)] for after in (0, 5, 11, 12)
    ]


def test_another_process_goes_on_where_the_first_one_ended(ledger: Ledger) -> None:
    other = Ledger(ledger.folder, largest=300)
    assert other.append({"name": "x 12"}) == 13
    assert ledger.append({"name": "x 13"}) == 14
    assert names(other, 11) == ["11", "12", "13"]


def test_two_never_append_at_once(ledger: Ledger) -> None:
    with ledger.alone(), pytest.raises(OutOfResources), Ledger(ledger.folder).alone():
        pass
    with Ledger(ledger.folder).alone():
        pass


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_line_at_the_end_counts_as_not_written(ledger: Ledger, cut: int) -> None:
    last = sorted(ledger.folder.glob("*.jsonl"))[-1]
    last.write_bytes(last.read_bytes()[:-cut])
    again = Ledger(ledger.folder, largest=300)
    assert again.last() == 11
    assert names(again) == [str(number) for number in range(11)]
    assert again.append({"name": "x new"}) == 12
    assert names(Ledger(ledger.folder)) == [*(str(number) for number in range(11)), "new"]


def test_a_file_with_nothing_but_a_torn_line_is_made_anew(ledger: Ledger) -> None:
    (ledger.folder / "000013.jsonl").write_bytes(b'{"number":13')
    assert Ledger(ledger.folder).last() == 12
    assert ledger.append({"name": "x new"}) == 13
    assert names(ledger, 11) == ["11", "new"]


def test_every_altered_byte_and_every_missing_line_is_noticed(ledger: Ledger) -> None:
    first = sorted(ledger.folder.glob("*.jsonl"))[0]
    whole = first.read_bytes()
    for place in range(0, len(whole), 7):
        first.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Damaged):
            names(Ledger(ledger.folder))
    lines = whole.splitlines(keepends=True)
    first.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(Damaged):
        names(Ledger(ledger.folder))
    first.write_bytes(b"".join(lines[1:]))
    with pytest.raises(Damaged):
        names(Ledger(ledger.folder))
