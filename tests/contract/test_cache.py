"""The contract of `Cache`; every adapter runs it."""

import threading
import time
from collections.abc import Callable

import pytest

from wado.adapters.cache.memory import MemoryCache
from wado.ports import Cache


@pytest.fixture(params=[pytest.param("memory")])
def cache(request: pytest.FixtureRequest) -> Cache:
    return MemoryCache(max_bytes=1 << 20)


def comes_true(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
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
        with cache.lock("a", ttl_s=0):
            time.sleep(0.001)
            other = cache.lock("a", ttl_s=60)
            assert other.__enter__()
        with cache.lock("a", ttl_s=60) as held:
            assert not held
        other.__exit__(None, None, None)

    def test_is_not_a_value(self, cache: Cache) -> None:
        with cache.lock("a", ttl_s=60):
            assert cache.get("a") is None


class TestMemory:
    """What only the embedded adapter promises."""

    def test_what_was_used_last_stays(self) -> None:
        cache = MemoryCache(max_bytes=4 * 1300)
        for key in "abcd":
            cache.set(key, bytes(1000), ttl_s=60)
        cache.get("a")
        cache.set("e", bytes(1000), ttl_s=60)
        assert [cache.get(key) is not None for key in "abcde"] == [True, False, True, True, True]

    def test_a_value_larger_than_the_limit_is_not_kept(self) -> None:
        cache = MemoryCache(max_bytes=1000)
        cache.set("a", b"1", ttl_s=60)
        cache.set("b", bytes(2000), ttl_s=60)
        assert (cache.get("a"), cache.get("b")) == (b"1", None)

    def test_forgotten_bytes_are_free(self) -> None:
        cache = MemoryCache(max_bytes=3000)
        for n in range(100):
            cache.set("a", bytes(n * 20), ttl_s=60)
            cache.delete("a")
        cache.set("a", bytes(2000), ttl_s=60)
        assert cache.get("a") is not None

    def test_threads(self) -> None:
        cache = MemoryCache(max_bytes=100_000)

        def work(name: str) -> None:
            for n in range(2000):
                cache.set(f"{name}{n % 50}", bytes(500), ttl_s=60)
                cache.get(f"{name}{n % 30}")
                cache.delete(f"{name}{n % 7}")

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert cache._bytes <= 100_000
        assert cache._bytes == sum(len(k) + len(v) + 200 for k, (v, _) in cache._entries.items())
