"""What compression and repair do to rows, on both databases."""

from __future__ import annotations

from archive.index import Index, Location, NewTask, Outcome
from archive.index.upkeep import Form
from tests.index.made import arrival, found


def test_another_form_takes_the_place_and_what_was_received_stays_known(index: Index) -> None:
    new = arrival("1.1")
    index.add([new, arrival("1.1")])
    before = index.known(new.header.sop_instance_uid)
    assert before is not None
    form = Form(Location("local", "new/1", 400, 600), "1.2.840.10008.1.2.4.80", b"n" * 32, "YBR_RCT")
    assert index.upkeep.compress(before, form, 1.5)
    after = index.known(new.header.sop_instance_uid)
    assert after is not None and (after.location, after.sha256) == (form.location, form.sha256)
    assert found(index, "IMAGE", "SOPInstanceUID", PhotometricInterpretation="YBR_RCT") == [after.sop_instance_uid]
    assert index.statistics().size == 1600
    received = index.upkeep.received(after)
    assert received is not None and (received.sha256, received.transfer_syntax) == (new.sha256, new.transfer_syntax)
    # Somebody else's change of the row that was read before comes too late.
    assert not index.upkeep.compress(before, form, 1.5)
    (saved,) = index.upkeep.saved()
    assert (saved.objects, saved.bytes_before, saved.bytes_after, saved.seconds) == (1, 1000, 600, 1.5)
    # The original again, and the new form again.
    assert index.add([arrival("1.1", sop=new.header.sop_instance_uid, digest=new.sha256)])[0].outcome is Outcome.EQUAL
    assert index.add([arrival("1.1", sop=new.header.sop_instance_uid, digest=b"n" * 32)])[0].outcome is Outcome.EQUAL


def test_damage_is_news_once_and_gone_when_the_row_has_another_file(index: Index) -> None:
    new = arrival("1.1")
    index.add([new])
    instance = index.known(new.header.sop_instance_uid)
    assert instance is not None
    task = NewTask("tell", {})
    assert index.upkeep.mark(instance, "gone", 5.0, [task]) is True
    assert index.upkeep.mark(instance, "still gone", 6.0, [task]) is False
    assert [each.damage for each in index.upkeep.damaged()] == ["still gone"] and index.upkeep.count_damaged() == 1
    assert len(index.tasks(kind="tell")) == 1
    copy = arrival("1.1", sop=new.header.sop_instance_uid, digest=new.sha256)
    assert index.upkeep.mend(instance, copy)
    assert index.upkeep.count_damaged() == 0
    assert index.upkeep.mark(instance, "of a file that is no longer its own", 7.0) is None
    index.upkeep.mark(index.known(new.header.sop_instance_uid), "gone", 8.0)  # type: ignore[arg-type]
    assert index.upkeep.clear(index.known(new.header.sop_instance_uid))  # type: ignore[arg-type]
    assert not index.upkeep.clear(index.known(new.header.sop_instance_uid))  # type: ignore[arg-type]


def test_pages_walk_over_everything_once(index: Index) -> None:
    index.add([arrival("1.1") for _ in range(5)] + [arrival("1.2", PatientID="P2") for _ in range(2)])
    seen, after = [], 0
    while page := index.upkeep.page(after, 3):
        seen += [each.sop_instance_uid for each in page]
        after = page[-1].id
    assert len(seen) == len(set(seen)) == 7
    assert len(index.upkeep.page(0, 100, "1.2")) == 2
    assert len(set(index.upkeep.files())) == 7
    volume, path = next(iter(index.upkeep.files()))
    assert index.upkeep.refers(volume, path) and not index.upkeep.refers(volume, "elsewhere")


def test_which_files_belong_to_an_instance_is_asked_when_nobody_changes_it(index: Index) -> None:
    new = arrival("1.1")
    index.add([new])
    assert index.upkeep.settled(new.header.sop_instance_uid) == {("local", new.location.path)}
    assert index.upkeep.settled("9.9") == set()


def test_numbers_that_are_right_are_not_complained_of(index: Index) -> None:
    from archive.index.counters import wrong_patients, wrong_studies

    index.add([arrival("1.1"), arrival("1.1", series="1.1.2", Modality="MR"), arrival("1.2", PatientID="P2")])
    assert wrong_studies(index.database, 0) == ([], None)
    assert wrong_patients(index.database, 0) == ([], None)
