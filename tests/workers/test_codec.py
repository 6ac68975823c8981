"""The pool of children: what breaks one fails alone, and leaves neither processes nor files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from archive.dicom import compressed as ts
from archive.dicom.uids import DEFLATED, EXPLICIT_LITTLE, RLE
from archive.errors import Damaged, NotTranscodable, OutOfResources
from archive.workers.codec import Codec
from tests.builders import part10, read, write
from tests.dicom.pictures import compressed, encoded, noise, picture, pixels, smooth

PATIENCE = 60.0  # a test waits no longer for anything


@pytest.fixture
def codec(tmp_path: Path) -> Iterator[Codec]:
    made = Codec(tmp_path / "spool", workers=1)
    yield made
    made.close()


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return write(tmp_path / "stored.dcm", encoded(picture(noise((2, 32, 40), "u2")), RLE), RLE)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state(pid: int) -> str:
    """The letter that the kernel gives a process: S sleeping, T stopped, Z dead and not yet waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def gone(pid: int) -> bool:
    return state(pid) == "Z"


def usable(codec: Codec, path: Path) -> None:
    """The codec does what it should."""
    with codec.transcode(path, [EXPLICIT_LITTLE]) as result:
        data = result.path.read_bytes()
        assert (result.transfer_syntax, result.offset, result.size) == (EXPLICIT_LITTLE, 0, len(data))
    assert np.array_equal(pixels(read(data, EXPLICIT_LITTLE)), noise((2, 32, 40), "u2"))


def left_over(codec: Codec) -> list[str]:
    spool = codec._spool
    return os.listdir(spool) if spool.is_dir() else []


def test_nothing_runs_before_the_first_request(codec: Codec, stored: Path) -> None:
    assert codec.children() == []
    usable(codec, stored)
    assert len(codec.children()) == 1


def test_the_file_of_a_result_goes_when_it_is_closed(codec: Codec, stored: Path) -> None:
    result = codec.transcode(stored, [EXPLICIT_LITTLE])
    assert left_over(codec) == [result.path.name]
    result.close()
    result.close()
    assert left_over(codec) == []


def test_a_child_serves_many_requests(codec: Codec, stored: Path) -> None:
    usable(codec, stored)
    first = codec.children()
    for _ in range(5):
        usable(codec, stored)
    assert codec.children() == first


def test_eight_threads_at_once_get_their_own_pixels(tmp_path: Path) -> None:
    codec = Codec(tmp_path / "spool", workers=2)
    arrays = [noise((40, 48), "u2", seed=seed) for seed in range(8)]
    paths = [write(tmp_path / f"{n}.dcm", encoded(picture(a), ts.JPEG_LS), ts.JPEG_LS) for n, a in enumerate(arrays)]

    def several(number: int) -> bool:
        for target in (EXPLICIT_LITTLE, DEFLATED, RLE, ts.JPEG_LOSSLESS_SV1, ts.JPEG_2000_LOSSLESS):
            with codec.transcode(paths[number], [target]) as result:
                data = read(result.path.read_bytes(), target)
            if not np.array_equal(pixels(data), arrays[number]):
                return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(several, range(8), timeout=PATIENCE))
    assert len(codec.children()) == 2
    codec.close()
    assert left_over(codec) == []


def test_refusals_come_through_with_their_reason(codec: Codec, stored: Path) -> None:
    with pytest.raises(NotTranscodable) as refusal:
        codec.transcode(stored, [ts.HTJ2K])
    assert refusal.value.comment == "No encoder for HTJ2K"
    assert left_over(codec) == []
    usable(codec, stored)


def test_missing_and_foreign_files_are_told_apart(codec: Codec, tmp_path: Path) -> None:
    with pytest.raises(Damaged):
        codec.transcode(tmp_path / "nothing.dcm", [EXPLICIT_LITTLE])
    (tmp_path / "empty.dcm").touch()
    with pytest.raises(Damaged):
        codec.transcode(tmp_path / "empty.dcm", [EXPLICIT_LITTLE])
    (tmp_path / "text.dcm").write_text("no DICOM at all " * 100)
    with pytest.raises(NotTranscodable):
        codec.transcode(tmp_path / "text.dcm", [EXPLICIT_LITTLE])


