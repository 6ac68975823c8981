"""The tables as peewee models: they declare the schema and write the SQL of everything that is not hot.

Rules that hold here: columns of attributes come from the attribute table; no model is bound to a connection
and no row object leaves the index; what a model says and what the migrations made is compared by a test.
"""

from __future__ import annotations

from typing import Any

import peewee

from archive.dicom.attributes import Level
from archive.index.columns import columns
from archive.index.correctionmodels import CorrectionRow, OperationRow, ReceivedRow, TombstoneRow
from archive.index.jobmodels import JOB_MODELS
from archive.index.lifemodels import CommitmentRow, StudyHistory
from archive.index.ordermodels import ORDER_MODELS
from archive.index.retentionmodels import HoldRow, RetentionRow
from archive.index.syncmodels import SYNC_MODELS
from archive.index.volumemodels import CopyRow, ResidenceRow


class _Table(peewee.Model):
    id = peewee.BigAutoField()


def _texts(level: Level, *known: str) -> dict[str, peewee.Field]:
    return {name: peewee.TextField(null=True) for name in columns(level) if name not in known}


def _model(name: str, table: str, fields: dict[str, peewee.Field]) -> Any:
    meta = type("Meta", (), {"table_name": table, "legacy_table_names": False})
    return type(name, (_Table,), {**fields, "Meta": meta, "__module__": __name__})


Patient = _model(
    "Patient",
    "patient",
    {
        "issuer": peewee.TextField(),
        "number_of_studies": peewee.BigIntegerField(),
        "created": peewee.DoubleField(),
        **_texts(Level.PATIENT),
        "corrected": peewee.BigIntegerField(),  # 1: an operation says something of it
    },
)

Study = _model(
    "Study",
    "study",
    {
        "study_instance_uid": peewee.TextField(unique=True),
        "patient": peewee.ForeignKeyField(Patient, column_name="patient"),
        "number_of_series": peewee.BigIntegerField(),
        "number_of_instances": peewee.BigIntegerField(),
        "total_size": peewee.BigIntegerField(),
        "modalities_in_study": peewee.TextField(),
        "sop_classes_in_study": peewee.TextField(),
        "created": peewee.DoubleField(),
        "updated": peewee.DoubleField(),
        **_texts(Level.STUDY, "study_instance_uid"),
        "state": peewee.TextField(),  # of its life, see lifecycle; empty until somebody has looked at it
        "arrivals": peewee.BigIntegerField(),  # instances that came since it was ready; the first one causes a task
        "closed": peewee.DoubleField(null=True),  # when an association that stored to it was released
        "corrected": peewee.BigIntegerField(),  # 1: an operation says something of it or of what is above or below it
        "said_patient": peewee.BigIntegerField(null=True),  # that the objects name, where it was given to another
    },
)

Series = _model(
    "Series",
    "series",
    {
        "series_instance_uid": peewee.TextField(unique=True),
        "study": peewee.ForeignKeyField(Study, column_name="study"),
        "number_of_instances": peewee.BigIntegerField(),
        "created": peewee.DoubleField(),
        **_texts(Level.SERIES, "series_instance_uid"),
    },
)

Instance = _model(
    "Instance",
    "instance",
    {
        "sop_instance_uid": peewee.TextField(unique=True),
        "series": peewee.ForeignKeyField(Series, column_name="series"),
        "sop_class_uid": peewee.TextField(),
        "transfer_syntax": peewee.TextField(),
        "volume": peewee.TextField(),
        "path": peewee.TextField(),
        "data_offset": peewee.BigIntegerField(),
        "data_size": peewee.BigIntegerField(),
        "sha256": peewee.BlobField(),
        "source": peewee.TextField(),
        "address": peewee.TextField(),
        "received": peewee.DoubleField(),
        **_texts(Level.IMAGE, "sop_instance_uid", "sop_class_uid"),
        "received_sha256": peewee.BlobField(null=True),  # NULL: what is stored is what was received
        "received_syntax": peewee.TextField(null=True),
        "damage": peewee.TextField(null=True),  # what is wrong with the file, as far as is known
        "damage_found": peewee.DoubleField(null=True),
    },
)


class PatientWord(peewee.Model):
    word = peewee.TextField()
    patient = peewee.ForeignKeyField(Patient, column_name="patient")

    class Meta:
        table_name = "patient_word"
        primary_key = peewee.CompositeKey("word", "patient")


class SeriesRequest(peewee.Model):
    keyword = peewee.TextField()
    value = peewee.TextField()
    series = peewee.ForeignKeyField(Series, column_name="series")

    class Meta:
        table_name = "series_request"
        primary_key = peewee.CompositeKey("keyword", "value", "series")


class StudyModality(peewee.Model):
    modality = peewee.TextField()
    study_date = peewee.TextField()  # of the study; empty if it has none
    study = peewee.ForeignKeyField(Study, column_name="study")

    class Meta:
        table_name = "study_modality"
        primary_key = peewee.CompositeKey("modality", "study_date", "study")


