"""Whether the threads of a server get to new work: those that hang in a read don't."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from wado import vitals
from wado.services.monitor import Step
from wado.settings import TelemetrySettings

STUCK_AFTER_S = TelemetrySettings().stuck_after_s
"""Unless the settings say otherwise."""

P = ParamSpec("P")
T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """Threads that remember when they last went on.

    Parameters
    ----------
    number, name
        How many, and what they are called.
    wait_for
        What another thread is at that they wait for: while it goes on, they do.
    """

    def __init__(self, number: int, name: str, *, wait_for: vitals.Activity | None = None) -> None:
        super().__init__(number, thread_name_prefix=name)
        self._wait_for = wait_for
        self._ended_s = 0.0

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have something done."""
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(self._note)
        return future

    def went_on_s(self) -> float:
        """When they last ended something (`time.monotonic`), or what they wait for went on."""
        return max(self._ended_s, vitals.last(self._wait_for) if self._wait_for else 0.0)

    def _note(self, future: "Future[T]") -> None:
        if not future.cancelled():  # else it never began
            self._ended_s = time.monotonic()


class Pulse:
    """A task that does nothing is put into each pool of threads, and looked after.

    One long answer takes one thread, and the others do the task at once; behind many it waits for
    its turn, while one after the other ends. Only where all hang does nothing end.

    Parameters
    ----------
    pools
        By name.
    stuck_after_s
        For how long the task may wait while nothing goes on.
    """

    def __init__(self, pools: Mapping[str, Threads], *, stuck_after_s: float) -> None:
        self._pools = pools
        self._stuck_after_s = stuck_after_s
        self._sent: dict[str, tuple[Future[None], float]] = {}

    def stuck(self) -> list[Step]:
        """Look whether the tasks were done, and put in the next; which pools hang."""
        now = time.monotonic()
        found: list[Step] = []
        for name, pool in self._pools.items():
            task, sent_s = self._sent.get(name, (None, now))
            waits_s = now - max(sent_s, pool.went_on_s())
            if task is None or task.done():
                self._sent[name] = pool.submit(_nothing), now
            elif waits_s > self._stuck_after_s:
                found.append({"process": "server", "at": name, "seconds": round(waits_s, 1)})
        return found


def _nothing() -> None:
    pass
