"""D19, D25, S23, S24: what lies where it should not, an index that is lost, and names that mean harm."""

from __future__ import annotations

import ast
import os
import shutil
from collections.abc import Callable

from tests.faults import raw
from tests.faults.badobjects import elements
from tests.faults.checker import check, violations
from tests.faults.daemon import ROOT, Daemon, wait_until
from tests.faults.forks import ForkServer
from tests.faults.objects import Instance, encode, instance, keys_of, keys_of_instance, new_uid, study
from tests.faults.raw import CT, GET, STUDY_GET, Connection, Request, role

Archives = Callable[..., Daemon]
LONG_AGO = 1_000_000_000
COMMANDS_OF_THE_SHELL = {"system", "popen", "getoutput", "getstatusoutput"}


def run(forks: ForkServer, archive: Daemon, *arguments: str) -> int:
    """A command of the archive, to its end."""
    command = [arguments[0], "--config", str(archive.config_file), *arguments[1:]]
    return forks.start(command, folder=archive.folder, log=archive.folder / "command.log").wait(120)


def filled(archive: Daemon, images: list[Instance]) -> None:
    with raw.association(archive.port) as sending:
        assert {sending.store(CT, one.uid, one.data) for one in images} == {0}


def test_d19_a_file_without_row_is_taken_in_and_a_row_without_file_is_told(
    own_archive: Archives, forks: ForkServer
) -> None:
    archive, images = own_archive(), [*study(3), *study(2)]
    filled(archive, images)
    archive.stop()
    paths = {row.uid: archive.files / row.path for row in archive.rows()}
    orphan, missing, strange = images[0], images[3], paths[images[1].uid].with_name("zz.dcm")
    assert run(forks, archive, "fsck") == 0
    kept = paths[orphan.uid].read_bytes()
    archive.start()
    archive_delete(forks, archive, orphan)
    archive.stop()
    paths[orphan.uid].write_bytes(kept)
    strange.write_bytes(b"this is no object")
    for path in (paths[orphan.uid], strange):
        os.utime(path, (LONG_AGO, LONG_AGO))
    paths[missing.uid].unlink()
    assert run(forks, archive, "fsck") == 1
    assert len(violations(archive, alive=False)) == 3, "nothing is changed by looking"
    assert run(forks, archive, "fsck", "--repair") == 1, "what is missing stays missing"
    assert [path.read_bytes() for path in (archive.files / "lost+found").rglob("*.dcm")] == [b"this is no object"]
    left = violations(archive, [one for one in images if one is not missing], alive=False, patience=1.0)
    assert left == [f"row without file: {missing.uid}"]
    archive.start()
    with raw.association(archive.port, Request(user=role(CT, True, True))) as asking:
        answer, came = asking.get(keys_of_instance(missing))
    assert came == {} and answer.status != 0


def archive_delete(forks: ForkServer, archive: Daemon, one: Instance) -> None:
    """Its row and its file are gone when it returns."""
    assert run(forks, archive, "delete", "--yes", one.uid) == 0
    wait_until(lambda: not archive.select("select id from tombstone"), 60, "it is not unlinked")


def test_d25_an_index_that_is_lost_is_rebuilt_from_the_files(own_archive: Archives, forks: ForkServer) -> None:
    archive, images = own_archive(), [*study(4), *study(2), instance(size=1_500_000)]
    filled(archive, images)
    before = answers(archive, images)
    archive.kill()
    for name in ("index.db", "index.db-wal", "index.db-shm"):
        (archive.folder / name).unlink(missing_ok=True)
    assert run(forks, archive, "reindex", "--processes", "0") == 0
    archive.start()
    assert answers(archive, images) == before
    check(archive, images)


def answers(archive: Daemon, images: list[Instance]) -> list[list[bytes]]:
    with raw.association(archive.port) as asking:
        return [sorted(asking.find(keys_of_instance(one))[1]) for one in images]


def test_s23_nothing_that_was_received_reaches_a_shell(own_archive: Archives) -> None:
    for file in sorted((ROOT / "archive").rglob("*.py")):
        text = file.read_text()
        suspicious = any(word in text for word in ("shell", *COMMANDS_OF_THE_SHELL))
        for node in ast.walk(ast.parse(text if suspicious else "")):
            if isinstance(node, ast.Call):
                assert not any(key.arg == "shell" for key in node.keywords), file
                assert getattr(node.func, "attr", "") not in COMMANDS_OF_THE_SHELL, file
    archive, uid = own_archive(), new_uid()
    names = {0x00100010: ("PN", "$(touch pwned)^`touch pwned`"), 0x00100020: ("LO", "; touch pwned #")}
    data = encode(elements(uid) | names)
    with Connection(archive.port) as calling:
        calling.request(Request(calling="$(touch pwned)"))
    with raw.association(archive.port) as sending:
        assert sending.store(CT, uid, data) == 0
    check(archive)
    assert not list(archive.folder.rglob("pwned"))


def test_s24_what_is_deleted_while_it_is_retrieved_ends_whole_or_as_failed(
    own_archive: Archives, forks: ForkServer
) -> None:
    archive = own_archive({"timeouts": dict.fromkeys(("send", "dimse", "idle", "pdu"), "60s")})
    root, outside = new_uid(), archive.folder / "outside"
    images = [instance(study=root, uid=f"{root}.{number}", size=3_000_000) for number in range(6)]
    bystander = instance()
    filled(archive, [*images, bystander])
    shutil.copytree(archive.files / "objects", outside)
    before = {path: path.stat().st_size for path in outside.rglob("*.dcm")}
    request = Request(user=role(CT, True, True))
    with raw.association(archive.port, request, receive_buffer=4096, patience=60) as asking:
        asking.write(GET, raw.query_rq(raw.C_GET, STUDY_GET), keys_of("STUDY", study=root))
        first = asking.message()
        assert first.data == next(one.data for one in images if one.uid == first.text(raw.AFFECTED_INSTANCE))
        assert run(forks, archive, "delete", "--yes", root) == 0
        came, answer = {first.text(raw.AFFECTED_INSTANCE): first.data}, first
        asking.write(answer.context, raw.store_rsp(answer.command))
        while (answer := asking.message()).number(raw.FIELD) == raw.C_STORE or answer.status == raw.PENDING:
            if answer.number(raw.FIELD) == raw.C_STORE:
                came[answer.text(raw.AFFECTED_INSTANCE)] = answer.data
                asking.write(answer.context, raw.store_rsp(answer.command))
    whole = {one.uid: one.data for one in images}
    assert all(whole[uid] == data for uid, data in came.items())
    assert len(came) + answer.number(raw.FAILED) == len(images)
    wait_until(lambda: not archive.select("select id from tombstone"), 60, "it is not unlinked")
    check(archive, [bystander])
    assert {path: path.stat().st_size for path in outside.rglob("*.dcm")} == before
