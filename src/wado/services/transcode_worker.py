"""The transcode queue, read by the webworker: derived copies are made, several at a time.

A batch is committed when each of its copies is announced, or the reason why there is none. What
may pass later is tried again behind the others, alone, a few times; what is down is waited for.
Video is worked on beside the images, by a group of its own: an hour of it holds up no image.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from threading import Event
from typing import Any, ParamSpec, TypeVar

from wado import vitals
from wado.archive.conversion import announce, convert, publish_rows
from wado.archive.copies import Converted, Converter
from wado.archive.health import VIDEO_GROUP
from wado.archive.journal import Journals
from wado.archive.pixel_workers import PixelWorkers
from wado.archive.retrieve import Item
from wado.archive.transcode_rules import is_video
from wado.archive.unfinished import Unfinished, cut_short, fatal
from wado.archive.wanted_copies import Standing, standing
from wado.dicom.uids import InstanceRef, SeriesRef
from wado.errors import (
    CutShort,
    InvalidMessage,
    InvalidRequest,
    OutOfResources,
    Unavailable,
    Unreadable,
    WadoError,
)
from wado.ports import Archive, Batch, Delivered
from wado.records import Topic, TranscodeMeta
from wado.services.patience import Patience
from wado.telemetry import get_logger

P = ParamSpec("P")
T = TypeVar("T")

GROUP = "wado-transcode"
_log = get_logger("webworker")
_BATCH_PER_WORKER = 4
"""Few: a batch is done when the last of it is, and others may wait for the partition by then."""
_LOOK_S = 0.2
_PAUSE_S = 2.0
"""Before work that was cut short is tried again; each time so much longer."""
_KEEP_S = 10.0
"""How long, beyond the time that it took, what was made is kept until it can be announced."""
_BEST_QUALITY = 100
_MS_PER_S = 1000.0


@dataclass(frozen=True, slots=True)
class Part:
    """Part of the queue that one reader works on; the other messages it passes over."""

    group: str
    activity: vitals.Activity
    has_video: bool

    def takes(self, meta: TranscodeMeta) -> bool:
        """Whether a request belongs to this part."""
        return is_video(meta.transfer_syntax_uid) is self.has_video


IMAGES = Part(GROUP, "transcode", has_video=False)
VIDEOS = Part(VIDEO_GROUP, "transcode video", has_video=True)


def run(archive: Archive, stop: Event) -> None:
    """Make the copies that `transcode_queue` asks for, until `stop` is set. At least once.

    Also those that `wado transcode --queue` asks for, where none are made of what arrives.
    """
    with ThreadPoolExecutor(1, "videos") as thread:
        videos = thread.submit(_read_queue, archive, stop, VIDEOS, workers=1)
        videos.add_done_callback(lambda _: stop.set())  # it ends only then, or by a fault
        try:
            _read_queue(archive, stop, IMAGES, workers=archive.transcode.images_at_a_time)
        finally:
            stop.set()
        videos.result()


def _read_queue(archive: Archive, stop: Event, part: Part, *, workers: int) -> None:
    settings = archive.transcode
    pixels = _WatchedWorkers(
        part.activity,
        workers=workers,
        timeout_s=settings.frame_timeout_s,
        max_memory_bytes=settings.memory_bytes,
        wait_s=(workers + 2) * settings.frame_timeout_s,  # frames of several images wait in turn
    )
    patience = Patience("webworker", part.activity, stop)
    with ThreadPoolExecutor(workers, part.activity) as threads, closing(pixels):
        converter = Converter(archive, Journals(archive.store), pixels, settings, stop)
        worker = TranscodeWorker(converter, threads, patience, part)
        while not stop.is_set():
            try:
                for batch in archive.log.read(
                    Topic.TRANSCODE, part.group, stop, max_messages=workers * _BATCH_PER_WORKER
                ):
                    with vitals.at(part.activity):
                        worker.work_on(batch)
                    patience.reset()
            except (Unavailable, OutOfResources) as e:
                if not stop.is_set():
                    patience.wait(e)


class _WatchedWorkers(PixelWorkers):
    """Each job that ends is progress: a long conversion is not taken for one that hangs."""

    def __init__(self, activity: vitals.Activity, **limits: Any) -> None:
        super().__init__(**limits)
        self._activity = activity

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return super().run(work, *args, **kwargs)
        finally:
            vitals.goes_on(self._activity)


@dataclass(frozen=True, slots=True)
class _Job:
    """A message, and what it asks for."""

    message: Delivered
    meta: TranscodeMeta

    @property
    def turn(self) -> tuple[bool, int]:
        """Small images come first, video last."""
        return is_video(self.meta.transfer_syntax_uid), self.meta.file_size

    @property
    def name(self) -> str:
        """By which the note of its batch knows it."""
        return str(self.message.offset)

    def attempt(self, number: int) -> "_Job":
        """Ask for another attempt."""
        return replace(self, meta=replace(self.meta, attempt=number))


@dataclass(frozen=True, slots=True)
class _Outcomes:
    """What came of jobs so far, and the note of their batch."""

    note: Unfinished
    converted: list[Converted] = field(default_factory=list)
    cut_short: list[_Job] = field(default_factory=list)
    failures: list[WadoError] = field(default_factory=list)


class TranscodeWorker:
    """Works on batches of `transcode_queue`.

    Parameters
    ----------
    converter
        Makes the copies; its pixel workers are closed when it is to stop.
    threads
        As many as images are worked on at a time.
    patience
        Waits for services that are down.
    part
        What it works on; None: all.
    """

    def __init__(
        self,
        converter: Converter,
        threads: ThreadPoolExecutor,
        patience: Patience,
        part: Part | None = None,
    ) -> None:
        self._part = part
        self._activity: vitals.Activity = part.activity if part else IMAGES.activity
        self._converter = converter
        self._threads = threads
        self._patience = patience
        self._untold: set[SeriesRef] = set()

    def work_on(self, batch: Batch) -> None:
        """Make the copies of a batch, announce them, and commit it.

        A batch that came before, and whose worker died, is worked on one by one: so it is found
        what kills workers, and put on record as failed after as many deaths as it has attempts.

        Raises
        ------
        Unavailable, OutOfResources
            A service does not answer, the disk is full, or the service is to stop; the batch comes
            again, and what was announced of it is not made again.
        """
        jobs = sorted(_read(batch, self._part), key=lambda job: job.turn)
        if not jobs:
            batch.commit()
            return
        self._untold.clear()
        label = f"video-{batch.label}" if self._part is VIDEOS else batch.label
        note = Unfinished(self._converter.archive.store, label)
        if note.was_cut_short:
            self._record_death(batch, jobs, note)
        try:
            if note.deaths:
                self._one_by_one(batch, jobs, note)
            else:
                self._work(batch, jobs, note)
            self._see_to_documents()
        except (Unavailable, OutOfResources):
            with suppress(WadoError):
                note.give_up()
            raise
        note.end()
        batch.commit()

    def _record_death(self, batch: Batch, jobs: Sequence[_Job], note: Unfinished) -> None:
        """Publish the rows of the attempts that ended with who had the batch before."""
        unfinished = {job.name: job.meta for job in jobs if not self._is_known(job.meta)}
        ended = note.count_death(unfinished)
        _log.warning(
            "worker died", batch=batch.label, in_hand=len(ended), then="its images one by one"
        )
        rows = [cut_short(unfinished[name], attempt) for name, attempt in ended.items()]
        publish_rows(self._converter.archive, rows)

    def _one_by_one(self, batch: Batch, jobs: Sequence[_Job], note: Unfinished) -> None:
        for job in jobs:
            if self._is_known(job.meta):
                continue
            times, before = note.killed(job.name), note.attempts(job.name)
            if times >= self._converter.settings.attempts:
                self._announce([fatal(job.meta, times, before)])
                continue
            self._work(batch, [job.attempt(max(job.meta.attempt, before + 1))], note)
            note.leave(job.name)

    def _is_known(self, meta: TranscodeMeta) -> bool:
        """Whether the copy is there, or the record of its failure."""
        try:
            view = self._converter.journals.view(meta.ref.series)
        except Unreadable:
            return False  # who converts finds out why
        entry = view.entries.get(meta.sop_instance_uid) if view else None
        if view is None or entry is None or entry.digest != meta.digest:
            return False
        self._untold.add(meta.ref.series)
        store, found = self._converter.archive.store, Item(meta.ref, entry, view)
        return standing(store, found, meta.target_transfer_syntax_uid) is not Standing.MISSING

    def _work(self, batch: Batch, jobs: Sequence[_Job], note: Unfinished) -> None:
        """Convert together; then what was cut short, one after the other, a few times."""
        for job in self._convert(batch, jobs, note):
            waiting = [job]
            while waiting:
                attempt = job.attempt(waiting[0].meta.attempt + 1)
                self._converter.stop.wait(_PAUSE_S * (attempt.meta.attempt - 1))
                waiting = self._convert(batch, [attempt], note)

    def _convert(self, batch: Batch, jobs: Sequence[_Job], note: Unfinished) -> list[_Job]:
        """Convert at the same time, and announce what is ready; those that were cut short."""

        def convert_it(job: _Job) -> Converted | None:
            note.begin(job.name, job.meta.attempt, alone=len(jobs) == 1)
            return convert(self._converter, job.meta)

        stop = self._converter.stop
        pending = {self._threads.submit(convert_it, job): job for job in jobs}
        outcomes = _Outcomes(note)
        while pending:
            done, _ = wait(pending, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
            for future in done:
                self._settle(batch, pending.pop(future), future, outcomes)
            if stop.is_set():
                self._converter.pixels.close()
            if stop.is_set() or outcomes.failures:
                pending = {f: job for f, job in pending.items() if not f.cancel()}
            try:
                self._announce(outcomes.converted)
            except (Unavailable, OutOfResources) as e:
                outcomes.failures.append(e)
            outcomes.converted.clear()
            if any(is_video(job.meta.transfer_syntax_uid) for job in pending.values()):
                vitals.goes_on(self._activity)  # it has a time limit of its own
        if outcomes.failures:
            raise outcomes.failures[0]
        if stop.is_set():
            raise Unavailable("the service is stopping")
        return outcomes.cut_short

    def _settle(
        self, batch: Batch, job: _Job, future: Future[Converted | None], outcomes: _Outcomes
    ) -> None:
        vitals.goes_on(self._activity)
        meta = job.meta
        try:
            converted = future.result()
        except CutShort as e:
            _log.warning(
                "cut short",
                path=meta.ref.path,
                tenant_id=meta.tenant_id,
                attempt=meta.attempt,
                reason=str(e),
            )
            outcomes.cut_short.append(job)
            outcomes.note.leave(job.name, cut_short=meta.attempt)
        except InvalidRequest as e:
            batch.reject(job.message, str(e))
            outcomes.note.leave(job.name)
        except (Unavailable, OutOfResources) as e:
            outcomes.failures.append(e)
        else:
            if converted is None:
                self._untold.add(meta.ref.series)
                outcomes.note.leave(job.name)
            else:
                outcomes.converted.append(converted)

    def _announce(self, results: Sequence[Converted]) -> None:
        """Announce; what was made is kept for a while if that is not possible now."""
        if not results:
            return
        archive, journals = self._converter.archive, self._converter.journals
        took_s = max(result.row.duration_ms for result in results) / _MS_PER_S
        deadline = time.monotonic() + took_s + _KEEP_S
        while True:
            try:
                announced = announce(archive, journals, results)
                break
            except (Unavailable, OutOfResources) as e:
                if self._converter.stop.is_set() or time.monotonic() > deadline:
                    raise
                self._patience.wait(e)
                vitals.goes_on(self._activity)  # it waits, and says so
        for result in announced:
            _count(result)

    def _see_to_documents(self) -> None:
        """See that what was announced before is described: who did so may have died at once."""
        stale = [ref for ref in sorted(self._untold) if self._may_be_stale(ref)]
        self._converter.archive.index.await_description(stale)

    def _may_be_stale(self, ref: SeriesRef) -> bool:
        try:
            view = self._converter.journals.view(ref)
        except Unreadable:
            return True  # who describes it gives it up, or can read it by then
        return view is not None and not view.described


def _read(batch: Batch, part: Part | None) -> Iterable[_Job]:
    """Read messages, each request once; those that make no sense are dead letters, once."""
    seen: set[tuple[InstanceRef, str, str]] = set()
    for message in batch.messages:
        try:
            meta = TranscodeMeta.from_json(message.body)
            _check(meta)
            request = (meta.ref, meta.digest, meta.target_transfer_syntax_uid)
        except (InvalidMessage, InvalidRequest) as e:
            if part is not VIDEOS:
                batch.reject(message, str(e))
            continue
        if request not in seen and (part is None or part.takes(meta)):
            seen.add(request)
            yield _Job(message, meta)


def _check(meta: TranscodeMeta) -> None:
    """Refuse what can't be a request for a copy: a message is input."""
    for each in fields(meta):
        if not isinstance(getattr(meta, each.name), int if each.type is int else str):
            raise InvalidMessage(f"not a TranscodeMeta: {each.name} is of another type")
    if not 0 <= meta.quality <= _BEST_QUALITY or meta.attempt < 1:
        raise InvalidMessage("not a TranscodeMeta: quality or attempt is out of range")
    try:
        _ = meta.requested_at and datetime.fromisoformat(meta.requested_at)
    except ValueError:
        raise InvalidMessage("not a TranscodeMeta: requested_at is no time") from None


def _count(result: Converted) -> None:
    row = result.row
    vitals.count("wado_transcode_seconds", row.duration_ms / _MS_PER_S)
    told = {"path": result.ref.path, "tenant_id": row.tenant_id}
    if row.succeeded:
        vitals.count("wado_transcodes")
        vitals.count("wado_transcode_frames", row.number_of_frames or 1)
        _log.info("transcoded", **told, to=row.target_transfer_syntax_uid, codec=row.codec)
    else:
        vitals.count("wado_transcode_failures")
        _log.warning("not transcoded", **told, to=row.target_transfer_syntax_uid, reason=row.reason)
