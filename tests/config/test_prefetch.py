"""The section ``prefetch``: what is read, and what is refused with words that help."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from archive.config import Complaints, Config

Configured = Callable[..., Config]
PEERS = "peers: {PACS: {host: 10.0.0.1, port: 104}, MUTE: {host: 10.0.0.2}}\n"


def rule(text: str) -> str:
    return f"{PEERS}prefetch: [{{name: r, {text}}}]\n"


def test_a_rule_is_read_with_its_defaults(configured: Configured) -> None:
    (found,) = configured(rule("from: PACS, priors: {max: 2, within: 5y, same: [body_part]}")).prefetch
    assert (found.on, found.from_, found.ahead, found.late) == (("order",), ("PACS",), 4 * 3600, 86400)
    assert (found.priors.max, found.priors.within, found.priors.same) == (2, 5 * 365 * 86400, ("body_part",))


WRONG = {
    "from: NOBODY": "NOBODY is no peer",
    "from: MUTE": "peer MUTE cannot be called",
    "to: MUTE": "peer MUTE cannot be called",
    "from: 'folder:/x'": "cannot be asked",
    "ahead: 1h": "fetches from nowhere",
    "from: PACS, match: \"Modalty = 'CT'\"": "did you mean Modality",
    "from: PACS, priors: {same: [colour]}": "not a known word",
    "from: PACS, on: [weather]": "not a known word",
    "from: PACS, priors: {within: 5x}": "not a duration",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_is_refused_in_words(configured: Configured, text: str) -> None:
    with pytest.raises(Complaints, match=WRONG[text]):
        configured(rule(text))


def test_a_rule_asks_of_orders(configured: Configured) -> None:
    assert configured(rule("from: PACS, match: \"ScheduledStationAETitle = 'CT1'\"")).prefetch[0].match


def test_names_are_not_shared(configured: Configured) -> None:
    with pytest.raises(Complaints, match="name of an earlier one"):
        configured(f"{PEERS}prefetch: [{{name: r, from: PACS}}, {{name: r, from: PACS}}]\n")
