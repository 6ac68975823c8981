"""What is wrong with a caller or a destination, and what would do, found from values alone.

Rules that hold here: a finding is one line that a person can act on; what is ``wrong`` keeps something from working
now, everything else is there to be compared with what the other side says; no patient data, only AE titles, addresses,
reasons and counts; a title that a caller chose is quoted where a remedy is to be copied; the clock is passed in.
"""

from __future__ import annotations

import difflib
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from archive.errors import for_log
from archive.index import CallerSeen, Lane, State, Task
from archive.services.remedies import remedy
from archive.services.waiting import clock, held_up

SOON = 30 * 86400  # seconds before its end at which a certificate is told of: what a hospital's authority needs
RESEMBLES = 0.75  # of difflib: one wrong character in five
WRONG, NOTE = "wrong", "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: about what, how it is, and what would do; ``state`` is WRONG or NOTE."""

    about: str
    says: str
    remedy: str = ""
    state: str = WRONG

    @property
    def wrong(self) -> bool:
        return self.state == WRONG


def note(about: str, says: str, remedy: str = "") -> Finding:
    return Finding(about, says, remedy, NOTE)


@dataclass(frozen=True, slots=True)
class Entry:
    """A configured peer, as far as it is looked at here."""

    name: str
    aet: str
    aliases: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    port: int | None = None
    address: str | None = None
    networks: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"peers.{self.name or self.aet}"

    @property
    def titles(self) -> tuple[str, ...]:
        return (self.aet, *self.aliases)


@dataclass(frozen=True, slots=True)
class Call:
    """How calling a destination went: the words of what failed, seconds, and until when its certificate is valid."""

    aet: str
    key: str
    where: str
    calling: str
    failed: str = ""
    seconds: float = 0.0
    steps: tuple[str, ...] = ()
    expires: float | None = None


# -- who it is --------------------------------------------------------------------------------------------------


def difference(title: str, known: str) -> str:
    """How two AE titles that look alike differ, in words; empty when they do not look alike."""
    if title == known:
        return ""
    if title.strip() == known.strip():
        return "by spaces around it alone"
    if title.upper() == known.upper():
        return "by case alone"
    if _plain(title) == _plain(known):
        return "by spaces, hyphens, underscores or case alone"
    if _one_apart(title.upper(), known.upper()):
        return "by one character"
    alike = difflib.SequenceMatcher(None, title.upper(), known.upper()).ratio() >= RESEMBLES
    return "by a few characters" if alike else ""


def _plain(title: str) -> str:
    return "".join(character for character in title.upper() if character.isalnum())


def _one_apart(one: str, other: str) -> bool:
    """One character replaced, left out or put in, or two that changed places."""
    if len(one) > len(other):
        one, other = other, one
    first = next((n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))
    if len(one) < len(other):
        return one[first:] == other[first + 1 :] and len(other) - len(one) == 1
    swapped = one[:first] + one[first : first + 2][::-1] + one[first + 2 :]
    return one[first + 1 :] == other[first + 1 :] or swapped == other


def identity(title: str, entries: Iterable[Entry], ours: Sequence[str]) -> list[Finding]:
    """Which entry a title belongs to; near misses when it belongs to none."""
    entries = list(entries)
    found = entry_of(title, entries)
    if found is not None:
        return [_belongs(title, found)]
    if title.strip().upper() in (each.upper() for each in ours):
        return [
            Finding(title, "is the archive's own AE title, not that of a peer",
                    "a caller that shows it has calling and called AE title the wrong way round")
        ]  # fmt: skip
    near = [(each, known, difference(title, known)) for each in entries for known in each.titles]
    misses = [
        Finding(title, f"is no configured peer; it differs from {known} ({each.key}) {how}",
                f"correct it at the device, or {each.key}.aliases: [{written(title)}]")
        for each, known, how in near if how
    ]  # fmt: skip
    quoted = shlex.quote(title)
    todo = f"archive peers promote {quoted} once it has called, or archive peers add {quoted} --host ADDRESS"
    return misses or [Finding(title, "is no configured peer, and none looks like it", todo)]


def written(title: str) -> str:
    """A title as it is put into the file: callers choose theirs, and a person copies what is shown."""
    return title if title.replace("_", "").replace("-", "").isalnum() else json.dumps(title)


def entry_of(title: str, entries: Iterable[Entry]) -> Entry | None:
    """As callers are recognised: the exact spelling first, then without padding and regard to case."""
    by_title = {known: each for each in entries for known in each.titles}
    folded = {known.upper(): each for known, each in by_title.items()}
    title = title.strip()
    return by_title.get(title) or folded.get(title.upper())


def _belongs(title: str, entry: Entry) -> Finding:
    if title == entry.aet:
        return note(title, f"is the peer {entry.key}")
    if title in entry.aliases:
        return note(title, f"is an alias of {entry.aet} ({entry.key})")
    known = next((each for each in entry.titles if each.upper() == title.strip().upper()), entry.aet)
    how = difference(title, known)
    return note(title, f"differs from {known} ({entry.key}) {how}, which the archive takes for the same")


