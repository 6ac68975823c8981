"""The tables of the study life cycle and of storage commitment as peewee models (see ``archive.index.models``)."""

from __future__ import annotations

import peewee


class StudyHistory(peewee.Model):
    """A change of state; known by UID, so that it outlives the rows of its study."""

    id = peewee.BigAutoField()
    study_instance_uid = peewee.TextField()
    state = peewee.TextField()
    since = peewee.DoubleField()
    cause = peewee.TextField()
    instances = peewee.BigIntegerField()  # how many the study had then

    class Meta:
        table_name = "study_history"


class CommitmentRow(peewee.Model):
    """A storage commitment transaction: a peer asked us, or we asked a peer (``direction``)."""

    id = peewee.BigAutoField()
    direction = peewee.TextField()
    peer = peewee.TextField()
    transaction_uid = peewee.TextField()
    calling = peewee.TextField()  # AE titles as the association of the request had them
    called = peewee.TextField()
    study_instance_uid = peewee.TextField()  # that we asked about; empty otherwise
    state = peewee.TextField()
    number_of_items = peewee.BigIntegerField()
    number_of_failures = peewee.BigIntegerField()
    items = peewee.TextField()  # JSON: [SOP class, SOP instance]
    failures = peewee.TextField()  # JSON: [SOP class, SOP instance, reason]
    reason = peewee.TextField()
    created = peewee.DoubleField()
    finished = peewee.DoubleField(null=True)

    class Meta:
        table_name = "commitment"
