"""Objects come in by C-STORE, or are refused with a reason."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE

from archive.dimse.association import Association
from archive.dimse.wire import HAS_DATA, Command, Field, encode_command

from .archives import ROOT, Archive, encoded, instance, peer, serving, write

VERIFICATION, CT, MR = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
EXPLICIT = ("1.2.840.10008.1.2.1",)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    peers = [peer("TEST"), peer("VIEWER", allow=("get", "find"))]
    with serving(tmp_path, peers) as found:
        yield found


def store(
    association: Association, data_set: Dataset, *, on: int = 0, data: bytes | None = None, **more: str
) -> Command:
    """C-STORE on the ``on``-th context, with a command that may say something else than the data set."""
    context = list(association.contexts.values())[on]
    command = {
        "AffectedSOPClassUID": str(data_set.SOPClassUID),
        "CommandField": int(Field.C_STORE_RQ),
        "MessageID": 5,
        "Priority": 0,
        "CommandDataSetType": HAS_DATA,
        "AffectedSOPInstanceUID": str(data_set.SOPInstanceUID),
        **more,
    }
    association.send_message(context, encode_command(command), encoded(data_set) if data is None else data)
    answer = association.read_message()
    assert answer is not None
    return answer.command


def call(archive: Archive, *classes: str, calling: str = "TEST") -> Association:
    return archive.destination(calling).connect([(uid, EXPLICIT) for uid in classes])


def test_an_object_is_stored_and_the_answer_names_it(archive: Archive) -> None:
    with call(archive, CT) as association:
        answer = store(association, instance(1))
        assert (answer.status, answer.sop_class, answer.sop_instance) == (0x0000, CT, f"{ROOT}.1.1.1")
    known = archive.index.known(f"{ROOT}.1.1.1")
    assert known is not None
    with archive.retrieve.open(known) as file:
        assert file.size == len(encoded(instance(1)))


def test_the_same_object_again_is_success(archive: Archive) -> None:
    with call(archive, CT) as association:
        assert [store(association, instance(1)).status for _ in range(2)] == [0x0000, 0x0000]


def test_other_content_under_the_same_uid_is_refused_with_a_reason(archive: Archive) -> None:
    with call(archive, CT) as association:
        store(association, instance(1))
        other = instance(1)
        other.PatientName = "Somebody^Else"
        answer = store(association, other)
        assert answer.status == 0xC000
        assert answer.comment and "Else" not in answer.comment


@pytest.mark.parametrize("wrong", [{"AffectedSOPClassUID": MR}, {"AffectedSOPInstanceUID": "1.2.3.4"}])
def test_a_command_that_names_another_object_does_not_match(archive: Archive, wrong: dict[str, str]) -> None:
    with call(archive, CT) as association:
        assert store(association, instance(1), **wrong).status == 0xA900
        assert store(association, instance(2)).status == 0x0000
    assert archive.index.known(f"{ROOT}.1.1.1") is None


@pytest.mark.parametrize("context", [VERIFICATION, FIND, MR])
def test_an_object_on_a_context_of_another_class_does_not_match(archive: Archive, context: str) -> None:
    with call(archive, context, CT) as association:
        answer = store(association, instance(1), on=0)
        assert (answer.status, answer.elements[0x0901]) == (0xA900, b"\x00\x00\x02\x00")
        assert store(association, instance(2), on=1).status == 0x0000
    assert archive.index.known(f"{ROOT}.1.1.1") is None


@pytest.mark.parametrize("data", [b"", b"\xff" * 1000, b"%PDF-1.4 not DICOM at all", bytes(5000)])
def test_what_is_not_a_data_set_cannot_be_understood(archive: Archive, data: bytes) -> None:
    with call(archive, CT) as association:
        answer = store(association, instance(1), data=data)
        assert answer.status == 0xC000 and answer.comment
        assert store(association, instance(2)).status == 0x0000


@pytest.mark.parametrize("uid", ["../../evil", "1.2.x", "1..2", "1.2.3\n4", "*", "1." * 40])
def test_a_uid_that_is_none_is_refused_and_names_no_file(archive: Archive, uid: str) -> None:
    bad = instance(1)
    with call(archive, CT) as association:
        raw = encoded(bad).replace(f"{ROOT}.1.1.1".encode(), uid.encode()[:40].ljust(len(f"{ROOT}.1.1.1"), b"\0"))
        assert store(association, bad, data=raw, AffectedSOPInstanceUID=uid[:40]).status in (0xC000, 0xA900)
    names = [path.name for path in archive.folder.rglob("*")]
    assert not any("evil" in name for name in names)


def test_a_request_without_data_set_is_answered(archive: Archive) -> None:
    with call(archive, CT) as association:
        context = next(iter(association.contexts.values()))
        command = {
            "AffectedSOPClassUID": CT,
            "CommandField": int(Field.C_STORE_RQ),
            "MessageID": 1,
            "AffectedSOPInstanceUID": "1.2.3",
        }
        association.send_message(context, encode_command(command))
        answer = association.read_message()
        assert answer is not None and answer.command.status == 0xC000


def test_no_room_is_out_of_resources_and_leaves_nothing(archive: Archive) -> None:
    archive.store.volume.reserve = 1 << 60
    with call(archive, CT) as association:
        answer = store(association, instance(1, size=1024))
        assert (answer.status, answer.comment) == (0xA700, "out of disk space")
        archive.store.volume.reserve = 0
        assert store(association, instance(1, size=1024)).status == 0x0000


def test_too_large_an_object_is_out_of_resources_and_read_to_its_end(archive: Archive) -> None:
    with call(archive, CT) as association:
        answer = store(association, instance(1), data=encoded(instance(1)) + bytes(70 << 20))
        assert (answer.status, answer.comment) == (0xA700, "instance is too large")
        assert store(association, instance(1)).status == 0x0000


def test_who_may_only_fetch_may_not_store_on_its_storage_contexts(archive: Archive) -> None:
    ae = AE("VIEWER")
    ae.add_requested_context(CT, EXPLICIT[0])
    ae.add_requested_context(FIND, EXPLICIT[0])
    association = ae.associate("127.0.0.1", archive.port, ae_title="ARCHIVE")
    assert association.is_established
    assert [str(each.abstract_syntax) for each in association.accepted_contexts] == [FIND]
    association.release()


def test_pynetdicom_stores(archive: Archive) -> None:
    ae = AE("TEST")
    ae.add_requested_context(CT, EXPLICIT[0])
    association = ae.associate("127.0.0.1", archive.port, ae_title="ARCHIVE")
    assert [association.send_c_store(instance(number)).Status for number in (1, 2, 3)] == [0, 0, 0]
    association.release()
    assert archive.index.statistics().instances == 3


@pytest.mark.parametrize("program", ["storescu", "dcmsend"])
def test_dcmtk_stores(archive: Archive, tmp_path: Path, program: str) -> None:
    paths = write(tmp_path / "in", *(instance(number) for number in range(1, 6)))
    command = [program, "-aet", "TEST", "-aec", "ARCHIVE", "127.0.0.1", str(archive.port)]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert archive.index.statistics().instances == 5


