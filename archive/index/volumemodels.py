"""The tables of several volumes as peewee models (see ``archive.index.models``)."""

from __future__ import annotations

import peewee


class CopyRow(peewee.Model):
    """A second file of an instance, with the very same bytes; the row of the instance names the one that is read."""

    instance = peewee.BigIntegerField(primary_key=True)
    volume = peewee.TextField()
    path = peewee.TextField()
    data_offset = peewee.BigIntegerField()
    data_size = peewee.BigIntegerField()
    verified = peewee.DoubleField()

    class Meta:
        table_name = "copy"


class ResidenceRow(peewee.Model):
    """A study some of whose instances could leave the cache, and when it was used last."""

    study_instance_uid = peewee.TextField(primary_key=True)
    used = peewee.DoubleField()

    class Meta:
        table_name = "residence"
