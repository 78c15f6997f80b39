"""Deaths, stops and a full disk while copies are made: each image gets its copy, once, or a reason.

Originals are never touched.
"""

import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

import copies
import synthetic
from coded_streams import streams_of
from copies import HTJ2K_RPCL
from memory import pixel_workers
from service import RunningArchive, files_below, wait_until
from wado.adapters.warehouse.duckdb import DuckdbWarehouse
from wado.archive.derived import NOTHING, Derived
from wado.archive.journal import Journals
from wado.archive.paths import derived_path, instance_path
from wado.bootstrap import open_archive
from wado.dicom.uids import InstanceRef
from wado.errors import WadoError
from wado.records import Topic
from wado.services import transcode_worker
from wado.services.association import Peer
from wado.services.patience import Patience
from wado.services.storescu import send
from wado.settings import load_settings

WITHIN_S = 120.0
FRAMES = 160
DISK_MB = 48
ROOM_BYTES = 3 << 20
"""For two copies or so."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def long_one(study: str = "long", frames: int = FRAMES) -> Dataset:
    """An image whose conversion takes seconds: the same large frame many times."""
    (stream,) = streams_of(copies.jpeg_xl(synthetic.multi_frame(1, 512, 512, study=study)))
    ds = synthetic.multi_frame(1, 512, 512, study=study)
    return synthetic.encapsulated(ds, copies.JPEG_XL_LOSSLESS, [stream] * frames)


def put(archive: RunningArchive, folder: Path, *datasets: Dataset) -> dict[str, bytes]:
    """Send images; their data sets by UID."""
    folder.mkdir()
    for ds in datasets:
        (folder / f"{ds.SOPInstanceUID}.dcm").write_bytes(synthetic.part10(ds))
    assert not send([folder], Peer.parse(archive.destination), associations=1).failures
    return {str(ds.SOPInstanceUID): synthetic.data_set(ds) for ds in datasets}


def ref_of(ds: Dataset) -> InstanceRef:
    uids = (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
    return InstanceRef.of("default", *map(str, uids))


def derived_of(root: Path, ds: Dataset) -> Derived:
    """What the journal says, while the archive runs."""
    with open_archive(load_settings(storage={"root": root})) as archive:
        view = Journals(archive.store).view(ref_of(ds).series)
        entry = view.entries.get(str(ds.SOPInstanceUID)) if view else None
        return entry.derived if entry else NOTHING


def wait_for_copies(archive: RunningArchive, *datasets: Dataset) -> None:
    wait_until(
        lambda: all(HTJ2K_RPCL in derived_of(archive.root, ds).copies for ds in datasets),
        timeout_s=WITHIN_S,
        reason="all copies are there",
    )


def check(root: Path, sent: dict[str, bytes], *datasets: Dataset) -> None:
    """Each original as it was sent; each copy whole, and once in the warehouse, when it is shut."""
    for ds in datasets:
        original = (root / instance_path(ref_of(ds))).read_bytes()
        assert original.endswith(sent[str(ds.SOPInstanceUID)])
        copy = derived_of(root, ds).copies[HTJ2K_RPCL]
        path = root / derived_path(ref_of(ds), HTJ2K_RPCL)
        assert path.stat().st_size == copy.file_size
        assert copy.pixel.number_of_frames == int(ds.get("NumberOfFrames") or 1)
    files = {path for path in (root / "derived").rglob("*") if path.is_file()}
    assert len({path for path in files if not path.name.startswith(".")}) == len(datasets)
    with open_archive(load_settings(storage={"root": root})) as archive:
        known = {root / path for path in archive.store.abandoned(older_than_s=0)}
    assert {path for path in files if path.name.startswith(".")} <= known, "it stays for ever"
    assert not list((root / "run" / "transcode").glob("*"))


def rows(archive: RunningArchive) -> list[dict[str, Any]]:
    path = archive.root / "warehouse" / "warehouse.duckdb"
    with closing(DuckdbWarehouse(path, patience_s=120)) as warehouse:
        return warehouse.query("SELECT * FROM dicom_transcode_log")


def attempts(archive: RunningArchive, ds: Dataset) -> list[tuple[int, bool]]:
    """Attempts at an image that are on record, and whether they went well."""
    uid = str(ds.SOPInstanceUID)
    of = (row for row in rows(archive) if row["sop_instance_uid"] == uid)
    return sorted((row["attempt"], row["succeeded"]) for row in of)


def wait_for_work(archive: RunningArchive, ds: Dataset) -> list[int]:
    """Wait until the copy of an image is being written; the processes that work on pixels.

    They are the webworker's: nobody else is asked for pixels here.
    """
    folder = (archive.root / derived_path(ref_of(ds), HTJ2K_RPCL)).parent
    found: list[int] = []

    def is_at_it() -> bool:
        if files_below(folder, ".*"):
            found[:] = pixel_workers(archive)
        return bool(found)

    wait_until(is_at_it, timeout_s=WITHIN_S, reason="the copy is being written")
    return found


def test_a_dead_pixel_worker_costs_another_attempt(root: Path, tmp_path: Path) -> None:
    long, short = long_one(), copies.jpeg_xl(synthetic.multi_frame(2, study="short"))
    with RunningArchive(root, env={"WADO_TRANSCODE__WORKERS": "1"}) as archive:
        sent = put(archive, tmp_path / "sent", long, short)
        (worker,) = wait_for_work(archive, long)
        os.kill(worker, signal.SIGKILL)
        wait_for_copies(archive, long, short)
        assert "cut short" in archive.log
        wait_until(lambda: len(rows(archive)) == 3, timeout_s=WITHIN_S, reason="three rows")
        assert attempts(archive, long) == [(1, False), (2, True)]
        assert attempts(archive, short) == [(1, True)]
    check(root, sent, long, short)


def test_a_webworker_that_is_killed_loses_nothing(root: Path, tmp_path: Path) -> None:
    long, short = long_one(), copies.jpeg_xl(synthetic.multi_frame(2, study="short"))
    with RunningArchive(root) as archive:
        sent = put(archive, tmp_path / "sent", long, short)
        workers = wait_for_work(archive, long)
        pid = archive.kill_service("webworker-1")
        archive.wait_restarted("webworker-1", pid)
        wait_until(
            lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers),
            timeout_s=WITHIN_S,
            reason="its pixel workers end, too",
        )
        wait_for_copies(archive, long, short)
        assert "worker died" in archive.log
        wait_until(
            lambda: sum(row["succeeded"] for row in rows(archive)) == 2,
            timeout_s=WITHIN_S,
            reason="two copies in the warehouse",
        )
        assert attempts(archive, long) == [(1, False), (2, True)]
        assert attempts(archive, short) in ([(1, True)], [(1, False), (2, True)])
        reasons = {row["reason"] for row in rows(archive)} - {None}
        assert reasons == {"the webworker died while it worked on it, as one out of memory does"}
    check(root, sent, long, short)


def test_it_stops_in_the_middle_and_goes_on_after_the_next_start(
    root: Path, tmp_path: Path
) -> None:
    long = long_one(frames=2 * FRAMES)
    archive = RunningArchive(root)
    with archive:
        sent = put(archive, tmp_path / "sent", long)
        workers = wait_for_work(archive, long)
    assert not derived_of(root, long).copies, "it was in the middle"
    assert "did not stop in time" not in archive.log
    wait_until(
        lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers),
        timeout_s=WITHIN_S,
        reason="its pixel workers end, too",
    )
    with RunningArchive(root) as archive:
        wait_for_copies(archive, long)
        assert "worker died" not in archive.log
    check(root, sent, long)


def test_a_full_disk_is_waited_for(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(7).integers(0, 256, 1 << 20, dtype=np.uint8)
    datasets = []
    for number in range(6):
        ds = synthetic.multi_frame(1, 1024, 1024, study=f"noise {number}")
        ds.PixelData = np.roll(noise, number).tobytes()
        datasets.append(copies.deflated(ds))
    waits: list[str] = []
    monkeypatch.setattr(Patience, "wait", noted(Patience.wait, waits))
    root, ballast, stop = small_disk / "data", small_disk / "ballast", Event()
    with open_archive(load_settings(storage={"root": root})) as archive:
        copies.store(archive, *datasets)
        free = os.statvfs(small_disk)
        ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - ROOM_BYTES))
        service = Thread(target=transcode_worker.run, args=(archive, stop))
        service.start()
        try:
            wait_until(lambda: len(waits) > 1, timeout_s=WITHIN_S, reason="it waits")
            assert archive.log.lag(Topic.TRANSCODE, transcode_worker.GROUP) == len(datasets)
            assert any("No space" in reason or "full" in reason for reason in waits), waits
            ballast.unlink()
            wait_until(
                lambda: all(copies.derived_of(archive, ds).copies for ds in datasets),
                timeout_s=WITHIN_S,
                reason="all copies are there",
            )
        finally:
            stop.set()
            service.join()
        assert not any(copies.derived_of(archive, ds).failures for ds in datasets)
    assert not [path for path in (root / "derived").rglob(".*") if path.is_file()]


def noted(wait: Callable[[Patience, WadoError], None], reasons: list[str]) -> Any:
    """Wait as always, and note why."""

    def waited(patience: Patience, e: WadoError) -> None:
        reasons.append(str(e))
        wait(patience, e)

    return waited
