"""The tables of corrections and deletions as peewee models (see ``archive.index.models``)."""

from __future__ import annotations

import peewee


class OperationRow(peewee.Model):
    """One operation of the journal of corrections; the same stands in the storage folder."""

    number = peewee.BigIntegerField(primary_key=True)
    operation = peewee.TextField()  # the caller's name for it; unique
    kind = peewee.TextField()
    actor = peewee.TextField()
    reason = peewee.TextField()
    happened = peewee.DoubleField()
    what = peewee.TextField()  # JSON: arguments, writes and what is needed to make rows that are missing
    undone_by = peewee.BigIntegerField(null=True)

    class Meta:
        table_name = "operation"


class CorrectionRow(peewee.Model):
    """What an operation says of a patient, study, series or instance; the last active one holds."""

    level = peewee.BigIntegerField()
    owner = peewee.TextField()  # what is known of it outside of this index: UID, or issuer and Patient ID
    keyword = peewee.TextField()  # an attribute, or with @ a place
    operation = peewee.BigIntegerField()
    value = peewee.TextField(null=True)
    active = peewee.BigIntegerField()  # 0 when it was undone

    class Meta:
        table_name = "correction"
        primary_key = peewee.CompositeKey("level", "owner", "keyword", "operation")


class ReceivedRow(peewee.Model):
    """What a corrected row said before."""

    level = peewee.BigIntegerField()
    owner = peewee.TextField()
    keyword = peewee.TextField()
    value = peewee.TextField()

    class Meta:
        table_name = "received"
        primary_key = peewee.CompositeKey("level", "owner", "keyword")


class TombstoneRow(peewee.Model):
    """A file that no row points to any more, to be unlinked."""

    id = peewee.BigAutoField()
    volume = peewee.TextField()
    path = peewee.TextField()

    class Meta:
        table_name = "tombstone"
