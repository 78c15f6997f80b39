"""What processes count, in memory that they share."""

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from wado import vitals
from wado.vitals import Board


@pytest.fixture(autouse=True)
def _own_row() -> Iterator[None]:
    yield
    vitals.use(Board(["alone"]).row("alone"))


def in_child(work: object) -> None:
    child = multiprocessing.get_context("fork").Process(target=work)  # type: ignore[arg-type]
    child.start()
    child.join(60)
    assert child.exitcode == 0


def test_the_parent_sees_what_children_count():
    board = Board(["a", "b"])

    def work() -> None:
        vitals.use(board.row("b"))
        vitals.count("wado_images_received")
        vitals.count("wado_images_received", 2)
        vitals.count("wado_received_bytes", 0.5)

    in_child(work)
    in_child(work)  # started again: it counts on
    counted = board.counts("b")
    assert (counted["wado_images_received"], counted["wado_received_bytes"]) == (6, 1)
    assert not any(board.counts("a").values())


def test_what_a_process_is_at_ends_with_it():
    board = Board(["a"])
    vitals.use(board.row("a"))
    assert board.busy_s("a") == {}
    with vitals.at("catalogue"):
        time.sleep(0.01)
        (seconds,) = board.busy_s("a").values()
        assert seconds >= 0.01
    with pytest.raises(ZeroDivisionError), vitals.at("catalogue"):
        raise ZeroDivisionError
    assert board.busy_s("a") == {}
    with vitals.at("describe"):
        vitals.use(board.row("a"))  # a new process in place of one that died at it
        assert board.busy_s("a") == {}


def test_a_thread_says_that_what_it_is_at_goes_on(monkeypatch: pytest.MonkeyPatch):
    board, now = Board(["one"]), [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    vitals.use(board.row("one"))
    vitals.goes_on()  # at nothing: nothing to say
    with vitals.at("catalogue"):
        now[0] = 150.0
        with ThreadPoolExecutor(1) as others:
            others.submit(vitals.goes_on).result()
        assert board.busy_s("one") == {"catalogue": 50.0}
        vitals.goes_on()
        assert board.busy_s("one") == {"catalogue": 0.0}
    vitals.goes_on()
    assert board.busy_s("one") == {}


def test_threads_that_help_say_that_it_goes_on(monkeypatch: pytest.MonkeyPatch):
    board, now = Board(["one"]), [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    vitals.use(board.row("one"))
    with vitals.at("catalogue"), ThreadPoolExecutor(1, initializer=vitals.joining()) as others:
        now[0] = 150.0
        others.submit(vitals.goes_on).result()
        assert board.busy_s("one") == {"catalogue": 0.0}