def test_loss_gives_the_new_instance_a_name(codec: Codec, tmp_path: Path) -> None:
    path = write(tmp_path / "colour.dcm", picture(smooth(64, 64)))
    with codec.transcode(path, [ts.JPEG_BASELINE], allow_lossy=True) as result:
        data = read(result.path.read_bytes(), ts.JPEG_BASELINE)
    assert result.sop_instance_uid == data.SOPInstanceUID
    with codec.transcode(path, [RLE], allow_lossy=True) as result:
        assert result.sop_instance_uid is None


# -- hostile pixels -------------------------------------------------------------------------------------


def black_rle(rows: int, columns: int) -> bytes:
    """An RLE frame of 8 bits: one segment of runs of 128 zeros (PS3.5 G.3.1)."""
    runs = -(-rows * columns // 128)
    return struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\x00" * runs


def bomb(name: str) -> tuple[bytes, str]:
    """A Part-10 file that claims or inflates to much, and its syntax."""
    small = picture(noise((32, 40), "u1"))
    if name == "terabytes claimed":
        small.Rows = small.Columns = 65535
        small.NumberOfFrames = 1000
        return part10(compressed(small, [black_rle(8, 8)]), RLE), RLE
    if name == "frame larger than memory":
        small.Rows = small.Columns = 24000
        return part10(compressed(small, [black_rle(24000, 24000)]), RLE), RLE
    if name == "JPEG 2000 of 60000 x 60000":
        small.Rows = small.Columns = 60000
        code = bytearray(next_frame(encoded(picture(noise((64, 64), "u1")), ts.JPEG_2000_LOSSLESS)))
        for at in (8, 12, 24, 28):  # SIZ: image and tile size
            code[at : at + 4] = struct.pack(">L", 60000)
        return part10(compressed(small, [bytes(code)]), ts.JPEG_2000_LOSSLESS), ts.JPEG_2000_LOSSLESS
    if name == "JPEG 2000 cut short":
        code = next_frame(encoded(picture(noise((32, 40), "u1")), ts.JPEG_2000_LOSSLESS))
        return part10(compressed(small, [bytes(code[:300])]), ts.JPEG_2000_LOSSLESS), ts.JPEG_2000_LOSSLESS
    data = part10(picture(noise((32, 40), "u1"), Rows=65535, Columns=65535, NumberOfFrames=1000))
    return data, EXPLICIT_LITTLE


def next_frame(dataset: object) -> bytes:
    from pydicom.encaps import generate_frames

    return next(generate_frames(dataset.PixelData, number_of_frames=1))  # type: ignore[attr-defined]


BOMBS = (
    "terabytes claimed",
    "frame larger than memory",
    "JPEG 2000 of 60000 x 60000",
    "JPEG 2000 cut short",
    "native terabytes claimed",
)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_fail_alone(name: str, tmp_path: Path, stored: Path) -> None:
    data, syntax = bomb(name)
    path = tmp_path / "bomb.dcm"
    path.write_bytes(data)
    codec = Codec(tmp_path / "spool", workers=1, memory=900 << 20, seconds=10)
    target = ts.JPEG_LS if syntax == EXPLICIT_LITTLE else EXPLICIT_LITTLE
    with pytest.raises(NotTranscodable) as refusal:
        codec.transcode(path, [target])
    assert refusal.value.comment
    usable(codec, stored)
    codec.close()
    assert left_over(codec) == []


def test_a_result_may_not_outgrow_its_limit(tmp_path: Path, stored: Path) -> None:
    black = picture(noise((32, 40), "u1"), Rows=4000, Columns=4000)
    path = tmp_path / "black.dcm"
    path.write_bytes(part10(compressed(black, [black_rle(4000, 4000)]), RLE))
    codec = Codec(tmp_path / "spool", workers=1, largest=1 << 20)
    with pytest.raises(NotTranscodable, match="larger than allowed"):
        codec.transcode(path, [EXPLICIT_LITTLE])
    usable(codec, stored)
    codec.close()
    assert left_over(codec) == []


# -- children that break ----------------------------------------------------------------------------------


def asked(pid: int) -> bool:
    """True when a request waits in the child's standard input."""
    with open(f"/proc/{pid}/fd/0", "rb") as pipe:
        return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0] > 0


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_child_that_crashes_fails_its_own_object_only(codec: Codec, stored: Path, number: signal.Signals) -> None:
    usable(codec, stored)
    (pid,) = codec.children()
    os.kill(pid, signal.SIGSTOP)  # so that it crashes with the request in hand
    until(lambda: state(pid) == "T")
    with ThreadPoolExecutor(1) as threads:
        failed = threads.submit(codec.transcode, stored, [EXPLICIT_LITTLE])
        until(lambda: asked(pid))
        os.kill(pid, number)
        os.kill(pid, signal.SIGCONT)
        error = failed.exception(PATIENCE)
    assert isinstance(error, NotTranscodable)
    assert number.name in str(error)
    usable(codec, stored)
    assert codec.children() != [pid]
    assert left_over(codec) == []


