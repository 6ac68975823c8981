"""The tables of synchronisation as peewee models (see ``archive.index.models``)."""

from __future__ import annotations

import peewee


class SyncRun(peewee.Model):
    """One comparison with a peer: how far it is, and what it has found."""

    id = peewee.BigAutoField()
    name = peewee.TextField()  # of the sync
    peer = peewee.TextField()
    cause = peewee.TextField()
    plan = peewee.TextField()  # JSON: what is compared, and what becomes of differences
    position = peewee.TextField()  # JSON: where it goes on
    counts = peewee.TextField()  # JSON
    words = peewee.TextField()  # what it waits for, or how it ended
    started = peewee.DoubleField()
    finished = peewee.DoubleField(null=True)

    class Meta:
        table_name = "sync_run"


class SyncDifference(peewee.Model):
    """A study that a comparison found not to be equal."""

    run = peewee.BigIntegerField()
    study_uid = peewee.TextField()
    found = peewee.DoubleField()
    push = peewee.BigIntegerField()  # images that were put into the queue, or would be
    pull = peewee.BigIntegerField()  # images that are to be fetched, or would be
    waiting = peewee.BigIntegerField()  # 1: nothing is done now, because it is changing
    remaining = peewee.BigIntegerField()  # differences that nobody mends
    details = peewee.TextField()  # JSON

    class Meta:
        table_name = "sync_difference"
        primary_key = peewee.CompositeKey("run", "study_uid")


class SyncAgreed(peewee.Model):
    """When a study was found equal with a peer's last: what came before is known to have been there."""

    study_uid = peewee.TextField()
    peer = peewee.TextField()
    agreed = peewee.DoubleField()
    instances = peewee.BigIntegerField()  # how many both had

    class Meta:
        table_name = "sync_agreed"
        primary_key = peewee.CompositeKey("study_uid", "peer")


class DeletedUid(peewee.Model):
    """A study, series or instance that was deleted by somebody, and by which operation the last time."""

    uid = peewee.TextField(primary_key=True)
    operation = peewee.BigIntegerField()
    happened = peewee.DoubleField()

    class Meta:
        table_name = "deleted_uid"


SYNC_MODELS = (SyncRun, SyncDifference, SyncAgreed, DeletedUid)
