"""B40-B44: objects that contradict what is stored, one after the other and at the same moment.

Rules that hold here: whoever came first stays; what contradicts him is refused with C000 and kept aside, whole;
names that say the same are the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from tests.faults import raw
from tests.faults.badobjects import PATIENT_ID, SERIES, STUDY, elements
from tests.faults.campaign.run import POSTGRESQL, SQLITE, Run, fault
from tests.faults.daemon import Daemon
from tests.faults.objects import MARKER, Instance, encode, keys_of, new_uid
from tests.faults.raw import CT

BOTH = (SQLITE, POSTGRESQL)
TWINS, PROVES = ("no contradictions",), "an object of another patient that is answered with success is seen"
PATIENT_NAME, NUMBER = 0x00100010, 0x00200013
REFUSED = 0xC000
RACERS = 6
Elements = dict[int, tuple[str, bytes | str]]


def made(uid: str, changes: Elements) -> Instance:
    found = elements(uid) | changes
    study, series, patient = (str(found[tag][1]) for tag in (STUDY, SERIES, PATIENT_ID))
    return Instance(CT, uid, study, series, patient, encode(found))


def family() -> tuple[Instance, dict[str, tuple[Instance, int]]]:
    """An object, and others that stand to it in one way each, with the status that is right."""
    uid, other = new_uid(), new_uid()
    whose: Elements = {PATIENT_ID: ("LO", f"{MARKER}-{uid[-12:]}"), PATIENT_NAME: ("PN", f"{MARKER}^Anna Maria")}
    first = made(uid, whose)
    here: Elements = whose | {STUDY: ("UI", first.study), SERIES: ("UI", first.series)}

    def like(changes: Elements, of: str = "") -> Instance:
        return made(of or new_uid(), here | changes)

    return first, {
        "B40 other bytes": (like({NUMBER: ("IS", "7")}, uid), REFUSED),
        "B41 a study of another patient": (like({PATIENT_ID: ("LO", f"{MARKER}-{other[-12:]}")}), REFUSED),
        "B42 another name": (like({PATIENT_NAME: ("PN", f"{MARKER}^Bertha")}), REFUSED),
        "B42 the same name": (like({PATIENT_NAME: ("PN", f"{MARKER.lower()}^anna  maria")}), 0),
        "B43 a series of another study": (like({STUDY: ("UI", f"{other}.1")}), REFUSED),
        "B43 an object of another series": (like({SERIES: ("UI", f"{other}.2"), NUMBER: ("IS", "8")}, uid), REFUSED),
        "one more": (like({}), 0),
    }


@fault(
    "B40-43", "objects that contradict what is stored", tries=500, seconds=120, few=3, databases=BOTH,
    twins=TWINS, proves=PROVES,
)  # fmt: skip
def contradictions(run: Run) -> None:
    archive = run.daemon({"processes": 1}).start()
    seen: set[str] = set()
    aside, said = 0, 0
    while run.goes_on():
        first, others = family()
        owed, found = [first], []
        with raw.association(archive.port, patience=60) as sending:
            assert sending.store(CT, first.uid, first.data) == 0
            for what, (one, right) in others.items():
                status = sending.store(CT, one.uid, one.data)
                aside += status == REFUSED
                if status != right:
                    found.append(f"{what}: {status:04x} instead of {right:04x}")
                if status == 0:
                    owed.append(one)
        if (now := len(archive.quarantined())) != aside:
            found.append(f"{now} objects are kept aside, not {aside}")
        run.count(found + run.check(archive, owed, since=said, seen=seen, asked=1))
        said = len(archive.log())


@fault(
    "B44", "senders race to say whose a study is", tries=500, seconds=120, few=3, databases=BOTH,
    twins=TWINS, proves=PROVES,
)  # fmt: skip
def races(run: Run) -> None:
    """One patient wins: all that is of him is stored, all that is of others is refused."""
    archive = run.daemon({"processes": 2}).start()
    seen: set[str] = set()
    said = 0
    while run.goes_on():
        study = new_uid()
        objects = [racer(study, number % 3) for number in range(RACERS)]
        statuses = raced(archive, objects)
        owed = [one for one, status in zip(objects, statuses, strict=True) if status == 0]
        found = list(judged(archive, study, objects, statuses))
        run.count(found + run.check(archive, owed, since=said, seen=seen, asked=1))
        said = len(archive.log())


def racer(study: str, patient: int) -> Instance:
    whose: Elements = {
        PATIENT_ID: ("LO", f"{MARKER}-{study[-10:]}-{patient}"), PATIENT_NAME: ("PN", f"{MARKER}^{patient}"),
    }  # fmt: skip
    return made(new_uid(), whose | {STUDY: ("UI", study)})


def raced(archive: Daemon, objects: list[Instance]) -> list[int]:
    statuses = [-1] * len(objects)
    barrier = threading.Barrier(len(objects))

    def send(number: int) -> None:
        with raw.association(archive.port, patience=60) as sending:
            barrier.wait(60)
            statuses[number] = sending.store(CT, objects[number].uid, objects[number].data)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(len(objects))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return statuses


def judged(archive: Daemon, study: str, objects: list[Instance], statuses: list[int]) -> Iterator[str]:
    stored = {one.patient for one, status in zip(objects, statuses, strict=True) if status == 0}
    if len(stored) != 1 or set(statuses) - {0, REFUSED}:
        yield f"{len(stored)} patients have the study: {[f'{status:04x}' for status in statuses]}"
    elif any(status and one.patient in stored for one, status in zip(objects, statuses, strict=True)):
        yield "an object of the patient who won was refused"
    with raw.association(archive.port, patience=60) as asking:
        if (count := len(asking.find(keys_of("STUDY", study=study))[1])) != 1:
            yield f"C-FIND finds the study {count} times"
