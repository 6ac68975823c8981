"""N28, N29: what a destination, and a peer that moves to one, can do wrong."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import destination, raw
from tests.faults.checker import check
from tests.faults.daemon import SLACK, TIMEOUTS, Daemon, Usage, wait_until
from tests.faults.destination import BlackHole, Dead, Destination
from tests.faults.objects import Instance, keys_of, keys_of_instance, study
from tests.faults.raw import CT, MOVE, STUDY_MOVE, Connection, Message
from tests.faults.rest import warm_up

WAIT = sum(TIMEOUTS.values()) + SLACK
UNKNOWN, UNABLE, WARNING = 0xA801, 0xA702, 0xB000


class Place:
    """An archive that knows destinations of all kinds, and holds one series."""

    def __init__(self, folder: Path) -> None:
        self.open = Destination()
        self.dead, self.hole = Dead(), BlackHole()
        ports = {"OPEN": self.open.port, "DEAD": self.dead.port, "HOLE": self.hole.port}
        peers = {name: {"host": "127.0.0.1", "port": port, "allow": ["echo"]} for name, port in ports.items()}
        peers["HUNGRY"] = {"host": "127.0.0.1", "port": self.open.port, "allow": ["echo"], "store_associations": 4}
        self.archive = Daemon(folder, {"peers": peers}).start()
        self.images = study(20, size=60_000)
        with raw.association(self.archive.port) as sender:
            assert {sender.store(CT, one.uid, one.data) for one in self.images} == {0}
        self.base: Usage = warm_up(self.archive)

    @property
    def series(self) -> bytes:
        return keys_of("SERIES", study=self.images[0].study, series=self.images[0].series)

    def close(self) -> None:
        self.archive.kill()
        for each in (self.open, self.dead, self.hole):
            each.close()

    def move(self, to: str, identifier: bytes | None = None) -> Message:
        with raw.association(self.archive.port, patience=WAIT) as mover:
            answer = mover.move(self.series if identifier is None else identifier, to)
            assert mover.echo(2) == 0
            return answer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("place"))
    yield place
    place.close()


@pytest.fixture
def place(made: Place) -> Iterator[Place]:
    said = len(made.archive.log())
    yield made
    made.open.behaviour = destination.serve()
    check(made.archive, made.images[:1], base=made.base, since=said)


def failed_uids(answer: Message) -> set[str]:
    """Failed SOP Instance UID List (0008,0058), whatever the length form."""
    at = answer.data.find(b"\x08\x00\x58\x00")
    assert at >= 0, "no list of what failed"
    length = int.from_bytes(answer.data[at + 6 : at + 8], "little")
    text = answer.data[at + 8 : at + 8 + length] if answer.data[at + 4 : at + 6] == b"UI" else answer.data[at + 8 :]
    return {uid.strip(b"\0 ").decode() for uid in text.split(b"\\")}


def test_n28_an_orderly_destination_gets_everything(place: Place) -> None:
    """The twin of all that follow."""
    kept: dict[str, bytes] = {}
    place.open.behaviour = destination.serve(keep=kept)
    answer = place.move("OPEN")
    assert (answer.status, answer.number(raw.COMPLETED), answer.number(raw.FAILED)) == (0, 20, 0)
    assert kept == {one.uid: one.data for one in place.images}


DEFECTS: dict[str, destination.Behaviour] = {
    "silent": destination.silent,
    "one byte": destination.one_byte,
    "rejects for now": destination.reject(2, 3, 1),
    "rejects for ever": destination.reject(1, 1, 3),
    "hangs up": destination.hang_up,
    "garbage": destination.garbage,
    "endless": destination.endless,
    "no context": destination.serve(refuse=True),
    "resets at the first object": destination.serve(stop_after=0),
    "falls silent at the first object": destination.serve(stop_after=0, how=destination.silent),
    "aborts at the first object": destination.serve(stop_after=0, how=lambda c: c.send(raw.abort(2, 6))),
}


@pytest.mark.parametrize("what", DEFECTS)
def test_n28_a_defective_destination_is_a_failure_in_time(place: Place, what: str) -> None:
    place.open.behaviour = DEFECTS[what]
    before = place.archive.usage().resident
    answer = place.move("OPEN")
    assert answer.status in (UNKNOWN, UNABLE, WARNING), hex(answer.status)
    assert answer.number(raw.COMPLETED) == 0
    assert len(answer.text(raw.COMMENT)) <= 64
    assert place.archive.usage().resident - before < 16 * 2**20


@pytest.mark.parametrize("aet", ["DEAD", "HOLE"])
def test_n28_a_destination_that_cannot_be_reached_is_a_failure_in_time(place: Place, aet: str) -> None:
    before = time.monotonic()
    answer = place.move(aet)
    assert answer.status in (UNKNOWN, UNABLE)
    assert answer.text(raw.COMMENT)
    assert time.monotonic() - before < WAIT


@pytest.mark.parametrize("max_pdu", [0, 7, 128, 16384, 1 << 20])
def test_n28_the_maximum_pdu_of_a_destination_is_kept(place: Place, max_pdu: int) -> None:
    sizes: list[int] = []

    def measure(connection: Connection) -> None:
        read = connection.read

        def reading() -> raw.Pdu | None:
            found = read()
            if found is not None and found.kind == raw.DATA:
                sizes.append(len(found.body))
            return found

        connection.read = reading  # type: ignore[method-assign]
        destination.serve(max_pdu=max_pdu)(connection)

    place.open.behaviour = measure
    answer = place.move("OPEN", keys_of_instance(place.images[0]))
    assert answer.status == 0 or max_pdu < 128
    assert not max_pdu or all(size <= max_pdu for size in sizes)


def test_n28_a_destination_that_never_releases_holds_up_nobody(place: Place) -> None:
    place.open.behaviour = destination.never_releases
    answer = place.move("OPEN")
    assert (answer.status, answer.number(raw.COMPLETED)) == (0, 20)


# -- C-MOVE ----------------------------------------------------------------------------------------------


def test_n29_an_unknown_destination_is_a801(place: Place) -> None:
    answer = place.move("NOWHERE")
    assert answer.status == UNKNOWN
    assert "CANARY" not in answer.text(raw.COMMENT)


def test_n29_what_a_destination_refuses_is_listed(place: Place) -> None:
    place.open.behaviour = destination.serve(lambda number: 0xA700 if number % 2 else 0)
    answer = place.move("OPEN")
    assert answer.status == WARNING
    assert (answer.number(raw.COMPLETED), answer.number(raw.FAILED)) == (10, 10)
    assert len(failed_uids(answer) & {one.uid for one in place.images}) == 10


def test_n29_a_destination_that_breaks_in_the_middle_fails_the_rest_only(place: Place) -> None:
    place.open.behaviour = destination.serve(stop_after=5)
    answer = place.move("OPEN")
    assert answer.status == WARNING
    assert answer.number(raw.COMPLETED) + answer.number(raw.FAILED) == 20
    assert answer.number(raw.COMPLETED) >= 5


def test_n29_nothing_found_is_not_a_study_sent(place: Place) -> None:
    answer = place.move("OPEN", keys_of("STUDY", study="1.2.3.4.5"))
    assert answer.status == 0 or answer.text(raw.COMMENT)
    assert answer.number(raw.COMPLETED) == 0


def test_n29_a_cancelled_move_stops(place: Place) -> None:
    place.open.behaviour = destination.serve(pause=0.1)
    with raw.association(place.archive.port) as mover:
        mover.write(MOVE, raw.query_rq(raw.C_MOVE, STUDY_MOVE, 7, "OPEN"), place.series)
        while mover.message().number(raw.COMPLETED) < 2:
            pass
        mover.write(MOVE, raw.cancel_rq(7))
        while (answer := mover.message()).status == raw.PENDING:
            pass
        assert answer.status == raw.CANCELLED
        assert answer.number(raw.COMPLETED) < 20
        assert mover.echo(8) == 0


def _rests(kept: dict[str, bytes]) -> bool:
    """Whether nothing comes in the time in which three would."""
    seen = len(kept)
    time.sleep(0.7)
    return len(kept) == seen


@pytest.mark.parametrize("how", [Connection.reset, Connection.close, lambda c: c.send(raw.abort())])
def test_n29_a_mover_that_goes_away_stops_the_move(place: Place, how: Callable[[Connection], None]) -> None:
    kept: dict[str, bytes] = {}
    place.open.behaviour = destination.serve(pause=0.2, keep=kept)
    with Connection(place.archive.port) as mover:
        mover.associate()
        mover.write(MOVE, raw.query_rq(raw.C_MOVE, STUDY_MOVE, 7, "OPEN"), place.series)
        mover.message()
        how(mover)
        wait_until(lambda: _rests(kept), 10, "it does not stop")
    assert len(kept) < len(place.images)


def test_n29_more_matches_than_a_counter_holds(own_archive: Callable[..., Daemon]) -> None:
    """65,600 instances: the counters of a response are 16 bits wide (PS3.7 table 9.3-6)."""
    with Destination() as open_one:
        archive = own_archive({"peers": {"OPEN": {"host": "127.0.0.1", "port": open_one.port, "allow": ["echo"]}}})
        one = study(1)[0]
        with raw.association(archive.port) as sender:
            assert sender.store(CT, one.uid, one.data) == 0
        copies(archive, one, 65_600)
        with raw.association(archive.port, patience=30) as mover:
            mover.write(MOVE, raw.query_rq(raw.C_MOVE, STUDY_MOVE, 7, "OPEN"), keys_of("STUDY", study=one.study))
            first = mover.message()
            assert first.status == raw.PENDING or first.status >> 8 == 0xA7
            if first.status == raw.PENDING:
                assert 60_000 < first.number(raw.REMAINING) <= 0xFFFF
                mover.write(MOVE, raw.cancel_rq(7))
                while (answer := mover.message()).status == raw.PENDING:
                    pass
                assert answer.status == raw.CANCELLED
        assert "Traceback" not in archive.log()


def copies(archive: Daemon, one: Instance, count: int) -> None:
    """Rows that look like further instances of its series, which all have its bytes."""
    with sqlite3.connect(archive.folder / "index.db", timeout=60) as database:
        names = [row[1] for row in database.execute("pragma table_info(instance)") if row[1] != "id"]
        values = ", ".join(f"'{one.uid}.' || number" if name == "sop_instance_uid" else name for name in names)
        database.execute(
            "with recursive numbers(number) as (select 1 union all select number + 1 from numbers where number < ?) "
            f"insert into instance ({', '.join(names)}) select {values} from instance, numbers "
            "where sop_instance_uid = ?",
            (count, one.uid),
        )
