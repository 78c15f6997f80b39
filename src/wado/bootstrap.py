"""Open the archive that the settings describe: the only place that chooses adapters."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from wado.archive.transcode_rules import check_rules
from wado.dicom.uids import validate_tenant_id
from wado.errors import InvalidRequest, Unavailable, WadoError
from wado.ports import Archive, Cache, Index, InstanceStore, MessageLog, Warehouse
from wado.profile import SECTIONS, check_profile, default_urls
from wado.settings import Settings
from wado.urls import password_of, shown, with_password

_PREPARE_AGAIN_S = 0.5


class _Lazy:
    """Opens a port at its first use: a receiver need not load what it never asks.

    A service that is away is tried again at the next use; who waited while another tried in vain
    fails with it, or many threads would wait for one time-out after the other.
    """

    def __init__(self, open_port: Callable[[], Any], stack: ExitStack) -> None:
        self._open_port = open_port
        self._stack = stack
        self._lock = Lock()
        self._failure: tuple[float, WadoError] | None = None

    def __getattr__(self, name: str) -> Any:
        asked_s = time.monotonic()
        with self._lock:
            port = self.__dict__.get("_port")
            if port is None:
                port = self._open(asked_s)
                self.__dict__["_port"] = port
                self._stack.callback(port.close)
        value = getattr(port, name)
        self.__dict__[name] = value
        return value

    def _open(self, asked_s: float) -> Any:
        if self._failure is not None and self._failure[0] >= asked_s:
            raise Unavailable(str(self._failure[1])) from self._failure[1]
        try:
            return self._open_port()
        except Unavailable as e:
            self._failure = (time.monotonic(), e)
            raise


def check_tenants(settings: Settings) -> None:
    """Refuse names that can't be tenants at the start rather than with each image.

    Raises
    ------
    InvalidRequest
        Names the tenant.
    """
    for tenant_id in (settings.storage.default_tenant, *settings.storescp.tenants.values()):
        validate_tenant_id(tenant_id)


@contextmanager
def open_archive(settings: Settings) -> Iterator[Archive]:
    """Open the ports that the settings name; closed in reverse order on exit.

    Message log, index, warehouse and cache are opened at their first use.

    Raises
    ------
    InvalidRequest
        A URL names no adapter, the profile refuses one, a tenant can't be one, or a rule for
        copies can't be followed.
    OutOfResources, Unavailable
        The storage root can't be written.
    """
    check_profile(settings)
    check_tenants(settings)
    check_rules(settings.transcode)
    urls = default_urls(settings)
    openers = {port: _opener(port, url, settings) for port, url in urls.items()}
    with ExitStack() as stack:
        yield Archive(
            log=cast("MessageLog", _Lazy(openers["log"], stack)),
            index=cast("Index", _Lazy(openers["index"], stack)),
            warehouse=cast("Warehouse", _Lazy(openers["warehouse"], stack)),
            store=openers["store"](),
            cache=cast("Cache", _Lazy(openers["cache"], stack)),
            replace_duplicates=settings.storage.duplicates == "replace",
            refuse_unknown_sop_classes=not settings.storage.unknown_sop_classes,
            commitments_keep_s=settings.storage.commitments_keep_s,
            services_are_shared=settings.profile == "distributed",
            transcode=settings.transcode,
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `wado init` did for a port: lines to read, or why it could not."""

    port: str
    url: str
    done: tuple[str, ...]
    failure: WadoError | None = None


def prepare_archive(settings: Settings, *, wait_s: float = 0.0) -> Iterator[Prepared]:
    """Make what services need before their first use: topics, tables, buckets; port by port.

    What is there already stays as it is, so it may be run again at any time. One that can't be
    prepared does not keep the others from it. The passwords of the URLs given back are masked.

    Parameters
    ----------
    settings
        They name the services.
    wait_s
        Seconds in all in which services that do not answer are tried again.

    Raises
    ------
    InvalidRequest
        A URL names no adapter, or the profile refuses one.
    """
    check_profile(settings)
    check_tenants(settings)
    urls = default_urls(settings)
    for port, url in urls.items():
        _opener(port, url, settings)
    deadline = time.monotonic() + wait_s
    for port, url in urls.items():
        preparer = _PREPARERS.get((port, urlsplit(url).scheme))
        if preparer is not None:
            yield _prepare(port, url, partial(preparer, url, settings), deadline)


