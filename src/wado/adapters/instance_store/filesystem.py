"""Instances as files: temporary name, flush, rename without overwriting, flush of the folder."""

import ctypes
import errno
import fcntl
import itertools
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from wado.archive.paths import instance_path
from wado.dicom.part10 import read_file_meta
from wado.dicom.uids import RESERVED_NAMES, InstanceRef, SeriesRef, StudyRef
from wado.errors import InvalidRequest, NotFound, OutOfResources, Unavailable, WadoError
from wado.ports import Incoming, StoredFile, StoreOutcome

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_COMPARE_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16
_MAX_KNOWN_FOLDERS = 20_000
_SYNCFS_FROM = 3
"""From so many files on, one flush of the file system is quicker than one of each file."""


def _rename_exclusively(source: str, target: str) -> None:
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


def _failure(e: OSError, doing: str) -> WadoError:
    """Translate an error of the file system at the border."""
    if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return NotFound(f"{doing}: no such file")
    text = f"{doing}: {e.strerror or e}"
    if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS):
        return OutOfResources(text)
    return Unavailable(text)


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise _failure(e, doing) from e


class IncomingFile:
    """A file under a temporary name."""

    __slots__ = ("_fd", "ref", "size", "temporary")

    def __init__(self, fd: int, temporary: str, ref: InstanceRef | None) -> None:
        self._fd = fd
        self.temporary = temporary
        self.ref = ref
        self.size = 0

    def write(self, data: Sequence[bytes | memoryview]) -> None:
        """Append the pieces in order."""
        try:
            written = os.writev(self._fd, data)
        except OSError as e:
            raise _failure(e, "writing an incoming file") from e
        expected = sum(map(len, data))
        self.size += written
        if written != expected:  # a short write: rare (signals, nearly full disk), finish slowly
            rest = b"".join(data)[written:]
            while rest:
                with _translated("writing an incoming file"):
                    written = os.write(self._fd, rest)
                self.size += written
                rest = rest[written:]

    def sync(self) -> None:
        """Flush the data to the disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the descriptor; harmless when done before."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def abort(self) -> None:
        """Close and remove."""
        if self._fd >= 0:
            self.close()
            with suppress(OSError):
                os.unlink(self.temporary)


class FilesystemInstanceStore:
    """The `InstanceStore` of one machine, or of a shared file system.

    Parameters
    ----------
    root
        Folder below which everything lies; made if absent.
    durable
        Flush to the disk before `commit`, `append` and `put_document` return.
    """

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self._root = os.path.abspath(root)
        self._durable = durable
        with _translated(f"opening the storage root {self._root}"):
            os.makedirs(os.path.join(self._root, "incoming"), exist_ok=True)
        self._known_folders: set[str] = set()
        self._new_folders: set[str] = set()
        self._lock = threading.Lock()
        self._numbers = itertools.count()

    # -------------------------------------------------------------- originals

    def receive(self, ref: InstanceRef | None) -> IncomingFile:
        """Open a new file, to be written piece by piece."""
        name = f".{os.getpid()}-{threading.get_ident():x}-{next(self._numbers)}.part"
        if ref is None:
            folder = os.path.join(self._root, "incoming")
        else:
            folder = os.path.dirname(os.path.join(self._root, instance_path(ref)))
        temporary = os.path.join(folder, name)
        with _translated("opening an incoming file"):
            self._make_folder(folder)
            try:
                fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:  # removed behind our back, perhaps with its parents
                self._known_folders.clear()
                self._make_folder(folder)
                fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        return IncomingFile(fd, temporary, ref)

    def commit(
        self, incoming: Sequence[Incoming], *, replace: bool
    ) -> Sequence[StoreOutcome | WadoError]:
        """Make files durable and visible, together."""
        files = cast("Sequence[IncomingFile]", incoming)
        outcomes: list[StoreOutcome | WadoError] = []
        folders: set[str] = set()
        try:
            if self._durable:
                self._sync_files(files)
        except OSError as e:
            for file in files:
                file.abort()
            return [_failure(e, "flushing to disk") for _ in files]
        for file in files:
            try:
                outcomes.append(self._publish(file, folders, replace=replace))
            except OSError as e:
                outcomes.append(_failure(e, "storing a file"))
            except WadoError as e:
                outcomes.append(e)
            finally:
                file.close()
        try:
            self._sync_folders(folders)
        except OSError as e:
            return [_failure(e, "flushing a folder") for _ in files]
        return outcomes

    def _sync_files(self, files: Sequence[IncomingFile]) -> None:
        if len(files) >= _SYNCFS_FROM:
            self._sync_file_system()
        else:
            for file in files:
                file.sync()

    def _sync_file_system(self) -> None:
        fd = os.open(self._root, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.syncfs(fd) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
        finally:
            os.close(fd)

    def _publish(self, file: IncomingFile, folders: set[str], *, replace: bool) -> StoreOutcome:
        """Give a flushed file its name, unless one is there."""
        if file.ref is None:
            raise InvalidRequest("the instance was not identified")
        target = os.path.join(self._root, instance_path(file.ref))
        folder = os.path.dirname(target)
        folders.add(folder)
        try:
            if os.path.dirname(file.temporary) != folder:
                self._make_folder(folder)
            _rename_exclusively(file.temporary, target)
        except FileExistsError:
            pass
        else:
            return StoreOutcome.STORED
        try:
            if _same_data_set(file.temporary, target):
                return StoreOutcome.SAME
            if not replace:
                return StoreOutcome.DIFFERENT
            os.replace(file.temporary, target)
            return StoreOutcome.REPLACED
        finally:
            with suppress(FileNotFoundError):
                os.unlink(file.temporary)

    def _make_folder(self, folder: str) -> None:
        """Make a folder and remember whose entries are not on disk yet."""
        if folder in self._known_folders:
            return
        parent = os.path.dirname(folder)
        if folder != self._root and not os.path.isdir(parent):
            self._make_folder(parent)
        with suppress(FileExistsError):
            os.mkdir(folder)
        with self._lock:
            # Also when another process made it: its entry may not be on the disk yet.
            self._new_folders.add(parent)
            if len(self._known_folders) >= _MAX_KNOWN_FOLDERS:
                self._known_folders.clear()
            self._known_folders.add(folder)

    def _sync_folders(self, folders: set[str]) -> None:
        with self._lock:
            new, self._new_folders = self._new_folders, set()
        if not self._durable:
            return
        try:
            if len(folders | new) >= _SYNCFS_FROM:
                self._sync_file_system()
                return
            for folder in folders | new:
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        except OSError:
            with self._lock:
                self._new_folders |= new
            raise

    # -------------------------------------------------------------- reading

    def open(self, path: str) -> BinaryIO:
        """Open for reading."""
        with _translated(path):
            return open(self._absolute(path), "rb")

    def local_path(self, path: str) -> Path | None:
        """Where the file lies."""
        return Path(self._absolute(path))

    def version(self, path: str) -> tuple[int, int] | None:
        """Inode and size."""
        try:
            status = os.stat(self._absolute(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_ino, status.st_size

    def instances(self, under: str | StudyRef | SeriesRef | None = None) -> Iterator[StoredFile]:
        """Walk the originals in order of their paths."""
        for top in self._tops(under):
            for folder, folders, names in os.walk(top):
                folders.sort()
                for name in sorted(names):
                    found = self._stored_file(folder, name)
                    if found:
                        yield found

    def _tops(self, under: str | StudyRef | SeriesRef | None) -> list[str]:
        match under:
            case SeriesRef():
                parts = (under.tenant_id, under.study_instance_uid, under.series_instance_uid)
                return [os.path.join(self._root, *parts)]
            case StudyRef():
                return [os.path.join(self._root, under.tenant_id, under.study_instance_uid)]
            case str():
                return [os.path.join(self._root, under)]
        return [
            os.path.join(self._root, name)
            for name in sorted(os.listdir(self._root))
            if name not in RESERVED_NAMES
        ]

    def _stored_file(self, folder: str, name: str) -> StoredFile | None:
        path = os.path.relpath(os.path.join(folder, name), self._root)
        parts = path.split("/")
        if len(parts) != 4 or not name.endswith(".dcm") or name.startswith("."):
            return None
        try:
            ref = InstanceRef.of(parts[0], parts[1], parts[2], parts[3].removesuffix(".dcm"))
            status = os.stat(os.path.join(folder, name))
        except (WadoError, FileNotFoundError):
            return None
        return StoredFile(ref, path, status.st_size, status.st_mtime)

    # -------------------------------------------------------------- documents and journals

    def put_document(self, path: str, data: Iterable[bytes]) -> None:
        """Write under a temporary name, flush, rename."""
        target = self._absolute(path)
        folder, name = os.path.split(target)
        temporary = os.path.join(folder, f".{name}.{os.getpid()}-{threading.get_ident():x}.part")
        with _translated(f"writing {path}"):
            self._make_folder(folder)
            with open(temporary, "wb") as file:
                try:
                    file.writelines(data)
                    file.flush()
                    if self._durable:
                        os.fsync(file.fileno())
                except OSError:
                    os.unlink(temporary)
                    raise
            os.replace(temporary, target)
            self._sync_folders({folder})

    def append(self, appends: Mapping[str, bytes], *, at: int | None = None) -> bool:
        """Append under a lock of the file; a torn end (a crash) is cut off first."""
        opened: list[int] = []
        folders: set[str] = set()
        with _translated("appending to a journal"):
            try:
                for path, data in sorted(appends.items()):  # one order: no deadlock
                    fd, new = self._open_journal(path)
                    opened.append(fd)
                    if new:
                        folders.add(os.path.dirname(self._absolute(path)))
                    fcntl.flock(fd, fcntl.LOCK_EX)
                    if not _append_whole(fd, data, at):
                        return False
                if self._durable and len(opened) >= _SYNCFS_FROM:
                    self._sync_file_system()
                elif self._durable:
                    for fd in opened:
                        os.fsync(fd)
                self._sync_folders(folders)
            finally:
                for fd in opened:
                    os.close(fd)
        return True

    def _open_journal(self, path: str) -> tuple[int, bool]:
        target = self._absolute(path)
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
        try:
            return os.open(target, flags), False
        except FileNotFoundError:
            folder = os.path.dirname(target)
            if not os.path.isdir(folder):
                self._known_folders.discard(folder)
            self._make_folder(folder)
            return os.open(target, flags | os.O_CREAT, 0o644), True

    def delete(self, paths: Sequence[str]) -> None:
        """Remove, and the folders that became empty."""
        folders = set()
        for path in paths:
            target = self._absolute(path)
            with _translated(f"deleting {path}"), suppress(FileNotFoundError):
                os.unlink(target)
                folders.add(os.path.dirname(target))
        for folder in folders:
            self._remove_empty(folder)
        with _translated("flushing a folder"):
            self._sync_folders({f for f in folders if os.path.isdir(f)})

    def _remove_empty(self, folder: str) -> None:
        while folder != self._root and os.path.dirname(folder) != self._root:
            try:
                os.rmdir(folder)
            except OSError:
                return
            self._known_folders.discard(folder)
            folder = os.path.dirname(folder)

    def quarantine(self, path: str, reason: str) -> None:
        """Move to ``quarantine/`` under the same path, the reason in a ``.reason.json`` beside."""
        source = self._absolute(path)
        target = os.path.join(self._root, "quarantine", path)
        with _translated(f"moving {path} to the quarantine"):
            self._make_folder(os.path.dirname(target))
            with suppress(FileNotFoundError):  # moved before a crash
                os.replace(source, target)
        note = json.dumps({"file_path": path, "reason": reason}, indent=1).encode()
        self.put_document(f"quarantine/{path}.reason.json", [note])
        if os.path.isdir(os.path.dirname(source)):
            with _translated("flushing a folder"):
                self._sync_folders({os.path.dirname(source)})

    def _absolute(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise InvalidRequest(f"not a path below the root: {path[:80]!r}")
        return f"{self._root}/{path}"


def _append_whole(fd: int, data: bytes, at: int | None) -> bool:
    """Append all or nothing; False if the journal is not `at` bytes long."""
    size = _cut_torn_end(fd)
    if at is not None and size != at:
        return False
    try:
        written = os.write(fd, data)
    except OSError:
        os.ftruncate(fd, size)
        raise
    if written != len(data):
        os.ftruncate(fd, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return True


def _cut_torn_end(fd: int) -> int:
    """Cut the journal behind its last newline; its size then."""
    size = end = os.fstat(fd).st_size
    if size == 0 or os.pread(fd, 1, size - 1) == b"\n":
        return size
    while end > 0:
        start = max(0, end - _HEAD_BYTES)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end != size:
        os.ftruncate(fd, end)
    return end


def _same_data_set(a: str, b: str) -> bool:
    """Whether two files hold the same data set in the same transfer syntax.

    File Meta Information and preamble may differ: they tell who wrote the file.
    """
    with open(a, "rb") as one, open(b, "rb") as two:
        heads = [read_file_meta(f.read(_HEAD_BYTES)) for f in (one, two)]
        if heads[0].transfer_syntax_uid != heads[1].transfer_syntax_uid:
            return False
        for file, head in zip((one, two), heads, strict=True):
            file.seek(head.data_set_offset)
        while True:
            left, right = one.read(_COMPARE_BYTES), two.read(_COMPARE_BYTES)
            if left != right:
                return False
            if not left:
                return True
