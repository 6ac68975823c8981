"""A peer that is fetched from: it has what it is told to have, and misbehaves as told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from archive.errors import ArchiveError
from archive.index import Index
from archive.services.comparing import TheirStudy
from archive.services.jobs import Answers
from tests.index.made import CT, arrival


@dataclass
class Peer:
    """``studies``: study -> series -> instances; what is asked of it is noted in ``asked``."""

    index: Index
    studies: dict[str, dict[str, list[str]]]
    dates: dict[str, str] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)  # series -> what it says it has, where that is something else
    shown: int = 1_000_000  # instances of a series that it lists
    cannot: set[str] = field(default_factory=set)  # instances that it never sends
    gone: ArchiveError | None = None  # instead of an association
    silent: ArchiveError | None = None  # instead of answers
    words: str = ""
    asked: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    expected: list[Mapping[str, str] | None] = field(default_factory=list)
    limit: int = 500
    most: int = 1_000_000  # answers, of which it says nothing
    questions: list[dict[str, str]] = field(default_factory=list)
    during: Callable[[], None] = lambda: None  # a retrieval

    # -- as a Source --------------------------------------------------------------------------------

    @contextmanager
    def listing(self) -> Iterator[Peer]:
        if self.gone:
            raise self.gone
        yield self

    def series(self, study_uid: str) -> dict[str, tuple[str, int | None]]:
        if self.silent:
            raise self.silent
        listed = self.studies.get(study_uid, {})
        return {uid: ("CT", self.counted.get(uid, len(instances))) for uid, instances in listed.items()}

    def images(self, study_uid: str, series_uid: str) -> dict[str, str]:
        return dict.fromkeys(self.studies[study_uid][series_uid][: self.shown], CT)

    def bring(
        self, study_uid: str, series_uid: str, uids: Collection[str], expected: Mapping[str, str] | None
    ) -> str:
        self.asked.append((study_uid, series_uid, tuple(uids)))
        self.expected.append(expected)
        self.during()
        for series, instances in self.studies[study_uid].items():
            for uid in instances:
                if series_uid in ("", series) and (not uids or uid in uids) and uid not in self.cannot:
                    self.index.add([arrival(study_uid, series, uid, digest=uid.encode().ljust(32))])
        return self.words

    def stop(self) -> None:
        """Nothing is under way while a test looks."""


@dataclass
class Catalogue:
    """The same peer, asked for studies."""

    peer: Peer
    limit: int = 500
    heedless: bool = False  # whether it ignores the keys of series

    def studies(self, keys: Mapping[str, str]) -> Answers:
        peer = self.peer
        peer.questions.append(dict(keys))
        if peer.gone:
            raise peer.gone
        found = [uid for uid in sorted(peer.studies) if self._fits(uid, keys)]
        found = found[: min(self.limit, peer.most)]
        answers = [
            TheirStudy(
                uid, peer.dates.get(uid, ""), len(peer.studies[uid]), sum(map(len, peer.studies[uid].values())),
                {"StudyDate": peer.dates.get(uid, ""), "PatientID": peer.patients.get(uid, "P1")},
            )
            for uid in found
        ]  # fmt: skip
        return Answers(answers, len(found) >= self.limit)

    def _fits(self, uid: str, keys: Mapping[str, str]) -> bool:
        asked, patient = keys.get("StudyDate", ""), keys.get("PatientID", "*")
        first, mark, last = asked.partition("-")
        found = self.peer.dates.get(uid, "")
        dated = not asked or (found and (first or "0") <= found <= ((last if mark else first) or "9"))
        known = self.peer.patients.get(uid, "P1")
        return bool(dated and (known.startswith(patient[:-1]) if patient.endswith("*") else known == patient))

    def series(
        self, study_uids: Sequence[str], keys: Mapping[str, str]
    ) -> Iterator[tuple[str, Mapping[str, Mapping[str, str]]]]:
        """The last part of their UIDs is their number."""
        for uid in study_uids:
            listed = {series: {"SeriesNumber": series.rpartition(".")[2]} for series in self.peer.studies[uid]}
            wanted = keys["SeriesNumber"]
            yield uid, {series: each for series, each in listed.items() if self.heedless or wanted in each.values()}
