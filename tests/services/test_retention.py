"""Retention: which rule decides, when, what keeps a study, and that only what may go goes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archive.dicom.rule import parse_rule
from archive.errors import Conflict
from archive.index import NewTask
from archive.index.retention import RETIRE, Bounds, Candidate
from archive.services.corrections import by
from archive.services.disposal import ACTOR
from archive.services.lifecycle import READY
from archive.services.retention import DAY, DELETE, PURGE, Looking, Need, Policy, Rule
from archive.services.rounds import Rounds, progress, task_for
from archive.services.schedule import Schedule
from archive.services.steadyclock import SteadyClock
from archive.workers.retention import DOUBTING
from tests import builders
from tests.services.retiring import OLD, Site, ct, moment


def candidate(**given: Any) -> Candidate:
    known: dict[str, Any] = {
        "id": 1, "uid": "1.2", "study_date": "20100301", "created": 0.0, "updated": 0.0, "arrivals": 0,
        "state": READY, "instances": 1, "size": 1, "facts": {"Modality": "US"},
    }  # fmt: skip
    return Candidate(**(known | given))


US = Rule("us", parse_rule("Modality = 'US'"), years=7)


@pytest.mark.parametrize(
    ("rule", "study", "due"),
    [
        (US, candidate(), moment("20170301")),
        (US, candidate(study_date="20120229"), moment("20190301")),
        (US, candidate(study_date="", created=moment("20150101")), moment("20220101")),
        (US, candidate(study_date="not one"), moment("19770101")),
        (US, candidate(updated=moment("20200101")), moment("20200131")),  # its last image came long after its date
        (Rule("all", None, years=1, seconds=DAY), candidate(), moment("20110302")),
        (Rule("all", None, seconds=30 * DAY, by_date=False), candidate(updated=moment("20200101")), moment("20200131")),
        (Rule("all", None, years=9000), candidate(), math.inf),
        (Rule("all", None, forever=True), candidate(), None),
        (Rule("ct", parse_rule("Modality = 'CT'"), years=1), candidate(), None),
    ],
)
def test_a_study_is_due_when_its_rule_says(rule: Rule, study: Candidate, due: float | None) -> None:
    assert Policy([rule], grace=30 * DAY).judge(study, time.time()).due == due


def test_the_first_rule_that_fits_decides() -> None:
    rules = [Rule("teaching", parse_rule("InstitutionName = 'School'"), forever=True), US, Rule("rest", None, years=1)]
    policy = Policy(rules)
    school = candidate(facts={"Modality": "US", "InstitutionName": "School"})
    assert policy.judge(school, 0.0).rule == "teaching"
    assert policy.judge(candidate(), 0.0).rule == "us"
    assert policy.judge(candidate(facts={"Modality": "MR"}), 0.0).rule == "rest"
    assert policy.keywords == {"InstitutionName", "Modality"}


@pytest.mark.parametrize(
    ("study", "words"),
    [
        (candidate(hold="hold 3"), "legal hold"),
        (candidate(arrivals=1, state="received"), "images may still come"),
        (candidate(arrivals=2), "images may still come"),
        (candidate(state=""), ""),
        (candidate(tasks=("deliver",)), "tasks are open for it: deliver"),
    ],
)
def test_what_holds_a_study_up_is_said(study: Candidate, words: str) -> None:
    verdict = Policy([US]).judge(study, moment("20300101"))
    assert verdict.is_due(moment("20300101"))
    assert words in " ".join(verdict.why)
    assert verdict.is_free(moment("20300101")) == (not words)


@pytest.fixture
def site(tmp_path: Path, index_url: str) -> Iterator[Site]:
    made = Site(tmp_path, index_url)
    yield made
    made.close()


def test_a_due_study_goes_with_its_files_and_the_reason_is_kept(site: Site) -> None:
    old, young = site.put(ct()), site.put(ct(StudyDate="20250301", PatientID="P2"))
    assert site.run(OLD) == ["deleted 1 instances by rule old: was to be kept until 2017-03-01"]
    assert site.studies() == {young}
    site.unlinking.all()
    assert site.files() == 1
    operation = site.corrections.operations(limit=1)[0]
    assert (operation.kind, operation.actor) == ("delete", ACTOR)
    assert operation.draft.arguments["of"] == old
    assert site.rows.due(limit=10) == []


def test_a_dry_run_says_the_same_and_deletes_nothing(site: Site) -> None:
    uid = site.put(ct())
    verdict = Looking(site.index, Policy([OLD]), lambda: site.now).one(uid)
    assert verdict is not None
    assert verdict.is_free(site.now)
    assert (verdict.rule, verdict.due, verdict.then) == ("old", moment("20260301"), DELETE)
    assert site.studies() == {uid}


def test_images_that_come_meanwhile_keep_the_study(site: Site) -> None:
    image = ct()
    uid = site.put(image)
    seen = site.index.deletion.seen(uid)
    site.put(builders.ct(StudyInstanceUID=uid, SeriesInstanceUID=image.SeriesInstanceUID, PatientID=image.PatientID))
    with pytest.raises(Conflict, match="images came"):
        site.deletion.delete(uid, by("retention", "old"), seen)
    assert site.studies() == {uid}
    assert site.files() == 2


def test_a_deletion_that_was_broken_off_goes_on_and_spares_what_came_since(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archive.index.deletion.CHUNK", 1)
    image = ct()
    uid = site.put(image)
    same = {"StudyInstanceUID": uid, "SeriesInstanceUID": image.SeriesInstanceUID, "PatientID": image.PatientID}
    for _ in range(3):
        site.put(ct(**same))
    seen = site.index.deletion.seen(uid)

    def arrives(count: int) -> None:
        """In the midst of it: an image comes, and the process ends."""
        site.put(ct(**same))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        site.deletion.delete(uid, by("retention", "old", "one"), seen, rest=arrives)
    assert site.files() == 5  # rows first
    site.deletion.delete(uid, by("retention", "old", "one"), seen, rest=lambda count: monkeypatch.undo())
    assert site.index.statistics().instances == 1
    site.unlinking.all()
    assert site.files() == 1
    assert [each.kind for each in site.corrections.operations()] == ["delete"]


def test_a_study_that_is_still_arriving_or_has_open_tasks_stays(site: Site) -> None:
    arriving = site.put(ct(), ready=False)
    assert site.run(OLD) == []
    assert "images may still come" in site.rows.due(limit=1)[0].why
    site.settle()
    site.index.add_tasks([NewTask("deliver", {"sop": "1"}, study_uid=arriving, lane="X")], site.now)
    site.now += 2 * DAY
    assert site.run(OLD) == []
    assert "deliver" in site.rows.due(limit=1)[0].why


def test_needs_are_asked_for_just_before(site: Site) -> None:
    image = ct()
    uid = site.put(image)
    rule = Rule("old", None, years=7, needs=(Need("commit", "ARCHIVE2"),))
    site.peer.silent = True
    assert site.run(rule) == ["not deleted: commit:ARCHIVE2: cannot be asked: no answer: ARCHIVE2"]
    site.peer.silent = False
    site.now += 2 * DAY
    assert site.run(rule)[-1] == "not deleted: commit:ARCHIVE2: 1 of 1 instances are not there"
    assert site.rows.due(limit=1)[0].why == "commit:ARCHIVE2: 1 of 1 instances are not there"
    assert site.studies() == {uid}
    site.peer.has.add(str(image.SOPInstanceUID))
    site.now += 2 * DAY
    assert site.run(rule)[-1].startswith("deleted 1 instances")


def test_what_the_queue_has_sent_is_not_asked_for_again(site: Site) -> None:
    image = ct()
    uid = site.put(image)
    came = site.index.queue.stored([str(image.SOPInstanceUID)])[str(image.SOPInstanceUID)][1]
    for number, at in enumerate((came - 1, came)):
        task = NewTask("deliver", {"sop": str(image.SOPInstanceUID), "at": at}, study_uid=uid, lane="ARCHIVE2")
        site.index.add_tasks([task], site.now)
        done = site.index.lease("deliver", "me", site.now, seconds=9)[0]
        site.index.finish(done.id, "me", site.now, reason="0000 (success)")
        reasons = site.run(Rule("old", None, years=7, needs=(Need("sent", "ARCHIVE2"),)))
        assert site.peer.asked == 1  # the first one was sent before this version came
        assert reasons[-1].startswith("not deleted" if number == 0 else "deleted 1")
        site.now += 2 * DAY


def test_no_more_go_on_one_day_than_was_said(site: Site) -> None:
    for number in range(5):
        site.put(ct(PatientID=f"P{number}"))
    for left in (3, 1, 0):
        site.run(OLD, per_day=2)
        assert len(site.studies()) == left
        site.now += DAY


def test_rules_wait_for_their_hours_and_space_does_not(site: Site) -> None:
    first, second = site.put(ct(PatientID="P1")), site.put(ct(PatientID="P2"))
    evening = Schedule([(range(7), 22 * 60, 23 * 60)])
    worker = site.worker(OLD, hours=evening)
    assert worker.step() == 22 * 3600  # it is midnight
    assert site.index.tasks(kind=RETIRE) == []
    verdict = Looking(site.index, Policy([OLD]), lambda: site.now).one(second)
    assert verdict is not None
    site.rows.note((), [task_for(verdict), task_for(verdict, purge="full")], site.now)
    for _ in range(3):
        worker.step()
    assert site.studies() == {first}
    assert worker.step() == 22 * 3600
    site.now += 22.5 * 3600
    site.run(OLD, hours=evening)
    assert site.studies() == set()


def test_a_clock_that_jumps_deletes_nothing_until_somebody_says_it_is_right(site: Site) -> None:
    uid = site.put(ct(StudyDate="20250101"))
    site.run(OLD)
    for jump in (20 * 366 * DAY, -3 * 366 * DAY):
        site.now += jump
        worker = site.worker(OLD)
        assert worker.step() == DOUBTING
        assert site.studies() == {uid}
        site.now -= jump
    site.now += 20 * 366 * DAY
    SteadyClock(site.index, lambda: site.now).believe()
    site.run(OLD)
    assert site.studies() == set()


def test_an_index_that_does_not_know_when_it_was_at_work_asks_its_images(site: Site) -> None:
    uid = site.put(ct(StudyDate="20250101"))
    site.now += 20 * 366 * DAY
    site.run(OLD)
    assert site.studies() == {uid}
    assert "days ahead" in SteadyClock(site.index, lambda: site.now).doubt()


def test_a_round_goes_on_where_it_was(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.services.rounds.SPAN", 2)
    for number in range(5):
        site.put(ct(PatientID=f"P{number}"))
    rounds = lambda: Rounds(site.index, Policy([OLD]), per_day=1000, clock=lambda: site.now)  # noqa: E731
    rounds().step()
    assert progress(site.index).after == 2
    rounds().step()
    rounds().step()
    found = progress(site.index)
    assert (found.due, found.ended) == (5, site.now)
    assert rounds().due(site.now) == site.now + DAY
    assert len(site.index.tasks(kind=RETIRE)) == 5


def test_purgeable_studies_stay_until_space_is_needed(site: Site) -> None:
    uid = site.put(ct())
    assert site.run(Rule("cache", None, years=1, then=PURGE)) == []
    assert site.rows.due(limit=9, free=True)[0].study_uid == uid
    assert site.studies() == {uid}


def test_earlier_versions_go_when_they_were_kept_for_long_enough(site: Site) -> None:
    image = ct()
    site.put(image, policy="version")
    image.PatientComments = "newer"
    site.now += DAY
    site.put(image, policy="version")
    site.now += DAY
    site.run(versions=2 * DAY)
    assert site.index.versions(str(image.SOPInstanceUID))
    site.now += 2 * DAY
    site.run(versions=2 * DAY)
    assert site.index.versions(str(image.SOPInstanceUID)) == []
    site.unlinking.all()
    assert site.files() == 1


def test_bounds_never_leave_out_what_is_due(site: Site) -> None:
    policy = Policy([Rule("a", None, years=1), Rule("b", None, seconds=5 * DAY, by_date=False)])
    assert policy.bounds(moment("20260301"))[0] >= "20250301"
    assert Policy([Rule("f", None, forever=True)]).bounds(site.now) == Bounds("", -1e18, -1e18)
