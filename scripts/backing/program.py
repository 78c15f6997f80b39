"""A program that runs in a folder of its own: started, asked whether it answers, stopped by pid."""

import os
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

_STOP_GRACE_S = 15.0
_MARKS_KEPT = 64
_marks: deque[int] = deque()


def free_port() -> int:
    """Ask the kernel for a TCP port of 127.0.0.1 that nobody uses now.

    Who asks next, in this process or another, is given another one: until a port is in use, the
    UDP port of that number marks it.
    """
    while True:
        with closing(socket.socket()) as s:
            s.bind(("127.0.0.1", 0))
            port = int(s.getsockname()[1])
        mark = socket.socket(type=socket.SOCK_DGRAM)
        try:
            mark.bind(("127.0.0.1", port))
        except OSError:  # it was given to somebody
            mark.close()
            continue
        _marks.append(mark.detach())
        if len(_marks) > _MARKS_KEPT:
            os.close(_marks.popleft())
        return port


def connects(port: int) -> bool:
    """Whether somebody listens at a port of 127.0.0.1."""
    with closing(socket.socket()) as s:
        s.settimeout(1.0)
        return s.connect_ex(("127.0.0.1", port)) == 0


def as_ordinary_user(arguments: Sequence[str]) -> list[str]:
    """Run a program that refuses to be root (PostgreSQL): in a user namespace it is somebody else.

    It keeps root's access to files, so that its folder may be anywhere.
    """
    if os.geteuid() != 0:
        return list(arguments)
    return ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--", *arguments]


@dataclass(slots=True)
class Program:
    """One process to run: how to start it, and how to know that it answers.

    `folder` takes its output (``<name>.log``); it and all that it starts are one session, so that
    nothing stays behind. One that `dies_with_parent` gets its stop signal when the process that
    started it is no more.
    """

    name: str
    kind: str
    arguments: Sequence[str]
    folder: Path
    answers: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: int = signal.SIGTERM
    start_within_s: float = 60.0
    dies_with_parent: bool = False
    process: "subprocess.Popen[bytes] | None" = None
    _is_over: bool = False

    @property
    def pid(self) -> int:
        """Process id; AssertionError when it was not started."""
        assert self.process is not None, f"{self.name} was not started"
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs (or is stopped by SIGSTOP)."""
        return self.process is not None and self.process.poll() is None

    @property
    def log_path(self) -> Path:
        """Where its standard output and standard error go."""
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Start the process; does not wait until it answers."""
        self._is_over = False
        self.folder.mkdir(parents=True, exist_ok=True)
        signal_name = signal.Signals(self.stop_signal).name.removeprefix("SIG")
        parent = ["setpriv", "--pdeathsig", signal_name, "--"] if self.dies_with_parent else []
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*parent, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                cwd=self.folder,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it answers.

        Raises
        ------
        RuntimeError
            It ended, or it does not answer in time; with the end of its log.
        """
        deadline = time.monotonic() + self.start_within_s
        while not self.answers():
            if not self.alive or time.monotonic() > deadline:
                what = "does not answer" if self.alive else "ended"
                tail = self.log_path.read_bytes()[-3000:].decode(errors="replace")
                raise RuntimeError(f"{self.name} {what}:\n{tail}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it and all that it started, by SIGKILL."""
        if self.process is None or self._is_over:  # once over, the pid may be anybody's
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._is_over = True

    def stop(self) -> None:
        """End it by its stop signal; by SIGKILL if that takes too long."""
        if self.process is None:
            return
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGCONT)
                os.kill(self.process.pid, self.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_STOP_GRACE_S)
        self.kill()
