"""A child of a test that fails or hangs says where."""

import os
import threading

import pytest

from contract import child


def _waits_for_a_lock_that_is_never_let_go() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def _refuses() -> None:
    raise ValueError("said in the child")


def test_an_exception_is_told() -> None:
    with pytest.raises(AssertionError, match="said in the child"):
        child.complete(_refuses, processes=2)
    with pytest.raises(AssertionError, match="said in the child"):
        child.crash(lambda _reached: _refuses())


def test_where_it_hangs_is_told() -> None:
    with pytest.raises(AssertionError, match="_waits_for_a_lock_that_is_never_let_go"):
        child.complete(_waits_for_a_lock_that_is_never_let_go, timeout_s=0.5)
    with (
        pytest.raises(AssertionError, match="_waits_for_a_lock_that_is_never_let_go"),
        child.running(lambda _reached: _waits_for_a_lock_that_is_never_let_go(), timeout_s=0.5),
    ):
        pass


def test_one_that_ends_early_or_dies_is_told() -> None:
    with pytest.raises(AssertionError, match="ended before"):
        child.crash(lambda _reached: None)
    with pytest.raises(AssertionError, match=r"(?s)exit code -6.*_abort"):
        child.complete(_abort)


def _abort() -> None:
    os.abort()
