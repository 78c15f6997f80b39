"""Objects of S3 as files: read by ranges, so that neither time nor memory goes by their length."""

import io
from collections import OrderedDict
from threading import Lock
from typing import Any

from wado.adapters.instance_store.s3_bucket import Bucket
from wado.errors import NotFound

_FIRST_BYTES = 1 << 16
"""How much is read when nobody says what is wanted: the header of a DICOM file."""
_MAX_WINDOW_BYTES = 2 << 20
_MAX_REQUEST_BYTES = 8 << 20
"""Longest frame that is had by one request."""
_MAX_WINDOWS_BYTES = 24 << 20


class Windows:
    """What readers hold of what they read ahead, of all readers together; used from any thread."""

    def __init__(self, max_bytes: int = _MAX_WINDOWS_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._held: OrderedDict[Any, tuple[int, memoryview]] = OrderedDict()
        self._lock = Lock()

    def put(self, key: Any, start: int, data: memoryview) -> None:
        """Hold bytes in place of those held by the key; others used least recently are let go."""
        with self._lock:
            self._drop(key)
            if not data:
                return
            self._held[key] = (start, data)
            self._bytes += len(data)
            while self._bytes > self._max_bytes and len(self._held) > 1:
                self._drop(next(iter(self._held)))

    def get(self, key: Any) -> tuple[int, memoryview] | None:
        """Where the bytes held by the key start, and the bytes."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def drop(self, key: Any) -> None:
        """Let go of what is held by the key."""
        with self._lock:
            self._drop(key)

    def _drop(self, key: Any) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._bytes -= len(held[1])


class ObjectFile(io.RawIOBase):
    """An object, open for reading: always the one that was there when it was opened.

    Parameters
    ----------
    bucket, path
        What is read.
    windows
        Where what is read ahead is held.
    ahead
        Start and length of what will be read first; it is asked for at once.

    Raises
    ------
    NotFound
        It is absent; also when it is read, and was replaced since.
    """

    def __init__(
        self, bucket: Bucket, path: str, windows: Windows, ahead: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self._bucket = bucket
        self._path = path
        self._windows = windows
        self._key = object()  # not the file: what is held must not keep it from being closed
        self._at = 0
        self._next = -1
        """Where the window ends that was read last: who goes on there reads in order."""
        self._step = _FIRST_BYTES
        start, length = ahead or (0, _FIRST_BYTES)
        self._until = start + length
        if length > _MAX_REQUEST_BYTES:  # no frame: a long file, to be read step by step
            length = _MAX_WINDOW_BYTES
        data, found = bucket.get(path, start, start + max(1, length))
        self._etag, self.size = found.etag, found.size
        self._hold(start, data)

    def _hold(self, start: int, data: memoryview) -> None:
        self._windows.put(self._key, start, data)
        self._next = start + len(data)
        self._step = max(len(data), _FIRST_BYTES)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Offset of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the offset of the next byte."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Read so many bytes, fewer only where the object ends; all that is left without `size`."""
        left = max(0, self.size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        pieces: list[memoryview] = []
        while wanted:
            piece = self._piece(wanted)
            pieces.append(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer as much as is there with one request."""
        with memoryview(buffer).cast("B") as target:
            wanted = min(len(target), max(0, self.size - self._at))
            if not wanted:
                return 0
            piece = self._piece(wanted)
            target[: len(piece)] = piece
            return len(piece)

    def _piece(self, wanted: int) -> memoryview:
        """Take the next bytes, of what is held, or by a request."""
        held = self._windows.get(self._key)
        if held is None or not held[0] <= self._at < held[0] + len(held[1]):
            held = self._request(wanted)
        start, data = held
        offset = self._at - start
        piece = data[offset : offset + wanted]
        self._at += len(piece)
        if self._at == start + len(data):
            self._windows.drop(self._key)  # who reads on, needs none of it
        return piece

    def _request(self, wanted: int) -> tuple[int, memoryview]:
        start = self._at
        ahead = _FIRST_BYTES
        if start == self._next:
            ahead = min(2 * self._step, _MAX_WINDOW_BYTES)
        if start < self._until:
            ahead = min(self._until - start, _MAX_WINDOW_BYTES)
        length = min(max(wanted, ahead), _MAX_REQUEST_BYTES, self.size - start)
        data, _ = self._bucket.get(self._path, start, start + length, etag=self._etag)
        if not data:
            raise NotFound(f"{self._path} ends early")
        self._hold(start, data)
        return start, data

    def close(self) -> None:
        """Let go of what was read ahead."""
        self._windows.drop(self._key)
        super().close()
