"""What the handlers of the web server share: one per process."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from wado.archive.health import Watch
from wado.archive.journal import Journals
from wado.archive.kept_frames import KeptFrames
from wado.archive.pieces import OpenFiles
from wado.archive.pixel_workers import PixelWorkers
from wado.archive.statistics import TranscodingStatistics
from wado.archive.store import Committer
from wado.errors import Unavailable
from wado.ports import Archive
from wado.services.monitor import ArchiveCollector
from wado.services.server.access_log import AccessLog
from wado.services.server.prepared import PreparedAnswers
from wado.services.server.pulse import STUCK_AFTER_S, Pulse, Threads
from wado.settings import ServerSettings

THREADS = 8
"""Threads for what may wait: searches and files that are not in memory; as many for uploads, and
for those that wait for pixel workers."""


@dataclass(frozen=True, slots=True)
class Service:
    """The archive, and what one serving process keeps open."""

    archive: Archive
    settings: ServerSettings
    default_tenant: str
    journals: Journals
    files: OpenFiles
    prepared: PreparedAnswers
    committer: Committer
    access_log: AccessLog
    registry: CollectorRegistry
    watch: Watch
    threads: Threads
    intake: Threads
    pixels: PixelWorkers
    pixel_threads: ThreadPoolExecutor
    probes: ThreadPoolExecutor
    statistics: TranscodingStatistics
    pulse: Pulse
    kept: KeptFrames = field(default_factory=KeptFrames)


@contextmanager
def open_service(
    archive: Archive,
    settings: ServerSettings,
    *,
    default_tenant: str,
    stuck_after_s: float = STUCK_AFTER_S,
) -> Iterator[Service]:
    """Open what handlers need; on exit finish what was taken, then close."""
    with suppress(Unavailable):  # opened, and its library loaded, before the first request waits
        archive.index.awaiting_description(1)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    watch = Watch(archive)
    registry.register(ArchiveCollector(watch))
    with ExitStack() as stack:
        files = OpenFiles(archive.store)
        stack.callback(files.close)
        access_log = stack.enter_context(AccessLog(archive, registry))
        committer = stack.enter_context(Committer(archive))
        # Apart from each other: uploads that await the disk must not hold up searches.
        threads = stack.enter_context(Threads(THREADS, "server"))
        intake = stack.enter_context(Threads(THREADS, "intake", wait_for="commit files"))
        pixel_threads, probes = (
            stack.enter_context(ThreadPoolExecutor(THREADS, thread_name_prefix=name))
            for name in ("pixels", "probes")
        )
        journals = Journals(archive.store)
        yield Service(
            archive,
            settings,
            default_tenant,
            journals,
            files,
            PreparedAnswers(journals, settings.tenant_header),
            committer,
            access_log,
            registry,
            watch,
            threads,
            intake,
            stack.enter_context(closing(_pixel_workers(settings))),
            pixel_threads,
            probes,
            TranscodingStatistics(archive),
            Pulse({"answers": threads, "uploads": intake}, stuck_after_s=stuck_after_s),
        )


def _pixel_workers(settings: ServerSettings) -> PixelWorkers:
    """Make what starts processes for pixels; none is started yet."""
    return PixelWorkers(
        workers=settings.pixel_workers,
        timeout_s=settings.pixel_timeout_s,
        max_memory_bytes=settings.pixel_memory_bytes,
    )
