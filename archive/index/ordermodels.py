"""The tables of orders, their scheduled steps and the messages they came in.

Rules that hold here: what an order says is kept whole as JSON by keyword; columns beside it are only for finding it.
"""

from __future__ import annotations

import peewee


class _Table(peewee.Model):
    id = peewee.BigAutoField()


class ImagingOrder(_Table):
    placer = peewee.TextField()
    placer_issuer = peewee.TextField()
    filler = peewee.TextField()
    filler_issuer = peewee.TextField()
    accession_number = peewee.TextField()
    requested_procedure_id = peewee.TextField()
    study_instance_uid = peewee.TextField(unique=True)
    patient_id = peewee.TextField()
    issuer = peewee.TextField()
    patient_name_folded = peewee.TextField(null=True)
    patient_name_ideographic = peewee.TextField(null=True)
    patient_name_phonetic = peewee.TextField(null=True)
    state = peewee.TextField()
    attributes = peewee.TextField()
    created = peewee.DoubleField()
    changed = peewee.DoubleField()

    class Meta:
        table_name = "imaging_order"


class ScheduledStep(_Table):
    imaging_order = peewee.ForeignKeyField(ImagingOrder, column_name="imaging_order")
    step_id = peewee.TextField()
    state = peewee.TextField()
    modality = peewee.TextField()
    start_date = peewee.TextField()
    start_time = peewee.TextField()
    attributes = peewee.TextField()

    class Meta:
        table_name = "scheduled_step"


class ScheduledStation(peewee.Model):
    aet = peewee.TextField()
    start_date = peewee.TextField()  # of the step
    step = peewee.ForeignKeyField(ScheduledStep, column_name="step")

    class Meta:
        table_name = "scheduled_station"
        primary_key = peewee.CompositeKey("aet", "start_date", "step")


class Hl7MessageRow(_Table):
    sender = peewee.TextField()
    address = peewee.TextField()
    control_id = peewee.TextField()
    unique_key = peewee.TextField(null=True, unique=True)  # of messages that took effect: sender and control ID
    digest = peewee.TextField()
    kind = peewee.TextField()
    received = peewee.DoubleField()
    code = peewee.TextField()  # of the acknowledgement
    reason = peewee.TextField()
    patient_id = peewee.TextField()
    accession_number = peewee.TextField()
    content = peewee.BlobField()

    class Meta:
        table_name = "hl7_message"


class PerformedRow(_Table):
    sop_instance_uid = peewee.TextField(unique=True)
    state = peewee.TextField()
    study_instance_uid = peewee.TextField()
    station = peewee.TextField()
    source = peewee.TextField()
    attributes = peewee.TextField()
    created = peewee.DoubleField()
    changed = peewee.DoubleField()

    class Meta:
        table_name = "performed_step"


class MatchRow(peewee.Model):
    study_instance_uid = peewee.TextField(primary_key=True)
    order_uid = peewee.TextField()
    how = peewee.TextField()
    since = peewee.DoubleField()
    operations = peewee.TextField()

    class Meta:
        table_name = "order_match"


ORDER_MODELS: tuple[type[peewee.Model], ...] = (
    ImagingOrder, ScheduledStep, ScheduledStation, Hl7MessageRow, PerformedRow, MatchRow,
)  # fmt: skip
