"""Storage commitment as a raw peer does it: a request, and a place where its reports come to (PS3.4 annex J).

Rules that hold here: nothing of the archive is used; every report that came is kept, repetitions too; a report is
kept before it is answered.
"""

from __future__ import annotations

import io
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pydicom.filereader import read_dataset

from tests.faults import raw
from tests.faults.destination import Behaviour, Destination
from tests.faults.objects import element
from tests.faults.raw import COMMIT, COMMITMENT, COMMITMENT_INSTANCE, Connection, Ended, Message, Request

REQUEST = 1  # action type
ASKING = Request(contexts=dict(raw.CONTEXTS) | {COMMIT: (COMMITMENT, (raw.EXPLICIT,))})
Reference = tuple[str, str]  # SOP class, SOP instance


@dataclass(frozen=True)
class Report:
    """What an N-EVENT-REPORT says: what is kept, and what is not and why."""

    committed: frozenset[str]
    failed: tuple[tuple[str, int], ...]


def request_of(transaction: str, references: Iterable[Reference]) -> bytes:
    items = b"".join(
        struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body
        for body in (
            element(0x00081150, "UI", sop_class) + element(0x00081155, "UI", uid) for sop_class, uid in references
        )
    )
    return element(0x00081195, "UI", transaction) + element(0x00081199, "SQ", items)


def ask(connection: Connection, transaction: str, references: Iterable[Reference], *, wait: bool = True) -> int:
    """N-ACTION and the status of its answer; what else comes before that is a report, and answered."""
    command = raw.command(
        {
            raw.REQUESTED_CLASS: COMMITMENT,
            raw.FIELD: raw.N_ACTION,
            raw.MESSAGE_ID: 7,
            raw.DATA_SET_TYPE: raw.SOME,
            raw.REQUESTED_INSTANCE: COMMITMENT_INSTANCE,
            raw.ACTION_TYPE: REQUEST,
        }
    )
    connection.write(COMMIT, command, request_of(transaction, references))
    return connection.message().status if wait else 0


class Reports:
    """Keeps what is reported, by Transaction UID."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self._came: defaultdict[str, list[Report]] = defaultdict(list)
        self._mutex = threading.Lock()

    def of(self, transaction: str) -> list[Report]:
        with self._mutex:
            return list(self._came[transaction])

    def listen(self, port: int = 0) -> Destination:
        """For reports on associations of their own."""
        return Destination(self._behaviour(), port)

    def _behaviour(self) -> Behaviour:
        def behave(connection: Connection) -> None:
            request = connection.read()
            assert request is not None and request.kind == raw.RQ
            connection.send(raw.accept(request.body))
            self.take(connection)

        return behave

    def take(self, connection: Connection, enough: Callable[[], bool] = lambda: False) -> None:
        """Take reports until the other side ends the association."""
        while not enough():
            try:
                message = connection.message()
            except Ended as end:
                if end.how == ("PDU", raw.RELEASE_RQ):
                    connection.send(raw.release_rp())
                    connection.close()
                return
            transaction, report = decoded(message)
            with self._mutex:
                self._came[transaction].append(report)
            connection.write(message.context, answer_to(message.command, self.status))


def decoded(message: Message) -> tuple[str, Report]:
    found = read_dataset(io.BytesIO(message.data), is_implicit_VR=False, is_little_endian=True)
    committed = frozenset(str(each.ReferencedSOPInstanceUID) for each in found.get("ReferencedSOPSequence", ()))
    failed = [
        (str(each.ReferencedSOPInstanceUID), int(each.FailureReason)) for each in found.get("FailedSOPSequence", ())
    ]
    return str(found.TransactionUID), Report(committed, tuple(sorted(failed)))


def answer_to(request: Mapping[int, bytes], status: int) -> bytes:
    return raw.command(
        {
            raw.AFFECTED_CLASS: request[raw.AFFECTED_CLASS],
            raw.FIELD: raw.N_EVENT_REPORT | raw.RESPONSE,
            raw.RESPONDED_TO: request[raw.MESSAGE_ID],
            raw.DATA_SET_TYPE: raw.NONE,
            raw.STATUS: status,
            raw.AFFECTED_INSTANCE: request[raw.AFFECTED_INSTANCE],
            raw.EVENT_TYPE: request[raw.EVENT_TYPE],
        }
    )
