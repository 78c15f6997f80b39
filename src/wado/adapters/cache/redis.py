"""A cache in Redis, which all processes of an archive share.

Its loss slows and never breaks: whatever fails means "not found" and "not kept". After a failure
Redis is let alone for a moment, so that one that hangs does not cost each request its time-out.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, cast

import redis
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from wado.errors import InvalidRequest, Unavailable
from wado.telemetry import get_logger
from wado.urls import shown

_log = get_logger("cache")
_REST_S = 2.0
"""For how long nothing is asked of a Redis that failed."""
_FREE = """
if redis.call("get", KEYS[1]) == ARGV[1] then
    return redis.call("del", KEYS[1])
end
return 0
"""
"""Lets go of a lock, unless it ran out and is another's by now."""

T = TypeVar("T")


class RedisCache:
    """A `wado.ports.Cache` in Redis; safe in threads.

    Parameters
    ----------
    url
        ``redis://``, ``rediss://`` (TLS) or ``unix://``.
    password
        In place of that of the URL.
    prefix
        Begins each key: archives that share a Redis keep apart by it.
    timeout_s
        How long to wait for Redis: to connect, to answer, and for one of our connections.
    max_connections
        Most connections of this process.
    max_value_bytes
        Larger values are not kept.
    ca_file
        Certificates that sign that of Redis, for ``rediss://``; None: those of the system.
    """

    def __init__(
        self,
        url: str,
        *,
        password: str | None = None,
        prefix: str = "wado",
        timeout_s: float = 0.2,
        max_connections: int = 16,
        max_value_bytes: int = 8 << 20,
        ca_file: str | None = None,
    ) -> None:
        options: dict[str, Any] = {"ssl_ca_certs": ca_file} if ca_file else {}
        if password is not None:
            options["password"] = password
        try:
            pool = redis.BlockingConnectionPool.from_url(
                url,
                max_connections=max_connections,
                timeout=timeout_s,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                # One try more if the connection was cut, as by a restart; none after a time-out.
                retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
                **options,
            )
        except ValueError as e:
            raise InvalidRequest(f"cache.url = {shown(url)!r}: {e}") from e
        if "password" in options:  # that of a URL would win
            pool.connection_kwargs["password"] = password
        self._client = redis.Redis(connection_pool=pool)
        self._free = self._client.register_script(_FREE)
        self._prefix = prefix
        self._max_value_bytes = max_value_bytes
        self._shown = shown(url)
        self._reaching = _Circuit(f"Redis does not answer ({self._shown}): going on without it")
        self._writing = _Circuit(f"Redis takes nothing ({self._shown}): going on without it")

    def close(self) -> None:
        """Let go of the connections."""
        self._client.connection_pool.disconnect()

    def check(self) -> None:
        """Raise Unavailable if Redis does not answer now."""
        try:
            self._client.ping()
        except (redis.RedisError, OSError) as e:
            self._reaching.failed(e)
            raise Unavailable(f"Redis does not answer ({self._shown}): {e}") from e
        self._reaching.worked()

    def get(self, key: str) -> bytes | None:
        """Look up; None if absent or forgotten."""
        return cast("bytes | None", self._ask(partial(self._client.get, self._value_key(key))))

    def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Keep for at most `ttl_s` seconds."""
        if ttl_s <= 0 or len(value) > self._max_value_bytes:
            self.delete(key)
            return
        name = self._value_key(key)
        self._write(partial(self._client.set, name, value, px=_milliseconds(ttl_s)))

    def delete(self, *keys: str) -> None:
        """Forget."""
        if keys:
            self._ask(partial(self._client.delete, *map(self._value_key, keys)))

    @contextmanager
    def lock(self, key: str, *, ttl_s: float) -> Iterator[bool]:
        """Try to hold a lock for at most `ttl_s` seconds; granted when Redis is away."""
        name, token = f"{self._prefix}:lock:{key}", uuid.uuid4().hex
        taken: Any = None
        if ttl_s > 0:
            take = partial(self._client.set, name, token, px=_milliseconds(ttl_s), nx=True)
            taken = self._write(take, otherwise=_UNKNOWN)
        try:
            yield ttl_s <= 0 or taken is not None  # None: another holds it
        finally:
            if taken is True:
                self._ask(partial(self._free, keys=[name], args=[token]))

    def _value_key(self, key: str) -> str:
        return f"{self._prefix}:value:{key}"

    def _write(self, ask: Callable[[], T], *, otherwise: Any = None) -> T | Any:
        """Ask for something that a Redis refuses when it is full, or only a copy."""
        if not self._writing.closed():
            return otherwise

        def write() -> T | Any:
            try:
                answer = ask()
            except redis.ResponseError as e:
                self._writing.failed(e)
                return otherwise
            self._writing.worked()
            return answer

        return self._ask(write, otherwise=otherwise)

    def _ask(self, ask: Callable[[], T], *, otherwise: Any = None) -> T | Any:
        if not self._reaching.closed():
            return otherwise
        try:
            answer = ask()
        except (redis.RedisError, OSError) as e:
            self._reaching.failed(e)
            return otherwise
        self._reaching.worked()
        return answer


_UNKNOWN = object()
"""Whether a lock is held is not known: Redis did not answer."""


class _Circuit:
    """Open for a moment after a failure, in which nobody asks; then one asks first.

    Says once that an outage began, and once that it is over.
    """

    def __init__(self, outage: str) -> None:
        self._outage = outage
        self._failed = False
        self._again_s = 0.0
        self._lock = threading.Lock()

    def closed(self) -> bool:
        """Whether to ask now."""
        if not self._failed:
            return True
        with self._lock:
            if time.monotonic() < self._again_s:
                return False
            self._again_s = time.monotonic() + _REST_S  # the others wait for what this one finds
            return True

    def failed(self, e: Exception) -> None:
        """Rest."""
        with self._lock:
            began, self._failed = not self._failed, True
            self._again_s = time.monotonic() + _REST_S
        if began:
            _log.warning(self._outage, reason=str(e))

    def worked(self) -> None:
        """Go on."""
        if self._failed:
            with self._lock:
                ended, self._failed = self._failed, False
            if ended:
                _log.info("Redis works again")


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
