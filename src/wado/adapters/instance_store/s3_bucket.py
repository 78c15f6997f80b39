"""The few things that are asked of S3, and what its answers mean in our errors."""

import base64
import hashlib
import http.client
import os
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

import obstore
from obstore import exceptions as s3
from obstore.store import S3Store

from wado import vitals
from wado.errors import NotFound, OutOfResources, Unavailable, WadoError

MAX_PUT_BYTES = 5 << 30
"""Longest object that S3 takes in one request; only such a request is whole or absent."""
_BLOCK_BYTES = 1 << 20
_SIGNED_FOR = timedelta(hours=1)
_CONNECT_S = 3.0
_TRIES = 3
_PAUSE_S = 0.2
_LIST_KEYS = 1000
_FULL = ("507 ", "QuotaExceeded", "StorageFull")


class NoAnswer(Unavailable):
    """S3 is not reached, or does not answer in time: others that ask it now would wait as long."""


class Taken(Exception):
    """There is an object by that name, or it is not the one that the caller knows."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bucket is, and how it is spoken to; empty values are taken from the environment.

    `prefix` stands before each key; `ca_certificates` (PEM) are believed beside the system's.
    """

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    path_style: bool = True
    allow_http: bool = False
    access_key_id: str = ""
    secret_access_key: str = ""
    ca_certificates: str = ""
    conditional_copy: str = "multipart"
    timeout_s: float = 10.0

    @property
    def shown(self) -> str:
        """The place in messages."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True, slots=True)
class Object:
    """An object as S3 knows it: what changes with its content, its size, and its time."""

    etag: str
    size: int
    modified_s: float
    path: str = ""


class Bucket:
    """The objects below a prefix of a bucket; used from any thread of one process."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._store: S3Store | None = None
        self._pid = 0

    @property
    def place(self) -> Place:
        """Where it is."""
        return self._place

    @property
    def _s3(self) -> S3Store:
        """The client, made at its first use: its threads do not survive a fork."""
        if self._store is None:
            self._store, self._pid = _client(self._place), os.getpid()
        if self._pid != os.getpid():
            raise Unavailable("S3 was in use when this process was forked")
        return self._store

    # -------------------------------------------------------------- reading

    def get(
        self, path: str, start: int, end: int, *, etag: str | None = None
    ) -> tuple[memoryview, Object]:
        """Read from `start` to before `end`, or less where the object ends before that.

        Raises
        ------
        NotFound
            It is absent, or (where `etag` is given) another one.
        Unavailable
            S3 does not answer, or refuses.
        """
        options: dict[str, Any] = {"range": (start, end)}
        if etag is not None:
            options["if_match"] = etag
        try:
            return self._get(path, options)
        except s3.PreconditionError as e:
            raise NotFound(f"{path} was replaced meanwhile") from e
        except s3.BaseError as e:
            if "InvalidRange" not in str(e) and " 416 " not in str(e):
                raise failure(e, f"reading {path}") from e
        found = self.head(path)
        if found is None:
            raise NotFound(f"{path}: no such file")
        return memoryview(b""), found

    def get_changed(self, path: str, etag: str | None) -> tuple[bytes, str] | None:
        """Read a small object whole, with its ETag; None if it has `etag` still."""
        try:
            data, found = self._get(path, {"if_none_match": etag} if etag else {})
        except s3.NotModifiedError:
            return None
        except s3.BaseError as e:
            raise failure(e, f"reading {path}") from e
        return bytes(data), found.etag

    def _get(self, path: str, options: Mapping[str, Any]) -> tuple[memoryview, Object]:
        """GET; tried once more when the answer breaks off."""
        for is_last in (False, True):
            with _access(path):
                answer = obstore.get(self._s3, path, options=options)  # type: ignore[arg-type]
            try:
                data = memoryview(answer.bytes())
            except s3.BaseError as e:
                if is_last:
                    raise failure(e, f"reading {path}") from e
                continue
            return data, _object(answer.meta)
        raise AssertionError("unreachable")

    def stat(self, path: str) -> Object | None:
        """Look an object up; None if it is absent (and the bucket is not)."""
        try:
            return self.get(path, 0, 1)[1]
        except NotFound:
            return None

    def head(self, path: str) -> Object | None:
        """Look up an object that may be empty; None if it is absent."""
        try:
            with _translated(f"looking at {path}"), _access(path):
                return _object(obstore.head(self._s3, path))
        except NotFound:
            return None

    def walk(self, prefix: str) -> Iterator[Object]:
        """Objects below a prefix (whole folders), in the order of their keys."""
        with _translated(f"listing {prefix}"), _access(prefix):
            for page in obstore.list(self._s3, prefix or None, chunk_size=_LIST_KEYS):
                yield from map(_object, page)

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders in a folder, sorted."""
        with _translated(f"listing {prefix}"), _access(prefix):
            found = obstore.list_with_delimiter(self._s3, prefix or None)["common_prefixes"]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    # -------------------------------------------------------------- writing

    def put(self, path: str, data: bytes, *, over: str | None = "*") -> str:
        """Write an object of a few megabytes; its ETag.

        With `over` as ``*`` whatever is there is replaced; with an ETag, only the object that has
        it; with None, only nothing.

        Raises
        ------
        Taken
            Something else is there.
        Unavailable
            S3 refuses, or (it may be written then) does not answer.
        """
        mode: Any = {"*": "overwrite", None: "create"}.get(over, {"e_tag": over})
        try:
            with _access(path):
                answer = obstore.put(self._s3, path, data, mode=mode, use_multipart=False)
        except (s3.AlreadyExistsError, s3.PreconditionError, NotFound) as e:
            raise Taken(path) from e
        except s3.BaseError as e:
            raise failure(e, f"writing {path}") from e
        return answer["e_tag"] or ""

    def put_file(self, path: str, fd: int, size: int, *, over: Literal["*"] | None = "*") -> None:
        """Write a long object from a local file, by one request whose body is never in memory.

        Raises as `put`.
        """
        headers = {"Content-Length": str(size), "Content-MD5": _md5(fd, size)}
        if over is None:
            headers["If-None-Match"] = "*"
        self._signed("PUT", path, headers, (fd, size))

    def copy(self, path: str, target: str) -> bool:
        """Copy within S3; False if something is at the target. NotFound if there is no source."""
        try:
            with _access(path):
                obstore.copy(self._s3, path, target, overwrite=False)
        except (s3.AlreadyExistsError, s3.PreconditionError):
            return False
        except s3.BaseError as e:
            raise failure(e, f"copying {path}") from e
        return True

    def delete(self, paths: Sequence[str]) -> None:
        """Remove objects; those absent are passed over."""
        for start in range(0, len(paths), _LIST_KEYS):
            with _translated("deleting"), _access("deleting"):
                obstore.delete(self._s3, paths[start : start + _LIST_KEYS])

    def delete_if(self, path: str, etag: str) -> bool:
        """Remove the object that has an ETag; False if another one is there.

        S3 that does not know the condition (it is younger than that of PUT) is asked before.
        """
        found = self.stat(path)
        if found is None:
            return True
        if found.etag != etag:
            return False
        try:
            self._signed("DELETE", path, {"If-Match": etag})
        except Taken:
            return False
        except NotFound:
            return True
        return True

    def _signed(
        self,
        method: Any,
        path: str,
        headers: Mapping[str, str],
        body: tuple[int, int] | None = None,
    ) -> None:
        """Make a request whose address is signed: what obstore can't do with it."""
        error: WadoError = NoAnswer(path)
        for number in range(_TRIES):
            time.sleep(_PAUSE_S * number)
            with _translated(f"signing for {path}"), _access(path):
                url = obstore.sign(self._s3, method, path, _SIGNED_FOR)
            try:
                status, text = self._request(method, url, headers, body)
            except (OSError, http.client.HTTPException) as e:
                error = NoAnswer(f"{method} {path}: {e}")
                continue
            if status < http.HTTPStatus.MULTIPLE_CHOICES:
                return
            if status == http.HTTPStatus.PRECONDITION_FAILED:
                raise Taken(path)
            error = _refusal(status, text, f"{method} {path}")
            if status < http.HTTPStatus.INTERNAL_SERVER_ERROR and status not in _AGAIN:
                break
        raise error

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: tuple[int, int] | None
    ) -> tuple[int, str]:
        parts = urlsplit(url)
        assert parts.hostname
        if parts.scheme == "https":
            context = ssl.create_default_context()
            if self._place.ca_certificates:
                context.load_verify_locations(cadata=self._place.ca_certificates)
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname,
                parts.port,
                timeout=self._place.timeout_s,
                blocksize=_BLOCK_BYTES,
                context=context,
            )
        else:
            connection = http.client.HTTPConnection(
                parts.hostname, parts.port, timeout=self._place.timeout_s, blocksize=_BLOCK_BYTES
            )
        with closing(connection):
            data = _blocks(*body) if body else None
            connection.request(method, f"{parts.path}?{parts.query}", data, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read(_BLOCK_BYTES).decode(errors="replace")


_AGAIN = frozenset({http.HTTPStatus.CONFLICT, http.HTTPStatus.TOO_MANY_REQUESTS})


def _client(place: Place) -> S3Store:
    given = {
        "endpoint": place.endpoint,
        "region": place.region,
        "access_key_id": place.access_key_id,
        "secret_access_key": place.secret_access_key,
    }
    config: dict[str, Any] = {name: value for name, value in given.items() if value}
    config["virtual_hosted_style_request"] = not place.path_style
    config["copy_if_not_exists"] = place.conditional_copy
    options: dict[str, Any] = {
        "allow_http": place.allow_http,
        "connect_timeout": timedelta(seconds=min(_CONNECT_S, place.timeout_s)),
        "timeout": timedelta(seconds=place.timeout_s),
    }
    if place.ca_certificates:
        options["root_certificate"] = place.ca_certificates
    retry: dict[str, Any] = {
        "max_retries": _TRIES,
        "retry_timeout": timedelta(seconds=place.timeout_s / 2),
        "backoff": {"max_backoff": timedelta(seconds=1)},
    }
    with _translated(f"opening {place.shown}"):
        return S3Store(
            place.bucket,
            prefix=place.prefix or None,
            config=config,  # type: ignore[arg-type]
            client_options=options,  # type: ignore[arg-type]
            retry_config=retry,  # type: ignore[arg-type]
        )


def _object(meta: Any) -> Object:
    return Object(
        meta["e_tag"] or "", meta["size"], meta["last_modified"].timestamp(), meta["path"]
    )


@contextmanager
def _access(path: str) -> Iterator[None]:
    """Raise what S3 says of a key or of our rights as ours."""
    try:
        yield
    except FileNotFoundError as e:
        if "NoSuchBucket" in str(e):
            raise Unavailable(f"S3 has no such bucket: {_line(e)}") from e
        raise NotFound(f"{path}: no such file") from e
    except (s3.PermissionDeniedError, s3.UnauthenticatedError, PermissionError) as e:
        raise Unavailable(f"S3 refuses access: {_line(e)}") from e


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except s3.BaseError as e:
        raise failure(e, doing) from e


def failure(e: Exception, doing: str) -> WadoError:
    """Translate an error of S3 at the border."""
    text = f"{doing}: {_line(e)}"
    if any(word in str(e) for word in _FULL):
        return OutOfResources(text)
    return Unavailable(text) if "Server returned" in str(e) else NoAnswer(text)


def _refusal(status: int, text: str, doing: str) -> WadoError:
    code = text.partition("<Code>")[2].partition("</Code>")[0]
    message = f"{doing}: S3 answers {status} {code}"
    if status == http.HTTPStatus.NOT_FOUND and code != "NoSuchBucket":
        return NotFound(message)
    if any(word in f"{status} {code}" for word in _FULL):
        return OutOfResources(message)
    return Unavailable(message)


def _line(e: Exception) -> str:
    """The part of an error that tells something: the rest is how the client is made."""
    return " ".join(str(e).partition("Debug source")[0].split())[:300]


def _blocks(fd: int, size: int) -> Iterator[bytes]:
    for start in range(0, size, _BLOCK_BYTES):
        vitals.goes_on("commit files")
        yield os.pread(fd, min(_BLOCK_BYTES, size - start), start)


def _md5(fd: int, size: int) -> str:
    """What S3 compares the body with that it got."""
    digest = hashlib.md5(usedforsecurity=False)
    for block in _blocks(fd, size):
        digest.update(block)
    return base64.b64encode(digest.digest()).decode()
