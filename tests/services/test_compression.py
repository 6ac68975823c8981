"""Compression: the same object in another form, or the file untouched."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from archive.app.keeping import compressors
from archive.app.store import Archive, sweep_spool
from archive.dicom import compressed as ts
from archive.dicom.part10 import read_file_meta
from archive.dicom.uids import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, RLE
from archive.errors import Damaged, IndexUnavailable
from archive.index import Outcome, State
from archive.index.upkeep import Upkeep
from archive.services.compression import KIND, TARGETS, Compression, Result, read_said, unfit
from archive.workers.codec import Codec, Compressed
from tests import builders
from tests.dicom.pictures import encoded, noise, picture
from tests.services.keeping import ORIGIN, checked, known, objects, opened, path_of, put, put_bytes, stored_bytes


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Codec]:
    made = Codec(tmp_path_factory.mktemp("spool"), workers=1)
    yield made
    made.close()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with opened(tmp_path, f"sqlite:///{tmp_path}/index.db") as found:
        yield found


def compression(archive: Archive, codec: object) -> Compression:
    return Compression(archive.index, archive.volumes, codec, archive.integrity, time.monotonic)  # type: ignore[arg-type]


def compress(archive: Archive, codec: object, dataset: Dataset, target: str = ts.JPEG_LS, **options: bool) -> Result:
    return compression(archive, codec).compress(str(dataset.SOPInstanceUID), target, **options)


def smooth(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """A gradient that every codec makes smaller."""
    most = np.iinfo(dtype).max
    flat = np.linspace(0, 40, num=int(np.prod(shape[:3] if shape[-1] != 3 else shape[:2]))).astype("u8") * (most // 50)
    return np.broadcast_to(flat.reshape(shape[:2] + (1,)) if shape[-1] == 3 else flat.reshape(shape), shape).astype(
        f"<{dtype}"
    )


def pixels(dataset: Dataset) -> np.ndarray:
    """By pydicom's own decoder, in the colour space they are in."""
    from tests.dicom.pictures import pixels as decoded

    if not hasattr(dataset, "file_meta"):
        dataset = builders.read(builders.bytes_of(dataset), EXPLICIT_LITTLE)
    return decoded(dataset, raw=dataset.get("PhotometricInterpretation") != "YBR_RCT")


GREY = smooth((64, 64), "u2")
KINDS = {
    "16 bits": picture(GREY),
    "12 of 16 bits": picture(GREY >> 4, stored=12),
    "signed": picture((GREY.astype("i4") - 20000).astype("i2")),
    "8 bits": picture(smooth((64, 64), "u1")),
    "odd length": picture(smooth((63, 65), "u1")),
    "frames": picture(smooth((5, 64, 64), "u2")),
    "RGB": picture(smooth((64, 64, 3), "u1")),
    "YBR": picture(smooth((64, 64, 3), "u1"), PhotometricInterpretation="YBR_FULL"),
    "palette": picture(smooth((64, 64), "u1"), PhotometricInterpretation="PALETTE COLOR"),
}


@pytest.mark.parametrize("target", TARGETS)
def test_every_kind_of_picture_comes_out_with_its_pixels(archive: Archive, codec: Codec, target: str) -> None:
    for name, data in KINDS.items():
        put(archive, data)
        before = known(archive, data)
        result = compress(archive, codec, data, target)
        after = known(archive, data)
        assert result.reason == "" and after.transfer_syntax == target, (name, result)
        assert after.location.size < before.location.size
        again = builders.read(stored_bytes(archive, data), target)
        # JPEG 2000 keeps RGB as YBR_RCT, which pydicom gives back as RGB.
        assert np.array_equal(pixels(again), pixels(data)), name
        assert again.PatientName == data.PatientName and again.StudyInstanceUID == data.StudyInstanceUID
        archive.integrity.verify(after)
    assert len(objects(archive)) == len(KINDS) and checked(archive, digest=True) == []


@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE, EXPLICIT_BIG])
def test_other_uncompressed_syntaxes_are_compressed_too(archive: Archive, codec: Codec, syntax: str) -> None:
    data = KINDS["12 of 16 bits"]
    put(archive, data, syntax)
    assert compress(archive, codec, data).reason == ""
    assert np.array_equal(pixels(builders.read(stored_bytes(archive, data), ts.JPEG_LS)), pixels(data))


