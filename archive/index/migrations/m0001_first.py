"""The first schema: patients, studies, series, instances; journal marks, tasks, callers, quarantine.

Rules that hold here: a migration is history and never changes; it is written for both databases, with ``{types}``
where they differ.
"""

from __future__ import annotations

from collections.abc import Iterator

# Columns of text that a header fills.
_PATIENT = """
    patient_name patient_name_folded patient_name_ideographic patient_name_phonetic patient_id issuer_of_patient_id
    referenced_patient_sequence patient_birth_date patient_birth_time patient_sex other_patient_ids
    other_patient_ids_sequence other_patient_names other_patient_names_folded ethnic_group
    patient_species_description patient_breed_description responsible_person responsible_person_folded
    patient_comments verbatim
"""

_STUDY = """
    study_date study_time accession_number issuer_of_accession_number_sequence study_id institution_name
    referring_physician_name referring_physician_name_folded timezone_offset_from_utc study_description
    procedure_code_sequence physicians_of_record physicians_of_record_folded name_of_physicians_reading_study
    name_of_physicians_reading_study_folded admitting_diagnoses_description referenced_study_sequence patient_age
    patient_size patient_weight medical_alerts allergies occupation smoking_status additional_patient_history
    pregnancy_status last_menstrual_date patient_sex_neutered body_part_examined study_status_id
    requesting_physician requesting_physician_folded requesting_service requested_procedure_description
    study_comments admission_id special_needs current_patient_location patient_state patient_transport_arrangements
    confidentiality_constraint_on_patient_data_description scheduled_procedure_step_sequence
    scheduled_procedure_step_sequence_folded verbatim
"""

_SERIES = """
    modality series_number series_description series_date series_time manufacturer station_name
    institutional_department_name performing_physician_name performing_physician_name_folded operators_name
    operators_name_folded manufacturer_model_name body_part_examined device_serial_number protocol_name
    patient_position view_position frame_of_reference_uid laterality performed_procedure_step_start_date
    performed_procedure_step_start_time performed_procedure_step_id performed_procedure_step_description
    request_attributes_sequence requested_procedure_id scheduled_procedure_step_id verbatim
"""

_INSTANCE = """
    instance_number image_type acquisition_date acquisition_time acquisition_date_time content_date content_time
    contrast_bolus_agent acquisition_number patient_orientation image_laterality slice_location image_comments
    samples_per_pixel photometric_interpretation number_of_frames rows columns bits_allocated bits_stored
    pixel_representation image_location concept_name_code_sequence completion_flag verification_flag document_title
    content_label content_description content_creator_name content_creator_name_folded verbatim
"""


def _table(name: str, own: str, attributes: str, ending: str = "") -> str:
    texts = ", ".join(f"{column} {{text}}" for column in attributes.split())
    return f"CREATE TABLE {name} (id {{id}}, {own}, {texts}){ending}"


