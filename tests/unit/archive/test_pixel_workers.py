"""Worker processes for pixels: what goes wrong in one harms nobody else."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

import pixel_jobs
from freezing import runs
from service import wait_until
from wado.archive import pixel_workers
from wado.archive.pixel_worker import processor_seconds
from wado.archive.pixel_workers import PixelWorkers
from wado.dicom.image import ImagePixel
from wado.errors import CannotUnderstand, CutShort, NotAcceptable, Unavailable

GIB = 1 << 30
JOBS = str(Path(pixel_jobs.__file__).parent)


HASTE_S = 2
"""What a job of the hasty has, once its process is there."""


@pytest.fixture(autouse=True)
def _jobs_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", JOBS)


@pytest.fixture(autouse=True)
def _processes_may_start_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_workers, "_GRACE_S", 100.0)


@pytest.fixture
def workers() -> Iterator[PixelWorkers]:
    made = PixelWorkers(workers=2, timeout_s=100, max_memory_bytes=GIB)
    yield made
    made.close()


@pytest.fixture
def hasty() -> Iterator[PixelWorkers]:
    made = PixelWorkers(workers=1, timeout_s=HASTE_S, max_memory_bytes=GIB)
    yield made
    made.close()


def test_a_job_runs_elsewhere_and_its_result_comes_back(workers: PixelWorkers):
    assert workers.run(pixel_jobs.double, 4, plus=1) == 9
    pid = workers.run(pixel_jobs.pid)
    assert pid != os.getpid()
    assert workers.run(pixel_jobs.pid) == pid, "the process is used again"
    large = os.urandom(3 << 20)
    assert workers.run(pixel_jobs.echo, large) == large


def test_nothing_runs_until_there_is_a_job(workers: PixelWorkers):
    assert workers.pids() == []


def test_errors_of_the_archive_pass_and_others_become_one(workers: PixelWorkers):
    with pytest.raises(NotAcceptable, match="not that way"):
        workers.run(pixel_jobs.refuse)
    with pytest.raises(CannotUnderstand, match="by nothing"):
        workers.run(pixel_jobs.fail)
    assert workers.run(pixel_jobs.double, 1) == 2


def test_a_crash_costs_one_job(workers: PixelWorkers):
    with pytest.raises(CutShort, match="died"):
        workers.run(pixel_jobs.die)
    assert workers.run(pixel_jobs.double, 1) == 2


def test_too_much_memory_costs_one_job(workers: PixelWorkers):
    with pytest.raises(CutShort, match="memory"):
        workers.run(pixel_jobs.take, 2 * GIB)
    assert workers.run(pixel_jobs.take, 1000) == 1000


def test_a_job_that_hangs_is_given_up_and_its_process_ends(hasty: PixelWorkers, tmp_path: Path):
    marker = tmp_path / "pid"
    with pytest.raises(CutShort, match=f"over {HASTE_S} s"):
        hasty.run(pixel_jobs.hang, str(marker))
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)


def test_a_job_that_never_stops_counting_is_given_up(hasty: PixelWorkers):
    with pytest.raises(CutShort, match=f"over {HASTE_S} s"):
        hasty.run(pixel_jobs.spin)


def test_a_small_frame_may_take_less_than_a_large_one():
    image = ImagePixel(33, 47, 1, "MONOCHROME2", 8, 8, 7)
    small, large = processor_seconds((b"", image)), processor_seconds((replace(image, rows=4096),))
    assert 0 < small < large
    assert processor_seconds((b"", 1)) == 0  # then the other limit holds
    with (
        closing(PixelWorkers(workers=1, timeout_s=200, max_memory_bytes=GIB)) as workers,
        pytest.raises(CutShort, match="longer than others of its size"),
    ):
        workers.run(pixel_jobs.spin, (b"", image))


def test_a_worker_killed_in_the_middle_costs_one_job(workers: PixelWorkers, tmp_path: Path):
    marker = tmp_path / "pid"
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(workers.run, pixel_jobs.hang, str(marker))
        wait_until(
            lambda: marker.exists() and marker.read_text() != "", timeout_s=60, reason="it runs"
        )
        os.kill(int(marker.read_text()), signal.SIGKILL)
        with pytest.raises(CutShort, match="died"):
            job.result()
    assert workers.run(pixel_jobs.double, 1) == 2


def test_waiting_for_a_turn_ends(tmp_path: Path, hasty: PixelWorkers):
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(hasty.run, pixel_jobs.hang, str(tmp_path / str(i))) for i in range(4)]
        errors = [type(job.exception()) for job in jobs]
    assert Unavailable in errors
    assert CutShort in errors


def test_who_may_wait_longer_has_its_turn(tmp_path: Path):
    """Frames of one image wait for each other, each within its time."""
    patient = PixelWorkers(workers=1, timeout_s=HASTE_S, max_memory_bytes=GIB, wait_s=100)
    with closing(patient), ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(patient.run, pixel_jobs.hang, str(tmp_path / str(i))) for i in range(3)]
        assert {type(job.exception()) for job in jobs} == {CutShort}
        assert pool.submit(patient.run, pixel_jobs.double, 1).result() == 2


def test_a_worker_without_work_ends_and_another_is_started():
    workers = PixelWorkers(workers=1, timeout_s=100, max_memory_bytes=GIB, idle_s=0.05)
    try:
        pid = workers.run(pixel_jobs.pid)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), timeout_s=60, reason="it ends")
        assert workers.pids() == []
        assert workers.run(pixel_jobs.pid) != pid
    finally:
        workers.close()


def test_closing_ends_the_processes(workers: PixelWorkers):
    pid = workers.run(pixel_jobs.pid)
    workers.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(Unavailable):
        workers.run(pixel_jobs.pid)


@pytest.mark.parametrize("closes", [True, False])
def test_a_worker_that_was_not_ended_on_purpose_is_reported(
    workers: PixelWorkers, tmp_path: Path, closes: bool
):
    begun = tmp_path / "begun"
    with ThreadPoolExecutor(1) as pool, capture_logs() as lines:
        job = pool.submit(workers.run, pixel_jobs.hang, str(begun))
        wait_until(
            lambda: begun.exists() and begun.read_text() != "", timeout_s=60, reason="the job runs"
        )
        if closes:
            workers.close()
        else:
            os.kill(int(begun.read_text()), signal.SIGKILL)
        with pytest.raises(CutShort):
            job.result(60)
    assert [line["event"] for line in lines] == ([] if closes else ["pixel worker lost"])


def test_workers_end_when_their_parent_is_killed(tmp_path: Path):
    script = (
        "import os, pixel_jobs; from wado.archive.pixel_workers import PixelWorkers\n"
        "w = PixelWorkers(workers=1, timeout_s=100, max_memory_bytes=1 << 30)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(w.run(pixel_jobs.pid)))\n"
        "os.kill(os.getpid(), 9)"
    )
    parent = subprocess.run([sys.executable, "-c", script], check=False, timeout=120)
    assert parent.returncode == -signal.SIGKILL
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not runs(pid), timeout_s=60, reason="the worker ended")
