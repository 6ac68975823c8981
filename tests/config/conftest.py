"""Builders: a configuration from a text, and certificates with their keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from archive.config import Complaints, Config, load

NAMES = {"ct1.example": ["10.1.2.30", "fd00::30"], "localhost": ["127.0.0.1", "::1"]}


def resolve(name: str) -> Sequence[str]:
    """The only DNS these tests know."""
    if name not in NAMES:
        raise OSError("no such name")
    return NAMES[name]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "archive.yaml"


@pytest.fixture
def configured(file: Path) -> Callable[..., Config]:
    """The configuration of a text."""

    def configured(text: str, *overrides: str, insecure: bool = True, **environ: str) -> Config:
        file.write_text(text, encoding="utf-8")
        return load(file, overrides=overrides, environ=environ, insecure=insecure, resolve=resolve)

    return configured


@pytest.fixture
def complaints(configured: Callable[..., Config], file: Path) -> Callable[..., list[str]]:
    """What is said about a text, each without the name of the file."""

    def complaints(text: str, *overrides: str, insecure: bool = True, **environ: str) -> list[str]:
        with pytest.raises(Complaints) as caught:
            configured(text, *overrides, insecure=insecure, **environ)
        return [str(complaint).removeprefix(f"{file}:") for complaint in caught.value.complaints]

    return complaints


@pytest.fixture
def warned(configured: Callable[..., Config], file: Path) -> Callable[..., list[str]]:
    """The warnings about a text, each without the name of the file."""

    def warned(text: str, *overrides: str, **environ: str) -> list[str]:
        found = configured(text, *overrides, **environ).warnings
        return [str(warning).removeprefix(f"{file}:") for warning in found]

    return warned


@pytest.fixture
def make_pair(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """A self-signed certificate and its key as files."""

    def make_pair(
        name: str, days: float = 365, starts: float = -1, use_rsa: bool = False, mode: int = 0o600
    ) -> tuple[Path, Path]:
        key = rsa.generate_private_key(65537, 2048) if use_rsa else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now + timedelta(days=min(starts, days - 1)))
            .not_valid_after(now + timedelta(days=days))
            .sign(key, hashes.SHA256())
        )
        cert_file, key_file = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        key_file.write_bytes(key.private_bytes(*form))
        key_file.chmod(mode)
        return cert_file, key_file

    return make_pair
