"""The contract of `Cache`; every adapter runs it."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backing_redis import shared_redis
from wado.adapters.cache.memory import MemoryCache
from wado.adapters.cache.redis import RedisCache
from wado.ports import Cache


@pytest.fixture(params=[pytest.param("memory"), pytest.param("redis")])
def cache(request: pytest.FixtureRequest, run_folder: Path) -> Iterator[Cache]:
    if request.param == "memory":
        yield MemoryCache(max_bytes=1 << 20)
        return
    # As elsewhere but for the time it is given: this machine may be busy.
    url, prefix = shared_redis(run_folder), uuid.uuid4().hex
    with closing(RedisCache(url, prefix=prefix, timeout_s=60)) as opened:
        yield opened


def comes_true(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class TestValues:
    def test_what_was_set_is_found(self, cache: Cache) -> None:
        cache.set("a", b"1", ttl_s=60)
        cache.set("b", b"", ttl_s=60)
        assert (cache.get("a"), cache.get("b"), cache.get("c")) == (b"1", b"", None)

    def test_the_last_value_counts(self, cache: Cache) -> None:
        cache.set("a", b"1", ttl_s=60)
        cache.set("a", b"2", ttl_s=60)
        assert cache.get("a") == b"2"

    def test_is_forgotten_in_time(self, cache: Cache) -> None:
        cache.set("a", b"1", ttl_s=0.05)
        cache.set("b", b"1", ttl_s=0)
        assert cache.get("b") is None
        assert comes_true(lambda: cache.get("a") is None)

    def test_delete(self, cache: Cache) -> None:
        for key in "abc":
            cache.set(key, b"1", ttl_s=60)
        cache.delete("a", "b", "x")
        cache.delete()
        assert [cache.get(key) for key in "abc"] == [None, None, b"1"]

    def test_any_bytes_and_any_key(self, cache: Cache) -> None:
        values = {"": b"\0", "ä ö\n*": bytes(range(256)), "k" * 2000: b"\xff" * 100_000}
        for key, value in values.items():
            cache.set(key, value, ttl_s=60)
        assert {key: cache.get(key) for key in values} == values

    def test_answers(self, cache: Cache) -> None:
        cache.check()

    def test_close(self, cache: Cache) -> None:
        cache.set("a", b"1", ttl_s=60)
        cache.close()
        cache.close()


class TestLock:
    def test_one_holds_it(self, cache: Cache) -> None:
        with cache.lock("a", ttl_s=60) as first:
            with cache.lock("a", ttl_s=60) as second, cache.lock("b", ttl_s=60) as other:
                assert (first, second, other) == (True, False, True)
            with cache.lock("a", ttl_s=60) as third:
                assert not third
        with cache.lock("a", ttl_s=60) as again:
            assert again

    def test_is_let_go_of_after_an_exception(self, cache: Cache) -> None:
        with pytest.raises(ZeroDivisionError), cache.lock("a", ttl_s=60):
            raise ZeroDivisionError
        with cache.lock("a", ttl_s=60) as held:
            assert held

    def test_ends_in_time(self, cache: Cache) -> None:
        with cache.lock("a", ttl_s=0.05):

            def free() -> bool:
                with cache.lock("a", ttl_s=0.05) as held:
                    return held

            assert comes_true(free)

    def test_who_was_too_late_does_not_free_the_lock_of_another(self, cache: Cache) -> None:
        with cache.lock("a", ttl_s=0.001):
            time.sleep(0.02)
            other = cache.lock("a", ttl_s=60)
            assert other.__enter__()
        with cache.lock("a", ttl_s=60) as held:
            assert not held
        other.__exit__(None, None, None)

    def test_without_a_time_it_is_nobodys(self, cache: Cache) -> None:
        with cache.lock("a", ttl_s=0) as first, cache.lock("a", ttl_s=60) as second:
            assert (first, second) == (True, True)

    def test_is_not_a_value(self, cache: Cache) -> None:
        with cache.lock("a", ttl_s=60):
            assert cache.get("a") is None
