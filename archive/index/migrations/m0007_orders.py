"""Orders, scheduled steps, and the messages that brought them.

Rules that hold here: a migration is history and never changes; it is written for both databases, with ``{types}``
where they differ.
"""

from __future__ import annotations

from collections.abc import Iterator

TABLES = (
    "CREATE TABLE imaging_order (id {id}, placer {text} NOT NULL, placer_issuer {text} NOT NULL,"
    " filler {text} NOT NULL,"
    " filler_issuer {text} NOT NULL, accession_number {text} NOT NULL, requested_procedure_id {text} NOT NULL,"
    " study_instance_uid {text} NOT NULL UNIQUE, patient_id {text} NOT NULL, issuer {text} NOT NULL,"
    " patient_name_folded {text}, patient_name_ideographic {text}, patient_name_phonetic {text}, state {text} NOT NULL,"
    " attributes {text} NOT NULL, created {real} NOT NULL, changed {real} NOT NULL)",
    "CREATE TABLE scheduled_step (id {id}, imaging_order {int} NOT NULL REFERENCES imaging_order (id),"
    " step_id {text} NOT NULL, state {text} NOT NULL, modality {text} NOT NULL, start_date {text} NOT NULL,"
    " start_time {text} NOT NULL, attributes {text} NOT NULL, UNIQUE (imaging_order, step_id))",
    "CREATE TABLE scheduled_station (aet {text} NOT NULL, start_date {text} NOT NULL,"
    " step {int} NOT NULL REFERENCES scheduled_step (id), PRIMARY KEY (aet, start_date, step)){compact}",
    "CREATE TABLE hl7_message (id {id}, sender {text} NOT NULL, address {text} NOT NULL, control_id {text} NOT NULL,"
    " unique_key {text} UNIQUE, digest {text} NOT NULL, kind {text} NOT NULL, received {real} NOT NULL,"
    " code {text} NOT NULL, reason {text} NOT NULL, patient_id {text} NOT NULL, accession_number {text} NOT NULL,"
    " content {blob} NOT NULL)",
)

INDEXES = (
    ("order_placer", "imaging_order", "placer"),
    ("order_filler", "imaging_order", "filler"),
    ("order_accession", "imaging_order", "accession_number"),
    ("order_procedure", "imaging_order", "requested_procedure_id"),
    ("order_patient", "imaging_order", "patient_id, issuer"),
    ("order_name", "imaging_order", "patient_name_folded"),
    ("step_start", "scheduled_step", "start_date, start_time"),
    ("step_modality", "scheduled_step", "modality, start_date"),
    ("station_step", "scheduled_station", "step"),
    ("message_received", "hl7_message", "received"),
    ("message_control", "hl7_message", "control_id"),
    ("message_patient", "hl7_message", "patient_id"),
    ("message_accession", "hl7_message", "accession_number"),
)


def statements() -> Iterator[str]:
    """Everything in order, with the types left open."""
    yield from TABLES
    for name, table, columns in INDEXES:
        yield f"CREATE INDEX {name} ON {table} ({columns})"
