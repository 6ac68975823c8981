"""A modality on pynetdicom: stores, asks for storage commitment, and listens for the reports."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from tests.dimse.archives import ROOT
from tests.faults.daemon import free_port, wait_until

BOTH = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
Reference = tuple[str, str]


@dataclass(frozen=True)
class Report:
    """One N-EVENT-REPORT as it came."""

    type: int
    transaction: str
    committed: frozenset[Reference]
    failed: dict[str, int]  # SOP instance -> reason
    calling: str
    called: str
    syntax: str
    same: bool  # on the association that asked
    roles: dict[str, tuple[bool, bool]]  # the role selection that was proposed


class Modality:
    """AE title, listener and requests; `answer` is the status it gives to reports."""

    def __init__(
        self, aet: str = "CT1", *, syntaxes: Sequence[str] = BOTH, answer: int = 0, selects_roles: bool = True
    ) -> None:
        self.aet, self.port = aet, free_port()
        self.reports: queue.Queue[Report] = queue.Queue()
        self.answer = answer
        self.syntaxes = list(syntaxes)
        self.selects_roles = selects_roles
        self._server: Any = None

    # -- listening ------------------------------------------------------------------------------

    def listen(self) -> Modality:
        entity = AE(self.aet)
        entity.require_called_aet = True
        roles = {"scu_role": False, "scp_role": True} if self.selects_roles else {}
        entity.add_supported_context(StorageCommitmentPushModel, self.syntaxes, **roles)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._take)]
        self._server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        return self

    def deaf(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def __enter__(self) -> Modality:
        return self.listen()

    def __exit__(self, *_: object) -> None:
        self.deaf()

    def _take(self, event: Any, same: bool = False) -> tuple[int, None]:
        found, assoc = event.event_information, event.assoc
        items = found.get("ReferencedSOPSequence") or ()
        failed = found.get("FailedSOPSequence") or ()
        proposed = [each for each in assoc.requestor.primitive.user_information if hasattr(each, "scp_role")]
        self.reports.put(
            Report(
                event.event_type,
                str(found.TransactionUID),
                frozenset((str(each.ReferencedSOPClassUID), str(each.ReferencedSOPInstanceUID)) for each in items),
                {str(each.ReferencedSOPInstanceUID): int(each.FailureReason) for each in failed},
                assoc.requestor.ae_title.strip(),
                assoc.acceptor.ae_title.strip(),
                str(event.context.transfer_syntax),
                same,
                {str(each.sop_class_uid): (each.scu_role, each.scp_role) for each in proposed},
            )
        )
        return self.answer, None

    def report(self, patience: float = 15.0) -> Report:
        return self.reports.get(timeout=patience)

    def has_none(self) -> bool:
        return self.reports.empty()

    # -- asking ---------------------------------------------------------------------------------

    @contextmanager
    def calling(
        self, port: int, called: str = "ARCHIVE", contexts: Sequence[str] = (StorageCommitmentPushModel, CTImageStorage)
    ) -> Iterator[Any]:
        """An association for storage and commitment, on which reports are taken too."""
        entity = AE(self.aet)
        for context in contexts:
            entity.add_requested_context(context, self.syntaxes)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._take, [True])]
        assoc = entity.associate("127.0.0.1", port, ae_title=called, evt_handlers=handlers)
        assert assoc.is_established
        try:
            yield assoc
        finally:
            if assoc.is_established:
                assoc.release()

    def ask(self, port: int, references: Iterable[Reference], transaction: str = "", called: str = "ARCHIVE") -> Any:
        """N-ACTION on an association of its own: status, Error Comment, Transaction UID."""
        with self.calling(port, called) as assoc:
            return ask(assoc, references, transaction)


def ask(
    assoc: Any,
    references: Iterable[Reference],
    transaction: str = "",
    action: int = 1,
    instance: str = StorageCommitmentPushModelInstance,
) -> Any:
    pause(assoc)
    request = Dataset()
    request.TransactionUID = transaction or generate_uid()
    request.ReferencedSOPSequence = []
    for sop_class, sop_instance in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
        request.ReferencedSOPSequence.append(item)
    status, _ = assoc.send_n_action(request, action, StorageCommitmentPushModel, instance)
    return status.get("Status"), str(status.get("ErrorComment", "")), str(request.TransactionUID)


def pause(assoc: Any) -> None:
    """Until the thread of an association looks away: else it may take a response for a request that came."""
    assoc._reactor_checkpoint.clear()
    wait_until(lambda: assoc._reactor_checkpoint._cond._waiters, 60)


def store(assoc: Any, data_set: Dataset) -> int:
    pause(assoc)
    return int(assoc.send_c_store(data_set).get("Status", -1))


def ct(number: int) -> Reference:
    """What `tests.dimse.archives.instance` makes of a number."""
    return str(CTImageStorage), f"{ROOT}.1.1.{number}"