def _prepare(port: str, url: str, prepare: Callable[[], list[str]], deadline: float) -> Prepared:
    while True:
        try:
            return Prepared(port, shown(url), tuple(prepare()))
        except Unavailable as e:
            if time.monotonic() >= deadline:
                return Prepared(port, shown(url), (), e)
            time.sleep(min(_PREPARE_AGAIN_S, max(0.0, deadline - time.monotonic())))
        except WadoError as e:
            return Prepared(port, shown(url), (), e)


def _opener(port: str, url: str, settings: Settings) -> Callable[[], Any]:
    """Choose an adapter; its module is imported when the port is opened."""
    scheme = urlsplit(url).scheme
    opener = _OPENERS.get((port, scheme))
    if opener is None:
        known = sorted(s for p, s in _OPENERS if p == port)
        section = SECTIONS[port]
        raise InvalidRequest(
            f"{section}.url = {shown(url)!r}: known schemes are {', '.join(known)}"
        )
    return lambda: opener(url, settings)


def _path(url: str) -> Path:
    return Path("/" + unquote(urlsplit(url).path).lstrip("/"))


def _file_store(url: str, settings: Settings) -> InstanceStore:
    from wado.adapters.instance_store.filesystem import (  # noqa: PLC0415 - see _opener
        FilesystemInstanceStore,
    )

    return FilesystemInstanceStore(_path(url), durable=settings.storage.durability == "fsync")


def _s3_store(url: str, settings: Settings) -> InstanceStore:
    from wado.adapters.instance_store import s3_setup  # noqa: PLC0415

    return s3_setup.open_store(url, settings.storage)


def _prepare_s3_store(url: str, settings: Settings) -> list[str]:
    from wado.adapters.instance_store import s3_setup  # noqa: PLC0415

    return s3_setup.prepare(url, settings.storage)


def _prepare_file_store(url: str, settings: Settings) -> list[str]:
    existed = _path(url).is_dir()
    _file_store(url, settings)
    return [f"{_path(url)} {'is there' if existed else 'was made'}"]


def _sqlite_log(url: str, settings: Settings) -> MessageLog:
    from wado.adapters.message_log.sqlite import SqliteMessageLog  # noqa: PLC0415

    return SqliteMessageLog(
        _path(url),
        partitions=settings.log.partitions or 1,
        durable=settings.storage.durability == "fsync",
    )


def _kafka_log(url: str, settings: Settings) -> MessageLog:
    from wado.adapters.message_log.kafka import KafkaMessageLog  # noqa: PLC0415
    from wado.adapters.message_log.kafka_cluster import Cluster  # noqa: PLC0415

    return KafkaMessageLog(Cluster.of(url, settings.log))


def _prepare_kafka_log(url: str, settings: Settings) -> list[str]:
    from wado.adapters.message_log.kafka_cluster import Cluster  # noqa: PLC0415
    from wado.adapters.message_log.kafka_topics import prepare  # noqa: PLC0415

    return prepare(Cluster.of(url, settings.log), settings.log)


def _sqlite_index(url: str, settings: Settings) -> Index:
    from wado.adapters.index.sqlite import SqliteIndex  # noqa: PLC0415

    return SqliteIndex(_path(url), durable=settings.storage.durability == "fsync")


def _postgresql_index(url: str, settings: Settings) -> Index:
    from wado.adapters.index.postgresql import PostgresqlIndex  # noqa: PLC0415

    index = settings.index
    return PostgresqlIndex(
        with_password(url, password_of(url, index.password_file, "index.password_file")),
        durable=settings.storage.durability == "fsync",
        timeout_s=index.timeout_s,
        connections=index.max_connections,
    )