def test_what_was_received_stays_known(archive: Archive, codec: Codec) -> None:
    data = KINDS["16 bits"]
    put(archive, data)
    before = known(archive, data)
    compress(archive, codec, data)
    after = known(archive, data)
    received = archive.index.upkeep.received(after)
    assert received is not None
    assert (received.sha256, received.transfer_syntax, received.source) == (before.sha256, EXPLICIT_LITTLE, "CT1")
    meta = read_file_meta(path_of(archive, data).read_bytes())
    assert meta.source == "CT1" and read_said(meta.private) == replace(received, source="")
    assert path_of(archive, data).stat().st_mtime == pytest.approx(received.when)
    # The sender sends it again, as it was, or as somebody fetched it.
    assert put(archive, data) is Outcome.EQUAL
    assert put_bytes(archive, stored_bytes(archive, data), data, ts.JPEG_LS) is Outcome.EQUAL
    assert len(objects(archive)) == 1 and archive.index.quarantined() == []


def test_a_damaged_compressed_file_is_mended_by_the_original(archive: Archive, codec: Codec) -> None:
    data = KINDS["16 bits"]
    put(archive, data)
    compress(archive, codec, data)
    path_of(archive, data).unlink()
    assert put(archive, data) is Outcome.EQUAL
    after = known(archive, data)
    assert after.transfer_syntax == EXPLICIT_LITTLE and stored_bytes(archive, data) == builders.bytes_of(data)
    assert checked(archive, digest=True) == []


def test_the_index_says_what_the_new_form_says(archive: Archive, codec: Codec) -> None:
    data = KINDS["RGB"]
    put(archive, data)
    compress(archive, codec, data, ts.JPEG_2000_LOSSLESS)
    sql = "SELECT photometric_interpretation FROM instance"
    assert archive.index.read(lambda session: session.row(sql)) == ("YBR_RCT",)
    assert builders.read(stored_bytes(archive, data), ts.JPEG_2000_LOSSLESS).PhotometricInterpretation == "YBR_RCT"


def signed() -> Dataset:
    data = picture(GREY)
    data.add_new(0xFFFAFFFA, "SQ", [])
    return data


LEFT_ALONE = {
    "no pixels": (builders.sr(), EXPLICIT_LITTLE, "No pixels"),
    "noise": (picture(noise((64, 64), "u2")), EXPLICIT_LITTLE, "would not be smaller"),
    "single bits": (
        builders.image(builders.SC, "SEG", BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=bytes(8)),
        EXPLICIT_LITTLE,
        "Single-bit",
    ),
    "32 bits": (picture(smooth((64, 64), "u4")), EXPLICIT_LITTLE, "do not fit the codec"),
    "an overlay in unused bits": (picture(GREY, stored=12), EXPLICIT_LITTLE, "Bits outside Bits Stored"),
    "a digital signature": (signed(), EXPLICIT_LITTLE, "digitally signed"),
    "no picture": (builders.ct(PixelData=b"\0\1"), EXPLICIT_LITTLE, "shorter than described"),
}


@pytest.mark.parametrize("what", LEFT_ALONE)
def test_what_cannot_be_compressed_is_left_alone_and_why_is_said(archive: Archive, codec: Codec, what: str) -> None:
    data, syntax, words = LEFT_ALONE[what]
    put(archive, data, syntax)  # type: ignore[arg-type]
    before, content = path_of(archive, data), path_of(archive, data).read_bytes()  # type: ignore[arg-type]
    assert words in compress(archive, codec, data).reason
    assert objects(archive) == [before] and before.read_bytes() == content
    assert os.listdir(archive.volume.spool.path) == [".lock"]


@pytest.mark.parametrize(
    ("stored", "recompress", "words"),
    [
        (EXPLICIT_LITTLE, False, ""),
        (ts.JPEG_LS, True, "already"),
        (ts.JPEG_BASELINE, True, "allows loss"),
        (ts.JPEG_2000, True, "allows loss"),
        (ts.JPEG_LS_NEAR, True, "allows loss"),
        (ts.HTJ2K, True, "allows loss"),
        ("1.2.840.10008.1.2.4.102", True, "allows loss"),
        ("1.2.3.4", True, "allows loss"),
        (RLE, False, "came compressed"),
        (RLE, True, ""),
        (ts.JPEG_LOSSLESS_SV1, True, ""),
    ],
)
def test_what_may_have_loss_is_never_coded_again(stored: str, recompress: bool, words: str) -> None:
    reason = unfit(stored, ts.JPEG_LS, recompress=recompress)
    assert words in reason and bool(words) == bool(reason)


