"""What fault tests share: one archive that all hostile tests attack in turn, a small disk."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import synthetic
from hostile import END, HEAD, dimse, files, stow, unharmed
from memory import wait_settled
from read_log import wait_read
from service import RunningArchive


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system in memory, as large as the module says (`DISK_MB`)."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    size = f"size={request.module.DISK_MB}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningArchive]:
    """One archive that suffers all of it; what it keeps must be right at the end."""
    with RunningArchive(tmp_path_factory.mktemp("hostile") / "data") as archive:
        good = synthetic.ct(study="warm", series="warm", patient_id="warm")
        assert stow(archive, HEAD + synthetic.part10(good) + END)[0] == 200
        assert dimse(archive, synthetic.data_set(good), good.SOPInstanceUID).status == 0
        wait_settled(archive)
        yield archive
        wait_read(archive)
        check = archive.wado("check", "--deep", "--root", str(archive.root))
        assert check.returncode == 0, check.stdout + check.stderr


@pytest.fixture
def unmoved(attacked: RunningArchive) -> Iterator[RunningArchive]:
    """The archive, before and after what must leave no trace."""
    before = files(attacked)
    with unharmed(attacked):
        yield attacked
    assert files(attacked) == before, "something that was refused is there"
