"""What processes count, in memory that they share."""

import multiprocessing
import time
from collections.abc import Iterator

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
    child.join(20)
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
