"""A destination that does, by chance, whatever a receiver of C-STORE can do wrong, and keeps account of all of it.

Rules that hold here: what it answers is noted before it is said, so that nobody can know of it earlier; an object that
is kept counts as such, answered or not; the same seed draws the same moods.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from tests.faults import raw
from tests.faults.daemon import free_port
from tests.faults.destination import Behaviour, Destination, hang_up, reject, silent
from tests.faults.raw import Connection, Ended, Message

MAX_PDU = 4096  # most objects take several PDUs
SHARE = 0.07  # of objects, and of associations, that meet a fault
AWAY = (0.05, 0.5)  # seconds for which nobody listens
POISON, WRONG_CLASS = 0xC000, 0xA900  # answers that some objects get always

End = Callable[[Connection, Message], None]


def _reset(connection: Connection, message: Message) -> None:
    connection.reset()


def _abort(connection: Connection, message: Message) -> None:
    connection.send(raw.abort(2, 6))
    connection.is_closed(5)


def _silent(connection: Connection, message: Message) -> None:
    silent(connection)


def _another(connection: Connection, message: Message) -> None:
    """Success, but of a request that nobody made."""
    other = message.command | {raw.MESSAGE_ID: b"\x39\x30"}
    connection.write(message.context, raw.store_rsp(other))
    connection.is_closed(30)


class Mood(NamedTuple):
    """What becomes of an object: whether it is kept, what is answered, and how the association ends."""

    keeps: bool
    status: int | None = None
    end: End | None = None


FINE = Mood(True, 0x0000)
MOODS = {
    "0111": Mood(True, 0x0111),  # it had it already
    "B000": Mood(True, 0xB000),
    "B007": Mood(True, 0xB007),
    "A700": Mood(False, 0xA700),
    "C000": Mood(False, 0xC000),
    "0110": Mood(False, 0x0110),
    "lost, cut": Mood(False, None, _reset),
    "lost, aborted": Mood(False, None, _abort),
    "lost, silent": Mood(False, None, _silent),
    "kept, cut": Mood(True, None, _reset),
    "kept, aborted": Mood(True, None, _abort),
    "kept, silent": Mood(True, None, _silent),
    "kept, another answered": Mood(True, None, _another),
    "answered, cut": Mood(True, 0x0000, _reset),
}
SILENT = {"silent at first", "lost, silent", "kept, silent"}  # cost whoever waits a time-out each
ANSWERS = {"0111", "B000", "B007"}  # of these moods the object has arrived: no fault
MIDDLE: dict[str, Callable[[Connection], None]] = {
    "cut in the middle": Connection.reset,
    "aborted in the middle": lambda connection: connection.send(raw.abort(0, 0)),
}
GONE = "gone"
AT_FIRST: dict[str, Behaviour] = {
    "rejected for now": reject(2, 3, 2), "rejected for ever": reject(1, 1, 7), "hung up": hang_up,
    "silent at first": silent, GONE: Connection.reset,
}  # fmt: skip


class Moody(Destination):
    """Listens at a port of its own, which it may leave for a moment. Orderly while `calm`."""

    def __init__(self, seed: str, without: Collection[str] = ()) -> None:
        """`without` these moods."""
        self._rng, self._lock = random.Random(seed), threading.Lock()
        self._moods = [name for name in (*MOODS, *MIDDLE) if name not in without]
        self._manners = [name for name in AT_FIRST if name not in without]
        self._objects, self._firsts = self._shuffled(self._moods), self._shuffled(self._manners)
        self._number, self._closed = free_port(), False
        self.calm = False
        self.always: dict[str, int] = {}  # objects that are never taken, and what they are answered
        self.met: Counter[str] = Counter()  # moods
        self.came: Counter[str] = Counter()  # how often an object was kept
        self.unsure: Counter[str] = Counter()  # how often it was kept and the other side may not know
        self.order: dict[str, int] = {}  # of what came
        self.left = 0  # associations that the other side broke off, in time or not
        self._last: dict[str, int | None] = {}  # what was answered
        self._seen = 0
        super().__init__(self._serve, self._number)

    @property
    def port(self) -> int:
        return self._number

    @property
    def faults(self) -> int:
        return sum(number for name, number in self.met.items() if name not in ANSWERS) + self.left

    @property
    def duplicates(self) -> int:
        return sum(self.came.values()) - len(self.came)

    def answer(self, uid: str) -> int | None:
        """The last one to an object; None when it had none."""
        with self._lock:
            return self._last.get(uid)

    def _shuffled(self, names: Iterable[str]) -> list[str]:
        listed = [*names]
        self._rng.shuffle(listed)
        return listed

    def _draw(self, first: list[str], names: Sequence[str]) -> str:
        """A mood, or none; each comes once before chance decides."""
        with self._lock:
            if self.calm or self._rng.random() >= (0.5 if first else SHARE):
                return ""
            name = first.pop() if first else self._rng.choice(names)
            self.met[name] += 1
            return name

    # -- an association -------------------------------------------------------------------------

    def _treat(self, connection: Connection) -> None:
        super()._treat(connection)
        connection.close()

    def _serve(self, connection: Connection) -> None:
        name = self._draw(self._firsts, self._manners)
        if name == GONE:
            self._go_away()
        if name:
            AT_FIRST[name](connection)
            return
        request = connection.read()
        assert request is not None and request.kind == raw.RQ
        connection.send(raw.accept(request.body, MAX_PDU))
        self._talk(connection)

    def _talk(self, connection: Connection) -> None:
        uid = name = ""
        try:
            while True:
                name = self._draw(self._objects, self._moods)
                if name in MIDDLE:
                    self._break(connection, name)
                    return
                message = connection.message()
                if message.number(raw.FIELD) == raw.C_ECHO:
                    self._take_back(name)
                    connection.write(message.context, _echo_rsp(message))
                    continue
                uid = message.text(raw.AFFECTED_INSTANCE)
                if not self._take(connection, message, MOODS.get(name, FINE)):
                    return
        except Ended as end:
            self._take_back(name)
            if end.how == ("PDU", raw.RELEASE_RQ):
                connection.try_send(raw.release_rp())
            else:
                self._note_left(uid)
        except OSError:
            self._note_left(uid)

    def _break(self, connection: Connection, name: str) -> None:
        """Half a message, if there is one."""
        found = connection.read()
        if found is None or found.kind != raw.DATA:
            raise Ended(("PDU", found.kind) if found else ("closed",))
        MIDDLE[name](connection)
        if connection.sock.fileno() >= 0:
            connection.is_closed(5)

    def _take_back(self, name: str) -> None:
        """A mood that met nothing."""
        if name:
            with self._lock:
                self.met[name] -= 1

    def _note_left(self, uid: str) -> None:
        """The other side had no patience, and may not know of the last answer."""
        with self._lock:
            self.left += 1
            self.unsure[uid] += 1

    def _take(self, connection: Connection, message: Message, mood: Mood) -> bool:
        """Whether the association goes on."""
        uid = message.text(raw.AFFECTED_INSTANCE)
        if not self.calm and uid in self.always and mood.end is None:
            mood = Mood(False, self.always[uid])
        self._note(uid, message.data, mood)
        if mood.status is not None:
            connection.write(message.context, raw.store_rsp(message.command, mood.status))
        if mood.end is not None:
            mood.end(connection, message)
        return mood.end is None

    def _note(self, uid: str, data: bytes, mood: Mood) -> None:
        with self._lock:
            self._seen += 1
            self.order[uid] = self._seen
            self._last[uid] = mood.status
            if mood.keeps:
                self.received[uid] = data
                self.came[uid] += 1
                self.unsure[uid] += mood.end is not None

    # -- nobody listens -------------------------------------------------------------------------

    def _go_away(self) -> None:
        """The port stays ours, so that nobody else takes it."""
        with self._lock:
            if self._closed:
                return
            with contextlib.suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = socket.socket()
            self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listening.bind(("127.0.0.1", self._number))
            timer = threading.Timer(self._rng.uniform(*AWAY), self._come_back)
        timer.daemon = True
        timer.start()

    def _come_back(self) -> None:
        with self._lock:
            if not self._closed:
                self._listening.listen(16)
                threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with self._lock:
            self._closed = True
        super().close()


def _echo_rsp(message: Message) -> bytes:
    return raw.command(
        {
            raw.AFFECTED_CLASS: raw.VERIFICATION,
            raw.FIELD: raw.C_ECHO | raw.RESPONSE,
            raw.RESPONDED_TO: message.command[raw.MESSAGE_ID],
            raw.DATA_SET_TYPE: raw.NONE,
            raw.STATUS: raw.SUCCESS,
        }
    )
