"""A child of a test that fails or hangs says where."""

import os
import threading
from multiprocessing.synchronize import Event

import pytest

from contract import child


def _waits_for_a_lock_that_is_never_let_go(hangs: Event) -> None:
    lock = threading.Lock()
    lock.acquire()
    hangs.set()
    lock.acquire()


@pytest.fixture
def hangs(monkeypatch: pytest.MonkeyPatch) -> Event:
    """Set by a child when it hangs, and waited for before the child is asked where it is."""
    event = child._FORK.Event()
    stacks = child._Child.stacks

    def once_it_hangs(asked: child._Child) -> str:
        assert event.wait(60)
        event.clear()
        return stacks(asked)

    monkeypatch.setattr(child._Child, "stacks", once_it_hangs)
    return event


def _refuses() -> None:
    raise ValueError("said in the child")


def test_an_exception_is_told() -> None:
    with pytest.raises(AssertionError, match="said in the child"):
        child.complete(_refuses, processes=2)
    with pytest.raises(AssertionError, match="said in the child"):
        child.crash(lambda _reached: _refuses())


def test_where_it_hangs_is_told(hangs: Event) -> None:
    with pytest.raises(AssertionError, match="_waits_for_a_lock_that_is_never_let_go"):
        child.complete(lambda: _waits_for_a_lock_that_is_never_let_go(hangs), timeout_s=0.1)
    with (
        pytest.raises(AssertionError, match="_waits_for_a_lock_that_is_never_let_go"),
        child.running(lambda _: _waits_for_a_lock_that_is_never_let_go(hangs), timeout_s=0.1),
    ):
        pass


def test_one_that_ends_early_or_dies_is_told() -> None:
    with pytest.raises(AssertionError, match="ended before"):
        child.crash(lambda _reached: None)
    with pytest.raises(AssertionError, match=r"(?s)exit code -6.*_abort"):
        child.complete(_abort)


def _abort() -> None:
    os.abort()
