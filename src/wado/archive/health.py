"""How the archive is doing: which ports answer, what waits; found out in bounded time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, islice
from threading import Event, Lock, Thread
from typing import Any

from wado.errors import WadoError
from wado.ports import Archive
from wado.records import Topic
from wado.telemetry import get_logger

_log = get_logger("health")
GROUPS = {
    Topic.STORAGE: "wado-consumer",
    Topic.LOG: "wado-warehouse",
    Topic.DICOM_STATE: "wado-warehouse",
    Topic.DICOM_IMAGE: "wado-warehouse",
    Topic.COMMITMENT: "wado-commitment",
    Topic.WEBAPI_ACCESS: "wado-warehouse",
    Topic.TRANSCODE: "wado-transcode",
    Topic.TRANSCODE_LOG: "wado-warehouse",
}
"""Who reads a topic."""
COUNTED = (Topic.STORAGE, Topic.LOG, Topic.DICOM_STATE, Topic.DICOM_IMAGE)
"""Topics by which images come to be found and counted; others may take long, or never rest."""
VIDEO_GROUP = "wado-transcode-video"
"""Who reads, beside those, `transcode_queue` for the videos in it."""
RECEPTION = frozenset({"log", "store"})
"""Ports without which nothing can be taken in."""
NEEDED = RECEPTION | {"index"}
"""Ports that a service of everything needs to begin with."""
MOST_COUNTED = 10_000
"""Dead letters of a topic, and series that await description, are counted so far."""
LIMIT_S = 2.0
_KEEP_S = 1.0
_KEEP_DEAD_LETTERS_S = 30.0


@dataclass(frozen=True, slots=True)
class Found:
    """What was answered, or why there was no answer (`reason`), and after how long."""

    value: Any = None
    reason: str = ""
    seconds: float = 0.0

    @property
    def answered(self) -> bool:
        """Whether there was an answer."""
        return not self.reason


class Question:
    """A question that may hang: asked in a thread, by one at a time; the answer is kept a while.

    Parameters
    ----------
    ask
        Asks, and gives the answer or raises.
    keep_s
        How long an answer is good for.
    """

    def __init__(self, ask: Callable[[], Any], *, keep_s: float = _KEEP_S) -> None:
        self._ask = ask
        self._keep_s = keep_s
        self._lock = Lock()
        self._asked_s = 0.0
        self._ended_s = float("-inf")
        self._ended = Event()
        self._ended.set()
        self._found = Found(reason="was not asked")

    def begin(self) -> None:
        """Ask, unless somebody is asking or the answer is still good; doesn't wait."""
        with self._lock:
            is_good = time.monotonic() - self._ended_s < self._keep_s
            if is_good or not self._ended.is_set():
                return
            self._ended.clear()
            self._asked_s = time.monotonic()
            Thread(target=self._run, name="health", daemon=True).start()

    def found(self, deadline: float) -> Found:
        """Wait for the answer until `deadline`, of `time.monotonic`."""
        if self._ended.wait(max(0.0, deadline - time.monotonic())):
            return self._found
        waited_s = time.monotonic() - self._asked_s
        return Found(reason=f"no answer for {waited_s:.1f} s", seconds=waited_s)

    def _run(self) -> None:
        try:
            found = Found(self._ask())
        except WadoError as e:
            found = Found(reason=str(e) or type(e).__name__)
        except Exception as e:  # noqa: BLE001 - whatever it is, there is no answer
            found = Found(reason=f"{type(e).__name__}: {e}")
        ended_s = time.monotonic()
        self._found = Found(found.value, found.reason, ended_s - self._asked_s)
        self._ended_s = ended_s
        self._ended.set()


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits in a topic; None where it can't be found out now."""

    topic: Topic
    group: str
    lag: int | None
    dead_letters: int | None


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether work can be taken, and whether something is away."""

    ready: bool
    degraded: bool
    ports: dict[str, Found]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Which ports answer, what waits in each topic, how many series await description.

    The last is counted up to `MOST_COUNTED`; None if it can't be found out now.
    """

    ports: dict[str, Found]
    queues: list[Queue]
    awaiting_description: int | None


