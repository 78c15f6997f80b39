"""Open the archive that the settings describe: the only place that chooses adapters."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, cast
from urllib.parse import urlsplit

from wado.dicom.uids import validate_tenant_id
from wado.errors import InvalidRequest
from wado.ports import Archive, Cache, Index, InstanceStore, MessageLog, Warehouse
from wado.settings import Settings

EMBEDDED_SCHEMES = frozenset({"sqlite", "duckdb", "memory"})


def default_urls(settings: Settings) -> dict[str, str]:
    """URL of each port, with the embedded defaults below the storage root filled in."""
    root = settings.storage.root.absolute()
    return {
        "log": settings.log.url or f"sqlite:///{root}/log",
        "index": settings.index.url or f"sqlite:///{root}/index/index.sqlite",
        "warehouse": settings.warehouse.url or f"duckdb:///{root}/warehouse/warehouse.duckdb",
        "cache": settings.cache.url or "memory://",
    }


def check_profile(settings: Settings) -> None:
    """Refuse adapters that live on one machine in the distributed profile.

    Raises
    ------
    InvalidRequest
        Names the settings that are missing.
    """
    if settings.profile != "distributed":
        return
    missing = [
        f"  [{port}]\n  url = …"
        for port, url in default_urls(settings).items()
        if urlsplit(url).scheme in EMBEDDED_SCHEMES
    ]
    if missing:
        raise InvalidRequest(
            'profile = "distributed" needs services that several machines reach. '
            "Missing in wado.toml:\n" + "\n".join(missing)
        )


class _Lazy:
    """Opens a port at its first use: a receiver need not load what it never asks."""

    def __init__(self, open_port: Callable[[], Any], stack: ExitStack) -> None:
        self._open_port = open_port
        self._stack = stack
        self._lock = Lock()

    def __getattr__(self, name: str) -> Any:
        with self._lock:
            port = self.__dict__.get("_port")
            if port is None:
                port = self._open_port()
                self.__dict__["_port"] = port
                self._stack.callback(port.close)
        value = getattr(port, name)
        self.__dict__[name] = value
        return value


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
        A URL names no adapter, the profile refuses one, or a tenant can't be one.
    OutOfResources, Unavailable
        The storage root can't be written.
    """
    check_profile(settings)
    check_tenants(settings)
    urls = default_urls(settings)
    openers = {port: _opener(port, url, settings) for port, url in urls.items()}
    with ExitStack() as stack:
        yield Archive(
            log=cast("MessageLog", _Lazy(openers["log"], stack)),
            index=cast("Index", _Lazy(openers["index"], stack)),
            warehouse=cast("Warehouse", _Lazy(openers["warehouse"], stack)),
            store=_open_store(settings),
            cache=cast("Cache", _Lazy(openers["cache"], stack)),
            replace_duplicates=settings.storage.duplicates == "replace",
            refuse_unknown_sop_classes=not settings.storage.unknown_sop_classes,
            commitments_keep_s=settings.storage.commitments_keep_s,
        )


def _open_store(settings: Settings) -> InstanceStore:
    from wado.adapters.instance_store.filesystem import (  # noqa: PLC0415 - see _opener
        FilesystemInstanceStore,
    )

    return FilesystemInstanceStore(
        settings.storage.root, durable=settings.storage.durability == "fsync"
    )


def _opener(port: str, url: str, settings: Settings) -> Callable[[], Any]:
    """Choose an adapter; its module is imported when the port is opened."""
    scheme = urlsplit(url).scheme
    opener = _OPENERS.get((port, scheme))
    if opener is None:
        known = sorted(s for p, s in _OPENERS if p == port)
        raise InvalidRequest(f"{port}.url = {url!r}: known schemes are {', '.join(known)}")
    return lambda: opener(url, settings)


def _path(url: str) -> Path:
    return Path("/" + urlsplit(url).path.lstrip("/"))


def _sqlite_log(url: str, settings: Settings) -> MessageLog:
    from wado.adapters.message_log.sqlite import SqliteMessageLog  # noqa: PLC0415

    return SqliteMessageLog(
        _path(url),
        partitions=settings.log.partitions,
        durable=settings.storage.durability == "fsync",
    )


def _sqlite_index(url: str, settings: Settings) -> Index:
    from wado.adapters.index.sqlite import SqliteIndex  # noqa: PLC0415

    return SqliteIndex(_path(url), durable=settings.storage.durability == "fsync")


def _duckdb_warehouse(url: str, _settings: Settings) -> Warehouse:
    from wado.adapters.warehouse.duckdb import DuckdbWarehouse  # noqa: PLC0415

    return DuckdbWarehouse(_path(url))


def _memory_cache(_url: str, settings: Settings) -> Cache:
    from wado.adapters.cache.memory import MemoryCache  # noqa: PLC0415

    return MemoryCache(max_bytes=settings.cache.max_bytes)


_OPENERS: dict[tuple[str, str], Callable[[str, Settings], Any]] = {
    ("log", "sqlite"): _sqlite_log,
    ("index", "sqlite"): _sqlite_index,
    ("warehouse", "duckdb"): _duckdb_warehouse,
    ("cache", "memory"): _memory_cache,
}
