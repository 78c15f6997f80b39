"""Keeps programs alive, as systemd or Kubernetes would: what dies starts again within seconds."""

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from backing.program import Program

_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 5.0
_STEADY_S = 10.0
_POLL_S = 0.1
_GRACE_S = 15.0


@dataclass(slots=True)
class _Member:
    """A program under supervision, and when it may start again."""

    program: Program
    started_s: float = 0.0
    delay_s: float = _FIRST_DELAY_S
    restart_at_s: float = 0.0
    is_wanted: bool = False


class Supervisor:
    """Starts programs in stages, starts again what dies, and stops all of them in reverse order.

    Parameters
    ----------
    stages
        Programs that may start together; each stage answers before the next one starts.
    folder
        Takes the record of what was started, so that the next start finds what was left behind.
    changed
        Called after each start of a program.
    say
        Takes lines for a person.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[Program]],
        folder: Path,
        *,
        changed: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = print,
    ) -> None:
        self._stages = [[_Member(program) for program in stage] for stage in stages]
        self._record = folder / "started.json"
        self._changed = changed
        self._say = say
        self.stop_asked = Event()

    @property
    def programs(self) -> list[Program]:
        """All programs, in order of their start."""
        return [member.program for member in self._members]

    @property
    def _members(self) -> list[_Member]:
        return [member for stage in self._stages for member in stage]

    def start(self, between: Callable[[int], None] = lambda _stage: None) -> None:
        """Start all stages; returns when each program answered, or a stop was asked for.

        Parameters
        ----------
        between
            Called with the number of each stage (from 0) once it answers.

        Raises
        ------
        RuntimeError
            A program does not answer in time; with the end of its log.
        """
        end_what_was_left(self._record)
        for number, stage in enumerate(self._stages):
            for member in stage:
                member.is_wanted = True
            self._wait_for(stage)
            if self.stop_asked.is_set():
                return
            between(number)

    def _wait_for(self, stage: Sequence[_Member]) -> None:
        began = time.monotonic()
        silent = list(stage)
        while silent and not self.stop_asked.is_set():
            self.step()
            silent = [m for m in silent if not (m.program.alive and m.program.answers())]
            for member in silent:
                if time.monotonic() - began > member.program.start_within_s:
                    raise RuntimeError(f"{member.program.name} does not answer:\n{_tail(member)}")

    def run(self) -> None:
        """Start again what dies, until a stop is asked for."""
        while not self.stop_asked.is_set():
            self.step()

    def step(self) -> None:
        """Look after all programs once; takes a tenth of a second."""
        for member in self._members:
            if member.is_wanted:
                self._reap(member)
                self._start_due(member)
        self.stop_asked.wait(_POLL_S)

    def _reap(self, member: _Member) -> None:
        program = member.program
        if program.process is None or program.alive:
            return
        now = time.monotonic()
        code = program.process.returncode
        program.kill()  # what it had started, too: an nginx leaves its workers behind
        program.process = None
        is_steady = now - member.started_s >= _STEADY_S
        member.delay_s = _FIRST_DELAY_S if is_steady else min(member.delay_s * 2, _LONGEST_DELAY_S)
        member.restart_at_s = now + member.delay_s
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._say(f"{program.name} died ({how}); starts again in {member.delay_s:.1f} s")

    def _start_due(self, member: _Member) -> None:
        now = time.monotonic()
        if member.program.process is not None or now < member.restart_at_s:
            return
        member.program.start()
        member.started_s = now
        self._write_record()
        self._changed()

    def _write_record(self) -> None:
        """Note pids with their start times: a pid alone may be another's by the next start."""
        started = {p.pid: _started(p.pid) for p in self.programs if p.process is not None}
        replace_file(self._record, json.dumps(started))

    def stop(self) -> None:
        """Stop all programs, the last stage first; those of a stage together."""
        self.stop_asked.set()
        for stage in reversed(self._stages):
            stop_together([member.program for member in stage])
        with suppress(FileNotFoundError):
            self._record.unlink()


def stop_together(programs: Sequence[Program], grace_s: float = _GRACE_S) -> None:
    """Send each program its stop signal, wait for all, and kill what does not stop in time."""
    running = [p for p in programs if p.process is not None]
    for program in running:
        if program.alive:
            with suppress(ProcessLookupError):
                os.kill(program.pid, program.stop_signal)
                os.kill(program.pid, signal.SIGCONT)  # one that was stopped by SIGSTOP
    deadline = time.monotonic() + grace_s
    while any(p.alive for p in running) and time.monotonic() < deadline:
        time.sleep(0.05)
    for program in running:
        program.kill()


def end_what_was_left(record: Path) -> None:
    """Kill what an earlier supervisor started and, being killed itself, could not stop."""
    if not record.is_file():
        return
    left = {int(pid): started for pid, started in json.loads(record.read_text()).items()}
    for pid, started in left.items():
        # Its group may have outlived it; then no other process can have its pid.
        if _started(pid) in {started, None}:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
    deadline = time.monotonic() + _GRACE_S
    while any(_started(pid) == started for pid, started in left.items()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"a process of an earlier start does not end: {sorted(left)}")
        time.sleep(0.05)
    record.unlink()


def _started(pid: int) -> int | None:
    """When a process started, in ticks since boot; None if it does not run (any more)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def replace_file(path: Path, text: str) -> None:
    """Write a file whole: readers see the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    temporary.replace(path)


def _tail(member: _Member) -> str:
    path = member.program.log_path
    return path.read_bytes()[-3000:].decode(errors="replace") if path.exists() else ""
