"""The tables of jobs that fetch from peers as peewee models (see ``archive.index.models``)."""

from __future__ import annotations

import peewee


class JobRow(peewee.Model):
    """What somebody wants fetched from a peer."""

    id = peewee.BigAutoField()
    kind = peewee.TextField()
    peer = peewee.TextField()
    state = peewee.TextField()
    options = peewee.TextField()  # JSON: what is asked for, and how
    plan = peewee.TextField()  # JSON: what is still to be asked; the last one is next
    notes = peewee.TextField()  # JSON: what a person should know
    reason = peewee.TextField()  # why it does not go on
    task = peewee.BigIntegerField(null=True)  # that carries it on
    slot = peewee.DoubleField()  # when its next study may begin
    created = peewee.DoubleField()
    finished = peewee.DoubleField(null=True)

    class Meta:
        table_name = "job"


class JobStudyRow(peewee.Model):
    """A study that the peer has listed for a job, and what became of it."""

    job = peewee.BigIntegerField()
    study_instance_uid = peewee.TextField()
    state = peewee.TextField()
    wanted = peewee.TextField()  # JSON: of which series; empty is all
    task = peewee.BigIntegerField(null=True)  # that fetches it
    series = peewee.BigIntegerField()
    series_here = peewee.BigIntegerField()
    series_fetched = peewee.BigIntegerField()
    series_failed = peewee.BigIntegerField()
    instances = peewee.BigIntegerField()
    here = peewee.BigIntegerField()
    fetched = peewee.BigIntegerField()
    failed = peewee.BigIntegerField()
    reason = peewee.TextField()
    changed = peewee.DoubleField()

    class Meta:
        table_name = "job_study"
        primary_key = peewee.CompositeKey("job", "study_instance_uid")


JOB_MODELS = (JobRow, JobStudyRow)
