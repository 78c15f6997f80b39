"""A file on a damaged disk: the kernel answers reads of it as that of such a disk does.

A file system of its own (FUSE, spoken by a thread of ours) is mounted over the one file. What
lies there stays as it is, and is there again when the disk is mended.
"""

import ctypes
import errno
import os
import select
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import pytest

_libc = ctypes.CDLL(None, use_errno=True)
_DETACH = 2
_IN, _OUT = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
_GETATTR, _READ = 3, 15
_NOT_ANSWERED = frozenset({2, 36, 42})
"""FORGET, INTERRUPT, BATCH_FORGET."""
_DIRECT_IO = 1
_MAX_REQUEST = 1 << 18


class BadFile:
    """What answers for the file (or folder); `read` is set once somebody looks at it.

    Parameters
    ----------
    path
        The file.
    error
        What each read fails with (`errno`); 0: who looks at it or reads it hangs, beyond the
        reach of signals, as with a server of files that is away.
    place
        The offsets between which it can't be read; else all of it.
    """

    def __init__(self, path: Path, error: int, place: range | None = None) -> None:
        self.read = Event()
        self._place = place
        self._data = path.read_bytes() if place else b""
        self._status = path.stat()
        self._error = error
        self._path = os.fsencode(path)
        if os.geteuid() != 0 or not Path("/dev/fuse").exists():
            pytest.skip("mounting a file system needs root and FUSE")
        # What was asked may be taken back before it is read here, which must not wait then.
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        options = f"fd={self._fd},rootmode={self._status.st_mode:o},user_id=0,group_id=0"
        if _libc.mount(b"bad-disk", self._path, b"fuse", 0, options.encode()) != 0:
            os.close(self._fd)
            pytest.skip(f"FUSE can't be mounted: {os.strerror(ctypes.get_errno())}")
        self._woken, self._wake = os.pipe()
        self._thread = Thread(target=self._serve, name="bad-disk", daemon=True)
        self._thread.start()

    def mend(self) -> None:
        """Give the file back; who hangs in a read is told of an error."""
        if self._thread.is_alive():
            _libc.umount2(self._path, _DETACH)
            os.write(self._wake, b"1")
            self._thread.join()
            for end in (self._woken, self._wake, self._fd):
                os.close(end)

    def _serve(self) -> None:
        hanging: list[int] = []
        while True:
            ready, _, _ = select.select([self._fd, self._woken], [], [])
            if self._woken in ready:
                break
            try:
                request = os.read(self._fd, _MAX_REQUEST)
            except OSError:  # it was taken back, or the file is mended
                continue
            _, code, unique, *_ = _IN.unpack_from(request)
            if code in (_GETATTR, _READ):
                self.read.set()
                if not self._error:
                    hanging.append(unique)
                    continue
            if code not in _NOT_ANSWERED:
                self._say(unique, *self._answer(code, request[_IN.size :]))
        for unique in hanging:
            self._say(unique, errno.EIO)

    def _say(self, unique: int, error: int, body: bytes = b"") -> None:
        with suppress(OSError):  # nobody waits any more
            os.write(self._fd, _OUT.pack(_OUT.size + len(body), -error, unique) + body)

    def _answer(self, code: int, body: bytes) -> tuple[int, bytes]:
        match code:
            case 26:  # INIT
                limits = 1 << 17, 0, 16, 12, 1 << 17, 1, 0, 0, 0
                return 0, struct.pack("<4I2H2I2HI28x", 7, 31, *limits)
            case 3:  # GETATTR
                s = self._status
                times = int(s.st_atime), int(s.st_mtime), int(s.st_ctime)
                whose = s.st_mode, 1, s.st_uid, s.st_gid, 0, 4096, 0
                attributes = struct.pack("<6Q3I7I", s.st_ino, s.st_size, 8, *times, 0, 0, 0, *whose)
                return 0, struct.pack("<QII", 1, 0, 0) + attributes
            case 14:  # OPEN
                return 0, struct.pack("<QII", 1, _DIRECT_IO, 0)
            case 15:  # READ
                return self._read(*struct.unpack_from("<8xQI", body))
            case 18 | 25:  # RELEASE, FLUSH
                return 0, b""
        return errno.ENOSYS, b""

    def _read(self, offset: int, size: int) -> tuple[int, bytes]:
        place = self._place
        if place is None or offset in place:
            return self._error, b""
        end = place.start if offset < place.start else len(self._data)
        return 0, self._data[offset : min(offset + size, end)]


@contextmanager
def bad(path: Path, error: int = errno.EIO, *, place: range | None = None) -> Iterator[BadFile]:
    """Have reads of a file fail, or hang (`error` 0), until the end or until it is mended."""
    file = BadFile(path, error, place)
    try:
        yield file
    finally:
        file.mend()
