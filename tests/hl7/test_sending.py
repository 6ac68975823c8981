"""Messages out: what a receiver's answer means, and where its own words go."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from archive.app.alarming import failed
from archive.errors import Unreachable
from archive.hl7.framing import Framer, framed
from archive.hl7.message import Message
from archive.hl7.sending import Receiver, send_all
from archive.index import Index, NewTask, State
from archive.services.alarms import Alarm
from archive.workers.messages import KIND, packed, unpacked
from archive.workers.telling import Telling
from tests.hl7.made import order

SECRET = "Doe Jane, born 1960, is unknown"


@contextmanager
def receiver(answer: Callable[[Message], str]) -> Iterator[Receiver]:
    """Answers each message of one connection with the segments behind MSH."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, framer = server.accept()[0], Framer()
            with connection:
                while data := connection.recv(1 << 16):
                    for message in framer.feed(data):
                        header = "MSH|^~\\&|RIS||ARCHIVE||20260101||ACK|1|P|2.5.1"
                        connection.sendall(framed(f"{header}\r{answer(Message(message))}\r".encode()))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Receiver("127.0.0.1", server.getsockname()[1], answer=120.0)
        thread.join(120)


def refused(code: str, error: str = "") -> Callable[[Message], str]:
    return lambda message: f"MSA|{code}|{message.control_id}|{SECRET}\r{error}".rstrip("\r")


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ("AE", "", "AE (application error)"),
        ("CR", "", "CR (commit reject)"),
        ("AR", f"ERR|||204^Unknown key^HL70357|E||||{SECRET}", "AR (application reject), 204 (Unknown key identifier)"),
        ("AE", f"ERR|||{SECRET}|E", "AE (application error)"),
    ],
)
def test_the_words_of_a_refusal_stay_in_the_task(
    index: Index, caplog: pytest.LogCaptureFixture, code: str, error: str, said: str
) -> None:
    told: list[Alarm] = []
    index.queue.failed = failed(told.append)
    index.add_tasks([NewTask(KIND, packed(order("M1")), lane="RIS")], 1.0)
    tasks = index.lease(KIND, "me", 2.0, seconds=600)
    with receiver(refused(code, error)) as ris, caplog.at_level(logging.DEBUG):
        telling = Telling(
            index, lambda name, tasks: send_all(ris, [unpacked(each.payload) for each in tasks]), lambda: 3.0,
            pauses=(5.0,),
        )
        telling("RIS", tasks, "me")
    (task,) = index.tasks(kind=KIND)
    assert task.state is State.FAILED
    assert task.reason == f"HL7 receiver refused the message: {said}, saying: {SECRET}"
    assert SECRET not in caplog.text and said in caplog.text
    assert [alarm.why for alarm in told] == [f"HL7 receiver refused the message: {said}"]


@pytest.mark.parametrize("answer", ["MSA|AA|other", f"MSA|{SECRET}|M1"])
def test_an_answer_to_something_else_is_none_and_is_not_repeated(answer: str) -> None:
    with receiver(lambda message: answer) as ris, pytest.raises(Unreachable) as caught:
        list(send_all(ris, [order("M1")]))
    assert SECRET not in str(caught.value) and "answered something else" in str(caught.value)
