"""What an answer is made of: bytes, and ranges of stored files that are read only when sent."""

import errno
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import BinaryIO

from wado.archive.paths import DERIVED
from wado.archive.reading import reading
from wado.errors import NotFound
from wado.ports import InstanceStore

_MAX_OPEN_FILES = 768
_CHUNK_BYTES = 1 << 20
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


@dataclass(frozen=True, slots=True)
class FileSlice:
    """A range of a stored file; `identity` tells its content (a digest), for files kept open.

    One that was cut from a longer range tells how much of that follows it: it is read next.
    """

    path: str
    offset: int
    length: int
    identity: str = ""
    followed_by: int = field(default=0, compare=False)

    @property
    def ahead(self) -> tuple[int, int]:
        """Offset and length of what will be read: this, and what follows."""
        return self.offset, self.length + self.followed_by


@dataclass(frozen=True, slots=True)
class Computed:
    """Bytes that must be worked out (inflated, swapped, shifted); `make` may take its time."""

    length: int
    make: Callable[[], bytes]


Piece = bytes | FileSlice | Computed


@dataclass(frozen=True, slots=True)
class Part:
    """One thing of an answer: its media type as sent, and its bytes."""

    content_type: str
    pieces: Iterable[Piece]
    location: str = ""

    @property
    def length(self) -> int:
        """Length in bytes."""
        return sum(map(piece_length, self.pieces))


def piece_length(piece: Piece) -> int:
    """Length of a piece in bytes."""
    return len(piece) if isinstance(piece, bytes) else piece.length


def cut(pieces: Iterable[Piece], start: int, end: int) -> Iterator[Piece]:
    """Bytes `start` to before `end` of what the pieces are together."""
    at = 0
    for piece in pieces:
        length = piece_length(piece)
        low, high = max(start - at, 0), min(end - at, length)
        if low < high:
            yield _cut_one(piece, low, high)
        at += length
        if at >= end:
            return


def _cut_one(piece: Piece, low: int, high: int) -> Piece:
    match piece:
        case bytes():
            return piece[low:high]
        case FileSlice():
            follows = piece.length - high + piece.followed_by
            return FileSlice(piece.path, piece.offset + low, high - low, piece.identity, follows)
        case Computed():
            return Computed(high - low, lambda: piece.make()[low:high])


def _preadv(fd: int, target: memoryview, offset: int) -> bool:
    """Read what lies in memory; False if not all of it does."""
    try:
        return os.preadv(fd, [target], offset, _NOWAIT) == len(target)
    except BlockingIOError:
        return False
    except OSError as e:
        if e.errno != errno.EOPNOTSUPP:
            raise
        return os.preadv(fd, [target], offset) == len(target)  # such as memory file systems


class _OpenFile:
    """A file and the number of those who read it now; closed when forgotten and unused."""

    __slots__ = ("fd", "file", "forgotten", "readers")

    def __init__(self, file: BinaryIO, fd: int | None) -> None:
        self.file = file
        self.fd = fd
        self.readers = 0
        self.forgotten = False


