"""Ports are opened at their first use, again after a failure, and not by one after the other."""

import threading
from contextlib import ExitStack

import pytest

from service import wait_until
from wado.bootstrap import _Lazy
from wado.errors import InvalidRequest, Unavailable


class Port:
    closed = False

    def ask(self) -> str:
        return "answer"

    def close(self) -> None:
        self.closed = True


class Asked:
    """A lock that counts who asked for it."""

    def __init__(self) -> None:
        self.asked = 0
        self._lock, self._counting = threading.Lock(), threading.Lock()

    def __enter__(self) -> None:
        with self._counting:
            self.asked += 1
        self._lock.acquire()

    def __exit__(self, *_exception: object) -> None:
        self._lock.release()


def test_is_opened_once_and_closed_at_the_end() -> None:
    opened: list[Port] = []

    def open_it() -> Port:
        opened.append(Port())
        return opened[0]

    with ExitStack() as stack:
        lazy = _Lazy(open_it, stack)
        assert not opened
        assert [lazy.ask(), lazy.ask()] == ["answer", "answer"]
        assert not opened[0].closed
    assert len(opened) == 1
    assert opened[0].closed


def test_a_service_that_is_away_is_tried_again() -> None:
    states = iter([Unavailable("it is away"), InvalidRequest("a wrong password file"), None])

    def open_it() -> Port:
        if (failure := next(states)) is not None:
            raise failure
        return Port()

    with ExitStack() as stack:
        lazy = _Lazy(open_it, stack)
        with pytest.raises(Unavailable, match="it is away"):
            lazy.ask()
        with pytest.raises(InvalidRequest):
            lazy.ask()
        assert lazy.ask() == "answer"


def test_who_waits_while_another_tries_in_vain_fails_with_it() -> None:
    tries: list[int] = []
    waiting = threading.Event()

    def open_it() -> Port:
        tries.append(1)
        waiting.wait(100)
        raise Unavailable("it is away")

    failures: list[str] = []
    with ExitStack() as stack:
        lazy = _Lazy(open_it, stack)
        lock = lazy.__dict__["_lock"] = Asked()

        def ask() -> None:
            try:
                lazy.ask()
            except Unavailable as e:
                failures.append(str(e))

        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        wait_until(lambda: lock.asked == len(threads), timeout_s=60, reason="all of them wait")
        waiting.set()
        for thread in threads:
            thread.join(60)
    assert failures == ["it is away"] * 20
    assert len(tries) == 1
