"""A full disk and a read-only root: clear refusals, nothing lost, nothing half-written."""

import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

import synthetic
from read_log import wait_read
from service import START_TIMEOUT_S, RunningArchive, files_below, wait_until
from wado.services.association import Peer
from wado.services.storescu import SendSummary, send

DISK_MB = 40


def write(folder: Path, datasets: list[Dataset]) -> dict[str, Path]:
    folder.mkdir()
    paths = {}
    for ds in datasets:
        path = folder / f"{ds.SOPInstanceUID}.dcm"
        path.write_bytes(synthetic.part10(ds))
        paths[str(ds.SOPInstanceUID)] = path
    return paths


def reasons(summary: SendSummary) -> Counter[str]:
    return Counter(f.reason for f in summary.failures)


def test_full_disk_refuses_loses_nothing_and_recovers(small_disk: Path, tmp_path: Path) -> None:
    # 100 images of 0.5 MB are more than the disk takes.
    files = write(tmp_path / "files", synthetic.ct_series(100, rows=512, columns=512))
    ballast = small_disk / "ballast"
    with ballast.open("wb") as f:
        f.write(bytes(15 << 20))
    with RunningArchive(small_disk / "data") as archive:
        peer = Peer.parse(archive.destination)
        first = send([tmp_path / "files"], peer, associations=3)
        failed = {f.path for f in first.failures}
        stored = {uid: path for uid, path in files.items() if path not in failed}
        assert 10 <= len(stored) < 60, reasons(first)
        # A7xx: out of resources, a modality tries again; nothing else.
        assert all("A700" in reason for reason in reasons(first)), reasons(first)
        originals = small_disk / "data" / "default"
        wait_until(
            lambda: not files_below(originals, "*.part"), timeout_s=60, reason="nothing is left"
        )
        kept = {p.stem for p in files_below(originals, "*.dcm")}
        assert kept >= set(stored)

        ballast.unlink()
        small = write(tmp_path / "small", synthetic.ct_series(20, series="small"))
        wait_until(
            lambda: not send([tmp_path / "small"], peer, associations=1).failures,
            timeout_s=120,
            reason="stores again once there is space",
        )
        wait_read(archive)  # who met the full disk may wait for some seconds
        # A file whose announcement found no space stays; it was refused, and is found here.
        archive.wado("check", "--root", str(archive.root), "--repair")
        wait_read(archive)
        check = archive.wado("check", "--root", str(archive.root))
        assert check.returncode == 0, check.stdout + check.stderr + archive.log[-3000:]
        expected = {**stored, **small}
        for path in files_below(originals, "*.dcm"):
            source = expected.get(path.stem) or files[path.stem]
            assert path.read_bytes()[-1000:] == source.read_bytes()[-1000:]


def test_read_only_root_is_said_at_start(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(disk)], check=True)
    archive = RunningArchive(disk / "data")
    archive.log_path = tmp_path / "log"
    try:
        archive.start(ready=None)
        assert archive.process is not None
        assert archive.process.wait(START_TIMEOUT_S) == 1
        assert "Read-only file system" in archive.log
        assert "Traceback" not in archive.log
    finally:
        archive.stop()
        subprocess.run(["umount", "-l", str(disk)], check=True)