TABLES = (
    _table("patient", "issuer {text} NOT NULL, number_of_studies {int} NOT NULL, created {real} NOT NULL", _PATIENT),
    _table(
        "study",
        "study_instance_uid {text} NOT NULL UNIQUE, patient {int} NOT NULL REFERENCES patient (id),"
        " number_of_series {int} NOT NULL, number_of_instances {int} NOT NULL, total_size {int} NOT NULL,"
        " modalities_in_study {text} NOT NULL, sop_classes_in_study {text} NOT NULL, created {real} NOT NULL,"
        " updated {real} NOT NULL",
        _STUDY,
        "{counters}",
    ),
    _table(
        "series",
        "series_instance_uid {text} NOT NULL UNIQUE, study {int} NOT NULL REFERENCES study (id),"
        " number_of_instances {int} NOT NULL, created {real} NOT NULL",
        _SERIES,
        "{counters}",
    ),
    _table(
        "instance",
        "sop_instance_uid {text} NOT NULL UNIQUE, series {int} NOT NULL REFERENCES series (id),"
        " sop_class_uid {text} NOT NULL, transfer_syntax {text} NOT NULL, volume {text} NOT NULL, path {text} NOT NULL,"
        " data_offset {int} NOT NULL, data_size {int} NOT NULL, sha256 {blob} NOT NULL, source {text} NOT NULL,"
        " address {text} NOT NULL, received {real} NOT NULL",
        _INSTANCE,
    ),
    "CREATE TABLE patient_word (word {text} NOT NULL, patient {int} NOT NULL REFERENCES patient (id),"
    " PRIMARY KEY (word, patient)){compact}",
    "CREATE TABLE series_request (keyword {text} NOT NULL, value {text} NOT NULL,"
    " series {int} NOT NULL REFERENCES series (id), PRIMARY KEY (keyword, value, series)){compact}",
    "CREATE TABLE study_modality (modality {text} NOT NULL, study_date {text} NOT NULL,"
    " study {int} NOT NULL REFERENCES study (id), PRIMARY KEY (modality, study_date, study)){compact}",
    "CREATE TABLE meta (name {text} PRIMARY KEY, value {text} NOT NULL)",
    "CREATE TABLE journal (slot {int} PRIMARY KEY, sequence {int} NOT NULL)",
    "CREATE TABLE task (id {id}, kind {text} NOT NULL, lane {text} NOT NULL, payload {text} NOT NULL,"
    " state {text} NOT NULL, ready {real}, due {real} NOT NULL, attempts {int} NOT NULL, lease_until {real},"
    " owner {text} NOT NULL, created {real} NOT NULL, finished {real}, reason {text} NOT NULL)",
    "CREATE TABLE caller (aet {text} NOT NULL, address {text} NOT NULL, called {text} NOT NULL, reason {text} NOT NULL,"
    " first {real} NOT NULL, last {real} NOT NULL, times {int} NOT NULL, PRIMARY KEY (aet, address))",
    "CREATE TABLE quarantine (id {id}, path {text} NOT NULL, reason {text} NOT NULL, sop_instance_uid {text} NOT NULL,"
    " source {text} NOT NULL, received {real} NOT NULL, arrival {text} NOT NULL)",
)

# Name, table, columns. A sparse index leaves out the rows in which its last column is empty.
INDEXES = (
    ("patient_name", "patient", "patient_name_folded"),
    ("patient_birth_date", "patient", "patient_birth_date"),
    ("patient_word_patient", "patient_word", "patient"),
    ("study_patient", "study", "patient"),
    ("study_date", "study", "study_date, study_time"),
    ("study_time", "study", "study_time"),
    ("study_accession_number", "study", "accession_number"),
    ("study_study_id", "study", "study_id"),
    ("study_referring", "study", "referring_physician_name_folded"),
    ("study_description", "study", "study_description"),
    ("series_study", "series", "study"),
    ("series_modality", "series", "modality, study"),
    ("series_description", "series", "series_description"),
    ("series_date", "series", "series_date"),
    ("series_step_date", "series", "performed_procedure_step_start_date"),
    ("study_modality_study", "study_modality", "study"),
    ("series_request_series", "series_request", "series"),
    ("instance_series", "instance", "series"),
    ("task_finished", "task", "finished"),
    ("caller_last", "caller", "last"),
    ("quarantine_uid", "quarantine", "sop_instance_uid"),
)
SPARSE_INDEXES = (
    ("patient_ideographic", "patient", "patient_name_ideographic"),
    ("patient_phonetic", "patient", "patient_name_phonetic"),
    ("task_ready", "task", "kind, ready"),
    ("task_lane", "task", "kind, lane, ready"),
)


def statements() -> Iterator[str]:
    """Everything in order, with the types left open."""
    yield from TABLES
    yield "CREATE UNIQUE INDEX patient_identity ON patient (patient_id, issuer)"
    for name, table, columns in INDEXES:
        yield f"CREATE INDEX {name} ON {table} ({columns})"
    for name, table, columns in SPARSE_INDEXES:
        yield f"CREATE INDEX {name} ON {table} ({columns}) WHERE {columns.split(', ')[-1]} IS NOT NULL"
    yield "INSERT INTO meta (name, value) VALUES ('sync', '')"