def test_a_target_with_loss_is_refused() -> None:
    assert unfit(EXPLICIT_LITTLE, ts.JPEG_BASELINE, recompress=True)


def test_what_came_compressed_without_loss_is_compressed_better_if_that_is_wanted(
    archive: Archive, codec: Codec
) -> None:
    array = noise((64, 64), "u2", stored=6) + GREY
    data = encoded(picture(array), RLE)
    put(archive, data, RLE)
    assert compress(archive, codec, data).reason == "came compressed"
    assert compress(archive, codec, data, recompress=True).reason == ""
    assert np.array_equal(pixels(builders.read(stored_bytes(archive, data), ts.JPEG_LS)), array)


def test_damage_is_not_compressed_away(archive: Archive, codec: Codec) -> None:
    data = KINDS["16 bits"]
    put(archive, data)
    path = path_of(archive, data)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged):
        compress(archive, codec, data)
    assert objects(archive) == [path] and known(archive, data).damage


class Liar:
    """A codec whose result is not what it says; or does something else meanwhile."""

    def __init__(self, codec: Codec, meanwhile: object = None) -> None:
        self._codec = codec
        self._meanwhile = meanwhile

    def compress(self, path: Path, target: str, prefix: bytes, result: Path) -> Compressed:
        made = self._codec.compress(path, target, prefix, result)
        if callable(self._meanwhile):
            self._meanwhile()
        return made


def test_an_instance_that_is_removed_meanwhile_leaves_no_file(archive: Archive, codec: Codec) -> None:
    data = KINDS["16 bits"]
    put(archive, data)

    def remove() -> None:
        for location in archive.index.remove([known(archive, data).id]).files:
            archive.volume.remove(location.path)

    assert compress(archive, Liar(codec, remove), data).reason == "changed meanwhile"
    assert objects(archive) == [] and archive.index.upkeep.saved() == []


def test_two_at_once_leave_one_file(archive: Archive, codec: Codec) -> None:
    data = KINDS["16 bits"]
    put(archive, data)
    first = compress(archive, Liar(codec, lambda: compress(archive, codec, data)), data)
    assert first.reason == "changed meanwhile" and len(objects(archive)) == 1
    archive.integrity.verify(known(archive, data))


def test_who_has_read_the_row_before_gets_the_file_that_is_there_now(archive: Archive, codec: Codec) -> None:
    data = KINDS["16 bits"]
    put(archive, data)
    row = known(archive, data)
    with archive.retrieve.open(row) as before:
        compress(archive, codec, data)
        assert os.pread(before.fd, before.size, before.offset) == builders.bytes_of(data)
        assert before.link.read_bytes()[before.offset :] == builders.bytes_of(data)
    with archive.retrieve.open(row) as after:
        assert after.transfer_syntax == ts.JPEG_LS
        assert os.pread(after.fd, after.size, after.offset) == stored_bytes(archive, data)


# -- when the index does not answer, and after kill -9 -------------------------------------------------


@pytest.mark.parametrize("took_effect", [True, False])
def test_an_unknown_outcome_is_settled_once_the_index_answers(
    archive: Archive, codec: Codec, monkeypatch: pytest.MonkeyPatch, took_effect: bool
) -> None:
    data = KINDS["16 bits"]
    put(archive, data)
    original = Upkeep.compress

    def lost(self: Upkeep, *arguments: object) -> bool:
        if took_effect:
            original(self, *arguments)  # type: ignore[arg-type]
        raise IndexUnavailable("index is not available")

    def gone(self: Upkeep, uid: str) -> set[tuple[str, str]]:
        raise IndexUnavailable("index is not available")

    work = compression(archive, codec)
    with monkeypatch.context() as patched:
        patched.setattr(Upkeep, "compress", lost)
        patched.setattr(Upkeep, "settled", gone)
        with pytest.raises(IndexUnavailable):
            work.compress(str(data.SOPInstanceUID), ts.JPEG_LS)
    assert len(objects(archive)) == 2
    result = work.compress(str(data.SOPInstanceUID), ts.JPEG_LS)
    assert bool(result.reason) is took_effect
    assert len(objects(archive)) == 1
    archive.integrity.verify(known(archive, data))


class Killed(BaseException):
    """As far as a process gets that is killed here."""


