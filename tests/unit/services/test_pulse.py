"""Whether a web server looks stuck: not while its threads have much to do, only if they hang."""

import asyncio
import time
from collections.abc import Iterator
from threading import Event

import pytest

from wado import vitals
from wado.ports import Archive
from wado.services.server import health
from wado.services.server.pulse import Pulse, Threads
from wado.services.server.service import open_service
from wado.settings import Settings
from web import run_alone

WITHIN_S = 60.0
STUCK_AFTER_S = 300.0


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def released() -> Iterator[list[Event]]:
    """Set at the end, so that no thread waits for ever."""
    events = [Event(), Event()]
    yield events
    for event in events:
        event.set()


def test_threads_that_end_one_long_task_after_the_other_are_not_stuck(
    now: list[float], released: list[Event]
) -> None:
    first, second = released
    with Threads(1, "test") as threads:
        pulse = Pulse({"answers": threads}, stuck_after_s=STUCK_AFTER_S)
        tasks = [threads.submit(event.wait) for event in released]
        threads.submit(time.sleep, 0).cancel()  # who went away is no progress
        assert pulse.stuck() == []
        now[0] += STUCK_AFTER_S + 1
        assert [step["at"] for step in pulse.stuck()] == ["answers"]
        first.set()
        assert tasks[0].result(WITHIN_S)
        for _ in range(6000):  # it is noted a moment later
            if not pulse.stuck():
                break
            Event().wait(0.01)
        now[0] += STUCK_AFTER_S - 1
        assert pulse.stuck() == []
        now[0] += 2
        assert [step["at"] for step in pulse.stuck()] == ["answers"]
        second.set()
        assert tasks[1].result(WITHIN_S)


def test_uploads_that_wait_for_their_flush_are_not_stuck_while_it_goes_on(
    now: list[float], released: list[Event]
) -> None:
    with Threads(1, "test", wait_for="commit files") as threads, vitals.at("commit files"):
        pulse = Pulse({"uploads": threads}, stuck_after_s=STUCK_AFTER_S)
        threads.submit(released[0].wait)
        for _ in range(4):
            assert pulse.stuck() == []
            now[0] += STUCK_AFTER_S - 1
            vitals.goes_on()
        now[0] += STUCK_AFTER_S + 1
        assert [step["at"] for step in pulse.stuck()] == ["uploads"]
        released[0].set()


def test_probes_are_answered_while_the_threads_of_the_event_loop_hang(
    archive: Archive, settings: Settings
) -> None:
    """They read the files that are sent."""
    end = Event()

    async def asked() -> int:
        hanging = [asyncio.create_task(asyncio.to_thread(end.wait)) for _ in range(64)]
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(WITHIN_S):
                answer = await health.livez(service, None, None)  # type: ignore[arg-type]
        finally:
            end.set()
            await asyncio.wait(hanging)
        return answer.status

    with open_service(archive, settings.server, default_tenant="default") as service:
        assert run_alone(asked()) == 200
