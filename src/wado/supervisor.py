"""`wado up`: the four services as processes of one parent, which starts again what dies."""

import ctypes
import faulthandler
import fcntl
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import Any, Self

from wado import vitals
from wado.archive.health import NEEDED, RECEPTION
from wado.archive.transcode_rules import check_rules
from wado.bootstrap import open_archive
from wado.errors import InvalidRequest, Unavailable, WadoError
from wado.ports import Archive
from wado.profile import warnings
from wado.settings import Settings
from wado.telemetry import configure_logging, get_logger

_log = get_logger("supervisor")
_PR_SET_PDEATHSIG = 1
_STOP_GRACE_S = 20.0
_END_WITHIN_S = 30.0
"""How long a service may take to end; then it hangs, and a process that does nothing is ended."""
_READY_WITHIN_S = 60.0
_FIRST_RESTART_DELAY_S = 0.2
_LONGEST_RESTART_DELAY_S = 10.0
_STEADY_S = 10.0
_QUICK_DEATHS = 5
"""Deaths in a row, each soon after the start, by which an archive that never was ready gives up."""
_FATAL_EXIT = 3
"""Exit code of a service that can't work with these settings: it is not started again."""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Body = Callable[[Event], None]


@dataclass(slots=True)
class Service:
    """One process to keep alive: `body` runs in it until its event is set."""

    name: str
    body: Body
    process: Any = None
    started_s: float = 0.0
    delay_s: float = _FIRST_RESTART_DELAY_S
    restart_at_s: float = 0.0
    quick_deaths: int = 0
    row: "memoryview[float] | None" = None
    """Where it counts."""


