"""`make cluster` as a process of its own: started, made to suffer, and stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import real
from backing.program import free_port
from chaos.faults import family, send
from chaos.verify import wado
from service import wait_until

START_TIMEOUT_S = 150.0
STOP_TIMEOUT_S = 60.0
NEEDS = ("java", "mvn", "postgresql", "redis", "nginx")
"""Programs that a cluster is made of."""
_SCRIPT = real.PROJECT / "scripts" / "cluster.py"


class RunningCluster:
    """A cluster below a folder, on free loopback ports; a context manager."""

    def __init__(self, root: Path) -> None:
        for name in NEEDS:
            real.require(name)
        self.root = root
        self.log_path = root.with_name(root.name + ".log")
        self._options = [
            "--root", str(root),
            "--http", f"127.0.0.1:{free_port()}", "--dimse", f"127.0.0.1:{free_port()}",
        ]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it and wait until it says `ready`; how long that took."""
        began = time.monotonic()
        with self.log_path.open("ab") as log:
            start = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, str(_SCRIPT), *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

        def ready() -> bool:
            assert self.process is not None
            text = self.log_path.read_bytes()[start:].decode()
            if any(line.startswith("ready") for line in text.splitlines()):
                return True
            assert self.process.poll() is None, f"the cluster ended:\n{text[-6000:]}"
            return False

        wait_until(ready, timeout_s=START_TIMEOUT_S, reason=f"ready; see {self.log_path}")
        return time.monotonic() - began

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(STOP_TIMEOUT_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

    # -------------------------------------------------------------- what it says of itself

    @property
    def facts(self) -> dict[str, Any]:
        """What ``cluster.json`` says now."""
        found: dict[str, Any] = json.loads((self.root / "cluster.json").read_text())
        return found

    @property
    def dicomweb(self) -> str:
        """Base URL of DICOMweb, through nginx."""
        return str(self.facts["dicomweb"])

    @property
    def destination(self) -> str:
        """``AET@HOST:PORT``, through nginx."""
        return f"{self.facts['aet']}@{self.facts['dimse']}"

    def pid(self, name: str) -> int:
        """Process id of a member, as it is now."""
        return int(self.facts["members"][name]["pid"])

    def names(self, kind: str) -> list[str]:
        """Names of the members of a kind."""
        return [name for name, m in self.facts["members"].items() if m["kind"] == kind]

    def wado(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `wado` with the settings of the cluster."""
        return wado(self.facts, *arguments)

    # -------------------------------------------------------------- what is done to it

    @contextmanager
    def frozen(self, kind: str) -> Iterator[None]:
        """Stop all members of a kind: they take connections and never answer."""
        pids = [pid for name in self.names(kind) for pid in family(self.pid(name))]
        send(signal.SIGSTOP, pids)
        try:
            yield
        finally:
            send(signal.SIGCONT, pids)

    @contextmanager
    def gone(self, kind: str) -> Iterator[None]:
        """Kill all members of a kind, and again as soon as they are started again."""
        end = Event()

        def kill() -> None:
            while not end.wait(0.05):
                for name in self.names(kind):
                    with suppress(ProcessLookupError):
                        os.kill(self.pid(name), signal.SIGKILL)

        thread = Thread(target=kill)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()
