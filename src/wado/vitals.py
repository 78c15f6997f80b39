"""What the processes of a service count, and what they are at: in memory that they share.

A process that watches them (`wado.services.monitor`) reads it. So a service of several processes
has one address for its metrics, and one that is stuck is seen from outside.
"""

import mmap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock, local
from typing import Final, Literal, get_args

Metric = Literal[
    "wado_images_received",
    "wado_images_refused",
    "wado_received_bytes",
    "wado_batches_catalogued",
    "wado_messages_catalogued",
    "wado_catalogue_seconds",
    "wado_loads",
    "wado_messages_loaded",
    "wado_load_seconds",
    "wado_series_described",
    "wado_describe_seconds",
    "wado_waits",
    "wado_transcodes",
    "wado_transcode_failures",
    "wado_transcode_frames",
    "wado_transcode_seconds",
]
"""Names of what is counted; each only grows."""
HELP: Final[dict[Metric, str]] = {
    "wado_images_received": "Images that were stored and announced, those sent again included.",
    "wado_images_refused": "Images that arrived whole and could not be stored or announced.",
    "wado_received_bytes": "Bytes of the images received.",
    "wado_batches_catalogued": "Batches of storage_queue that are in the index.",
    "wado_messages_catalogued": "Messages of storage_queue that are in the index.",
    "wado_catalogue_seconds": "Seconds spent on cataloguing batches.",
    "wado_loads": "Batches loaded into the warehouse.",
    "wado_messages_loaded": "Messages loaded into the warehouse.",
    "wado_load_seconds": "Seconds spent on loading.",
    "wado_series_described": "Series whose metadata documents were written.",
    "wado_describe_seconds": "Seconds spent on looking for series and describing them.",
    "wado_waits": "How often a loop waited because a service did not answer.",
    "wado_transcodes": "Derived copies that were made.",
    "wado_transcode_failures": "Derived copies that could not be made, for good.",
    "wado_transcode_frames": "Frames of the derived copies that were made.",
    "wado_transcode_seconds": "Seconds spent on derived copies, all workers together.",
}
Activity = Literal[
    "catalogue",
    "load dicom_object_meta",
    "load dicom_state_meta",
    "load dicom_image_meta",
    "load wado_access_log",
    "load dicom_transcode_log",
    "describe",
    "housekeeping",
    "commit files",
    "transcode",
    "transcode video",
    "commitment",
]
"""What a thread can be at; none of it takes minutes without progress, unless something hangs."""

METRICS: Final[tuple[Metric, ...]] = get_args(Metric)
ACTIVITIES: Final[tuple[Activity, ...]] = get_args(Activity)
_COLUMNS = {name: n for n, name in enumerate((*METRICS, *ACTIVITIES))}
_WIDTH = len(_COLUMNS)


class Board:
    """A row of numbers for each process of a service; made before the processes are."""

    def __init__(self, processes: Sequence[str]) -> None:
        self.processes = tuple(processes)
        memory = mmap.mmap(-1, max(1, len(self.processes)) * _WIDTH * 8)
        self._values = memoryview(memory).cast("d")

    def row(self, process: str) -> "memoryview[float]":
        """Row of a process."""
        at = self.processes.index(process) * _WIDTH
        return self._values[at : at + _WIDTH]

    def counts(self, process: str) -> dict[Metric, float]:
        """What a process counted, also before it was started again."""
        row = self.row(process)
        return {name: row[_COLUMNS[name]] for name in METRICS}

    def busy_s(self, process: str) -> dict[Activity, float]:
        """What a process is at, and for how many seconds."""
        row, now = self.row(process), time.monotonic()
        return {a: now - row[_COLUMNS[a]] for a in ACTIVITIES if row[_COLUMNS[a]]}


_lock = Lock()
_mine = local()
_row = Board(["alone"]).row("alone")


def use(row: "memoryview[float]") -> None:
    """Count in this row from now on; at the start of a process."""
    global _row  # noqa: PLW0603 - a process has one row, as it has one standard error
    for activity in ACTIVITIES:
        row[_COLUMNS[activity]] = 0.0  # one that died was at something
    _row = row


def count(metric: Metric, amount: float = 1.0) -> None:
    """Count something."""
    with _lock:
        _row[_COLUMNS[metric]] += amount


@contextmanager
def at(activity: Activity) -> Iterator[None]:
    """Say what this thread is at; one thread at a time for each activity."""
    column = _COLUMNS[activity]
    _row[column] = time.monotonic()
    _mine.activity = activity
    try:
        yield
    finally:
        _mine.activity = None
        _row[column] = 0.0


def joining() -> Callable[[], None]:
    """Make what a thread that helps this one calls first: from then on it is at the same."""
    activity = getattr(_mine, "activity", None)

    def join() -> None:
        _mine.activity = activity

    return join


def last(activity: Activity) -> float:
    """When what is done at the moment went on (`time.monotonic`); 0 if nobody is at it."""
    return _row[_COLUMNS[activity]]


def goes_on(activity: Activity | None = None) -> None:
    """Say that what is done at the moment makes progress, however long it takes in all.

    By itself it is what this thread is at, if it is at something.
    """
    activity = activity or getattr(_mine, "activity", None)
    if activity is None:
        return
    column = _COLUMNS[activity]
    if _row[column]:
        _row[column] = time.monotonic()
