"""What refused objects say about the archive."""

from __future__ import annotations

import pytest

from archive import errors
from archive.services.alarms import BEGINS, OVER, Alarm
from archive.services.refusals import Refusals


def told(error: errors.ArchiveError) -> list[tuple[str, str, str]]:
    heard: list[Alarm] = []
    Refusals(heard.append).refused(error, "CT1")
    return [(each.on, each.level, each.state) for each in heard]


@pytest.mark.parametrize(
    ("error", "alarms"),
    [
        (errors.NotUnderstood("data set is empty"), [("store", "warning", "happened")]),
        (errors.Conflict("same SOP Instance UID"), [("store", "warning", "happened")]),
        (errors.TooLarge("instance is too large"), [("store", "error", "happened")]),
        (
            errors.OutOfResources("out of disk space", "/srv is below its reserve"),
            [("store", "error", "happened"), ("disk", "error", "begins")],
        ),
        (errors.StorageFailed("storage failed"), [("store", "error", "happened"), ("disk", "error", "begins")]),
        (errors.IndexUnavailable("no answer"), [("store", "error", "happened"), ("index", "error", "begins")]),
        (errors.NotAllowed("not allowed to store here"), []),
        (errors.Cancelled("cancelled"), []),
    ],
)
def test_each_refusal_is_told_by_whose_fault_it_is(
    error: errors.ArchiveError, alarms: list[tuple[str, str, str]]
) -> None:
    assert told(error) == alarms


def test_the_disk_is_well_again_when_an_object_was_stored_and_only_then() -> None:
    heard: list[Alarm] = []
    refusals = Refusals(heard.append)
    refusals.stored()
    assert heard == []
    refusals.refused(errors.StorageFailed("storage failed", "Input/output error"), "CT1")
    (begun,) = [each for each in heard if each.state == BEGINS]
    assert begun.why == "storage failed: Input/output error"
    heard.clear()
    refusals.stored()
    refusals.stored()
    assert [(each.on, each.about, each.state) for each in heard if each.on == begun.on] == [("disk", begun.about, OVER)]


def test_a_refusal_names_the_caller_and_the_reason_but_no_object() -> None:
    heard: list[Alarm] = []
    Refusals(heard.append).refused(errors.NotUnderstood("cannot be read", "1.2.3 of Smith^John"), "CT1")
    assert (heard[0].about, heard[0].why, heard[0].noun) == ("CT1", "cannot be read", "object")