def permissions(entry: Entry, verbs: Sequence[str]) -> list[Finding]:
    """What a peer may and may not do, and from where."""
    missing = [verb for verb in verbs if verb not in entry.allow]
    says = f"may {', '.join(entry.allow) or 'do nothing'}"
    refused = f"; may not {', '.join(missing)}" if missing else ""
    found = [note(f"{entry.key}.allow", says + refused, f"{entry.key}.allow: the verbs it needs" if missing else "")]
    from_where = ", ".join(entry.networks[:4]) or "no address: its name could not be looked up"
    found.append(note(f"{entry.key}.host", f"is accepted from {from_where}"))
    if entry.port is None:
        says = "is not there, so nothing can be sent to it: no C-MOVE to it, no commitment reports, no routes"
        found.append(note(f"{entry.key}.port", says, "the port at which it listens, if it does"))
    return found


# -- who was refused --------------------------------------------------------------------------------------------


def refusal(caller: CallerSeen, now: float, *, stands: bool, since: float, remedy: str) -> Finding:
    """What a refused caller met; wrong while the reason ``stands`` and the last try is not older than ``since``."""
    times = "once" if caller.times == 1 else f"{caller.times} times since {clock(caller.first, now)}"
    says = f"{caller.aet} called {caller.called} from {caller.address} and was refused {times}"
    says += f", last at {clock(caller.last, now)}: {caller.reason}"
    if not stands:
        return note("refused", f"{says}; the configuration would let it in now")
    if caller.last < since:
        return note("refused", f"{says}; that is a while ago", remedy)
    return Finding("refused", says, remedy)


# -- whether it can be called -----------------------------------------------------------------------------------


def answer(call: Call, now: float) -> list[Finding]:
    """What a C-ECHO met, and what would do."""
    steps = f" ({', '.join(call.steps)})" if call.steps else ""
    if call.failed:
        todo = remedy(call.failed, aet=call.aet, key=call.key, calling=call.calling)
        found = [Finding(call.aet, f"does not answer at {call.where}: {call.failed}{steps}", todo)]
    else:
        says = f"answers C-ECHO at {call.where} in {call.seconds * 1000:.0f} ms{steps}"
        found = [note(call.aet, says)]
    if call.expires is not None and call.expires - now < SOON:
        end = datetime.fromtimestamp(call.expires, UTC)
        says = f"the certificate that it shows expires on {end:%Y-%m-%d}"
        found.append(Finding(call.aet, says, "it needs a new one"))
    return found


# -- what stands still ------------------------------------------------------------------------------------------


def lanes(held: Mapping[str, Lane], waiting: Mapping[tuple[str, State], int], now: float) -> list[Finding]:
    """The destinations that are held up, and why."""
    found = []
    for name, lane in sorted(held.items()):
        why = held_up(lane, now)
        if not why:
            continue
        count = waiting.get((name, State.WAITING), 0)
        todo = "archive queue resume {}" if lane.paused is not None else "archive queue retry --to {} asks it now"
        found.append(Finding(f"queue of {name}", f"stands still with {count} tasks: {why}", todo.format(name)))
    return found


def failures(tasks: Iterable[Task], since: float, now: float, *, most: int) -> list[Finding]:
    """Tasks that have failed for good since then, by destination and kind, with the last reason."""
    counts: Counter[tuple[str, str]] = Counter()
    last: dict[tuple[str, str], Task] = {}
    for task in tasks:
        if _ended(task) >= since:
            counts[task.lane, task.kind] += 1
            last[task.lane, task.kind] = max(task, last.get((task.lane, task.kind), task), key=_ended)
    return [_failed(key, count, last[key], now, most) for key, count in sorted(counts.items())]


def _ended(task: Task) -> float:
    return task.finished or 0.0


def _failed(key: tuple[str, str], count: int, last: Task, now: float, most: int) -> Finding:
    lane, kind = key
    many = "1 task has" if count == 1 else f"{count}{' or more' if count >= most else ''} tasks have"
    about = f"queue of {lane}" if lane else "queue"
    says = f"{many} failed ({kind}), the last at {clock(last.finished or now, now)}: {for_log(last.reason)}"
    to = f" --to {lane}" if lane else ""
    return Finding(about, says, f"archive queue retry{to} --kind {kind}, or archive queue purge{to} --kind {kind}")


# -- the whole --------------------------------------------------------------------------------------------------


def space(path: str, free: int | None, reserve: int) -> list[Finding]:
    """Whether there is room: ``free`` bytes (None: no such folder) against the reserve."""
    if free is None:
        return [Finding("storage.path", f"{path} is not there", "start archive serve once, or mount the volume")]
    if free < reserve:
        says = f"{path} has {megabytes(free)} free, less than storage.reserve ({megabytes(reserve)}): stores get A700"
        return [Finding("disk", says, "free space, or a smaller storage.reserve")]
    if free < 2 * reserve:
        says = f"{path} has {megabytes(free)} free, less than twice storage.reserve ({megabytes(reserve)})"
        return [Finding("disk", says, "free space before stores are refused")]
    return [note("disk", f"{path} has {megabytes(free)} free")]


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB".replace(",", " ")


def counted(*, damaged: int, quarantined: int, unmatched: int, most: int) -> list[Finding]:
    """What waits for a person."""
    rows = (
        ("damaged", damaged, "files are damaged and are not sent", "archive fsck tells which, and mends what it can"),
        ("quarantine", quarantined, "objects are in quarantine", "archive quarantine lists them with their reasons"),
        ("unmatched", unmatched, "studies fit no order", "archive studies --unmatched lists them"),
    )
    return [
        Finding(about, f"{count}{' or more' if count >= most else ''} {says}", remedy)
        for about, count, says, remedy in rows
        if count
    ]
