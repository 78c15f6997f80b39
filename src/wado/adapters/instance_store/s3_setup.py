"""S3 as the settings name it, and whether it can do what we need of it."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from wado.adapters.instance_store.s3 import S3InstanceStore
from wado.adapters.instance_store.s3_bucket import Bucket, Place, Taken
from wado.errors import InvalidRequest, Unavailable, WadoError
from wado.settings import StorageSettings

T = TypeVar("T")


def place_of(url: str, storage: StorageSettings) -> Place:
    """Read where the bucket is, with the secrets that are in files.

    Raises
    ------
    InvalidRequest
        The URL names no bucket, or a file can't be read.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.hostname or parts.username or parts.query or parts.port:
        raise InvalidRequest("storage.url is written s3://bucket or s3://bucket/prefix")
    key_id = _content(storage.s3_access_key_id_file, "s3_access_key_id_file")
    secret = _content(storage.s3_secret_access_key_file, "s3_secret_access_key_file")
    if bool(key_id) != bool(secret):
        raise InvalidRequest(
            "storage.s3_access_key_id_file and storage.s3_secret_access_key_file go together"
        )
    return Place(
        bucket=parts.netloc,
        prefix=parts.path.strip("/"),
        endpoint=storage.s3_endpoint.rstrip("/"),
        region=storage.s3_region,
        path_style=storage.s3_path_style,
        allow_http=storage.s3_allow_http,
        access_key_id=key_id,
        secret_access_key=secret,
        ca_certificates=_content(storage.s3_ca_file, "s3_ca_file"),
        conditional_copy=storage.s3_conditional_copy,
        timeout_s=storage.s3_timeout_s,
    )


def _content(path: Path | None, setting: str) -> str:
    if path is None:
        return ""
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        raise InvalidRequest(f"storage.{setting} = '{path}' can't be read: {reason}") from e
    if not text:
        raise InvalidRequest(f"storage.{setting} = '{path}' is empty")
    return text


def open_store(url: str, storage: StorageSettings) -> S3InstanceStore:
    """Open the store; S3 is asked at its first use."""
    return S3InstanceStore(Bucket(place_of(url, storage)), storage.root)


def prepare(url: str, storage: StorageSettings) -> list[str]:
    """Try all that the store asks of S3, on objects that are removed again; what was seen.

    The bucket is not made: who owns it decides where it is and who may read it.

    Raises
    ------
    Unavailable
        Says what S3 does not allow, or does not do as it must.
    """
    place = place_of(url, storage)
    bucket = Bucket(place)
    unique = os.urandom(6).hex()
    path, other = (f"incoming/wado-init-{unique}-{n}" for n in (1, 2))
    try:
        _try(bucket, path, other)
    except Taken as e:
        raise Unavailable(f"{place.shown}: an object of ours changed while it was tried") from e
    finally:
        with suppress(WadoError):  # what is told is what went wrong first
            bucket.delete([path, other])
    _step(place, "remove objects (s3:DeleteObject)", lambda: bucket.delete([path, other]))
    return [f"{place.shown} answers, may be written, and keeps conditions"]


def _try(bucket: Bucket, path: str, other: str) -> None:
    place = bucket.place
    one = _step(place, "write (s3:PutObject)", lambda: bucket.put(path, b"one", over=None))
    data, _ = _step(place, "read (s3:GetObject)", lambda: bucket.get(path, 0, 3))
    _must(place, bytes(data) == b"one", "what was written is not what is read")
    _must(place, _refuses(lambda: bucket.put(path, b"two", over=None)), "If-None-Match on PUT")
    two = _step(place, "replace by ETag", lambda: bucket.put(path, b"two", over=one))
    _must(place, _refuses(lambda: bucket.put(path, b"three", over=one)), "If-Match on PUT")
    _must(place, bool(two) and two != one, "an ETag that changes with the content")
    listing = _step(
        place, "list (s3:ListBucket)", lambda: [o.path for o in bucket.walk("incoming")]
    )
    _must(place, path in listing, "what was written is not listed at once")
    copied = _step(place, "copy within the bucket", lambda: bucket.copy(path, other))
    again = _step(place, "copy within the bucket", lambda: bucket.copy(path, other))
    _must(place, copied and not again, "a copy that replaces nothing (s3_conditional_copy)")


def _step(place: Place, doing: str, act: Callable[[], T]) -> T:
    try:
        return act()
    except WadoError as e:
        raise Unavailable(f"{place.shown}: can't {doing}: {e}") from e


def _refuses(act: Callable[[], object]) -> bool:
    try:
        act()
    except Taken:
        return True
    return False


def _must(place: Place, is_so: bool, what: str) -> None:  # noqa: FBT001 - a statement
    if not is_so:
        raise Unavailable(f"{place.shown} can't be used, it lacks: {what}")
