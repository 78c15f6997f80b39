"""Many copies, one after the other: several are made at a time, and announced together.

It may be broken off at any time: what is made by then is announced, and a next run goes on.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import islice

from wado.archive.conversion import announce, convert
from wado.archive.copies import Converted, Converter
from wado.archive.statistics import without_numbers
from wado.errors import CutShort
from wado.ports import Archive, Message
from wado.records import Topic, TranscodeMeta

_TOGETHER = 100
_ANNOUNCE_S = 2.0
"""How long a copy that is made may wait for others, to be announced with them."""
_LOOK_S = 0.5
_QUEUED_TOGETHER = 500
_MOST_REASONS = 200


@dataclass(slots=True)
class Reason:
    """Why copies could not be made: in whole, or without the numbers in which they differ.

    `example` is the SOP Instance UID of one, `count` how many they are.
    """

    text: str
    example: str
    count: int = 0


@dataclass(slots=True)
class Outcome:
    """What came of it until now.

    `nothing` was to be done where the copy was there by then, or the instance was gone. `reasons`
    are by their text without numbers.
    """

    made: int = 0
    failed: int = 0
    nothing: int = 0
    frames: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    reasons: dict[str, Reason] = field(default_factory=dict)

    def count(self, result: Converted) -> None:
        """Count what was announced."""
        row = result.row
        if row.succeeded:
            self.made += 1
            self.frames += row.number_of_frames or 1
            self.bytes_before += row.file_size
            self.bytes_after += row.derived_size or 0
            return
        self.failed += 1
        text = row.reason or "no reason was given"
        alike = without_numbers(text)
        if alike not in self.reasons and len(self.reasons) >= _MOST_REASONS:
            text = alike = "other reasons"
        known = self.reasons.setdefault(alike, Reason(text, row.sop_instance_uid))
        known.count += 1
        known.text = text if known.text == text else alike


def make_copies(
    converter: Converter,
    wanted: Iterable[TranscodeMeta],
    done: Outcome,
    *,
    workers: int,
    again: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Make copies and announce them; counts in `done`.

    Parameters
    ----------
    converter
        What conversion needs; its pixel workers are closed when this is broken off.
    wanted
        Read as the work goes on.
    done
        Counts what is announced.
    workers
        How many are worked on at a time.
    again
        Try what is recorded as failed, too.
    progress
        Called now and then.

    Raises
    ------
    Unavailable, OutOfResources
        A service does not answer, or the disk is full. What was made is announced all the same,
        if it can be; also where anything else (Ctrl-C) breaks this off.
    """
    with ThreadPoolExecutor(workers, "convert") as pool:
        run = _Run(converter, done, pool, again=again)
        jobs = iter(wanted)
        try:
            while run.begin(islice(jobs, run.free(workers))) or run.working:
                run.take()
                run.tell()
                progress()
            run.tell(all_of_it=True)
        except BaseException:
            run.give_up()
            raise
    progress()


class _Run:
    """Work in hand: begun, made, and not announced yet."""

    def __init__(
        self, converter: Converter, done: Outcome, pool: ThreadPoolExecutor, *, again: bool
    ) -> None:
        self._converter = converter
        self._done = done
        self._pool = pool
        self._again = again
        self._working: dict[Future[Converted | None], TranscodeMeta] = {}
        self._made: list[Converted] = []
        self._told_s = time.monotonic()

    @property
    def working(self) -> bool:
        return bool(self._working)

    def free(self, workers: int) -> int:
        """How many to begin, so that no worker waits and few lie in wait."""
        return max(2 * workers - len(self._working), 0)

    def begin(self, jobs: Iterator[TranscodeMeta]) -> bool:
        begun = False
        for meta in jobs:
            self._begin(meta)
            begun = True
        return begun

    def _begin(self, meta: TranscodeMeta) -> None:
        future = self._pool.submit(convert, self._converter, meta, again=self._again)
        self._working[future] = meta

    def take(self) -> None:
        """Wait a moment for something to be finished, and take it."""
        finished, _ = wait(self._working, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
        for future in finished:
            self._take(future, self._working.pop(future))

    def _take(self, future: Future[Converted | None], meta: TranscodeMeta) -> None:
        try:
            result = future.result()
        except CutShort:  # not the last attempt: then it would be a result
            self._begin(replace(meta, attempt=meta.attempt + 1))
            return
        if result is None:
            self._done.nothing += 1
        else:
            self._made.append(result)

    def tell(self, *, all_of_it: bool = False) -> None:
        """Announce what is made, if it is much or old."""
        is_old = time.monotonic() - self._told_s > _ANNOUNCE_S
        if not self._made or not (all_of_it or is_old or len(self._made) >= _TOGETHER):
            return
        converter, made = self._converter, self._made
        announced = announce(converter.archive, converter.journals, made)
        self._made, self._told_s = [], time.monotonic()
        for result in announced:
            self._done.count(result)
        self._done.nothing += len(made) - len(announced)

    def give_up(self) -> None:
        """Break off what is in hand, and announce what was made before."""
        self._converter.stop.set()
        self._converter.pixels.close()
        self._pool.shutdown(cancel_futures=True)
        for future in self._working:
            if not future.cancelled() and future.exception() is None:
                result = future.result()
                self._made += [result] if result is not None else []
        self.tell(all_of_it=True)


def queue_copies(
    archive: Archive,
    wanted: Iterable[TranscodeMeta],
    progress: Callable[[int], None] = lambda _count: None,
) -> int:
    """Order copies from the webworkers, some at a time; how many.

    Raises
    ------
    Unavailable
        The log can't be written now.
    """
    jobs, count = iter(wanted), 0
    while some := list(islice(jobs, _QUEUED_TOGETHER)):
        archive.log.publish([Message(Topic.TRANSCODE, m.key, m.to_json()) for m in some])
        count += len(some)
        progress(count)
    return count
