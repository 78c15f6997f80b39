"""A cache in the memory of the process, for one machine."""

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_OVERHEAD_BYTES = 200  # of an entry, beside its key and its value


class MemoryCache:
    """A `wado.ports.Cache` of the values used last; safe in threads.

    Parameters
    ----------
    max_bytes
        Limit of keys and values together; a value that is larger is not kept.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._locks: dict[str, float] = {}
        self._mutex = Lock()

    def close(self) -> None:
        """Forget everything."""
        with self._mutex:
            self._entries.clear()
            self._locks.clear()
            self._bytes = 0

    def check(self) -> None:
        """Raise nothing: memory is always there."""

    def get(self, key: str) -> bytes | None:
        """Look up; None if absent or forgotten."""
        with self._mutex:
            entry = self._entries.get(key)
            if entry is None:
                return None
            value, expires_at = entry
            if expires_at <= time.monotonic():
                self._forget(key)
                return None
            self._entries.move_to_end(key)
            return value

    def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Keep for at most `ttl_s` seconds."""
        with self._mutex:
            self._forget(key)
            if ttl_s <= 0 or _size(key, value) > self._max_bytes:
                return
            self._entries[key] = (value, time.monotonic() + ttl_s)
            self._bytes += _size(key, value)
            while self._bytes > self._max_bytes:
                self._forget(next(iter(self._entries)))

    def delete(self, *keys: str) -> None:
        """Forget."""
        with self._mutex:
            for key in keys:
                self._forget(key)

    @contextmanager
    def lock(self, key: str, *, ttl_s: float) -> Iterator[bool]:
        """Try to hold a lock for at most `ttl_s` seconds; yields whether it is held."""
        now = time.monotonic()
        with self._mutex:
            held = self._locks.get(key, now) <= now
            if held:
                self._locks[key] = now + ttl_s
        try:
            yield held
        finally:
            with self._mutex:
                # After `ttl_s` it may be another's.
                if held and self._locks.get(key) == now + ttl_s:
                    del self._locks[key]

    def _forget(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= _size(key, entry[0])


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value) + _OVERHEAD_BYTES
