"""Input that broke something once: a file each, which every test run replays.

Rules that hold here: a finding is named by its fault and the digest of its bytes, so that the same one is kept
once; the first line says what it was, the rest is the input.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "findings"


@dataclass(frozen=True)
class Finding:
    """`data` is what was sent: PDUs after (or instead of) an association request, or a data set."""

    fault: str
    what: str
    violation: str
    data: bytes

    @property
    def name(self) -> str:
        return f"{self.fault}-{hashlib.sha256(self.data).hexdigest()[:16]}.finding"


def keep(finding: Finding) -> Path:
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / finding.name
    head = {"fault": finding.fault, "what": finding.what, "violation": finding.violation[:500]}
    path.write_bytes(json.dumps(head).encode() + b"\n" + finding.data)
    return path


def kept() -> Iterator[Finding]:
    for path in sorted(FOLDER.glob("*.finding")):
        head, _, data = path.read_bytes().partition(b"\n")
        yield Finding(data=data, **json.loads(head))
