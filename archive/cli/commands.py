"""The commands: what each is called, the module it is in, and what it does, in a line.

Rules that hold here: a module is imported when a command of its own is wanted, and not before, so that each command
starts in the time that it needs itself; what is said of a command stands here alone; commands of one module stand
together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """A command: a module of archive.cli, and the line of help."""

    module: str
    text: str


COMMANDS: Mapping[str, Row] = {
    "serve": Row("serve", "run the archive until SIGTERM; SIGHUP reloads peers and rules"),
    "check-config": Row("check", "say whether the configuration can be used, and what is wrong with it"),
    "status": Row("status", "say how much there is, how much room is left, and whether the daemon answers"),
    "doctor": Row("doctor", "say what is wrong with a caller, a destination, or the whole, and what would do"),
    "peers": Row("peers", "list peers and unknown callers; add a peer, or promote a caller to one"),
    "echo": Row("remote", "C-ECHO: does a peer answer?"),
    "find": Row("remote", "C-FIND at a peer, or a search of the archive's own index"),
    "retrieve": Row("remote", "have a peer send objects here, by C-MOVE or C-GET"),
    "import": Row("importing", "store the objects of folders, ZIPs and media, or of a peer; goes on where it stopped"),
    "migrate": Row("jobs", "fetch all that another archive has and this one has not"),
    "coerce": Row("coerce", "show what the rules of coercion would change in files"),
    "quarantine": Row("quarantine", "list, show, release or discard what was refused and kept aside"),
    "studies": Row("studies", "list the studies, the newest first; show one; say that nothing more will come"),
    "index": Row("index", "copy a whole index from one database to another; stop the daemon before"),
    "orders": Row("orders", "list orders and the HL7 messages that brought them"),
    "worklist": Row("orders", "list what modalities see, or import worklist files"),
    "queue": Row("queue", "list what waits, runs, was sent or has failed; try again, cancel, pause"),
    "routes": Row("routes", "list the routes; say what they would do with a study, or with past days"),
    "prefetch": Row("prefetch", "list the rules of prefetch; say which priors they would fetch, and why"),
    "send": Row("sending", "send stored objects to a destination, through the daemon's queue"),
    "export": Row("export", "write stored objects into a folder or a ZIP, with a DICOMDIR if wanted"),
    "fsck": Row("fsck", "say where index and files disagree; exit status 1 if something stays wrong"),
    "reindex": Row("reindex", "rebuild the index from the files alone; the daemon must not run"),
    "commit": Row("commit", "ask a peer to commit a study; list what was asked and answered"),
    "corrections": Row("corrections", "merge, link, split, move and edit what was received; list and undo it"),
    "delete": Row("delete", "delete studies, series or instances for good; the files follow by and by"),
    "retention": Row("retention", "say how long studies are kept, and why; delete what rules let go"),
    "sync": Row("sync", "compare with archives that are kept equal; say what was found the last time"),
    "notify": Row("notify", "notifications: send a test"),
}
