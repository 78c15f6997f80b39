"""`wado` as a process of its own: started, waited for, killed and stopped by its pid."""

import fnmatch
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from backing.program import free_port
from chaos.faults import family, send

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0  # the supervisor itself gives its services 20 s
PATIENT = {"stow_visible_wait_s": 45, "delete_wait_s": 45}
"""Settings of a web server for tests that ask at once for what they stored or deleted: on a busy
machine that is not there as soon as the usual waits end."""
PATIENT_ENV = {f"WADO_SERVER__{name.upper()}": str(value) for name, value in PATIENT.items()}


def wait_until(what: Callable[[], bool], *, timeout_s: float, reason: str) -> None:
    """Poll until `what` is true; AssertionError with `reason` when it takes too long."""
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {reason}"
        time.sleep(0.05)


def files_below(root: Path, pattern: str = "*") -> list[Path]:
    """List files by name, hidden ones too, while others make and remove folders.

    (`Path.rglob` fails where a folder goes away as it looks into it.)
    """
    return [
        Path(folder, name)
        for folder, _, names in os.walk(root)
        for name in fnmatch.filter(names, pattern)
    ]


class Service:
    """One `wado` command with a log file; a context manager that starts and stops it.

    Parameters
    ----------
    arguments
        Command line after ``wado``.
    log_path
        File that takes standard output and standard error; appended to at each start.
    env
        Environment on top of this process's; settings of the developer (``WADO_…``) are left out.
    """

    def __init__(
        self, *arguments: str, log_path: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.arguments = arguments
        self.log_path = log_path
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("WADO_")}
        self.env.update(PYTHONUNBUFFERED="1", **(env or {}))
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._open = ExitStack()

    @property
    def pid(self) -> int:
        """Process id; AssertionError when it was not started."""
        assert self.process is not None, "not started"
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        """What it printed since it was started last."""
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as f:
            f.seek(self._log_start)
            return f.read().decode(errors="replace")

    def start(self, *, ready: str | None = "ready") -> None:
        """Start it and wait for a line that begins with `ready` (None: do not wait)."""
        self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        log = self._open.enter_context(self.log_path.open("ab"))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wado", *self.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=self.env,
            cwd=self.log_path.parent,  # no wado.toml of the developer lies there
            start_new_session=True,
        )
        if ready is not None:
            self._wait_for_line(ready)

    def _wait_for_line(self, beginning: str) -> None:
        def printed() -> bool:
            if any(line.startswith(beginning) for line in self.log.splitlines()):
                return True
            assert self.alive, f"wado {self.arguments[0]} ended:\n{self.log[-4000:]}"
            return False

        try:
            wait_until(printed, timeout_s=START_TIMEOUT_S, reason=f"a line {beginning!r}")
        except AssertionError as e:
            self.stop()
            raise AssertionError(f"{e}\n{self.log[-4000:]}") from None

    def kill(self) -> None:
        """SIGKILL, for it and all that it started: no goodbye, as when the machine goes down."""
        self._kill_session()

    def _kill_session(self) -> int:
        assert self.process is not None
        # The session is our own (start_new_session), so this ends its children and no others.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()

    def stop(self) -> int:
        """SIGTERM; when that takes too long, SIGKILL for all that it started; the exit status."""
        if self.process is None:
            return 0
        if self.alive:
            self.process.terminate()
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return self._kill_session()
        finally:
            self._open.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


class Addresses:
    """Where an archive is reached, on 127.0.0.1."""

    http_port: int
    dimse_port: int
    aet = "WADO"
    dimse_host = "127.0.0.1"

    @property
    def http(self) -> str:
        """Base URL of the web server, without a slash at its end."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb(self) -> str:
        """Base URL of DICOMweb."""
        return f"{self.http}/dicomweb"

    @property
    def destination(self) -> str:
        """``AET@HOST:PORT``, as `wado send --to` takes it."""
        return f"{self.aet}@{self.dimse_host}:{self.dimse_port}"


class RunningArchive(Addresses, Service):
    """`wado up` on free loopback ports below a root of its own."""

    def __init__(
        self, root: Path, *, aet: str = "WADO", env: Mapping[str, str] | None = None
    ) -> None:
        self.root = root
        self.aet = aet
        self.http_port, self.dimse_port = free_port(), free_port()
        super().__init__(
            "up", "--root", str(root), "--http", f"127.0.0.1:{self.http_port}",
            "--dimse", f"{self.dimse_host}:{self.dimse_port}", "--aet", aet,
            log_path=root.with_name(root.name + ".log"), env=env,
        )  # fmt: skip

    def pids(self) -> dict[str, int]:
        """Pid of each supervised process by name (``storescp-1``), as `wado up` last wrote them."""
        services: dict[str, int] = json.loads((self.root / "run" / "services.json").read_text())
        return services

    def kill_service(self, name: str) -> int:
        """SIGKILL one supervised process; its pid. The supervisor starts another."""
        wait_until(lambda: name in self.pids(), timeout_s=60, reason=f"{name} runs")
        pid = self.pids()[name]
        assert self.process is not None
        if pid in family(self.process.pid):  # else it died a moment ago, and may be anybody's
            send(signal.SIGKILL, [pid])
        return pid

    def wait_restarted(self, name: str, old_pid: int, *, timeout_s: float = 120.0) -> None:
        """Wait until another process than `old_pid` runs under the name and all is ready."""
        wait_until(
            lambda: self.pids().get(name, old_pid) != old_pid and self.ready(),
            timeout_s=timeout_s,
            reason=f"{name} started again",
        )

    def ready(self) -> bool:
        """Whether ``/readyz`` answers 200."""
        try:
            with urllib.request.urlopen(f"{self.http}/readyz", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def wado(self, *arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run another `wado` command to its end; output as text, status not checked."""
        return subprocess.run(
            [sys.executable, "-m", "wado", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self.env,
            cwd=self.log_path.parent,
            timeout=timeout_s,
            check=False,
        )

    def __enter__(self) -> Self:
        self.start()
        return self
