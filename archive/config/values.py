"""The single values of the configuration: addresses, AE titles, ports, paths, words, names of the standard.

Rules that hold here: a converter takes the text of a file and gives the value or raises Unfit; a limit says
where it comes from; nothing is looked up on the network or on the disk.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from archive.errors import ConfigurationError

from .kinds import OFF_WORDS, ON_WORDS, Rooted, Scalar, Unfit
from .units import read_duration, read_size, show_duration, show_size

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

AE_TITLE_LENGTH = 16  # VR AE, PS3.5 table 6.2-1; so are the forbidden backslash and control characters

_NAME = re.compile(r"(?=.{1,253}\Z)(?!.*\.\d+\Z)(?!\d+\Z)[\w-]{1,63}(\.[\w-]{1,63})*\.?", re.ASCII)
_UID = re.compile(r"(?=.{1,64}\Z)(0|[1-9]\d*)(\.(0|[1-9]\d*))+", re.ASCII)
_FINGERPRINT = re.compile(r"sha256:((?:[0-9a-f]{2}:?){31}[0-9a-f]{2})", re.ASCII | re.IGNORECASE)


def one_of(words: Mapping[str, str], later: Collection[str] = ()) -> Scalar:
    """A word of a table word -> meaning; ``later`` are words of the contract that cannot be kept yet."""

    def convert(text: str) -> str:
        word = text.strip().lower()
        if word in later:
            raise Unfit("not available in this version")
        if word not in words:
            raise Unfit("not a known word")
        return word

    return Scalar(" or ".join(words) if len(words) < 3 else "one of " + ", ".join(words), convert)


def number(low: int, high: int, words: Mapping[str, int] | None = None) -> Scalar:
    """A whole number of a range, or a word that stands for one."""

    def convert(text: str) -> int:
        text = text.strip().lower()
        if words and text in words:
            return words[text]
        if not (text.isascii() and text.isdigit()):
            raise Unfit("not a whole number")
        if not low <= int(text) <= high:
            raise Unfit("out of range")
        return int(text)

    expects = "".join(f"{word} or " for word in words or ()) + f"a number from {low} to {high}"
    return Scalar(expects, convert, int)


def unlimited(kind: Scalar) -> Scalar:
    """The kind, or 0 for no limit."""
    return Scalar(
        f"0 (no limit) or {kind.expects}",
        lambda text: 0 if text.strip() in ("0", "0s") else kind.convert(text),
        kind.show,
    )


def size(low: int) -> Scalar:
    def convert(text: str) -> int:
        value = read_size(text)
        if value < low:
            raise Unfit("too small")
        return value

    return Scalar(
        f"a size of at least {show_size(low)}, such as 500MB" if low else "a size such as 500MB", convert, show_size
    )


def duration(low: float, high: float) -> Scalar:
    def convert(text: str) -> float:
        value = read_duration(text)
        if not low <= value <= high:
            raise Unfit("out of range")
        return value

    return Scalar(f"a time from {show_duration(low)} to {show_duration(high)}, such as 30s", convert, show_duration)


def _switch(text: str) -> bool:
    if text.strip().lower() in ON_WORDS | OFF_WORDS:
        return text.strip().lower() in ON_WORDS
    raise Unfit("neither on nor off")


def ae_title(text: str) -> str:
    """Without the spaces around it, which have no meaning (VR AE)."""
    title = text.strip(" ")
    if not title:
        raise Unfit("an empty AE title")
    if len(title) > AE_TITLE_LENGTH:
        raise Unfit(f"an AE title of {len(title)} characters")
    if "\\" in title or not (title.isascii() and title.isprintable()):
        raise Unfit("an AE title with a backslash, a control character or a letter beyond ASCII")
    return title


def _host(text: str) -> str:
    text = text.strip()
    try:
        found = network(text)
    except ValueError:
        if not _NAME.fullmatch(text):
            raise Unfit("not an address") from None
        return text
    if found.prefixlen == found.max_prefixlen and found.network_address.is_unspecified:
        raise Unfit("the address of nobody", f"{found.network_address}/0 would do for anybody")
    return text


def network(text: str) -> Network:
    """The network of an address or of address/prefix; an IPv4 address inside IPv6 is the IPv4 address."""
    found = ipaddress.ip_network(text, strict=False)
    mapped = found.network_address.ipv4_mapped if isinstance(found, ipaddress.IPv6Network) else None
    if mapped is None or found.prefixlen < 96:
        return found
    return ipaddress.ip_network(f"{mapped}/{found.prefixlen - 96}", strict=False)


def _listening_host(text: str) -> str:
    text = text.strip()
    if "/" in text:
        raise Unfit("a network, not an address")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        if not _NAME.fullmatch(text):
            raise Unfit("not an address") from None
        return text


def _path(text: str, folder: Path) -> Path:
    if not text.strip():
        raise Unfit("an empty path")
    # Not resolved: a symbolic link that is changed later must lead to the new place on the next reload.
    return Path(_normal(folder / Path(text).expanduser()))


def _normal(path: Path) -> str:
    """Without ``..`` where the folder before it is no link; a missing folder is no link."""
    parts: list[str] = []
    for part in path.absolute().parts:
        if part == ".." and len(parts) > 1 and not Path(*parts).is_symlink():
            parts.pop()
        else:
            parts.append(part)
    return str(Path(*parts))


def _index_url(text: str, folder: Path) -> str:
    text = text.strip()
    scheme, separator, rest = text.partition("://")
    if separator and scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return f"sqlite:///{_path(rest[1:], folder)}"
    if separator and scheme in ("postgresql", "postgres") and rest:
        return f"postgresql://{rest}"
    raise Unfit("not the address of a database this archive knows")


def _fingerprint_or_name(text: str) -> str:
    text = text.strip()
    match = _FINGERPRINT.fullmatch(text)
    if match:
        return f"sha256:{match[1].replace(':', '').lower()}"
    if not text or text.lower().startswith("sha256:"):
        raise Unfit("not a fingerprint of 64 hexadecimal digits")
    return text


def _transfer_syntax(text: str) -> str:
    from archive.dicom.tables import UIDS  # the whole of them, for the few that name one

    text = text.strip()
    if _UID.fullmatch(text):
        return text
    for uid, entry in UIDS.items():
        if entry[1] == "Transfer Syntax" and entry[4].lower() == text.lower():
            return uid
    raise Unfit("not a transfer syntax")


def _filter(text: str) -> str:
    from archive.dicom.expression import parse_expression  # the table of attributes, for the few that filter

    try:
        parse_expression(text)
    except ConfigurationError as error:
        raise Unfit(str(error)) from None
    return text


def _extra_key(text: str) -> str:
    from archive.dicom.extra import extra_attribute, name_of  # the dictionary, for the few that index more

    try:
        return name_of(extra_attribute(text))
    except ConfigurationError as error:
        raise Unfit(str(error)) from None


def _charset(text: str) -> str:
    from pydicom.charset import python_encoding

    terms = [term.strip() for term in text.split("\\")]
    unknown = [term for term in terms if term not in python_encoding]
    if unknown:
        raise Unfit(f"{unknown[0]!r} is not a defined term of Specific Character Set (PS3.3 C.12.1.1.2)")
    return "\\".join(terms)


SWITCH = Scalar("on or off", _switch, bool)
PORT = number(1, 65535)
LISTENING_PORT = number(0, 65535)
COUNT = number(1, 1_000_000)
LIMIT = unlimited(COUNT)
AE_TITLE = Scalar("at most 16 characters without backslash", ae_title)
HOST = Scalar("an address, a network such as 10.1.3.0/24 or a DNS name", _host)
LISTENING_HOST = Scalar("an address of this machine such as 127.0.0.1, or 0.0.0.0 or :: for all", _listening_host)
PATH = Rooted("a path", _path)
INDEX_URL = Rooted("sqlite:///path or postgresql://user:password@host/database", _index_url)
CERTIFICATE = Scalar("sha256:fingerprint or a name in the certificate", _fingerprint_or_name)
TRANSFER_SYNTAX = Scalar("a transfer syntax by UID or keyword such as JPEGLosslessSV1", _transfer_syntax)
FILTER = Scalar("a filter such as Modality != 'PR' and StudyDate >= 20200101", _filter)
EXTRA_KEY = Scalar("a level and a keyword such as series.ScanningSequence", _extra_key)
CHARSET = Scalar("a defined term such as ISO_IR 100", _charset)
TIMEOUT = duration(0.1, 86400.0)
# 0 is no limit (PS3.8 D.1); below 4 kB headers outweigh what they carry; the item has 32 bits.
MAX_PDU = unlimited(number(4096, 2**32 - 1))
