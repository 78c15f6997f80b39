"""wado-webworker: writes the metadata of series that changed, and keeps their counts."""

import time
from dataclasses import dataclass
from threading import Event

from wado.archive.describe import describe_series, describe_study
from wado.archive.journal import Journals
from wado.dicom.uids import SeriesRef
from wado.errors import Unavailable
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
        except Unavailable as e:
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
            describe_series(self._archive, self._journals, ref)
            done.append((ref, version))
        for study in dict.fromkeys(ref.study for ref, _ in done):
            describe_study(self._archive, self._journals, study)
        if done:
            self._archive.index.mark_described(done)
            for ref, _ in done:
                self._waiting.pop(ref, None)
            _log.info("described", series=len(done))
        return len(done)
