"""What waits for the log is bounded; what is dropped is counted."""

import sys
from dataclasses import replace
from threading import Event
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from service import wait_until
from wado.errors import Unavailable
from wado.ports import Archive
from wado.services.server import access_log
from wado.services.server.access_log import Access, AccessLog, Target

WITHIN_S = 60.0


class Away:
    """A log that does not answer, until it is told to give up."""

    def __init__(self) -> None:
        self.asked = Event()
        self.gives_up = Event()

    def publish(self, messages: Any) -> None:
        list(messages)
        self.asked.set()
        self.gives_up.wait(WITHIN_S)
        raise Unavailable("the log is away")


def access(length: int) -> Access:
    path = "/" + "x" * (length - 1)
    target = Target("clinic", "GET", "/{path:path}", path, "", "")
    return Access(target, 404, 0, 1.0, 2.0, "127.0.0.1:1", "")


def dropped(registry: CollectorRegistry) -> float:
    return registry.get_sample_value("wado_access_log_dropped_total") or 0.0


@pytest.mark.parametrize("length", [1, 4000, 1 << 20])
def test_what_waits_is_bounded_in_bytes(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    bound = 1 << 20
    monkeypatch.setattr(access_log, "_MAX_WAITING_BYTES", bound)
    registry = CollectorRegistry()
    log = AccessLog(archive, registry)
    for _ in range(3000):
        log.add(access(length))
    waiting = len(log._queue)
    assert dropped(registry) == 3000 - waiting
    held = sum(sys.getsizeof(each) + sys.getsizeof(each.target.path) for each in log._queue)
    assert bound / 8 < held <= bound


def test_while_the_log_is_away_entries_are_dropped_and_counted(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "_MAX_WAITING_BYTES", 1 << 16)
    away, registry = Away(), CollectorRegistry()
    with AccessLog(replace(archive, log=cast("Any", away)), registry) as log:
        log.add(access(100))
        assert away.asked.wait(WITHIN_S)
        for _ in range(200):  # what is being published counts, too
            log.add(access(1000))
        lost = dropped(registry)
        assert lost > 100
        away.gives_up.set()
        wait_until(
            lambda: log._bytes_in == log._bytes_out, timeout_s=WITHIN_S, reason="nothing waits"
        )
        assert dropped(registry) == 201, "what could not be published was dropped, too"
