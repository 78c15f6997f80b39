"""The cache in memory: what only it promises."""

import threading

from wado.adapters.cache.memory import MemoryCache


def test_what_was_used_last_stays() -> None:
    cache = MemoryCache(max_bytes=4 * 1300)
    for key in "abcd":
        cache.set(key, bytes(1000), ttl_s=60)
    cache.get("a")
    cache.set("e", bytes(1000), ttl_s=60)
    assert [cache.get(key) is not None for key in "abcde"] == [True, False, True, True, True]


def test_a_value_larger_than_the_limit_is_not_kept() -> None:
    cache = MemoryCache(max_bytes=1000)
    cache.set("a", b"1", ttl_s=60)
    cache.set("b", bytes(2000), ttl_s=60)
    assert (cache.get("a"), cache.get("b")) == (b"1", None)


def test_forgotten_bytes_are_free() -> None:
    cache = MemoryCache(max_bytes=3000)
    for n in range(100):
        cache.set("a", bytes(n * 20), ttl_s=60)
        cache.delete("a")
    cache.set("a", bytes(2000), ttl_s=60)
    assert cache.get("a") is not None


def test_threads() -> None:
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
