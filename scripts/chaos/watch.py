"""Looks at a cluster while it suffers, and waits for it to be well again."""

import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

from chaos.verify import get
from wado.archive.health import GROUPS
from wado.bootstrap import open_archive
from wado.errors import WadoError
from wado.settings import load_settings

_EVERY_S = 0.5
_PATIENCE_S = 10.0


@dataclass
class Prober:
    """Searches twice a second, as a workstation would; remembers when it was not answered."""

    dicomweb: str
    now_s: Callable[[], float]
    answered: list[float] = field(default_factory=list)
    failures: list[tuple[float, str]] = field(default_factory=list)
    _stop: Event = field(default_factory=Event)
    _thread: Thread | None = None

    def start(self) -> None:
        """Begin to look."""
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            try:
                status, _ = get(
                    f"{self.dicomweb}/studies?limit=1", "application/dicom+json", _PATIENCE_S
                )
            except Exception as e:  # noqa: BLE001 - whatever it is, it was not answered
                self.failures.append((self.now_s(), type(e).__name__))
            else:
                if status in {200, 204}:
                    self.answered.append(self.now_s())
                else:
                    self.failures.append((self.now_s(), f"HTTP {status}"))

    def longest_outage(self, end_s: float) -> tuple[float, float]:
        """Longest time without an answer, and when it began."""
        times = [0.0, *self.answered, end_s]
        return max((b - a, a) for a, b in itertools.pairwise(times))


def wait_ready(cluster: dict[str, Any], within_s: float) -> float:
    """Wait until ``/readyz`` answers 200 through nginx; how long it took.

    Raises
    ------
    TimeoutError
        It does not.
    """
    began = time.monotonic()
    while time.monotonic() - began < within_s:
        with suppress(Exception):
            if get(f"{cluster['http']}/readyz", "*/*", _PATIENCE_S)[0] == 200:
                return time.monotonic() - began
        time.sleep(0.2)
    raise TimeoutError(f"not ready within {within_s} s")


def wait_drained(cluster: dict[str, Any], within_s: float) -> tuple[float, dict[str, int]]:
    """Wait until nothing waits on the log or for description; how long, and what waits still."""
    began = time.monotonic()
    with open_archive(load_settings(Path(cluster["config"]))) as archive:
        while True:
            waiting = {"unknown": 1}
            with suppress(WadoError):
                waiting = {str(t): archive.log.lag(t, group) for t, group in GROUPS.items()}
                waiting["description"] = len(archive.index.awaiting_description(1))
            left = {name: count for name, count in waiting.items() if count}
            took_s = time.monotonic() - began
            if not left or took_s > within_s:
                return took_s, left
            time.sleep(0.5)


def brokers_in_sync(log_url: str) -> Callable[[], bool]:
    """Make a function that tells whether every partition of the log has all of its replicas."""
    if not log_url.startswith("kafka"):
        return lambda: True
    from confluent_kafka import KafkaException  # noqa: PLC0415 - not in every installation
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415 - likewise

    servers = log_url.partition("://")[2].partition("/")[0]
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})

    def in_sync() -> bool:
        try:
            topics = admin.list_topics(timeout=5).topics.values()
        except KafkaException:
            return False
        return all(
            len(p.isrs) == len(p.replicas) for topic in topics for p in topic.partitions.values()
        )

    return in_sync
