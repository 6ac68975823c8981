"""What the data sets of a source leave unsaid, also when they come another way than from the source itself.

Rules that hold here: what is in quarantine, or a file without a row, belongs to the patient it would belong to if its
source sent it now; what an object says itself always comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from archive.services.store import Origin


@dataclass(frozen=True, slots=True)
class Sources:
    """By AE title: the character set of those that name none, the issuer of Patient IDs without one."""

    charsets: Mapping[str, str] = field(default_factory=dict)
    issuers: Mapping[str, str] = field(default_factory=dict)

    def origin(self, title: str, address: str = "") -> Origin:
        """Where an object came from that was here before."""
        return Origin(
            title,
            address=address,
            default_charset=self.charsets.get(title, ""),
            default_issuer=self.issuers.get(title, ""),
            as_is=True,
        )
