"""The child process of ``archive.workers.codec``: reads requests as JSON lines, writes results to files.

Rules that hold here: the limits are set before anything is imported that could break them; standard output
belongs to the protocol, what codecs print goes nowhere; the process ends when its parent does, even in the
middle of a decoder's C code; a request that ran out of memory is the last one.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import mmap
import os
import resource
import signal
import sys
import warnings
import zlib  # noqa: F401  before GDCM, as in archive.dicom.decoders
from pathlib import Path
from typing import Any

from archive.errors import ArchiveError, Damaged, NotTranscodable, OutOfResources

NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


def main(arguments: list[str]) -> None:
    life, memory, largest, niceness = map(int, arguments)
    _die_with_parent(life)
    _limit(memory, largest)
    os.nice(niceness)
    answers = _quiet()
    _prepare()
    os.write(answers, b"\n")
    for line in sys.stdin.buffer:
        answer = _answered(json.loads(line))
        os.write(answers, json.dumps(answer).encode("ascii") + b"\n")
        if answer["last"]:
            break


def _die_with_parent(life: int) -> None:
    """Let the kernel end this process by SIGIO when the last writer of the pipe ``life`` is gone.

    PR_SET_PDEATHSIG would follow the parent's thread that started us, and those end all the time.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole group or unit: the parent decides
    signal.signal(signal.SIGIO, signal.SIG_DFL)  # which is to end
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the parent may block what it waits for
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    try:
        os.read(life, 1)
    except BlockingIOError:
        return  # open and silent: the parent lives
    os._exit(0)


def _limit(memory: int, largest: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold pixels and names


def _quiet() -> int:
    """The descriptor for answers; whatever else is printed is lost."""
    answers = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    return answers


def _prepare() -> None:
    """Import all that a request needs, so that its time is its own."""
    import gdcm  # noqa: F401
    import jpeg_ls  # noqa: F401
    import openjpeg.utils  # noqa: F401
    import rle.utils  # noqa: F401
    from pydicom import config

    import archive.dicom.compare
    import archive.dicom.part10
    import archive.dicom.transcode  # noqa: F401

    config.settings.reading_validation_mode = config.IGNORE
    config.settings.writing_validation_mode = config.IGNORE


def _answered(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {**(_compressed if "prefix" in request else _transcoded)(request), "last": False}
    except MemoryError:
        return _failure(NotTranscodable("Pixels need more memory than allowed"), last=True)
    except (NotTranscodable, Damaged, OutOfResources) as error:
        return _failure(error)
    except ArchiveError as error:
        return _failure(NotTranscodable(error.comment, str(error)))
    except OSError as error:
        return _failure(_said(error))
    except Exception as error:  # noqa: BLE001  foreign data finds what nobody thought of; this child has seen enough
        return _failure(NotTranscodable("Data set cannot be transcoded", f"{type(error).__name__}: {error}"), last=True)


def _said(error: OSError) -> ArchiveError:
    if error.errno in NO_SPACE:
        return OutOfResources("No space for transcoded pixels", str(error))
    if error.errno == errno.EFBIG:
        return NotTranscodable("Transcoded pixels are larger than allowed")
    if error.errno == errno.ENOMEM:
        return NotTranscodable("Pixels need more memory than allowed")
    return OutOfResources("Stored file cannot be transcoded", str(error))


def _failure(error: ArchiveError, last: bool = False) -> dict[str, Any]:
    detail = str(error).removeprefix(error.comment).removeprefix(": ")
    return {"error": type(error).__name__, "comment": error.comment, "detail": detail, "last": last}


def _transcoded(request: dict[str, Any]) -> dict[str, Any]:
    from archive.dicom.part10 import read_file_meta
    from archive.dicom.transcode import transcode

    whole = _mapped(Path(request["path"]))
    meta = read_file_meta(whole)
    options = {"allow_lossy": request["allow_lossy"], "verify": request["verify"]}
    result = transcode(whole[meta.offset :], meta.transfer_syntax, request["accepted"], **options)
    size = 0
    with Path(request["result"]).open("xb") as out:
        for piece in result.pieces:
            size += out.write(piece)
    return {"syntax": result.transfer_syntax, "size": size, "uid": result.sop_instance_uid}


def _compressed(request: dict[str, Any]) -> dict[str, Any]:
    """A whole Part-10 file in another syntax, read back from its bytes and compared with the one it is made from."""
    from archive.dicom.compare import require_comparable, require_same
    from archive.dicom.part10 import read_file_meta
    from archive.dicom.transcode import transcode

    whole, target, prefix = _mapped(Path(request["path"])), request["accepted"][0], bytes.fromhex(request["prefix"])
    meta = read_file_meta(whole)
    data = whole[meta.offset :]
    require_comparable(data, meta.transfer_syntax)
    made = transcode(data, meta.transfer_syntax, [target], verify=False)
    digest, size = hashlib.sha256(), 0
    with Path(request["result"]).open("r+b") as out:
        out.write(prefix)
        for piece in made.pieces:
            size += out.write(piece)
            digest.update(piece)
    written = _mapped(Path(request["result"]))[len(prefix) :]
    photometric = require_same(data, meta.transfer_syntax, written, made.transfer_syntax)
    if hashlib.sha256(written).digest() != digest.digest():
        raise OutOfResources("Compressed file is not what was written")
    before = hashlib.sha256(data).hexdigest()
    return {"size": size, "sha256": digest.hexdigest(), "before": before, "photometric": photometric}


def _mapped(path: Path) -> memoryview:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise Damaged("Stored file is empty", str(path))
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError as error:
        raise Damaged("Stored file is missing", str(path)) from error


if __name__ == "__main__":
    main(sys.argv[1:])
