"""`make cluster` as a process of its own: started, made to suffer, and stopped."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import requests

import real
from backing.program import free_port
from chaos.faults import family, send
from chaos.verify import wado
from freezing import runs
from service import wait_until
from wado.errors import WadoError
from wado.services.association import Peer
from wado.services.storescu import echo

START_TIMEOUT_S = 400.0
STOP_TIMEOUT_S = 120.0
_WELL_TIMEOUT_S = 180.0
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
        """Process id of a member, as it is now; KeyError while it is down."""
        return int(self.facts["members"][name]["pid"])

    def is_another(self, name: str, old_pid: int) -> bool:
        """Whether another process than `old_pid` runs under the name."""
        return bool(self.facts["members"].get(name, {"pid": old_pid})["pid"] != old_pid)

    def pids(self, kind: str) -> list[int]:
        """Process ids of the members of a kind; one that died a moment ago may be among them."""
        return [m["pid"] for m in self.facts["members"].values() if m["kind"] == kind]

    def is_ready(self) -> bool:
        """Whether ``/readyz`` answers 200 through nginx."""
        try:
            return requests.get(f"{self.facts['http']}/readyz", timeout=60).status_code == 200
        except requests.RequestException:
            return False

    def wait_well(self, of_each: Mapping[str, int]) -> None:
        """Wait until so many members of each kind run, and both ways in lead to who answers.

        What a test did to them passes after it: who died often is started again after a while.
        """
        wait_until(
            lambda: self._all_run(of_each) and self.is_ready() and self._echoes(),
            timeout_s=_WELL_TIMEOUT_S,
            reason="all members are well",
        )

    def _all_run(self, of_each: Mapping[str, int]) -> bool:
        members = self.facts["members"].values()
        kinds = Counter(m["kind"] for m in members)
        return kinds == of_each and all(runs(m["pid"]) for m in members)

    def _echoes(self) -> bool:
        try:
            echo(Peer.parse(self.destination), timeout_s=60)
        except WadoError:
            return False
        return True

    def wado(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `wado` with the settings of the cluster."""
        return wado(self.facts, *arguments)

    # -------------------------------------------------------------- what is done to it

    @contextmanager
    def frozen(self, kind: str) -> Iterator[None]:
        """Stop all members of a kind: they take connections and never answer."""
        pids = [pid for member in self.pids(kind) for pid in family(member)]
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
            killed = set[int]()  # until others are started, these may be the pids of anybody
            while not end.wait(0.05):
                found = set(self.pids(kind)) - killed
                send(signal.SIGKILL, [*found])
                killed |= found

        thread = Thread(target=kill)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()
