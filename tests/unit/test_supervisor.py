"""When the supervisor gives up, and when it starts a service again."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import pytest

from wado import supervisor
from wado.errors import InvalidRequest, NotFound, Unavailable, WadoError
from wado.settings import Settings
from wado.supervisor import Service, Supervisor, _child, run_until_signalled

_FORK = multiprocessing.get_context("fork")


def ended(process: Any) -> int | None:
    """Exit code; None if it had to be killed."""
    process.join(60)
    code: int | None = process.exitcode
    process.kill()
    process.join()
    return code


def exit_code_of(body: Callable[[Event], None]) -> int | None:
    process = _FORK.Process(target=run_until_signalled, args=(body,))
    process.start()
    return ended(process)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("a setting"), 3),
        (Unavailable("a service"), 1),
        (NotFound("one file: no reason to stop the archive"), 1),
    ],
)
def test_exit_code_says_whether_to_start_again(error: WadoError, code: int) -> None:
    def body(_stop: Event) -> None:
        raise error

    process = _FORK.Process(target=_child, args=(Service("test", body), "ERROR", os.getpid()))
    process.start()
    assert ended(process) == code


def test_a_signal_amid_a_look_at_the_event_is_heard() -> None:
    """Who waits for an event holds its lock for a moment; so would a handler that sets it."""

    def body(stop: Event) -> None:
        with stop._cond:  # type: ignore[attr-defined]  # as `wait` does
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(45)

    assert exit_code_of(body) == 0


def test_a_signal_right_after_the_start_is_heard(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child begins with the handler of its parent, which can't stop the child."""

    def body(stop: Event) -> None:
        assert stop.wait(45)

    monkeypatch.setattr(supervisor, "configure_logging", lambda _level: time.sleep(0.5))
    service = Service("test", body)
    parent = Supervisor(settings, [service], print)
    before = signal.signal(signal.SIGTERM, parent._on_signal)
    try:
        parent._start_due()
        os.kill(service.process.pid, signal.SIGTERM)
        assert ended(service.process) == 0
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("is_daemon", [True, False])
def test_a_service_of_which_a_part_hangs_ends(
    monkeypatch: pytest.MonkeyPatch, *, is_daemon: bool
) -> None:
    """Part of it failed, and said so; it would be there, and do nothing, for ever."""

    def body(stop: Event) -> None:
        hanging = Thread(target=Event().wait, daemon=is_daemon)
        hanging.start()
        stop.set()
        if is_daemon:
            hanging.join()

    monkeypatch.setattr(supervisor, "_END_WITHIN_S", 0.3)
    assert exit_code_of(body) == 1
