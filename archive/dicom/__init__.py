"""What the data means: bytes in, values out.

Rules that hold in this package: no sockets, no SQL, no threads, no clock and no files; every size
that comes from outside is checked against a limit before anything is allocated for it; a peer only
ever sees comments of at most 64 characters that hold no patient data.
"""
