"""Prepared answers: who asks the same again is answered without parsing, routing or negotiation.

An answer that names its `Basis` is kept, and given again only while that holds: it ends with the
next append, replacement or deletion in its series. Its key holds everything of a GET request that
handlers are shown, the tenant's header among it, so that an answer can't reach a request that
would not have been given the same.
"""

import os
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from wado.archive.journal import Journals
from wado.archive.pieces import FileSlice
from wado.services.server.access_log import Target
from wado.services.server.calls import Answer
from wado.services.server.exchange import Scope

_MAX_BYTES = 12 << 20
_LARGE_BYTES = 64 << 10
LARGEST_KEPT_BYTES = _MAX_BYTES // 4
"""No answer takes more of the memory: one would drive out all others."""
_FIXED_BYTES = 2500
"""An answer without its body: key, headers, pieces; measured."""
_KEPT_STATUSES = frozenset({200, 206})

_SHOWN: Final = (
    "accept",
    "accept-encoding",
    "host",
    "range",
    "if-range",
    "if-none-match",
    "forwarded",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-sendfile-type",
    "accept-charset",
    "origin",
)


class Key(NamedTuple):
    """All of a GET request that decides its answer; `headers` are in the order of `names`."""

    path: str
    query: str
    scheme: str
    server: str
    headers: tuple[str | None, ...]


class MemoryFile:
    """Bytes in memory under a file descriptor: sent by sendfile, they are copied once less."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self.fd = os.memfd_create("answer")
        with open(self.fd, "wb", closefd=False) as file:
            file.write(data)

    def __del__(self) -> None:
        with suppress(AttributeError):  # it could not be made
            os.close(self.fd)


@dataclass(frozen=True)
class Prepared:
    """An answer to give again, while its basis holds.

    Its body is kept as `body`, or if it is large in `memory`; else it is read each time.
    """

    answer: Answer
    target: Target
    body: bytes | None = None
    memory: MemoryFile | None = None

    @cached_property
    def length(self) -> int:
        """Length of the body in bytes."""
        return self.memory.length if self.memory else self.answer.body_length or 0

    @cached_property
    def only_file(self) -> FileSlice | None:
        """The file of an answer that is one range of a file, with bytes around it at most."""
        files = [piece for piece in self.answer.pieces if not isinstance(piece, bytes)]
        return files[0] if len(files) == 1 and isinstance(files[0], FileSlice) else None


class PreparedAnswers:
    """Keeps answers, those used last, in bounded memory; used on the event loop alone."""

    def __init__(
        self, journals: Journals, tenant_header: str, *, max_bytes: int = _MAX_BYTES
    ) -> None:
        self._journals = journals
        self._names = (tenant_header, *_SHOWN)
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[Key, Prepared] = OrderedDict()
        self._sizes: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def key(self, scope: Scope) -> Key:
        """Make the key of a request."""
        get = scope.headers.get
        return Key(
            scope.path,
            scope.query_string,
            scope.scheme,
            scope.server,
            tuple([get(name) for name in self._names]),  # a list first: twice as fast
        )

    def shown(self, key: Key) -> dict[str, str]:
        """Give the headers that a handler may see: those of the key."""
        pairs = zip(self._names, key.headers, strict=True)
        return {name: value for name, value in pairs if value is not None}

    def get(self, key: Key) -> Prepared | None:
        """Find the answer to a request, if it still holds."""
        found = self._kept.get(key)
        if found is None:
            return None
        if not self._holds(found):
            self.forget(key)
            return None
        self._kept.move_to_end(key)
        return found

    def keep(self, key: Key, answer: Answer, target: Target, body: bytes | None) -> None:
        """Keep an answer that may be given again, unless its series changed meanwhile.

        Without a `body` its pieces are read each time.
        """
        if answer.status not in _KEPT_STATUSES or answer.basis is None:
            return
        size = _size(key, body)
        prepared = Prepared(answer, target, body)
        if size > min(LARGEST_KEPT_BYTES, self._max_bytes // 4) or not self._holds(prepared):
            return
        self.forget(key)
        if body is not None and len(body) > _LARGE_BYTES:
            # Too many files may be open, and only Linux has such files: then as it is.
            with suppress(OSError, AttributeError):
                prepared = Prepared(answer, target, memory=MemoryFile(body))
        self._kept[key] = prepared
        self._sizes[key] = size
        self._bytes += size
        while self._bytes > self._max_bytes:
            self.forget(next(iter(self._kept)))

    def _holds(self, prepared: Prepared) -> bool:
        basis = prepared.answer.basis
        return basis is not None and basis.look(self._journals, basis.view.ref) is basis.view

    def forget(self, key: Key) -> None:
        """Drop an answer."""
        if self._kept.pop(key, None) is not None:
            self._bytes -= self._sizes.pop(key)


def _size(key: Key, body: bytes | None) -> int:
    named = sum(len(value) for value in (key.path, key.query, *key.headers) if value)
    return _FIXED_BYTES + named + (len(body) if body is not None else 0)