class Watch:
    """Asks the ports of an archive, all at the same time, and never longer than a limit.

    The warehouse is asked where the services are shared: that of one machine is a file that one
    process uses at a time.
    """

    def __init__(self, archive: Archive, *, limit_s: float = LIMIT_S) -> None:
        self._was_ready = False
        self._were_down: set[str] = set()
        self._limit_s = limit_s
        asked: dict[str, Callable[[], Any]] = {
            "log": lambda: archive.log.lag(Topic.STORAGE, GROUPS[Topic.STORAGE]),
            "index": lambda: archive.index.awaiting_description(1),
            "store": lambda: archive.store.version("incoming"),
            "cache": lambda: archive.cache.check(),  # noqa: PLW0108 - opened when it is asked
        }
        if archive.services_are_shared:
            asked["warehouse"] = lambda: archive.warehouse.query("SELECT 1 AS answer")
        self._ports = {name: Question(ask) for name, ask in asked.items()}
        self._lags = {t: Question(_lag(archive, t)) for t, group in GROUPS.items()}
        self._dead = {
            t: Question(_dead_letters(archive, t), keep_s=_KEEP_DEAD_LETTERS_S) for t in GROUPS
        }
        self._awaiting = Question(lambda: len(archive.index.awaiting_description(MOST_COUNTED)))

    def ports(self) -> dict[str, Found]:
        """Whether each port answers."""
        return self._all(self._ports)[0]

    def store_answers(self) -> bool:
        """Whether files can be looked at: who waits for those of a store that is away, hangs."""
        return self._all({"store": self._ports["store"]})[0]["store"].answered

    def readiness(self, needed: frozenset[str] = NEEDED) -> Readiness:
        """Whether work can be taken: once all that is needed has answered.

        From then on only what reception stands on counts: while the index is away, what comes in
        is still taken, and searches say 503 themselves.
        """
        ports = self.ports()
        down = {name for name, found in ports.items() if not found.answered}
        ready = not down & (needed & RECEPTION if self._was_ready else needed)
        self._was_ready = self._was_ready or ready
        self._tell(down, ports)
        return Readiness(ready, bool(down), ports)

    def _tell(self, down: set[str], ports: dict[str, Found]) -> None:
        """Write a line when a port goes away, and one when it comes back."""
        were_down, self._were_down = self._were_down, down
        for name in down - were_down:
            _log.warning("port does not answer", port=name, reason=ports[name].reason)
        for name in were_down - down:
            _log.info("port answers again", port=name)

    def look(self) -> Snapshot:
        """Ask everything there is to know."""
        questions: list[dict[Any, Question]] = [
            self._ports,
            self._lags,
            self._dead,
            {"": self._awaiting},
        ]
        ports, lags, dead, awaiting = self._all(*questions)
        queues = [Queue(t, g, lags[t].value, dead[t].value) for t, g in GROUPS.items()]
        return Snapshot(ports, queues, awaiting[""].value)

    def _all(self, *questions: dict[Any, Question]) -> list[dict[Any, Found]]:
        for question in chain.from_iterable(group.values() for group in questions):
            question.begin()
        deadline = time.monotonic() + self._limit_s
        return [{name: q.found(deadline) for name, q in group.items()} for group in questions]


def waiting(archive: Archive, topic: Topic) -> int:
    """Count the messages of a topic that wait for any who read it.

    Raises
    ------
    Unavailable
        The log can't tell now.
    """
    return max(archive.log.lag(topic, group) for group in readers(topic))


def readers(topic: Topic) -> list[str]:
    """Name our groups that read a topic."""
    return [GROUPS[topic], *([VIDEO_GROUP] if topic is Topic.TRANSCODE else [])]


def _lag(archive: Archive, topic: Topic) -> Callable[[], int]:
    return lambda: waiting(archive, topic)


def _dead_letters(archive: Archive, topic: Topic) -> Callable[[], int]:
    return lambda: sum(1 for _ in islice(archive.log.dead_letters(topic), MOST_COUNTED))
