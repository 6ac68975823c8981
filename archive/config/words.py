"""The words an option can take, each with its meaning; a later word is one more line."""

from __future__ import annotations

VERBS = {
    "echo": "C-ECHO",
    "store": "C-STORE",
    "find": "C-FIND on patients, studies, series and instances",
    "worklist": "C-FIND on the modality worklist",
    "get": "C-GET",
    "move": "C-MOVE",
    "commit": "storage commitment",
    "mpps": "modality performed procedure step",
}
PROFILES = {
    "bcp195": "TLS 1.2 and 1.3 with AEAD ciphers (PS3.15 B.9)",
    "legacy-aes128-cbc": "old devices that know nothing better than TLS_RSA_WITH_AES_128_CBC_SHA; on a port of its own",
}
CLIENT_CERTIFICATES = {
    "require": "a caller without a certificate of ca is refused in the handshake",
    "request": "asked for; callers without one are served",
    "ignore": "not asked for",
}
INCOMING = {
    "require": "the peer is accepted over TLS only",
    "optional": "the peer is accepted over plain connections too",
}
QUIRKS = {
    "no_async": "drops the connection at an asynchronous operations window: never sent, never answered",
    "no_wildcard_in_dates": "rejects * in dates: asked with an empty date",
    "no_universal_wildcard": "finds nothing for a lone *: asked with an empty value",
    "no_warning_status": "takes a warning status for a failure: gets success where the outcome allows it",
    "no_role_selection": "drops the connection at a role selection item: none is sent",
    "single_context": "understands one transfer syntax per presentation context only",
    "commit_same_association": "takes commitment reports only on the association it asked on",
    "commit_new_association": "takes commitment reports only on a new association, as by default",
    "commit_both": "commitment reports: on the association it asked on while that lasts, else on a new one",
    "commit_implicit_only": "takes commitment reports in Implicit VR Little Endian only",
}
ACCEPT_SYNTAXES = {
    "first-proposed": "the first transfer syntax of the caller's list that the archive knows",
    "prefer-lossless": "a lossless one if the caller proposes any, else the first",
}
ON_DUPLICATE = {
    "keep": "the first stays; the same content again is success, other content is a conflict",
    "replace": "the newer takes the place of the older, whose file is deleted",
    "same_source": "as replace when the same AE sent both, else as keep",
    "version": "the newer is what is found and retrieved; the older is kept beside it",
}
ON_CONFLICT = {
    "quarantine": "refused, and kept aside for a person to decide",
    "reject": "refused, and not kept",
    "accept": "stored as it is",
}
ON_NAME_MISMATCH = {
    "conflict": "the object is a conflict; names that differ in case, accents, spacing or order are the same",
    "accept": "names are not compared",
}
ON_MISSING_PATIENT_ID = {
    "create": "each study without a Patient ID is one of a patient of its own",
    "reject": "refused, and not kept",
    "quarantine": "refused, and kept aside for a person to decide",
}
LEVELS = {"debug": "everything", "info": "one line an event", "warning": "what needs a look", "error": "what failed"}
