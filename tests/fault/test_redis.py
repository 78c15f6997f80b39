"""Redis dies, hangs, forgets, is full: the archive is slower for a moment, and nothing else."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest
import redis
from structlog.testing import capture_logs

from backing import redis as backing
from backing.program import Program, free_port
from freezing import frozen
from real import require
from service import wait_until
from wado.adapters.cache import redis as adapter
from wado.adapters.cache.redis import RedisCache
from wado.errors import Unavailable

_TIMEOUT_S = 0.2
_PATIENCE_S = 30.0
"""Where nothing hangs, a machine that is busy must not count as a failure of Redis."""


@pytest.fixture
def port() -> int:
    require("redis")
    return free_port()


@pytest.fixture
def program(port: int, tmp_path: Path) -> Iterator[Program]:
    program, _ = backing.server(tmp_path / "redis", port, policy="noeviction", max_memory="8mb")
    program.start()
    try:
        program.wait()
        yield program
    finally:
        program.kill()


@pytest.fixture
def cache(program: Program, port: int) -> Iterator[RedisCache]:
    with closing(RedisCache(f"redis://127.0.0.1:{port}/0", timeout_s=_PATIENCE_S)) as cache:
        until(lambda: works(cache))
        yield cache


@pytest.fixture
def hasty(program: Program, port: int) -> Iterator[RedisCache]:
    """One that waits for no longer than an archive does."""
    with closing(RedisCache(f"redis://127.0.0.1:{port}/0", timeout_s=_TIMEOUT_S)) as cache:
        until(lambda: works(cache))
        yield cache


def works(cache: RedisCache) -> bool:
    cache.set("works", b"1", ttl_s=3600)
    return cache.get("works") == b"1"


def until(condition: Callable[[], bool]) -> None:
    wait_until(condition, timeout_s=60, reason="it works")


def use(cache: RedisCache) -> None:
    """Everything a cache is asked, as if there were none."""
    cache.set("k", b"1", ttl_s=60)
    assert cache.get("k") is None
    cache.delete("k")
    with cache.lock("k", ttl_s=60) as held, cache.lock("k", ttl_s=60) as also:
        assert (held, also) == (True, True)


def test_killed_and_back(cache: RedisCache, program: Program) -> None:
    program.kill()
    use(cache)
    with pytest.raises(Unavailable, match="Redis does not answer"):
        cache.check()
    program.start()
    program.wait()
    until(lambda: works(cache))
    cache.check()


def test_restarted_empty_between_two_requests(cache: RedisCache, program: Program) -> None:
    cache.set("k", b"1", ttl_s=60)
    program.kill()
    program.start()
    program.wait()
    # The connections are cut, and yet nothing counts as a failure: each is made anew.
    with capture_logs() as lines:
        assert cache.get("k") is None
        cache.set("k", b"2", ttl_s=60)
        assert cache.get("k") == b"2"
    assert lines == []


def test_who_held_a_lock_that_redis_forgot_does_not_free_that_of_another(
    cache: RedisCache, program: Program
) -> None:
    first = cache.lock("k", ttl_s=60)
    assert first.__enter__()
    program.kill()
    program.start()
    program.wait()
    with cache.lock("k", ttl_s=60) as another:
        assert another
        first.__exit__(None, None, None)
        with cache.lock("k", ttl_s=60) as third:
            assert not third


def test_one_that_hangs_costs_a_time_out_and_not_one_for_each_request(
    hasty: RedisCache, program: Program
) -> None:
    with frozen(program.pid):
        began = time.monotonic()
        for _ in range(300):
            use(hasty)
        took_s = time.monotonic() - began
    # 1500 questions; while nothing is asked for two seconds after each failure, a few are.
    assert took_s < 300 * _TIMEOUT_S
    until(lambda: works(hasty))


def test_one_that_hangs_does_not_hold_up_many_threads(hasty: RedisCache, program: Program) -> None:
    took_s: list[float] = []

    def work() -> None:
        for _ in range(20):
            began = time.monotonic()
            hasty.get("k")
            took_s.append(time.monotonic() - began)

    with frozen(program.pid):
        threads = [Thread(target=work) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    # At worst: for a connection, to connect, for its answer; and this machine is busy.
    assert max(took_s) < 150 * _TIMEOUT_S
    assert sorted(took_s)[len(took_s) // 2] < 4 * _TIMEOUT_S


def test_nothing_is_asked_for_a_while_after_a_failure(
    hasty: RedisCache, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "_REST_S", 3600.0)
    with frozen(program.pid):
        assert hasty.get("works") is None
    until(program.answers)
    assert hasty.get("works") is None  # it would answer

    def goes_on() -> bool:
        try:
            hasty.check()  # who asks for it by name asks Redis, and that ends the pause
        except Unavailable:
            return False
        return hasty.get("works") == b"1"

    until(goes_on)


def test_full_without_eviction(
    cache: RedisCache, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        closing(redis.Redis(port=port, socket_timeout=_PATIENCE_S)) as operator,
        capture_logs() as lines,
    ):
        filled = 0
        while not lines:  # its limit is 8 MB
            assert filled < 200
            cache.set(f"big{filled}", bytes(100_000), ttl_s=3600)
            filled += 1
        operator.config_set("maxmemory", "1mb")  # nothing fits again by chance
        monkeypatch.setattr(adapter, "_REST_S", 0.0)
        for n in range(20):
            cache.set(f"big{n}", bytes(100_000), ttl_s=3600)
        assert [line["log_level"] for line in lines] == ["warning"]
        assert "takes nothing" in lines[0]["event"]
        # What it holds can still be had, and deleted, and locks are granted to all.
        assert cache.get("works") == b"1"
        with cache.lock("k", ttl_s=60) as held, cache.lock("k", ttl_s=60) as also:
            assert (held, also) == (True, True)
        for n in range(filled):
            cache.delete(f"big{n}")
        operator.config_set("maxmemory", "8mb")
    until(lambda: works(cache))


def test_one_line_when_it_goes_and_one_when_it_comes(cache: RedisCache, program: Program) -> None:
    with capture_logs() as lines:
        program.kill()
        end = time.monotonic() + adapter._REST_S * 1.5
        while time.monotonic() < end:
            use(cache)
            time.sleep(0.01)
        program.start()
        program.wait()
        until(lambda: works(cache))
    assert [line["log_level"] for line in lines] == ["warning", "info"]


def test_away_from_the_start() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and nobody listens there, nor comes to
        port = nobody.getsockname()[1]
        with closing(RedisCache(f"redis://127.0.0.1:{port}/0")) as cache:
            use(cache)
