"""What the operating system gives to a store of files: durable names, whole appends, errors."""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from wado.errors import NotFound, OutOfResources, Unavailable, WadoError

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_LOOK_BYTES = 1 << 16


def rename_exclusively(source: str, target: str) -> None:
    """Rename; FileExistsError if `target` is there (Linux ``renameat2``)."""
    result = _libc.renameat2(
        _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE
    )
    if result == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), target)
    os.link(source, target)  # file systems without the flag (some network file systems)
    os.unlink(source)


def failure(e: OSError, doing: str) -> WadoError:
    """Translate an error of the file system at the border."""
    if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return NotFound(f"{doing}: no such file")
    text = f"{doing}: {e.strerror or e}"
    if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS):
        return OutOfResources(text)
    return Unavailable(text)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise errors of the file system as ours."""
    try:
        yield
    except OSError as e:
        raise failure(e, doing) from e


def sync_parents(folder: str) -> None:
    """Put the entries of a folder and of its parents on the disk, where we may read them."""
    while folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
        with suppress(OSError):
            sync_folder(folder)


def sync_folder(folder: str) -> None:
    """Flush the entries of a folder."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(fd: int) -> None:
    """Flush all of the file system that holds an open file."""
    if _libc.syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def is_as_long(fd: int, at: int | None) -> bool:
    """Whether a journal without its torn end, which is cut off, is `at` bytes long."""
    size = _cut_torn_end(fd)
    return at is None or size == at


def append_whole(fd: int, data: bytes) -> None:
    """Append all or nothing to a journal that ends with a line."""
    size = os.fstat(fd).st_size
    try:
        written = os.write(fd, data)
    except OSError:
        os.ftruncate(fd, size)
        raise
    if written != len(data):
        os.ftruncate(fd, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _cut_torn_end(fd: int) -> int:
    """Cut the journal behind its last newline; its size then."""
    size = end = os.fstat(fd).st_size
    if size == 0 or os.pread(fd, 1, size - 1) == b"\n":
        return size
    while end > 0:
        start = max(0, end - _LOOK_BYTES)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end != size:
        os.ftruncate(fd, end)
    return end
