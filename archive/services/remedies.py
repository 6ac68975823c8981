"""What would do about a call that failed, by the words of its failure.

Rules that hold here: the words are those of the system, of TLS and of PS3.8 as the archive says them; the more exact
come first; every remedy names an option, a side, or both.
"""

from __future__ import annotations

# Words of a failed call -> what would do; the first that is found in the text.
REMEDIES: tuple[tuple[str, str], ...] = (
    ("was not asked", "a longer --deadline"),
    ("Connection refused", "nobody listens there: start the DICOM service at {aet}, or correct {key}.port"),
    ("No route to host", "correct {key}.host, or the network between"),
    ("Network is unreachable", "correct {key}.host, or the network between"),
    ("Name or service not known", "correct the name in {key}.host, or write the address"),
    ("No address associated", "correct the name in {key}.host, or write the address"),
    ("name resolution", "DNS does not answer: write the address in {key}.host"),
    ("certificate has expired", "{aet} needs a new certificate"),
    ("not yet valid", "correct the clocks of both sides"),
    ("ismatch", "{key}.host has to be a name or address that is in the certificate"),
    ("self-signed", "{key}.tls.ca: the file of those who signed its certificate"),
    ("self signed", "{key}.tls.ca: the file of those who signed its certificate"),
    ("local issuer", "{key}.tls.ca: the file of those who signed its certificate"),
    ("certificate is not accepted", "{key}.tls.ca and the certificate of {aet} have to belong together"),
    ("WRONG_VERSION_NUMBER", "{aet} does not speak TLS at this port: the port for TLS, or {key}.tls: off"),
    ("CERTIFICATE_REQUIRED", "{aet} wants our certificate: {key}.tls.cert and {key}.tls.key"),
    ("UNKNOWN_CA", "{aet} has to trust who signed our certificate ({key}.tls.cert)"),
    ("PROTOCOL_VERSION", "no TLS version in common: {key}.tls.profile"),
    ("HANDSHAKE_FAILURE", "no cipher in common, or {aet} wants our certificate: {key}.tls"),
    ("TLS handshake failed", "{key}.tls has to be what {aet} speaks at this port"),
    ("calling AE title not recognized", "make {calling} and our address known at {aet}, or another {key}.local_aet"),
    ("called AE title not recognized", "{key}.aet: the title of the other side, exactly as it spells it"),
    ("temporary congestion", "{aet} is busy: try again, or fewer {key}.store_associations"),
    ("local limit exceeded", "{aet} has too many associations: fewer {key}.store_associations"),
    ("does not accept this service", "{aet} answers but refuses C-ECHO: allow Verification for {calling} there"),
    ("rejected", "the log of {aet} says why it rejects {calling}"),
    ("no answer in time", "a firewall that drops, a host that is off, or a wrong {key}.host or {key}.port"),
    ("timed out", "{aet} took the connection and then said nothing: its log, or {key}.tls where it speaks TLS"),
    ("aborted", "the log of {aet} says why; often it speaks TLS at this port and {key}.tls is off"),
    ("broke", "the log of {aet} says why; often one side speaks TLS and the other does not: {key}.tls"),
    ("unexpected", "what answers there may be no DICOM service, or speak TLS: {key}.port and {key}.tls"),
    ("closed", "the log of {aet} says why; often it speaks TLS at this port and {key}.tls is off"),
)  # fmt: skip
NOT_KNOWN = "the log of {aet} may say more"


def remedy(failed: str, *, aet: str, key: str, calling: str) -> str:
    """What would do; ``key`` is the entry of the peer, ``calling`` how we call ourselves there."""
    text = next((remedy for words, remedy in REMEDIES if words in failed), NOT_KNOWN)
    return text.format(aet=aet, key=key, calling=calling)
