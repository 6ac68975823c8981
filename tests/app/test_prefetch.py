"""Prefetch wired: a prior that lies on the long-term volume alone is in the cache before its patient comes."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path

import yaml

from archive.app.causes import causes
from archive.app.orders import field_map
from archive.app.prefetch import fetch_priors
from archive.app.store import Archive
from archive.app.volumes import move_files
from archive.config import load
from archive.hl7.inbound import Inbound
from archive.index import State
from archive.index.copies import MAIN, RECALL
from archive.services.orders import Orders
from archive.services.prefetch import PREFETCH
from archive.workers.worker import Workers
from tests import builders
from tests.faults.daemon import wait_until
from tests.hl7.made import PATIENT, order
from tests.services.keeping import checked, known, objects, put
from tests.services.test_volumes import VOLUMES, evicted, long_files, read

PATIENT_OF_THE_ORDER = {"PatientID": "P1", "PatientName": "Doe^Jane", "PatientBirthDate": "19600102", "PatientSex": "F"}
SOON = f"^^^{datetime.now() + timedelta(minutes=30):%Y%m%d%H%M%S}"
OF_SOMEBODY_ELSE = PATIENT_OF_THE_ORDER | {"PatientID": "P2"}


def test_an_order_brings_an_evicted_prior_back_to_the_cache_and_nobody_elses(tmp_path: Path) -> None:
    settings = {
        "storage": {"path": "files", "reserve": 0, "volumes": VOLUMES}, "listeners": [{"port": 0}],
        "index": {"url": f"sqlite:///{tmp_path}/index.db"},
        "prefetch": [{"name": "priors", "ahead": "1h", "priors": {"max": 3}}],
    }  # fmt: skip
    file = tmp_path / "archive.yaml"
    file.write_text(yaml.safe_dump(settings))
    config = load(file, insecure=True)
    with Archive(config) as archive:
        images = [builders.ct(StudyInstanceUID="9.1", SeriesInstanceUID="9.1.1", **PATIENT_OF_THE_ORDER) for _ in "ab"]
        other = builders.ct(StudyInstanceUID="9.2", SeriesInstanceUID="9.2.1", **OF_SOMEBODY_ELSE)
        for each in (*images, other):
            put(archive, each)
        for each in (images[0], other):
            evicted(archive, each)
        assert objects(archive) == [] and len(long_files(archive)) == 3
        before = [read(archive, each) for each in images]

        workers = Workers([*fetch_priors(archive, config), *move_files(archive, config)], archive.index.listen)
        workers.start()
        try:
            inbound = Inbound(
                Orders(archive.index, causes(config)), clock=time.time, fields=field_map(config),
                charset="UNICODE UTF-8", application="ARCHIVE",
            )  # fmt: skip
            assert b"MSA|AA|M1" in inbound.receive(order("M1", patient=PATIENT, obr={27: SOON}), "10.0.0.1")
            wait_until(lambda: {known(archive, each).location.volume for each in images} == {MAIN}, 60)
            wait_until(lambda: not archive.index.tasks(kind=RECALL), 60)
        finally:
            workers.stop()
        (looked,) = archive.index.tasks(kind=PREFETCH, state=State.DONE)
        assert looked.reason.startswith("0 priors are fetched, 1 are here")
        assert known(archive, other).location.volume != MAIN and len(objects(archive)) == 2
        assert [read(archive, each) for each in images] == before and checked(archive, digest=True) == []