class OpenFiles:
    """Reads slices; files read most recently stay open, as frames of one file come in a row.

    Used from any thread.
    """

    def __init__(self, store: InstanceStore, *, max_open: int = _MAX_OPEN_FILES) -> None:
        self._store = store
        self._max_open = max_open
        self._files: OrderedDict[tuple[str, str], _OpenFile] = OrderedDict()
        self._lock = Lock()

    def bytes_of(self, piece: Piece) -> bytes:
        """Read or work out a piece whole; raises as `read`."""
        match piece:
            case bytes():
                return piece
            case FileSlice():
                return self.read(piece)
            case Computed():
                data = piece.make()
                if len(data) != piece.length:
                    raise NotFound("the stored value ends early")
                return data

    def chunks(self, pieces: Iterable[Piece]) -> Iterator[bytes]:
        """Read pieces one after the other, long ranges of files in chunks; raises as `read`."""
        for piece in pieces:
            if isinstance(piece, FileSlice):
                for start in range(0, piece.length, _CHUNK_BYTES):
                    yield from map(self.bytes_of, cut((piece,), start, start + _CHUNK_BYTES))
            else:
                yield self.bytes_of(piece)

    def read(self, piece: FileSlice) -> bytes:
        """Read a slice whole.

        Raises
        ------
        NotFound
            The file is gone, or is shorter than the slice says.
        Unreadable
            The disk does not give it.
        """
        with reading(piece.path):
            return self._read(piece)

    def _read(self, piece: FileSlice) -> bytes:
        opened = self._take(piece)
        try:
            if opened.fd is not None:
                data = os.pread(opened.fd, piece.length, piece.offset)
            else:
                opened.file.seek(piece.offset)
                data = opened.file.read(piece.length)
        except NotFound:  # gone from where it is read in requests
            self._ends_early(piece)
            raise
        finally:
            self._give_back(opened)
        if len(data) != piece.length:
            raise self._ends_early(piece)
        return data

    def is_open(self, piece: FileSlice) -> bool:
        """Whether the file of a slice is open, so that lending it needs no waiting."""
        return (piece.path, piece.identity) in self._files

    def open(self, piece: FileSlice) -> None:
        """Open the file of a slice, to be read soon; NotFound if it is gone."""
        self._give_back(self._take(piece))

    @contextmanager
    def lent(self, piece: FileSlice) -> Iterator[int | None]:
        """Lend the file of a slice as a descriptor; None if it has none. NotFound if it is gone.

        Whoever finds that it ends early raises EOFError.
        """
        opened = self._take(piece)
        try:
            yield opened.fd
        except EOFError:
            self._ends_early(piece)
            raise
        finally:
            self._give_back(opened)

    def read_into(self, piece: Piece, target: memoryview) -> None:
        """Read or work out a piece into memory of its length; raises as `read`."""
        if isinstance(piece, FileSlice):
            opened = self._take(piece)
            try:
                if opened.fd is not None:
                    if os.preadv(opened.fd, [target], piece.offset) != piece.length:
                        raise self._ends_early(piece)
                    return
            finally:
                self._give_back(opened)
        target[:] = self.bytes_of(piece)

    def read_at_once(self, piece: Piece, target: memoryview) -> bool:
        """Read a piece only if that needs no waiting: its file is open and it lies in memory.

        False if it does need waiting; `target` may hold a part of it then.
        """
        match piece:
            case bytes():
                target[:] = piece
                return True
            case Computed():
                return False
        opened = self._open_already(piece)
        if opened is None:
            return False
        try:
            return opened.fd is not None and _preadv(opened.fd, target, piece.offset)
        finally:
            self._give_back(opened)

    def _open_already(self, piece: FileSlice) -> _OpenFile | None:
        with self._lock:
            opened = self._files.get((piece.path, piece.identity))
            if opened is not None:
                opened.readers += 1
        return opened

    def _take(self, piece: FileSlice) -> _OpenFile:
        key = (piece.path, piece.identity)
        with self._lock:
            opened = self._files.get(key)
            if opened is not None and (opened.fd is not None or opened.readers == 0):
                self._files.move_to_end(key)
                opened.readers += 1
                return opened
        file = self._store.open(piece.path, ahead=piece.ahead)
        fd = file.fileno() if self._store.local_path(piece.path) is not None else None
        if fd is not None and os.fstat(fd).st_size < piece.offset + piece.length:
            file.close()
            raise NotFound(f"{piece.path} ends early")
        is_copy_elsewhere = fd is None and piece.path.startswith(f"{DERIVED}/")
        if is_copy_elsewhere and self._store.version(piece.path) is None:
            file.close()  # asked for only when it is read, which is too late for another way to it
            raise NotFound(f"{piece.path} is gone")
        opened = _OpenFile(file, fd)
        opened.readers = 1
        with self._lock:
            old = self._files.pop(key, None)
            self._files[key] = opened
            self._forget(old)
            while len(self._files) > self._max_open:
                self._forget(self._files.popitem(last=False)[1])
        return opened

    def _ends_early(self, piece: FileSlice) -> NotFound:
        """Forget a file that is shorter than it was: a whole one may take its place."""
        with self._lock:
            self._forget(self._files.pop((piece.path, piece.identity), None))
        return NotFound(f"{piece.path} ends early")

    def _give_back(self, opened: _OpenFile) -> None:
        with self._lock:
            opened.readers -= 1
            if opened.forgotten and opened.readers == 0:
                opened.file.close()

    @staticmethod
    def _forget(opened: _OpenFile | None) -> None:
        if opened is not None:
            opened.forgotten = True
            if opened.readers == 0:
                opened.file.close()

    def close(self) -> None:
        """Close the files that nobody reads now; the others close when they were read."""
        with self._lock:
            while self._files:
                with suppress(OSError):
                    self._forget(self._files.popitem()[1])