def run_until_signalled(body: Body) -> None:
    """Run a service in this process; SIGTERM and SIGINT set its event.

    Once it is set, by a part of the service that failed, too, the process has to end: if a thread
    of it hangs, it says where all are, and exits.
    """
    stop = Event()
    hears, tells = os.pipe()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        # Not `stop.set()`: the thread that this interrupts may hold the lock of the event.
        os.write(tells, b"!")

    def hear() -> None:
        os.read(hears, 1)
        stop.set()

    def see_to_the_end() -> None:
        stop.wait()
        faulthandler.dump_traceback_later(_END_WITHIN_S, exit=True)

    for work in (hear, see_to_the_end):
        Thread(target=work, name=work.__name__, daemon=True).start()
    for number in _STOP_SIGNALS:
        signal.signal(number, on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    try:
        body(stop)
    finally:
        stop.set()


@contextmanager
def _signals_later() -> Iterator[None]:
    """Keep signals until a process that is started here can hear them: it would lose them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


def with_archive(settings: Settings, run: Callable[[Archive, Event], None]) -> Body:
    """Make a body that opens the archive, runs a service on it, and closes it."""

    def body(stop: Event) -> None:
        with open_archive(settings) as archive:
            run(archive, stop)

    return body


def services(settings: Settings, kind: str | None = None) -> list[Service]:
    """List the processes of an archive on one machine, or those of one kind.

    A port that is taken is said at once. The DIMSE socket is bound here, in the parent, so that
    no connection is refused while a receiver is started again.
    """
    counts = {
        "storescp": settings.storescp.workers,
        "server": settings.server.workers,
        "consumer": 1,
        "webworker": 1,
    }
    check_rules(settings.transcode)
    for warning in warnings(settings):
        _log.warning(warning)
    found = []
    for name, count in counts.items():
        if kind in (None, name):
            body = _BODIES[name](settings)
            found += [Service(f"{name}-{n + 1}", body) for n in range(count)]
    board = vitals.Board([service.name for service in found])
    for service in found:
        service.row = board.row(service.name)
    if settings.telemetry.port:
        found.append(Service("monitor-1", monitor_body(settings, board, kind)))
    return found


def _bound(what: str, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as e:
        raise Unavailable(
            f"{what}: can't listen at {host}:{port}: {e.strerror or e}; "
            f"choose another with --{what} HOST:PORT"
        ) from e
    listener.set_inheritable(True)
    return listener


def _must_be_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.settimeout(1)
        if probe.connect_ex((host, port)) == 0:
            raise Unavailable(
                f"http: can't listen at {host}:{port}: another program does; "
                "choose another with --http HOST:PORT"
            )


def storescp_body(settings: Settings) -> Body:
    """The receiver."""
    listener = _bound("dimse", settings.storescp.host, settings.storescp.port)

    def run(archive: Archive, stop: Event) -> None:
        from wado.services import storescp  # noqa: PLC0415

        storescp.run(
            archive,
            settings.storescp,
            stop,
            default_tenant=settings.storage.default_tenant,
            listener=listener,
        )

    return with_archive(settings, run)


def server_body(settings: Settings) -> Body:
    """The web server."""
    # The server opens the port itself, shared with its siblings; a stranger on it is found here.
    _must_be_free(settings.server.host, settings.server.port)

    def run(archive: Archive, stop: Event) -> None:
        from wado.services.server import app  # noqa: PLC0415

        app.run(
            archive,
            settings.server,
            stop,
            default_tenant=settings.storage.default_tenant,
            stuck_after_s=settings.telemetry.stuck_after_s,
        )

    return with_archive(settings, run)


def consumer_body(settings: Settings) -> Body:
    """The consumer."""

    def run(archive: Archive, stop: Event) -> None:
        from wado.services import consumer  # noqa: PLC0415

        consumer.run(archive, settings.consumer, stop)

    return with_archive(settings, run)


def webworker_body(settings: Settings) -> Body:
    """The webworker."""

    def run(archive: Archive, stop: Event) -> None:
        from wado.services import webworker  # noqa: PLC0415

        os.nice(10)  # what it writes can wait; receiving and answering come first
        webworker.run(
            archive,
            settings.webworker,
            settings.log,
            stop,
            deleted_keep_s=settings.storage.deleted_keep_s,
        )

    return with_archive(settings, run)


def monitor_body(settings: Settings, board: vitals.Board, kind: str | None) -> Body:
    """What watches the others, and answers for them."""
    from wado.services import monitor  # noqa: PLC0415

    listener = monitor.bound(settings.telemetry)

    def run(archive: Archive, stop: Event) -> None:
        monitor.run(
            archive,
            settings.telemetry,
            stop,
            board=board,
            listener=listener,
            needed=_NEEDED.get(kind or "", NEEDED),
        )

    return with_archive(settings, run)


_NEEDED = {"storescp": RECEPTION, "webworker": NEEDED - {"log"}}
"""Ports that a service needs, where it can do without some."""
_BODIES: dict[str, Callable[[Settings], Body]] = {
    "storescp": storescp_body,
    "server": server_body,
    "consumer": consumer_body,
    "webworker": webworker_body,
}


def run_folder(settings: Settings) -> Path:
    """Folder of what `wado up` writes for its own use: one for each machine of a shared root."""
    folder = settings.storage.root / "run"
    return folder / socket.gethostname() if settings.profile == "distributed" else folder


class RunLock:
    """Holds the file ``lock`` in a folder while an archive runs, or is rebuilt."""

    def __init__(self, folder: Path, purpose: str) -> None:
        self._path = folder / "lock"
        self._purpose = purpose
        self._fd = -1

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as e:
            raise Unavailable(f"can't write below the storage root: {e}") from e
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            holder = os.read(self._fd, 200).decode(errors="replace").strip()
            os.close(self._fd)
            raise Unavailable(f"{self._path.parent} is in use by {holder}") from e
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{self._purpose} (pid {os.getpid()})\n".encode())
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._fd)


@dataclass(slots=True)
class Supervisor:
    """Starts services, starts them again when they die, and stops them in order."""

    settings: Settings
    services: Sequence[Service]
    say: Callable[[str], None]
    ready: Callable[[], None] | None = None
    _is_stopping: bool = False
    _announced: bool = False

    def run(self) -> None:
        """Keep the services alive until SIGTERM or SIGINT; calls `ready` once they answer."""
        for number in _STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        deadline = time.monotonic() + _READY_WITHIN_S
        try:
            while not self._is_stopping:
                self._start_due()
                if not self._announced and self.ready and is_ready(self.settings):
                    self._announced = True
                    self.ready()
                if self.ready and not self._announced and time.monotonic() > deadline:
                    deadline = time.monotonic() + _READY_WITHIN_S
                    self.say("not ready yet; see the log lines above")
                self._wait(0.5 if self._announced or not self.ready else 0.05)
                self._reap()
        finally:
            self._stop_all()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._is_stopping = True

    def _wait(self, seconds: float) -> None:
        """Sleep until a service dies or `seconds` are over."""
        sentinels = [s.process.sentinel for s in self.services if s.process is not None]
        if sentinels:
            multiprocessing.connection.wait(sentinels, timeout=seconds)
        else:
            time.sleep(seconds)

    def _start_due(self) -> None:
        now, started = time.monotonic(), False
        for service in self.services:
            if service.process is None and now >= service.restart_at_s:
                context = multiprocessing.get_context("fork")
                service.process = context.Process(
                    target=_child,
                    args=(service, self.settings.log_level, os.getpid()),
                    name=service.name,
                )
                with _signals_later():
                    service.process.start()
                service.started_s = now
                started = True
        if started and self.ready:
            self._write_pids()

    def _reap(self) -> None:
        now = time.monotonic()
        for service in self.services:
            if service.process is None or service.process.is_alive():
                continue
            code = service.process.exitcode
            service.process = None
            if self._is_stopping:
                continue
            if code == _FATAL_EXIT:
                self._is_stopping = True
                raise Unavailable(f"{service.name} can't work with these settings")
            steady = now - service.started_s >= _STEADY_S
            service.quick_deaths = 0 if steady else service.quick_deaths + 1
            if service.quick_deaths >= _QUICK_DEATHS and not self._announced:
                raise Unavailable(f"{service.name} dies at every start; see the log lines above")
            service.delay_s = (
                _FIRST_RESTART_DELAY_S
                if steady
                else min(service.delay_s * 2, _LONGEST_RESTART_DELAY_S)
            )
            service.restart_at_s = now + service.delay_s
            _log.error("service died", name=service.name, code=code, restart_in_s=service.delay_s)

    def _stop_all(self) -> None:
        """Receivers first, so that what they took still goes its way."""
        self._is_stopping = True
        for service in self.services:
            if service.process is not None and service.process.is_alive():
                with suppress(ProcessLookupError):
                    os.kill(service.process.pid, signal.SIGTERM)
        end = time.monotonic() + _STOP_GRACE_S
        for service in self.services:
            if service.process is None:
                continue
            service.process.join(max(0.0, end - time.monotonic()))
            if service.process.is_alive():
                _log.error("service did not stop in time and is killed", name=service.name)
                service.process.kill()
                service.process.join()
        if self.ready:
            with suppress(OSError):
                self._pid_file.unlink()

    @property
    def _pid_file(self) -> Path:
        return run_folder(self.settings) / "services.json"

    def _write_pids(self) -> None:
        pids = {s.name: s.process.pid for s in self.services if s.process is not None}
        temporary = self._pid_file.with_suffix(".part")
        with suppress(OSError):  # a full disk must not stop the supervisor
            temporary.write_text(json.dumps(pids))
            temporary.replace(self._pid_file)


def _child(service: Service, log_level: str, parent: int) -> None:
    """Become the service: stop with the parent, speak on the same standard error."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return
    configure_logging(log_level)
    if service.row is not None:
        vitals.use(service.row)
    try:
        run_until_signalled(service.body)
    except WadoError as e:
        _log.error("service stopped", name=service.name, reason=str(e))
        sys.exit(_FATAL_EXIT if isinstance(e, InvalidRequest) else 1)
    except Exception:  # noqa: BLE001 - the last resort: logged, and the supervisor acts
        _log.exception("service failed", name=service.name)
        sys.exit(1)


def is_ready(settings: Settings) -> bool:
    """Whether the web server says that all ports answer."""
    host = settings.server.host
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - compared only
    try:
        with urllib.request.urlopen(
            f"http://{host}:{settings.server.port}/readyz", timeout=2
        ) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
