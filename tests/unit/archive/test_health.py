"""Which ports answer is found out in bounded time, whatever hangs."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

import synthetic
from steps import store
from wado.archive.health import GROUPS, Question, Watch
from wado.errors import Unavailable
from wado.ports import Archive
from wado.records import Topic

LIMIT_S = 0.3


class Port:
    """A port that does whatever is asked of it in the same way."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer

    def __getattr__(self, name: str) -> Any:
        return lambda *_positional, **_named: self._answer()


def away() -> None:
    raise Unavailable("it is away")


@pytest.fixture
def hanging() -> Iterator[Port]:
    wake = threading.Event()
    yield Port(lambda: wake.wait(200))
    wake.set()


def ready(archive: Archive, **changes: Any) -> tuple[bool, bool]:
    found = Watch(replace(archive, **changes), limit_s=60).readiness()
    return found.ready, found.degraded


def test_all_answer(archive: Archive) -> None:
    assert ready(archive) == (True, False)


@pytest.mark.parametrize("port", ["log", "index", "store"])
def test_not_ready_without(archive: Archive, port: str) -> None:
    assert ready(archive, **{port: Port(away)}) == (False, True)


def test_ready_without_cache_and_warehouse(archive: Archive) -> None:
    assert ready(archive, cache=Port(away)) == (True, True)
    changes = {"services_are_shared": True, "warehouse": Port(away)}
    assert ready(archive, **changes) == (True, True)


def test_the_warehouse_of_one_machine_is_not_asked(archive: Archive) -> None:
    assert ready(archive, warehouse=Port(away)) == (True, False)


@pytest.mark.parametrize(("port", "stays"), [("index", True), ("log", False), ("store", False)])
def test_what_was_ready_goes_on_taking_images_while_the_index_is_away(
    archive: Archive, port: str, stays: bool
) -> None:
    state: dict[str, Any] = {}
    real = getattr(archive, port)
    both = type(
        "Both", (), {"__getattr__": lambda _self, name: getattr(state.get("port", real), name)}
    )
    watch = Watch(replace(archive, **{port: both()}), limit_s=60)
    for question in watch._ports.values():
        question._keep_s = 0
    assert watch.readiness().ready
    state["port"] = Port(away)
    found = watch.readiness()
    assert (found.ready, found.degraded) == (stays, True)
    assert found.ports[port].reason == "it is away"


def test_a_port_that_hangs_costs_the_limit_and_one_thread(archive: Archive, hanging: Port) -> None:
    watch = Watch(replace(archive, cache=cast("Any", hanging)), limit_s=LIMIT_S)
    watch.readiness()  # opens what was not opened yet
    before = threading.active_count()
    began = time.monotonic()
    for _ in range(3):
        found = watch.readiness()
    took_s = time.monotonic() - began
    assert not found.ports["cache"].answered
    assert "no answer for" in found.ports["cache"].reason
    assert took_s < 60 / 2
    assert threading.active_count() <= before + 4  # not one more for each that asked


def test_an_answer_is_kept_for_a_moment() -> None:
    asked: list[int] = []
    question = Question(lambda: asked.append(1), keep_s=3600)
    for _ in range(5):
        question.begin()
        assert question.found(time.monotonic() + 60).answered
    assert len(asked) == 1


def test_what_waits_is_counted_and_what_is_unknown_is_said(archive: Archive) -> None:
    store(archive, *synthetic.ct_series(3))
    found = Watch(archive, limit_s=60).look()
    lags = {queue.topic: queue.lag for queue in found.queues}
    assert lags == dict.fromkeys(GROUPS, 0) | {Topic.STORAGE: 3, Topic.LOG: 3}
    assert found.awaiting_description == 0
    found = Watch(replace(archive, log=cast("Any", Port(away))), limit_s=60).look()
    assert {queue.lag for queue in found.queues} == {None}
