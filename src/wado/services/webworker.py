"""wado-webworker: writes the metadata of series that changed, and keeps their counts."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

from wado.archive.describe import correct_count, describe_series, describe_study
from wado.archive.journal import Journals
from wado.dicom.uids import SeriesRef, StudyRef
from wado.errors import OutOfResources, Unavailable, WadoError
from wado.ports import Archive
from wado.records import Topic
from wado.settings import LogSettings, WebworkerSettings
from wado.telemetry import get_logger

_log = get_logger("webworker")
_LOOK_AT = 1000
_LONGEST_WAIT_S = 30.0
"""A series that never rests is described after this long all the same."""
_TRIM_INTERVAL_S = 60.0


@dataclass(slots=True)
class _Waiting:
    version: int
    changed_s: float
    first_seen_s: float


def run(
    archive: Archive, settings: WebworkerSettings, log_settings: LogSettings, stop: Event
) -> None:
    """Describe series at rest until `stop` is set; now and then trim the log."""
    worker = Webworker(archive, settings)
    next_trim_s = time.monotonic() + _TRIM_INTERVAL_S
    while not stop.is_set():
        try:
            worker.look(stop)
            if time.monotonic() >= next_trim_s:
                next_trim_s = time.monotonic() + _TRIM_INTERVAL_S
                for topic in Topic:
                    archive.log.trim(topic, keep_s=log_settings.retention_s)
        except (Unavailable, OutOfResources) as e:
            _log.warning("waiting", reason=str(e))
        stop.wait(settings.interval_s)


class Webworker:
    """Remembers since when series have been waiting."""

    def __init__(self, archive: Archive, settings: WebworkerSettings) -> None:
        self._archive = archive
        self._quiet_s = settings.quiet_s
        self._journals = Journals(archive.store)
        self._waiting: dict[SeriesRef, _Waiting] = {}

    def look(self, stop: Event) -> int:
        """Describe the series that rest; how many were described."""
        now = time.monotonic()
        listed = self._archive.index.awaiting_description(_LOOK_AT)
        due: list[tuple[SeriesRef, int]] = []
        waiting: dict[SeriesRef, _Waiting] = {}
        for ref, version in listed:
            known = self._waiting.get(ref) or _Waiting(version, now, now)
            if known.version != version:
                known.version, known.changed_s = version, now
            waiting[ref] = known
            if (
                now - known.changed_s >= self._quiet_s
                or now - known.first_seen_s >= _LONGEST_WAIT_S
            ):
                due.append((ref, version))
        self._waiting = waiting
        return self._describe(due, stop)

    def _describe(self, due: list[tuple[SeriesRef, int]], stop: Event) -> int:
        done: list[tuple[SeriesRef, int]] = []
        for ref, version in due:
            if stop.is_set():
                break
            if self._describe_one(ref):
                done.append((ref, version))
        for study in dict.fromkeys(ref.study for ref, _ in done):
            with _only_this_fails(study):
                describe_study(self._archive, self._journals, study)
        if done:
            self._archive.index.mark_described(done)
            for ref, _ in done:
                self._waiting.pop(ref, None)
            _log.info("described", series=len(done))
        return len(done)

    def _describe_one(self, ref: SeriesRef) -> bool:
        """Describe a series; whether it is done with until it changes again."""
        described = True
        with _only_this_fails(ref):
            described = describe_series(self._archive, self._journals, ref) is not None
        if described:
            return True
        view = self._journals.view(ref)
        if view and time.monotonic() - self._waiting[ref].changed_s >= _LONGEST_WAIT_S:
            # Nothing comes any more, and yet index and journal disagree: the journal is right.
            correct_count(self._archive, ref, view)
        return False


@contextmanager
def _only_this_fails(ref: SeriesRef | StudyRef) -> Iterator[None]:
    """Let one that can't be described not stop the others; it is served without documents."""
    try:
        yield
    except (Unavailable, OutOfResources):
        raise
    except WadoError as e:
        _log.error("not described", path=ref.path, tenant_id=ref.tenant_id, reason=str(e))