def _prepare_postgresql_index(url: str, settings: Settings) -> list[str]:
    from wado.adapters.index.postgresql_schema import prepare  # noqa: PLC0415

    index = settings.index
    owner, file = index.owner_url, index.owner_password_file
    if owner:
        owner = with_password(owner, password_of(owner, file, "index.owner_password_file"))
    else:
        owner = with_password(url, password_of(url, index.password_file, "index.password_file"))
    return prepare(url, owner, timeout_s=index.timeout_s)


def _duckdb_warehouse(url: str, _settings: Settings) -> Warehouse:
    from wado.adapters.warehouse.duckdb import DuckdbWarehouse  # noqa: PLC0415

    return DuckdbWarehouse(_path(url))


def _doris_warehouse(url: str, settings: Settings) -> Warehouse:
    from wado.adapters.warehouse.doris import DorisAddress, DorisWarehouse  # noqa: PLC0415

    warehouse = settings.warehouse
    return DorisWarehouse(
        DorisAddress(url, warehouse.http_url),
        password_of(url, warehouse.password_file, "warehouse.password_file") or "",
        label_prefix=warehouse.label_prefix,
        connect_timeout_s=warehouse.connect_timeout_s,
        query_timeout_s=warehouse.query_timeout_s,
        load_timeout_s=warehouse.load_timeout_s,
        connections=warehouse.connections,
    )


def _prepare_doris_warehouse(url: str, settings: Settings) -> list[str]:
    from wado.adapters.warehouse.doris import DorisAddress  # noqa: PLC0415
    from wado.adapters.warehouse.doris_init import prepare  # noqa: PLC0415

    warehouse = settings.warehouse
    return prepare(
        DorisAddress(url, warehouse.http_url),
        password_of(url, warehouse.password_file, "warehouse.password_file") or "",
        connect_timeout_s=warehouse.connect_timeout_s,
        replicas=warehouse.replicas,
        buckets=warehouse.buckets,
        image_buckets=warehouse.image_buckets,
    )


def _memory_cache(_url: str, settings: Settings) -> Cache:
    from wado.adapters.cache.memory import MemoryCache  # noqa: PLC0415

    return MemoryCache(max_bytes=settings.cache.max_bytes)


def _redis_cache(url: str, settings: Settings) -> Cache:
    from wado.adapters.cache.redis import RedisCache  # noqa: PLC0415

    cache = settings.cache
    return RedisCache(
        url,
        password=password_of(url, cache.password_file, "cache.password_file"),
        prefix=cache.prefix,
        timeout_s=cache.timeout_s,
        max_connections=cache.max_connections,
        ca_file=str(cache.ca_file) if cache.ca_file else None,
    )


def _prepare_redis_cache(url: str, settings: Settings) -> list[str]:
    with closing(_redis_cache(url, settings)) as cache:
        cache.check()
    return ["answers; nothing is to be made"]


_OPENERS: dict[tuple[str, str], Callable[[str, Settings], Any]] = {
    ("store", "file"): _file_store,
    ("store", "s3"): _s3_store,
    ("log", "sqlite"): _sqlite_log,
    ("log", "kafka"): _kafka_log,
    ("index", "sqlite"): _sqlite_index,
    ("index", "postgresql"): _postgresql_index,
    ("warehouse", "duckdb"): _duckdb_warehouse,
    ("warehouse", "doris"): _doris_warehouse,
    ("cache", "memory"): _memory_cache,
    ("cache", "redis"): _redis_cache,
    ("cache", "rediss"): _redis_cache,
    ("cache", "unix"): _redis_cache,
}

_PREPARERS: dict[tuple[str, str], Callable[[str, Settings], list[str]]] = {
    ("log", "kafka"): _prepare_kafka_log,
    ("store", "file"): _prepare_file_store,
    ("store", "s3"): _prepare_s3_store,
    ("index", "postgresql"): _prepare_postgresql_index,
    ("cache", "redis"): _prepare_redis_cache,
    ("cache", "rediss"): _prepare_redis_cache,
    ("cache", "unix"): _prepare_redis_cache,
    ("warehouse", "doris"): _prepare_doris_warehouse,
}
"""Make what a service needs before its first use; each may run again at any time.

They give lines that say what was done, and raise Unavailable when the service does not answer.
"""
