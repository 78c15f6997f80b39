"""What keeps the members of `make cluster` alive: restarts, back-off, and no one left behind."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from backing import supervisor as supervisor_module
from backing.addresses import kept_ports
from backing.program import Program
from backing.supervisor import Supervisor, end_what_was_left, stop_together
from freezing import runs
from service import wait_until

WITHIN_S = 60.0
SLEEPS = ("sleep", "1000")
DEAF = ("sh", "-c", "trap 'echo asked' TERM; echo begun; while :; do sleep 0.2; done")
SUPERVISES = f"""
import sys
from pathlib import Path
from backing.program import Program
from backing.supervisor import Supervisor

folder = Path(sys.argv[1])
deaf = Program("deaf", "test", {DEAF!r}, folder, lambda: True)
good = Program("good", "test", {SLEEPS!r}, folder, lambda: True, dies_with_parent=True)
supervisor = Supervisor([[deaf, good]], folder)
supervisor.start()
print("started", flush=True)
supervisor.run()
"""
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(autouse=True)
def nobody_is_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is: who dies did so soon, and the pause grows."""
    monkeypatch.setattr(supervisor_module, "_STEADY_S", math.inf)


def program(
    folder: Path, name: str, *arguments: str, answers: Callable[[], bool] = lambda: True
) -> Program:
    return Program(name, "test", arguments or SLEEPS, folder, answers, dies_with_parent=True)


def is_sleep(pid: int) -> bool:
    """Whether a process is what it was started for, not still on the way there."""
    return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"


@contextmanager
def supervised(supervisor: Supervisor) -> Iterator[None]:
    """Start, and look after the programs in this thread's stead."""
    supervisor.start()
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield
    finally:
        supervisor.stop_asked.set()
        thread.join()
        supervisor.stop()


def test_who_dies_is_started_again_within_seconds(tmp_path: Path) -> None:
    changes: list[float] = []
    said: list[str] = []
    programs = [program(tmp_path, "one"), program(tmp_path, "two")]
    supervisor = Supervisor(
        [programs], tmp_path, changed=lambda: changes.append(time.monotonic()), say=said.append
    )
    with supervised(supervisor):
        assert len(changes) == 2
        old, other = programs[0].pid, programs[1].pid
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: len(changes) == 3, timeout_s=WITHIN_S, reason="started again")
        assert programs[0].pid != old
        assert runs(programs[0].pid)
        assert programs[1].pid == other
        assert said == ["one died (SIGKILL); starts again in 0.4 s"]
    assert not any(p.alive for p in programs)
    assert not (tmp_path / "started.json").exists()


def test_what_a_member_had_started_goes_with_it(tmp_path: Path) -> None:
    parent = program(tmp_path, "parent", "sh", "-c", "sleep 1000 & echo $!; wait")
    supervisor = Supervisor([[parent]], tmp_path, say=lambda _line: None)
    with supervised(supervisor):
        wait_until(
            lambda: bool(parent.log_path.read_text()), timeout_s=WITHIN_S, reason="has a child"
        )
        child = int(parent.log_path.read_text())
        assert runs(child)
        os.kill(parent.pid, signal.SIGKILL)
        wait_until(lambda: not runs(child), timeout_s=WITHIN_S, reason="the child ended")


def test_who_dies_at_every_start_is_not_started_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "_LONGEST_DELAY_S", 1.0)
    starts: list[float] = []
    said: list[str] = []
    supervisor = Supervisor(
        [[program(tmp_path, "broken", "false", answers=lambda: False)]],
        tmp_path,
        changed=lambda: starts.append(time.monotonic()),
        say=said.append,
    )
    thread = threading.Thread(target=supervisor.start)
    thread.start()
    try:
        wait_until(lambda: len(starts) > 4, timeout_s=WITHIN_S, reason="it was started five times")
    finally:
        supervisor.stop_asked.set()
        thread.join()
        supervisor.stop()
    pauses = [0.4, 0.8, 1.0, 1.0]
    assert said[:4] == [f"broken died (exit code 1); starts again in {s} s" for s in pauses]
    between = [b - a for a, b in itertools.pairwise(starts)]
    assert all(was >= least for was, least in zip(between, pauses, strict=False)), between


def test_who_never_answers_ends_the_start_with_his_log(tmp_path: Path) -> None:
    def never() -> bool:
        wait_until(
            lambda: silent.log_path.read_text() == "why\n", timeout_s=WITHIN_S, reason="it speaks"
        )
        return False

    silent = Program(
        "silent", "test", ("sh", "-c", "echo why; sleep 1000"), tmp_path, never,
        start_within_s=0.5,
    )  # fmt: skip
    supervisor = Supervisor([[silent]], tmp_path, say=lambda _line: None)
    with pytest.raises(RuntimeError, match="silent does not answer:\nwhy"):
        supervisor.start()
    supervisor.stop()
    assert not silent.alive


def test_who_does_not_stop_is_killed_and_later_stages_stop_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who does not stop has its grace until the test has seen what it wants to see.
    monkeypatch.setattr(supervisor_module, "stop_together", partial(stop_together, grace_s=600))
    first = program(tmp_path, "first")
    deaf = program(tmp_path, "deaf", *DEAF, answers=lambda: "begun" in deaf.log_path.read_text())
    supervisor = Supervisor([[first], [deaf]], tmp_path, say=lambda _line: None)
    supervisor.start()
    pids = first.pid, deaf.pid
    stopping = threading.Thread(target=supervisor.stop)
    stopping.start()
    wait_until(
        lambda: "asked" in deaf.log_path.read_text(), timeout_s=WITHIN_S, reason="it is asked"
    )
    stopping.join(0.5)  # time to do what it must not
    assert runs(first.pid), "it must wait for what stands on it"
    os.kill(deaf.pid, signal.SIGKILL)
    stopping.join()
    assert not any(map(runs, pids))


def test_who_outlasts_its_grace_is_killed(tmp_path: Path) -> None:
    deaf = program(tmp_path, "deaf", *DEAF)
    deaf.start()
    wait_until(lambda: "begun" in deaf.log_path.read_text(), timeout_s=WITHIN_S, reason="it runs")
    stop_together([deaf], grace_s=0.2)
    assert not runs(deaf.pid)


def test_members_do_not_outlive_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISES, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        text=True,
    )
    assert supervisor.stdout is not None
    with supervisor.stdout:
        assert supervisor.stdout.readline() == "started\n"
        record = tmp_path / "started.json"
        deaf, good = map(int, json.loads(record.read_text()))
        # What was only just started did not yet say whose death shall be its own.
        wait_until(lambda: is_sleep(good), timeout_s=WITHIN_S, reason="it is what was started")
        supervisor.kill()
        supervisor.wait()
    wait_until(lambda: not runs(good), timeout_s=WITHIN_S, reason="it dies with its supervisor")
    assert runs(deaf)
    end_what_was_left(record)  # the next start
    assert not runs(deaf)
    assert not record.exists()


def test_a_process_that_has_the_number_of_an_old_one_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen(SLEEPS, start_new_session=True)
    try:
        (tmp_path / "started.json").write_text(json.dumps({stranger.pid: 12345}))
        end_what_was_left(tmp_path / "started.json")
        assert runs(stranger.pid)
    finally:
        stranger.kill()
        stranger.wait()


def test_ports_are_kept_and_differ(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = kept_ports(file, ["a", "b"])
    assert kept_ports(file, ["b", "a", "c"]) | first == kept_ports(file, [])
    outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(first.values())) == 2
    assert all(port < outgoing for port in first.values())