class VersionRow(_Table):
    """What an instance was before a newer object took its place; its file is kept."""

    instance = peewee.ForeignKeyField(Instance, column_name="instance")
    transfer_syntax = peewee.TextField()
    volume = peewee.TextField()
    path = peewee.TextField()
    data_offset = peewee.BigIntegerField()
    data_size = peewee.BigIntegerField()
    sha256 = peewee.BlobField()
    received_sha256 = peewee.BlobField(null=True)
    source = peewee.TextField()
    address = peewee.TextField()
    received = peewee.DoubleField()
    superseded = peewee.DoubleField()

    class Meta:
        table_name = "version"


class ExtraValue(peewee.Model):
    """What an object said of an attribute that a site indexes beyond the table; ``owner`` is a row of the level."""

    keyword = peewee.TextField()
    level = peewee.BigIntegerField()
    owner = peewee.BigIntegerField()
    value = peewee.TextField()

    class Meta:
        table_name = "extra_value"
        primary_key = peewee.CompositeKey("keyword", "level", "owner")


class ExtraTerm(peewee.Model):
    """What it is found by, value for value; ``item`` counts the items of a sequence."""

    keyword = peewee.TextField()
    level = peewee.BigIntegerField()
    term = peewee.TextField()
    owner = peewee.BigIntegerField()
    item = peewee.BigIntegerField()

    class Meta:
        table_name = "extra_term"
        primary_key = peewee.CompositeKey("keyword", "level", "term", "owner", "item")


class MetaRow(peewee.Model):
    name = peewee.TextField(primary_key=True)
    value = peewee.TextField()

    class Meta:
        table_name = "meta"


class Journal(peewee.Model):
    slot = peewee.BigIntegerField(primary_key=True)
    sequence = peewee.BigIntegerField()

    class Meta:
        table_name = "journal"


class TaskRow(_Table):
    kind = peewee.TextField()
    lane = peewee.TextField()
    payload = peewee.TextField()
    state = peewee.TextField()
    ready = peewee.DoubleField(null=True)  # when it may be taken (again); NULL when it never will
    due = peewee.DoubleField()
    attempts = peewee.BigIntegerField()
    lease_until = peewee.DoubleField(null=True)
    owner = peewee.TextField()
    created = peewee.DoubleField()
    finished = peewee.DoubleField(null=True)
    reason = peewee.TextField()
    study_uid = peewee.TextField()  # what it is about, for lists; empty if that is no study
    priority = peewee.BigIntegerField()  # within its lane: higher ones go first

    class Meta:
        table_name = "task"


class LaneRow(peewee.Model):
    """What holds up a lane of tasks: a person, or a destination that does not answer."""

    name = peewee.TextField(primary_key=True)
    paused = peewee.DoubleField(null=True)
    paused_why = peewee.TextField()
    down_since = peewee.DoubleField(null=True)
    down_until = peewee.DoubleField(null=True)
    down_tries = peewee.BigIntegerField()
    down_why = peewee.TextField()

    class Meta:
        table_name = "lane"


class Caller(peewee.Model):
    aet = peewee.TextField()
    address = peewee.TextField()
    called = peewee.TextField()
    reason = peewee.TextField()
    first = peewee.DoubleField()
    last = peewee.DoubleField()
    times = peewee.BigIntegerField()

    class Meta:
        table_name = "caller"
        primary_key = peewee.CompositeKey("aet", "address")


class QuarantineRow(_Table):
    path = peewee.TextField()
    reason = peewee.TextField()
    sop_instance_uid = peewee.TextField()
    source = peewee.TextField()
    received = peewee.DoubleField()
    arrival = peewee.TextField()
    study_instance_uid = peewee.TextField()

    class Meta:
        table_name = "quarantine"


class CompressionRow(peewee.Model):
    """What compressing to one transfer syntax has saved so far."""

    transfer_syntax = peewee.TextField(primary_key=True)
    objects = peewee.BigIntegerField()
    bytes_before = peewee.BigIntegerField()
    bytes_after = peewee.BigIntegerField()
    seconds = peewee.DoubleField()

    class Meta:
        table_name = "compression"


# In the order in which rows can be copied: what is referred to comes first.
MODELS: tuple[type[peewee.Model], ...] = (
    Patient, PatientWord, Study, StudyModality, Series, SeriesRequest, Instance, VersionRow, ExtraValue, ExtraTerm,
    MetaRow, Journal, TaskRow, LaneRow, Caller,
    QuarantineRow, StudyHistory, CommitmentRow, CompressionRow, OperationRow, CorrectionRow,
    *JOB_MODELS, ReceivedRow, TombstoneRow, HoldRow, RetentionRow, CopyRow, ResidenceRow, *ORDER_MODELS, *SYNC_MODELS,
)  # fmt: skip
