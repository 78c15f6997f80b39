"""Worker processes for pixels: a codec that crashes, hangs or takes too much memory harms nobody.

Processes are started when there is work, as fresh interpreters, and end when there is none: the
libraries for pixels are loaded nowhere else.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from wado.archive.pixel_worker import receive, send
from wado.errors import CutShort, Unavailable, WadoError
from wado.telemetry import get_logger

P = ParamSpec("P")
T = TypeVar("T")

_log = get_logger("wado-pixels")
_GRACE_S = 2.0
"""What a worker has beyond the time of a job, before it is killed from outside."""
_REAP_S = 0.5
_RUN = "from wado.archive.pixel_worker import main; main()"
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENJPEG_NUM_THREADS"), "1"
)
"""Libraries would start a thread for each core in each worker, and reserve memory for all."""


class _Ended(Exception):
    """A worker ended before it took the job: it was idle for long."""


class _Worker:
    """One process and the socket to it; used by one thread at a time."""

    def __init__(self, *, idle_s: float, max_memory_bytes: int, timeout_s: float) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        arguments = (theirs.fileno(), idle_s, max_memory_bytes, timeout_s)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _RUN, *map(str, arguments)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env={**os.environ, **_ONE_THREAD},
                )
            except OSError as e:
                ours.close()
                raise Unavailable(f"no process for pixels can be started: {e.strerror}") from e

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def run(self, job: tuple[Any, ...], timeout_s: float) -> tuple[bool, Any]:
        """Hand over a job and wait for its result.

        Raises
        ------
        _Ended
            The worker was gone before it took the job.
        CutShort
            It died of it, or took too long.
        """
        self._socket.settimeout(timeout_s + _GRACE_S)
        try:
            send(self._socket, job)
            result: tuple[bool, Any] = receive(self._socket)
        except TimeoutError as e:
            raise CutShort(f"the pixels took over {timeout_s:g} s") from e
        except (EOFError, OSError) as e:
            raise self._death(timeout_s) from e
        return result

    def _death(self, timeout_s: float) -> Exception:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        status = self._process.returncode
        if status == 0:
            return _Ended()
        if status == -signal.SIGALRM:
            return CutShort(f"the pixels took over {timeout_s:g} s")
        if status == -signal.SIGPROF:
            return CutShort("the frame took far longer than others of its size: it seems damaged")
        return CutShort(f"the process that worked on the pixels died ({status})")

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self._socket.close()
        if self.is_alive():
            self._process.kill()
        self._process.wait()


class PixelWorkers:
    """Runs pure functions on pixels in processes of their own; used from any thread.

    Parameters
    ----------
    workers
        Most processes at a time.
    timeout_s
        Seconds that a job may take.
    max_memory_bytes
        Address space of a process.
    idle_s
        Seconds without a job after which a process ends.
    wait_s
        Seconds that a job may wait for its turn; default: as long as one may take.
    """

    def __init__(
        self,
        *,
        workers: int,
        timeout_s: float,
        max_memory_bytes: int,
        idle_s: float = 60.0,
        wait_s: float | None = None,
    ) -> None:
        self.workers = workers
        self._timeout_s = timeout_s
        self._wait_s = timeout_s if wait_s is None else wait_s
        self._limits = {
            "idle_s": idle_s,
            "max_memory_bytes": max_memory_bytes,
            "timeout_s": timeout_s,
        }
        self._turns = threading.BoundedSemaphore(workers)
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._lock = threading.Lock()
        self._reaper: threading.Timer | None = None
        self._closed = False

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in a worker process and wait for its result.

        The function must be importable by its name there, and its module importable here without
        libraries for pixels: it loads them when it runs.

        Raises
        ------
        WadoError
            What the function raises.
        CannotUnderstand
            It raises something else; or (CutShort) crashes, takes too long or too much memory.
        Unavailable
            All processes are busy for too long, or none can be started.
        """
        if not self._turns.acquire(timeout=self._wait_s):
            raise Unavailable("all pixel workers are busy; try again")
        try:
            is_good, result = self._run((work, args, kwargs))
        finally:
            self._turns.release()
        if not is_good:
            raise result
        value: T = result
        return value

    def _run(self, job: tuple[Any, ...]) -> tuple[bool, Any]:
        started = monotonic()
        while True:
            worker = self._take()
            try:
                result = worker.run(job, self._timeout_s)
            except _Ended:
                self._lose(worker)
                if monotonic() - started > self._timeout_s:
                    raise Unavailable("pixel workers end as soon as they start") from None
            except BaseException as e:
                self._lose(worker)
                if isinstance(e, WadoError) and not self._closed:
                    _log.warning("pixel worker lost", reason=str(e), pid=worker.pid)
                raise
            else:
                self._give_back(worker)
                return result

    def _take(self) -> _Worker:
        """Take the worker that was used last, so that the others grow idle; or start one."""
        with self._lock:
            if self._closed:
                raise Unavailable("the service is stopping")
            found = self._idle.pop() if self._idle else None
        found = found or _Worker(**self._limits)  # type: ignore[arg-type]  # numbers as named
        with self._lock:
            self._busy.add(found)
        return found

    def _give_back(self, worker: _Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
            if not self._closed:
                self._idle.append(worker)
                self._reap_later()
                return
        worker.end()

    def _reap_later(self) -> None:
        """See after workers that end for want of work, so that nothing is left of them."""
        if self._reaper is None and not self._closed:
            self._reaper = threading.Timer(self._limits["idle_s"] + _REAP_S, self._reap)
            self._reaper.daemon = True
            self._reaper.start()

    def _reap(self) -> None:
        with self._lock:
            self._reaper = None
            ended = [worker for worker in self._idle if not worker.is_alive()]
            self._idle = [worker for worker in self._idle if worker not in ended]
            if self._idle:
                self._reap_later()
        for worker in ended:
            worker.end()

    def _lose(self, worker: _Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
        worker.end()

    def pids(self) -> list[int]:
        """Process ids of the workers that wait for a job."""
        with self._lock:
            return [worker.pid for worker in self._idle if worker.is_alive()]

    def close(self) -> None:
        """End all processes; a job in hand fails."""
        with self._lock:
            self._closed = True
            if self._reaper is not None:
                self._reaper.cancel()
            idle, self._idle = self._idle, []
            for worker in self._busy:
                worker.kill()
        for worker in idle:
            worker.end()
