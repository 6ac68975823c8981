"""Where the bytes are: volumes of immutable Part-10 files, and the journal that makes small ones durable.

Rules that hold here: a file is named by the archive, never by the wire, and a name is never used
twice; a file that has its final name is never written again; nothing here knows the index.
"""
