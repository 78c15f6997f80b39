"""How much memory the processes of a running archive take, as the kernel counts it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Self

from read_log import wait_read
from service import RunningArchive, wait_until
from wado.archive.health import GROUPS, waiting
from wado.bootstrap import open_archive
from wado.records import Topic
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
    """Wait until all is catalogued, and the documents are written: memory that takes counts now."""
    with open_archive(load_settings(storage={"root": archive.root})) as opened:
        wait_until(
            lambda: not waiting(opened, Topic.STORAGE) and not opened.index.awaiting_description(1),
            timeout_s=120,
            reason="metadata documents of all series",
        )


def wait_settled(archive: RunningArchive) -> None:
    """Wait until all of the log is read, by who loads the warehouse, too, and written down."""
    wait_read(archive, GROUPS)
    wait_described(archive)


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

    With a `watch` this holds for pixel workers, too. What consumer and webworker do of it later
    counts, and what they still do of what came before does not. Yields a dictionary that holds the
    growth of each process in bytes at the end.
    """
    wait_described(archive)
    pids, before = archive.pids(), peaks(archive)
    pixels = watch.peak if watch else 0
    growth: dict[str, int] = {}
    yield growth
    wait_described(archive)
    assert archive.pids() == pids, "a process was started again"
    growth |= {name: peak - before[name] for name, peak in peaks(archive).items()}
    if watch is not None:
        watch.look()
        growth["pixels"] = watch.peak - pixels
    told = {name: f"{size / MEGABYTE:.1f} MB" for name, size in growth.items()}
    assert max(growth.values()) <= limit, f"grown by {told}, allowed {limit / MEGABYTE:.0f} MB"
