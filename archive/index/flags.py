"""The mark ``corrected`` of patients and studies: what has none is not looked up when something comes or goes out.

Rules that hold here: it is worked out anew from what is written, whatever it was before.
"""

from __future__ import annotations

from archive.index.database import Session
from archive.index.person import Person


def flag_patient(session: Session, key: int, owner: str) -> None:
    """Mark a patient of whom an operation speaks, or whose objects were given to another."""
    said = "EXISTS (SELECT 1 FROM correction WHERE level = 0 AND owner = ? AND active = 1)"
    lent = "EXISTS (SELECT 1 FROM study WHERE said_patient = ?)"
    session.run(
        f"UPDATE patient SET corrected = CASE WHEN {said} OR {lent} THEN 1 ELSE 0 END WHERE id = ?", (owner, key, key)
    )


def flag_study(session: Session, key: int) -> None:
    """Mark a study that goes out otherwise than it came in, or may."""
    row = session.row(
        "SELECT s.study_instance_uid, s.said_patient, p.patient_id, p.issuer FROM study s"
        " JOIN patient p ON p.id = s.patient WHERE s.id = ?",
        (key,),
    )
    if row is None:
        return
    uid, said, patient_id, issuer = row
    owner = Person(patient_id, issuer).owner if patient_id else ""
    found = session.row(
        "SELECT CASE WHEN EXISTS (SELECT 1 FROM correction WHERE level = 1 AND owner = ? AND active = 1)"
        " OR EXISTS (SELECT 1 FROM correction WHERE level = 0 AND owner = ? AND active = 1 AND keyword >= 'A')"
        " OR EXISTS (SELECT 1 FROM series e JOIN correction c ON c.level = 2 AND c.owner = e.series_instance_uid"
        " AND c.active = 1 WHERE e.study = ?) THEN 1 ELSE 0 END",
        (uid, owner, key),
    )
    flag = 1 if said is not None or (found and found[0]) else 0
    session.run("UPDATE study SET corrected = ? WHERE id = ? AND corrected <> ?", (flag, key, flag))