def test_a_child_that_died_while_idle_is_replaced_unnoticed(codec: Codec, stored: Path) -> None:
    usable(codec, stored)
    (pid,) = codec.children()
    os.kill(pid, signal.SIGKILL)
    until(lambda: gone(pid))
    usable(codec, stored)


def test_a_child_that_hangs_is_ended_and_replaced(tmp_path: Path, stored: Path) -> None:
    codec = Codec(tmp_path / "spool", workers=1, seconds=4)
    os.mkfifo(tmp_path / "hang.dcm")
    with pytest.raises(NotTranscodable, match="longer than 4 s"):
        codec.transcode(tmp_path / "hang.dcm", [EXPLICIT_LITTLE])
    usable(codec, stored)
    codec.close()


def test_callers_wait_while_all_children_are_busy(tmp_path: Path, stored: Path) -> None:
    codec = Codec(tmp_path / "spool", workers=1, seconds=4)
    os.mkfifo(tmp_path / "hang.dcm")
    with ThreadPoolExecutor(4) as threads:
        hanging = threads.submit(codec.transcode, tmp_path / "hang.dcm", [EXPLICIT_LITTLE])
        until(lambda: bool(codec.children()))
        others = [threads.submit(usable, codec, stored) for _ in range(3)]
        assert isinstance(hanging.exception(PATIENCE), NotTranscodable)
        for other in others:
            other.result(PATIENCE)
    assert len(codec.children()) == 1
    codec.close()


def test_signals_of_the_group_do_not_end_a_child(codec: Codec, stored: Path) -> None:
    usable(codec, stored)
    (pid,) = codec.children()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    usable(codec, stored)
    assert codec.children() == [pid]


def test_closing_ends_children_and_refuses_what_comes_later(tmp_path: Path, stored: Path) -> None:
    codec = Codec(tmp_path / "spool", workers=2)
    usable(codec, stored)
    (idle,) = codec.children()
    os.mkfifo(tmp_path / "hang.dcm")
    with ThreadPoolExecutor(1) as threads:
        hanging = threads.submit(codec.transcode, tmp_path / "hang.dcm", [EXPLICIT_LITTLE])
        codec.close()
        assert isinstance(hanging.exception(PATIENCE), (NotTranscodable, OutOfResources))
    assert gone(idle)
    assert codec.children() == []
    with pytest.raises(OutOfResources):
        codec.transcode(stored, [EXPLICIT_LITTLE])
    assert left_over(codec) == []


PARENT = """
import sys
from pathlib import Path
from archive.workers.codec import Codec
codec = Codec(Path(sys.argv[1]), workers=1, seconds=600)
with codec.transcode(Path(sys.argv[2]), [sys.argv[4]]):
    print(*codec.children(), flush=True)
kept = codec.transcode(Path(sys.argv[3]), [sys.argv[4]])
print("done", flush=True)
sys.stdin.read()
"""


def ticks(pid: int) -> int:
    """Processor time a process has used, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.parametrize("busy", [True, False])
def test_children_die_with_their_parent(busy: bool, tmp_path: Path, stored: Path) -> None:
    big = write(tmp_path / "big.dcm", picture(noise((5000, 5000) if busy else (32, 40), "u2")))
    command = [sys.executable, "-c", PARENT, str(tmp_path / "spool"), str(stored), str(big), ts.JPEG_2000_LOSSLESS]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        if busy:
            start = ticks(child)
            until(lambda: ticks(child) > start + 20)  # in the middle of the encoder's C code
        else:
            assert parent.stdout.readline() == b"done\n"
        parent.kill()
        until(lambda: gone(child))
    finally:
        with contextlib.suppress(ProcessLookupError):
            parent.kill()
        parent.communicate()
    assert len(os.listdir(tmp_path / "spool")) == (0 if busy else 1)  # what a sweep at start removes
