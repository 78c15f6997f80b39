"""How much memory the processes of a running archive take, as the kernel counts it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Self

from service import RunningArchive, wait_until
from wado.bootstrap import open_archive
from wado.settings import load_settings

MEGABYTE = 1 << 20
_SAMPLE_S = 0.1


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


def pixel_workers(archive: RunningArchive) -> list[int]:
    """Pids of the processes that work on pixels now, children of the serving ones."""
    parents = set(archive.pids().values())
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError, ValueError):  # it ended a moment ago, or is no process
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in parents and b"pixel_worker" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


class PixelWatch:
    """Looks again and again how much the pixel workers have taken: they come and go."""

    def __init__(self, archive: RunningArchive) -> None:
        self._archive = archive
        self._stop = Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self.peak = 0

    def look(self) -> None:
        """Take note of those that are there."""
        for pid in pixel_workers(self._archive):
            with suppress(OSError, AssertionError):
                self.peak = max(self.peak, _status(pid, "VmHWM"))

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            with suppress(OSError):  # the archive is stopping
                self.look()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def flat(
    archive: RunningArchive, limit: int, watch: PixelWatch | None = None
) -> Iterator[dict[str, int]]:
    """Assert that no process died and that none took over `limit` bytes more than ever before.

    With a `watch` this holds for pixel workers, too. Yields a dictionary that holds the growth of
    each process in bytes at the end.
    """
    pids, before = archive.pids(), peaks(archive)
    pixels = watch.peak if watch else 0
    growth: dict[str, int] = {}
    yield growth
    assert archive.pids() == pids, "a process was started again"
    growth |= {name: peak - before[name] for name, peak in peaks(archive).items()}
    if watch is not None:
        watch.look()
        growth["pixels"] = watch.peak - pixels
    told = {name: f"{size / MEGABYTE:.1f} MB" for name, size in growth.items()}
    assert max(growth.values()) <= limit, f"grown by {told}, allowed {limit / MEGABYTE:.0f} MB"
