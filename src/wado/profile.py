"""What a profile asks of the settings: all that is wrong or missing is said at the start."""

import os
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pydantic import BaseModel

from wado.errors import InvalidRequest
from wado.settings import Settings
from wado.urls import shown

SECTIONS = {
    "store": "storage",
    "log": "log",
    "index": "index",
    "warehouse": "warehouse",
    "cache": "cache",
}
"""Section of the settings that names the URL of a port."""
_EMBEDDED = frozenset({"sqlite", "duckdb", "memory"})
_EXAMPLES = {
    "log": ('url = "kafka://kafka-1:9092,kafka-2:9092,kafka-3:9092"',),
    "index": ('url = "postgresql://wado@postgresql:5432/wado"',),
    "warehouse": ('url = "doris://wado@doris-fe:9030/wado"',),
    "cache": ('url = "redis://redis:6379/0"',),
    "store": (
        'root = "/srv/wado"  # a folder that all machines share; for objects instead, also:',
        '# url = "s3://BUCKET/PREFIX"',
    ),
}
_FAULTS = {
    "extra_forbidden": "there is no such setting",
    "missing": "it must be given",
    "tuple_type": "it should be a list",
}
"""What pydantic says in its own words, by kind."""
_MAY_BE_SECRET = re.compile("key|password|secret")
_PACKAGES = {
    "kafka": "confluent_kafka",
    "postgresql": "psycopg",
    "doris": "pymysql",
    "redis": "redis",
    "rediss": "redis",
    "unix": "redis",
    "s3": "obstore",
}
"""Module of a scheme that is not there without ``wado[distributed]``."""


def default_urls(settings: Settings) -> dict[str, str]:
    """URL of each port, with the embedded defaults below the storage root filled in."""
    root = quote(str(settings.storage.root.absolute()))
    return {
        "store": settings.storage.url or f"file://{root}",
        "log": settings.log.url or f"sqlite:///{root}/log",
        "index": settings.index.url or f"sqlite:///{root}/index/index.sqlite",
        "warehouse": settings.warehouse.url or f"duckdb:///{root}/warehouse/warehouse.duckdb",
        "cache": settings.cache.url or "memory://",
    }


def check_profile(settings: Settings) -> None:
    """Refuse settings that can't work.

    In the distributed profile: adapters that live on one machine. In both: packages and files that
    are not there, and passwords that are given twice.

    Raises
    ------
    InvalidRequest
        Names all that is wrong, with the lines to add.
    """
    problems = [*_missing_services(settings), *_missing_packages(settings), *_files(settings)]
    if problems:
        raise InvalidRequest("\n".join(problems))


def warnings(settings: Settings) -> list[str]:
    """Say what works, and is probably not meant so."""
    if settings.profile != "distributed":
        return []
    found = []
    if settings.log.replication_factor < 2:
        found.append("log.replication_factor = 1: what one broker loses was acknowledged")
    if settings.log.partitions == 1:
        found.append("log.partitions = 1: only one consumer works at a time")
    if settings.storage.durability != "fsync":
        found.append('storage.durability = "os": a power cut can lose what was acknowledged')
    return found


def _missing_services(settings: Settings) -> Iterator[str]:
    if settings.profile != "distributed":
        return
    missing = [
        port for port, url in default_urls(settings).items() if urlsplit(url).scheme in _EMBEDDED
    ]
    if not settings.storage.url and "root" not in settings.storage.model_fields_set:
        missing.append("store")
    if missing:
        lines = [f"\n[{SECTIONS[port]}]\n" + "\n".join(_EXAMPLES[port]) for port in missing]
        yield (
            'profile = "distributed" needs services that all machines reach. '
            "Missing in wado.toml (or as WADO_SECTION__SETTING in the environment), for example:\n"
            + "\n".join(lines)
            + "\n\nThen run `wado init` once: it makes topics, tables and buckets."
        )


def _missing_packages(settings: Settings) -> Iterator[str]:
    for port, url in default_urls(settings).items():
        package = _PACKAGES.get(urlsplit(url).scheme)
        if package is not None and find_spec(package) is None:
            yield (
                f"{SECTIONS[port]}.url = {shown(url)!r} needs the Python package {package}: "
                "pip install 'wado[distributed]'"
            )


def _files(settings: Settings) -> Iterator[str]:
    """Files that settings name (``…_file``), and passwords that are given in a URL, too."""
    for section, values in settings:
        if not isinstance(values, BaseModel):
            continue
        for name, value in values:
            is_file = name.endswith("_file") and isinstance(value, Path)
            if is_file and (reason := _unreadable(value)):
                yield f"{section}.{name} = '{value}' can't be read: {reason}"
        if getattr(values, "password_file", None) and _has_password(getattr(values, "url", "")):
            yield f"{section}.url and {section}.password_file both give a password: remove one"


def _unreadable(path: Path) -> str:
    if not path.exists():
        return "there is no such file"
    if not path.is_file():
        return "it is no file"
    return "" if os.access(path, os.R_OK) else "permission denied"


def _has_password(url: str) -> bool:
    try:
        return urlsplit(url).password is not None
    except ValueError:
        return False


def setting_fault(fault: Mapping[str, Any]) -> str:
    """Say in a line what is wrong with a setting.

    Parameters
    ----------
    fault
        One of `pydantic.ValidationError.errors`. What was given is not shown if it may be a secret.
    """
    where, given = "", fault["input"]
    for part in fault["loc"]:
        where += f", number {part + 1}" if isinstance(part, int) else f".{part}"
    message = _FAULTS.get(fault["type"], fault["msg"])
    if _MAY_BE_SECRET.search(where) or isinstance(given, Mapping):
        return f"setting {where[1:]}: {message}"
    given = shown(given) if isinstance(given, str) else given
    return f"setting {where[1:]}: {message} (given: {given!r})"
