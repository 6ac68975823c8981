"""The tables of legal holds and retention as peewee models (see ``archive.index.models``)."""

from __future__ import annotations

import peewee


class HoldRow(peewee.Model):
    """A study, patient or accession number that must not be deleted, by an operation of the journal."""

    scope = peewee.TextField()
    owner = peewee.TextField()
    operation = peewee.BigIntegerField()

    class Meta:
        table_name = "hold"
        primary_key = peewee.CompositeKey("scope", "owner", "operation")


class RetentionRow(peewee.Model):
    """A study that was kept for as long as its rule says, as it was found when it was looked at."""

    study_instance_uid = peewee.TextField(primary_key=True)
    rule = peewee.TextField()
    due = peewee.DoubleField()
    disposal = peewee.TextField()  # what the rule says then: delete or purge
    why = peewee.TextField()  # what holds it up; empty: nothing
    looked = peewee.DoubleField()

    class Meta:
        table_name = "retention"
