"""What is wrong with a certificate, its key, or the certificates of an authority, before TLS finds out.

Rules that hold here: files are only read; a finding is a problem and what would do; the clock is passed in.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cryptography import x509

SOON = timedelta(days=30)  # one month of warning: what a hospital's own authority needs to answer
OTHERS = stat.S_IRWXO


class Finding(NamedTuple):
    """About which of the options cert, key and ca; a warning lets the archive start."""

    option: str
    problem: str
    remedy: str
    warning: bool = False


def examine(cert: Path, key: Path, now: float, *, rsa: bool) -> Iterator[Finding]:
    """What is wrong with a pair; ``rsa``: the profile cannot use any other kind of key."""
    from cryptography import x509  # costs 50 ms, which a configuration without TLS need not pay
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    chain: list[x509.Certificate] = []
    try:
        chain = x509.load_pem_x509_certificates(cert.read_bytes())
        yield from _validity(chain[0], now)
    except OSError as error:
        yield _unreadable("cert", error)
    except ValueError:
        yield Finding(
            "cert", "holds no PEM certificate", "a file that begins with -----BEGIN CERTIFICATE----- would do"
        )
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        yield from _privacy(key)
    except OSError as error:
        yield _unreadable("key", error)
        return
    except (TypeError, ValueError) as error:
        yield _unusable(error)
        return
    if chain and private.public_key() != chain[0].public_key():
        yield Finding("key", f"does not belong to {cert}", "name the key that this certificate was made for")
    if rsa and not isinstance(private, RSAPrivateKey):
        yield Finding(
            "key", "no RSA key, the only kind that the profile legacy-aes128-cbc knows", "an RSA key would do"
        )


def examine_authority(ca: Path) -> Iterator[Finding]:
    """What is wrong with the file or folder of trusted certificates."""
    from cryptography import x509

    try:
        files = sorted(ca.iterdir()) if ca.is_dir() else [ca]
        found = sum(len(x509.load_pem_x509_certificates(file.read_bytes())) for file in files if file.is_file())
    except OSError as error:
        yield _unreadable("ca", error)
        return
    except ValueError:
        found = 0
    if not found:
        remedy = "a file that begins with -----BEGIN CERTIFICATE-----, or a folder of nothing but such files, would do"
        yield Finding("ca", "holds something that is no PEM certificate, or none", remedy)


def _validity(certificate: x509.Certificate, now: float) -> Iterator[Finding]:
    today = datetime.fromtimestamp(now, UTC)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if today > ends:
        yield Finding("cert", f"expired on {ends:%Y-%m-%d}", "renew the certificate")
    elif today < begins:
        yield Finding("cert", f"not valid before {begins:%Y-%m-%d}", "correct the clock, or use another certificate")
    elif ends - today < SOON:
        yield Finding("cert", f"expires on {ends:%Y-%m-%d}", "renew it; a reload takes the new one", warning=True)


def _privacy(key: Path) -> Iterator[Finding]:
    if os.stat(key).st_mode & OTHERS:
        yield Finding("key", "the private key is open to every user of this machine", f"chmod o-rwx {key}")


def _unreadable(option: str, error: OSError) -> Finding:
    return Finding(option, f"cannot be read: {error.strerror}", "a file that the user of the archive can read would do")


def _unusable(error: Exception) -> Finding:
    if isinstance(error, TypeError):
        return Finding("key", "the private key is encrypted", "decrypt it with 'openssl pkey' and keep it from others")
    return Finding("key", "holds no PEM private key", "a file that begins with -----BEGIN PRIVATE KEY----- would do")
