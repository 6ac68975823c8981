"""Errors become statuses, and statuses words."""

from __future__ import annotations

import pytest

from archive import errors
from archive.dimse import statuses
from archive.dimse.statuses import Service, answer_for
from archive.errors import ArchiveError

# What PS3.4 B.2.3, C.4.1.1.4, C.4.2.1.5, C.4.3.1.4 and PS3.7 annex C let each service answer as a failure.
ALLOWED = {
    Service.STORE: {0xA700, 0xA900, 0xC000, 0x0124},
    Service.FIND: {0xA700, 0xA900, 0xC000, 0x0124, 0xFE00},
    Service.MOVE: {0xA701, 0xA702, 0xA801, 0xA900, 0xC000, 0x0124, 0xFE00},
    Service.ECHO: {0x0110, 0x0124},
    Service.GET: {0xA701, 0xA702, 0xA900, 0xC000, 0x0124, 0xFE00},
    Service.COMMIT: {0x0110, 0x0115, 0x0124, 0x0213},
    Service.MPPS: {0x0106, 0x0110, 0x0111, 0x0112, 0x0124, 0x0213},  # PS3.4 F.7.2, PS3.7 10.1.3.1.9 and 10.1.5.1.6
}


def every_error(base: type[ArchiveError] = ArchiveError) -> list[type[ArchiveError]]:
    return [base, *(found for sub in base.__subclasses__() for found in every_error(sub))]


@pytest.mark.parametrize("service", Service)
@pytest.mark.parametrize("kind", every_error())
def test_every_error_has_a_status_that_its_service_may_answer(kind: type[ArchiveError], service: Service) -> None:
    assert answer_for(kind("words"), service).status in ALLOWED[service]


def test_every_error_of_the_archive_has_a_row_of_its_own() -> None:
    own = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ArchiveError)}
    assert own == set(statuses.STATUS_OF)


def test_an_error_class_made_elsewhere_takes_the_row_of_its_ancestor() -> None:
    class Full(errors.StorageFailed):
        pass

    assert answer_for(Full("no room"), Service.STORE).status == 0xA700


@pytest.mark.parametrize(
    ("error", "service", "status"),
    [
        (errors.NotUnderstood("x"), Service.STORE, 0xC000),
        (errors.ClassMismatch("x"), Service.STORE, 0xA900),
        (errors.Conflict("x"), Service.STORE, 0xC000),
        (errors.StorageFailed("x"), Service.STORE, 0xA700),
        (errors.TooLarge("x"), Service.STORE, 0xA700),
        (errors.InvalidQuery("x"), Service.FIND, 0xA900),
        (errors.IndexUnavailable("x"), Service.FIND, 0xA700),
        (errors.UnknownDestination("x"), Service.MOVE, 0xA801),
        (errors.Unreachable("x"), Service.MOVE, 0xA702),
        (errors.IndexUnavailable("x"), Service.MOVE, 0xA701),
        (errors.Cancelled("x"), Service.GET, 0xFE00),
        (errors.InvalidQuery("x"), Service.COMMIT, 0x0115),
        (errors.Conflict("x"), Service.COMMIT, 0x0110),
        (errors.OutOfResources("x"), Service.COMMIT, 0x0213),
        (errors.InvalidQuery("x"), Service.MPPS, 0x0106),
        (errors.Conflict("x"), Service.MPPS, 0x0111),
        (errors.Missing("x"), Service.MPPS, 0x0112),
        (errors.Final("x"), Service.MPPS, 0x0110),
    ],
)
def test_the_seeds_statuses(error: ArchiveError, service: Service, status: int) -> None:
    assert answer_for(error, service).status == status


def test_a_class_that_does_not_fit_names_the_offending_element() -> None:
    assert answer_for(errors.ClassMismatch("other class"), Service.STORE).offending == (0x00000002,)


def test_a_comment_is_at_most_64_plain_characters() -> None:
    answer = answer_for(errors.NotUnderstood("Jörg\n\\" + "x" * 100), Service.STORE)
    assert answer.comment == "J?rg??" + "x" * 58


def test_statuses_are_said_in_words() -> None:
    assert statuses.meaning(0xA701).startswith("A701 (out of resources: unable to calculate")
    assert statuses.meaning(0xA7FF) == "A7FF (out of resources)"
    assert statuses.meaning(0x4321) == "4321 (unknown status)"


def test_pending_and_warning_are_told_apart() -> None:
    assert statuses.is_pending(0xFF01) and not statuses.is_pending(0xFE00)
    assert statuses.is_warning(0xB006) and statuses.is_warning(0x0107) and not statuses.is_warning(0xC000)
