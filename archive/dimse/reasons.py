"""How associations are refused and how they end: the codes of PS3.8 in words, and the exceptions that carry them.

Rules that hold here: every ending says why in words fit for a log; whoever raises one of the endings
has already told the peer (or could not) and closed the connection, so handlers just let them pass.
"""

from __future__ import annotations

# PS3.8 table 9-21, A-ASSOCIATE-RJ.
_RESULTS = {1: "rejected permanently", 2: "rejected for now"}
_REJECTIONS: dict[tuple[int, int], str] = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognized",
    (1, 7): "called AE title not recognized",
    (2, 1): "no reason given (provider)",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}

WRONG_CONTEXT_NAME = (1, 1, 2)
UNKNOWN_CALLING = (1, 1, 3)
UNKNOWN_CALLED = (1, 1, 7)
NO_REASON = (1, 2, 1)
WRONG_VERSION = (1, 2, 2)
CONGESTION = (2, 3, 1)
LIMIT_EXCEEDED = (2, 3, 2)

# PS3.8 table 9-26, A-ABORT.
USER, PROVIDER = 0, 2
NOT_SPECIFIED, UNRECOGNIZED_PDU, UNEXPECTED_PDU = 0, 1, 2
UNRECOGNIZED_PARAMETER, UNEXPECTED_PARAMETER, INVALID_PARAMETER = 4, 5, 6
_ABORTS = {
    NOT_SPECIFIED: "reason not specified",
    UNRECOGNIZED_PDU: "unrecognized PDU",
    UNEXPECTED_PDU: "unexpected PDU",
    UNRECOGNIZED_PARAMETER: "unrecognized PDU parameter",
    UNEXPECTED_PARAMETER: "unexpected PDU parameter",
    INVALID_PARAMETER: "invalid PDU parameter value",
}


def rejection_words(result: int, source: int, reason: int) -> str:
    """An A-ASSOCIATE-RJ in words, its codes behind them."""
    what = _RESULTS.get(result, "rejected")
    why = _REJECTIONS.get((source, reason), "reason unknown")
    return f"{what}: {why} ({result},{source},{reason})"


def abort_words(source: int, reason: int) -> str:
    """An A-ABORT in words; the reason means something only when the provider sends it."""
    if source != PROVIDER:
        return f"aborted by the application ({source},{reason})"
    return f"aborted by the provider: {_ABORTS.get(reason, 'reason unknown')} ({source},{reason})"


class Ended(Exception):
    """An association is over, and not by a release."""

    def __init__(self, words: str, source: int = USER, reason: int = NOT_SPECIFIED) -> None:
        super().__init__(words)
        self.words = words
        self.source = source
        self.reason = reason


class Aborted(Ended):
    """The peer aborted, or the connection broke."""


class TimedOut(Ended):
    """The peer was silent, or too slow, for too long; we aborted."""


class Stopped(Ended):
    """We are shutting down and aborted."""


class ProtocolError(Ended):
    """The peer broke the protocol; we aborted with this source and reason."""

    def __init__(self, words: str, reason: int = INVALID_PARAMETER, source: int = PROVIDER) -> None:
        super().__init__(words, source, reason)
