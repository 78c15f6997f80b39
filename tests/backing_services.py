"""Services behind a distributed archive, started once for a whole test run and shared by all.

The first test (of any xdist worker) that asks for one starts it; the controller stops all at the
end. Tests keep apart by names of their own: a database, a prefix of topics, a bucket.
"""

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from backing.program import Program
from freezing import runs

_STOP_GRACE_S = 20.0
Start = Callable[[Path], tuple[Sequence[Program], dict[str, Any]]]
"""Gets a folder; gives programs to run, and what their users need to know (as JSON)."""


@contextmanager
def _only_one(folder: Path, name: str) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder / f"{name}.json"


def shared(run_folder: Path, name: str, start: Start) -> dict[str, Any]:
    """Give what users of a service need to know; it is started if this is its first user.

    Parameters
    ----------
    run_folder
        Folder of the whole run, the same in every worker (fixture `run_folder`).
    name
        Name of the service, or set of services.
    start
        Makes the programs; they are started in order and waited for.
    """
    with _only_one(run_folder / "services", name) as record:
        if record.exists():
            values: dict[str, Any] = json.loads(record.read_text())["values"]
            return values
        programs, values = start(run_folder / "services" / name)
        try:
            for program in programs:
                program.start()
            for program in programs:
                program.wait()
        except BaseException:
            for program in programs:
                program.kill()
            raise
        record.write_text(json.dumps({"pids": [p.pid for p in programs], "values": values}))
        for program in programs:
            _leave(program)
        return values


def _leave(program: Program) -> None:
    """Leave a process to `stop_all`, mostly that of another process: Python shall not mourn it.

    Who starts it may end before it does, and `Popen` complains of a child that runs still.
    """
    assert program.process is not None
    program.process.returncode = 0


def stop_all(run_folder: Path) -> None:
    """Stop what was started for this run, by pid; each is the leader of a session of its own."""
    pids = [
        pid
        for record in (run_folder / "services").glob("*.json")
        for pid in reversed(json.loads(record.read_text())["pids"])
    ]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_GRACE_S
    while any(map(_runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return runs(pid)
