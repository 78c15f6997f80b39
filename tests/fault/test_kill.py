"""SIGKILL at random moments: each image acknowledged is there bit for bit, and indexed once.

Short in the suite; longer by ``WADO_TEST_KILLS=100 make test-fault`` (``WADO_TEST_SEED`` repeats
a run's choices).
"""

import json
import os
import random
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import synthetic
from read_log import wait_read
from service import RunningArchive, wait_until
from wado.bootstrap import open_archive
from wado.errors import WadoError
from wado.services.association import Peer
from wado.services.storescu import send
from wado.settings import load_settings

KILLS = int(os.environ.get("WADO_TEST_KILLS", "12"))
SENDERS = 4
SLICES = 12


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningArchive]:
    """An archive of this test's own: it is about to suffer."""
    with RunningArchive(tmp_path / "data") as archive:
        yield archive


class Sender(threading.Thread):
    """Sends one new series after the other until told to stop; notes what was acknowledged."""

    def __init__(self, number: int, folder: Path, archive: RunningArchive) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.folder = folder
        self.archive = archive
        self.stop = threading.Event()
        self.acknowledged: dict[str, Path] = {}
        self.series: dict[str, str] = {}
        self.errors: Counter[str] = Counter()

    def run(self) -> None:
        """Send until stopped."""
        count = 0
        while not self.stop.is_set():
            count += 1
            self.send_series(f"{self.number}-{count}")

    def send_series(self, name: str) -> None:
        """Send a series until each instance is acknowledged."""
        todo = {}
        for ds in synthetic.ct_series(SLICES, study=f"study-{self.number}", series=name):
            path = self.folder / f"{ds.SOPInstanceUID}.dcm"
            path.write_bytes(synthetic.part10(ds))
            todo[str(ds.SOPInstanceUID)] = path
            self.series[str(ds.SOPInstanceUID)] = str(ds.SeriesInstanceUID)
        deadline = time.monotonic() + 120
        while todo:
            assert time.monotonic() < deadline, f"{len(todo)} not acknowledged: {self.errors}"
            try:
                summary = send(
                    list(todo.values()),
                    Peer.parse(self.archive.destination),
                    calling_ae_title=f"SENDER{self.number}",
                    associations=1,
                )
            except WadoError as e:
                self.errors[str(e)] += 1
                time.sleep(0.1)
                continue
            failed = {f.path for f in summary.failures}
            for failure in summary.failures:
                self.errors[failure.reason] += 1
            done = {uid: path for uid, path in todo.items() if path not in failed}
            self.acknowledged |= done
            todo = {uid: path for uid, path in todo.items() if uid not in done}


def dicom_json(url: str) -> list[dict[str, Any]]:
    """GET DICOM JSON."""
    request = urllib.request.Request(url, headers={"Accept": "application/dicom+json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        rows: list[dict[str, Any]] = json.loads(answer.read() or b"[]")
        return rows


def test_killed_services_lose_nothing_and_double_nothing(
    running: RunningArchive, tmp_path: Path
) -> None:
    seed = int(os.environ.get("WADO_TEST_SEED", str(random.randrange(1 << 30))))
    print(f"WADO_TEST_SEED={seed} WADO_TEST_KILLS={KILLS}")  # noqa: T201 - to repeat the run
    chance = random.Random(seed)
    senders = []
    for number in range(SENDERS):
        folder = tmp_path / f"sender-{number}"
        folder.mkdir()
        senders.append(Sender(number, folder, running))
    for sender in senders:
        sender.start()
    killed: Counter[str] = Counter()
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.1, 0.7))
        name = chance.choice(sorted(running.pids()))
        running.kill_service(name)
        killed[name.rstrip("-0123456789")] += 1
    for sender in senders:
        sender.stop.set()
    for sender in senders:
        sender.join(150)
        assert not sender.is_alive(), sender.errors
    acknowledged = {uid: path for s in senders for uid, path in s.acknowledged.items()}
    series = {uid: name for s in senders for uid, name in s.series.items()}
    assert len(acknowledged) == len(series), "a sender gave up"
    assert len(acknowledged) >= SENDERS * SLICES
    wait_until(running.ready, timeout_s=60, reason="ready again")
    wait_read(running)

    check = running.wado("check", "--root", str(running.root))
    assert check.returncode == 0, f"{killed}\n{check.stdout}\n{check.stderr}"
    every_image_is_there_once(running, acknowledged, series)


def every_image_is_there_once(
    running: RunningArchive, acknowledged: dict[str, Path], series: dict[str, str]
) -> None:
    """Each image acknowledged can be retrieved bit for bit, and is in the index once."""
    seen: Counter[str] = Counter()
    for study in dicom_json(f"{running.dicomweb}/studies?limit=1000"):
        study_url = f"{running.dicomweb}/studies/{study['0020000D']['Value'][0]}"
        rows = dicom_json(f"{study_url}/series?limit=1000")
        for row in rows:
            uid = row["0020000E"]["Value"][0]
            metadata = dicom_json(f"{study_url}/series/{uid}/metadata")
            assert row["00201209"]["Value"][0] == len(metadata)
            seen.update(m["00080018"]["Value"][0] for m in metadata)
        assert study["00201206"]["Value"][0] == len(rows)
    assert seen == Counter(dict.fromkeys(acknowledged, 1))
    for path in running.root.glob("default/*/*/*.dcm"):
        sent = acknowledged[path.stem].read_bytes()
        kept = path.read_bytes()
        assert kept[-1000:] == sent[-1000:]
        assert data_set_of(kept) == data_set_of(sent)
    running.stop()
    with open_archive(load_settings(storage={"root": running.root})) as archive:
        rows = archive.warehouse.query(
            "select sop_instance_uid, count(*) as n from dicom_image_meta group by 1"
        )
        assert {r["sop_instance_uid"]: r["n"] for r in rows} == dict.fromkeys(acknowledged, 1)
        received = archive.warehouse.query(
            "select distinct sop_instance_uid from dicom_object_meta"
        )
        assert {r["sop_instance_uid"] for r in received} >= set(acknowledged)


def data_set_of(file: bytes) -> bytes:
    """What follows the File Meta Information."""
    from wado.dicom.part10 import read_file_meta  # noqa: PLC0415 - only here

    return file[read_file_meta(file).data_set_offset :]