STEPS = {
    "before the note": ("archive.services.compression.Note", False),
    "before the name": ("archive.storage.local.Volume.place", False),
    "before the row": ("archive.index.upkeep.Upkeep.compress", False),
    "before the old file goes": ("archive.index.upkeep.Upkeep.settled", True),
}


@pytest.mark.parametrize("where", STEPS)
def test_killed_anywhere_one_whole_file_is_left(
    tmp_path: Path, codec: Codec, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    target, compressed = STEPS[where]
    url, data = f"sqlite:///{tmp_path}/index.db", KINDS["16 bits"]

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with opened(tmp_path, url) as archive:
        put(archive, data)
        with monkeypatch.context() as patched:
            patched.setattr(target, kill)
            if where in ("before the name", "before the row"):
                patched.setattr("archive.services.compression.Compression._settle_doubts", lambda self: None)
            with pytest.raises(Killed):
                compress(archive, codec, data)
        os.close(archive.volume.spool._lock)  # as the kernel does
        spool = archive.volume.spool.path
        sweep_spool(archive.volumes, archive.index)
        assert not spool.exists()
        archive.volume._spool = None
        os.close(archive.volume._root_fd)
        archive.volume.open(expected=True)
        assert len(objects(archive)) == 1
        assert (known(archive, data).transfer_syntax == ts.JPEG_LS) is compressed
        archive.integrity.verify(known(archive, data))
        assert checked(archive, digest=True) == []


def test_notes_of_another_index_move_nothing(tmp_path: Path, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index was lost together with the process that compressed: both files are all there is."""
    data = KINDS["16 bits"]
    with opened(tmp_path, f"sqlite:///{tmp_path}/index.db") as archive:
        put(archive, data)
        with monkeypatch.context() as patched:
            patched.setattr(Upkeep, "settled", lambda *_: (_ for _ in ()).throw(IndexUnavailable("gone")))
            with pytest.raises(IndexUnavailable):
                compress(archive, codec, data)
    with opened(tmp_path, f"sqlite:///{tmp_path}/other.db") as archive:
        assert len(objects(archive)) == 2


# -- by rules, as tasks --------------------------------------------------------------------------------


def test_rules_cause_tasks_and_the_worker_does_them(tmp_path: Path) -> None:
    rules = [{"match": "Modality = 'CT' and CallingAETitle = 'CT1'", "to": "rle", "after": "1h"},
             {"match": "Modality in ('OT', 'CT')", "to": "jpeg-ls"}]  # fmt: skip
    with opened(tmp_path, f"sqlite:///{tmp_path}/index.db", compress=rules) as archive:
        later, now, never = builders.ct(rows=32, columns=32), KINDS["16 bits"], builders.sr()
        for data in (later, now, never, builders.mr()):
            put(archive, data)
        put(archive, picture(noise((32, 32), "u2")), origin=replace(ORIGIN, calling="CT2"))
        assert {task.payload["to"] for task in archive.index.tasks(kind=KIND)} == {RLE, ts.JPEG_LS}
        (worker,) = compressors(archive, archive.config)
        try:
            wait: float | None = 0.0
            while wait == 0.0:
                wait = worker.step()
            assert wait is not None and 3000 < wait <= 3600  # the next is due in an hour
        finally:
            worker.close()
        assert known(archive, now).transfer_syntax == ts.JPEG_LS
        assert known(archive, later).transfer_syntax == EXPLICIT_LITTLE
        reasons = [(task.state, task.reason) for task in archive.index.tasks(kind=KIND)]
        assert (State.DONE, "compressed it would not be smaller") in reasons and len(reasons) == 2
        (saved,) = archive.index.upkeep.saved()
        assert saved.objects == 1 and saved.bytes_after < saved.bytes_before and saved.seconds > 0


def test_a_worker_that_ends_gives_its_tasks_back(tmp_path: Path) -> None:
    with opened(tmp_path, f"sqlite:///{tmp_path}/index.db", compress=[{"to": "jpeg-ls"}]) as archive:
        for _ in range(3):
            put(archive, builders.ct())
        (worker,) = compressors(archive, archive.config)
        assert len(worker._leased()) == 3  # type: ignore[attr-defined]
        (successor,) = compressors(archive, archive.config)  # of one that was killed: it has the same name
        assert len(successor._leased()) == 3  # type: ignore[attr-defined]
        successor.close()
        assert {task.state for task in archive.index.tasks(kind=KIND)} == {State.WAITING}
