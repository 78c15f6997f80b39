"""How much memory the processes of a running archive take, as the kernel counts it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service import RunningArchive, wait_until
from wado.bootstrap import open_archive
from wado.settings import load_settings

MEGABYTE = 1 << 20


def _status(pid: int, name: str) -> int:
    """Bytes that a line of ``/proc/<pid>/status`` tells."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"{name} of process {pid}: it has ended")


def peaks(archive: RunningArchive) -> dict[str, int]:
    """Largest resident size of each process since it started, in bytes, by its name."""
    return {name: _status(pid, "VmHWM") for name, pid in archive.pids().items()}


def wait_described(archive: RunningArchive) -> None:
    """Wait until the webworker, the last of all, has done its work: memory it takes counts now."""
    with open_archive(load_settings(storage={"root": archive.root})) as opened:
        wait_until(
            lambda: not opened.index.awaiting_description(1),
            timeout_s=60,
            reason="metadata documents of all series",
        )


@contextmanager
def flat(archive: RunningArchive, limit: int) -> Iterator[dict[str, int]]:
    """Assert that no process died and that none took over `limit` bytes more than ever before.

    Yields a dictionary that holds the growth of each process in bytes at the end.
    """
    pids, before = archive.pids(), peaks(archive)
    growth: dict[str, int] = {}
    yield growth
    assert archive.pids() == pids, "a process was started again"
    growth |= {name: peak - before[name] for name, peak in peaks(archive).items()}
    told = {name: f"{size / MEGABYTE:.1f} MB" for name, size in growth.items()}
    assert max(growth.values()) <= limit, f"grown by {told}, allowed {limit / MEGABYTE:.0f} MB"
