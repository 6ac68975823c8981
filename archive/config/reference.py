"""The tables of the manual, made from the options themselves.

Rules that hold here: nothing about an option is said here; a test holds docs/configuration.md to these tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from . import fetching, keeping, notify, receiving, retention, routing, sync, volumes, words
from .kinds import Either, Kind, Later, ListOf
from .schema import Named, Section, key_of, options
from .sections import Config

WORDS: dict[str, Mapping[str, str]] = {
    "allow": words.VERBS,
    "tls.profile": words.PROFILES,
    "tls.client_cert": words.CLIENT_CERTIFICATES,
    "peers.NAME.tls.incoming": words.INCOMING,
    "peers.NAME.quirks": words.QUIRKS,
    "peers.NAME.accept_syntaxes": words.ACCEPT_SYNTAXES,
    "storage.on_duplicate": words.ON_DUPLICATE,
    "storage.on_conflict": words.ON_CONFLICT,
    "storage.on_name_mismatch": words.ON_NAME_MISMATCH,
    "storage.on_missing_patient_id": words.ON_MISSING_PATIENT_ID,
    "coerce[].on": receiving.COERCE_ON,
    "provenance.record": receiving.PROVENANCE_ON,
    "storage.compress[].to": keeping.MEANINGS,
    "storage.volumes[].role": volumes.ROLES,
    "retention[].then": retention.THEN,
    "retention[].base": retention.BASES,
    "retention[].needs": retention.NEEDS,
    "routes[].trigger": routing.TRIGGERS,
    "routes[].priority": routing.PRIORITIES,
    "routes[].transcode": routing.TRANSCODING,
    "routes[].verify": routing.PROOFS,
    "routes[].deidentify": routing.DEIDENTIFY,
    "routes[].burned_in": routing.BURNED_IN,
    "sync[].direction": sync.DIRECTIONS,
    "sync[].compare": sync.COMPARES,
    "sync[].mend": sync.MENDS,
    "sync[].gone": sync.GONE,
    "sync[].deleted": sync.DELETED,
    "fetch.retrieve": fetching.WAYS,
    "notify[].on": notify.EVENTS,
    "notify[].level": notify.LEVELS,
    "smtp.tls": notify.SMTP_TLS,
    "log.level": words.LEVELS,
}


def tables() -> str:
    """Every section as a Markdown table, then every word that an option can take."""
    parts = [_table(key, section) for key, section in sections(Config, "")]
    return "\n".join([*parts, *(_words(name, table) for name, table in WORDS.items())])


def sections(section: type, key: str) -> Iterator[tuple[str, type]]:
    """A section and those inside it, with the key each stands at."""
    yield key, section
    for name, metadata in options(section):
        inner = inside(metadata["kind"])
        if inner:
            yield from sections(inner[1], f"{key}.{name}{inner[0]}".lstrip("."))


def inside(kind: Kind) -> tuple[str, type] | None:
    """How the key goes on, and the section of a kind that holds one."""
    if isinstance(kind, Section):
        return "", kind.of
    if isinstance(kind, Named):
        return ".NAME", kind.entry.of
    if isinstance(kind, ListOf) and isinstance(kind.entry, Section):
        return "[]", kind.entry.of
    return inside(kind.other) if isinstance(kind, Either) else None


def default_text(metadata: Mapping[str, Any]) -> str:
    """The default as the file would say it; nothing for what has none."""
    default = metadata["default"]
    if default is None or default == {}:
        return ""
    if isinstance(default, str):
        return default
    return yaml.safe_dump(default, default_flow_style=True, width=1000).strip()


def _table(key: str, section: type) -> str:
    rows = [_row(name, metadata) for name, metadata in options(section)]
    lines = ["| option | default | value | meaning |", "|---|---|---|---|", *rows]
    return "\n".join([f"### {f'`{key}`' if key else 'The file'}", "", *lines, ""])


def _row(name: str, metadata: Mapping[str, Any]) -> str:
    default = "required" if metadata["required"] and name != "aet" else f"`{default_text(metadata)}`".replace("``", "")
    meaning = metadata["meaning"] + (" (restart)" if metadata["restart"] else "")
    expects = "" if isinstance(metadata["kind"], Later) else metadata["kind"].expects
    return f"| `{key_of(name)}` | {default} | {expects} | {meaning} |"


def _words(name: str, table: Mapping[str, str]) -> str:
    rows = [f"| `{word}` | {meaning} |" for word, meaning in table.items()]
    return "\n".join([f"### Words of `{name}`", "", "| word | meaning |", "|---|---|", *rows, ""])


if __name__ == "__main__":
    print(tables(), end="")
