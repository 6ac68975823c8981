"""The configuration as it is in force, fit to be shown: every option, no passwords."""

from __future__ import annotations

import yaml

from .complaints import redacted
from .schema import Section
from .sections import Config


def display(config: Config) -> str:
    """A YAML text that loads to the same configuration, but for the passwords."""
    return redacted(
        yaml.safe_dump(
            Section(Config).show(config), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None
        )
    )
