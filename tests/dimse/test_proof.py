"""Proofs: a second archive finds, or commits, what it has, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from archive.dimse.destinations import Destination
from archive.dimse.proof import ByCommitment, ByQuery
from archive.errors import ArchiveError, Refused
from tests.dimse.archives import Archive, fill, instance, parts, peer, serving
from tests.endtoend.dcmtk import storescp
from tests.faults.daemon import EVERYTHING, Daemon


def test_a_query_tells_what_a_peer_does_not_have(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    with parts(here) as mine, serving(there, [peer("ARCHIVE")]) as other:
        fill(mine, *(instance(number, series=series) for series in (1, 2) for number in (1, 2)))
        fill(other, instance(1), instance(1, series=2))
        missing = ByQuery(other.destination("ARCHIVE")).missing(stored(mine))
        assert sorted(uid.rpartition(".7.")[2] for uid in missing) == ["1.1.2", "1.2.2"]


def stored(archive: Archive) -> list:  # type: ignore[type-arg]
    return [each.instance for each in archive.index.queue.described(())]


def test_a_commitment_tells_what_a_peer_does_not_promise(tmp_path: Path) -> None:
    allow = {"allow": [*EVERYTHING, "commit"], "host": "127.0.0.1", "quirks": ["commit_same_association"]}
    with Daemon(tmp_path / "there", {"peers": {"SENDER": allow}}) as there, parts(tmp_path) as mine:
        fill(mine, instance(1), instance(2))
        called = Destination("ARCHIVE", "127.0.0.1", there.port, "SENDER")
        assert ByCommitment(called, mine.index, patience=20).missing([]) == set()
        uids = {each.sop_instance_uid for each in stored(mine)}
        assert ByCommitment(called, mine.index, patience=20).missing(stored(mine)) == uids


def test_a_peer_without_the_service_proves_nothing(tmp_path: Path) -> None:
    with storescp(tmp_path / "received") as port, parts(tmp_path) as mine:
        fill(mine, instance(1))
        called = Destination("ARCHIVE", "127.0.0.1", port, "SENDER")
        with pytest.raises(ArchiveError):
            ByQuery(called).missing(stored(mine))
        with pytest.raises(Refused):
            ByCommitment(called, mine.index).missing(stored(mine))
