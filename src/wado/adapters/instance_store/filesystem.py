"""Instances as files: temporary name, flush, rename without overwriting, flush of the folder."""

import fcntl
import itertools
import json
import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from wado.adapters.instance_store.posix import (
    append_whole,
    failure,
    rename_exclusively,
    sync_file_system,
    sync_folder,
    sync_parents,
    translated,
)
from wado.archive.paths import instance_path
from wado.dicom.part10 import read_file_meta
from wado.dicom.uids import InstanceRef, SeriesRef, StudyRef, validate_tenant_id
from wado.errors import InvalidRequest, NotFound, WadoError
from wado.ports import Incoming, StoredFile, StoreOutcome

_COMPARE_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16
_MAX_KNOWN_FOLDERS = 20_000
_TEMPORARY = ".part"
_OURS = ("incoming", "metadata", "quarantine", "derived")
"""Folders below the root that are no tenants and yet hold files of ours."""
_SYNCFS_FROM = 3
"""From so many files on, one flush of the file system is quicker than one of each file."""


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
            raise failure(e, "writing an incoming file") from e
        expected = sum(map(len, data))
        self.size += written
        if written != expected:  # a short write: rare (signals, nearly full disk), finish slowly
            rest = b"".join(data)[written:]
            while rest:
                with translated("writing an incoming file"):
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
        with translated(f"opening the storage root {self._root}"):
            os.makedirs(os.path.join(self._root, "incoming"), exist_ok=True)
        self._known_folders: set[str] = set()
        self._new_folders: set[str] = set()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        # What a killed process left must not be in the way of a later one with its number.
        self._token = os.urandom(4).hex()
        if durable:
            sync_parents(self._root)
            # Open for good: it is told of every failed write since, also of those of others.
            self._root_fd = os.open(self._root, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._root_fd)

    # -------------------------------------------------------------- originals

    def receive(self, ref: InstanceRef | None) -> IncomingFile:
        """Open a new file, to be written piece by piece."""
        name = f".{os.getpid()}-{self._token}-{next(self._numbers)}{_TEMPORARY}"
        if ref is None:
            folder = os.path.join(self._root, "incoming")
        else:
            folder = os.path.dirname(os.path.join(self._root, instance_path(ref)))
        temporary = os.path.join(folder, name)
        with translated("opening an incoming file"):
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
            return [failure(e, "flushing to disk") for _ in files]
        for file in files:
            try:
                outcomes.append(self._publish(file, folders, replace=replace))
            except OSError as e:
                outcomes.append(failure(e, "storing a file"))
                file.abort()
            except WadoError as e:
                outcomes.append(e)
                file.abort()
            finally:
                file.close()
        try:
            self._sync_folders(folders)
        except OSError as e:
            return [failure(e, "flushing a folder") for _ in files]
        return outcomes

    def _sync_files(self, files: Sequence[IncomingFile]) -> None:
        if len(files) >= _SYNCFS_FROM:
            sync_file_system(self._root_fd)
        else:
            for file in files:
                file.sync()

    def _publish(self, file: IncomingFile, folders: set[str], *, replace: bool) -> StoreOutcome:
        """Give a flushed file its name, unless one is there."""
        if file.ref is None:
            raise InvalidRequest("the instance was not identified")
        target = os.path.join(self._root, instance_path(file.ref))
        folder = os.path.dirname(target)
        folders.add(folder)
        try:
            if os.path.dirname(file.temporary) != folder:
                if not os.path.isdir(folder):
                    self._known_folders.clear()  # removed behind our back
                self._make_folder(folder)
            rename_exclusively(file.temporary, target)
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
        """Make a folder and its parents, and remember whose entries are not on disk yet."""
        if folder in self._known_folders or folder == self._root:
            return
        parent = os.path.dirname(folder)
        self._make_folder(parent)
        with suppress(FileExistsError):
            os.mkdir(folder)
        with self._lock:
            # Also when another process made it: it may have died before it flushed the entry.
            self._new_folders.add(parent)
            if len(self._known_folders) >= _MAX_KNOWN_FOLDERS:
                self._known_folders.clear()
            self._known_folders.add(folder)

    def _sync_folders(self, folders: set[str], *, and_files: bool = False) -> None:
        with self._lock:
            new, self._new_folders = self._new_folders, set()
        if not self._durable:
            return
        try:
            if and_files or len(folders | new) >= _SYNCFS_FROM:
                sync_file_system(self._root_fd)
                return
            for folder in folders | new:
                sync_folder(folder)
        except OSError:
            with self._lock:
                self._new_folders |= new
            raise

    # -------------------------------------------------------------- reading

    def open(self, path: str) -> BinaryIO:
        """Open for reading."""
        with translated(path):
            return open(self._absolute(path), "rb")

    def local_path(self, path: str) -> Path | None:
        """Where the file lies."""
        return Path(self._absolute(path))

    def version(self, path: str) -> tuple[int, int] | None:
        """Inode and size."""
        try:
            with translated(path):
                status = os.stat(self._absolute(path))
        except NotFound:
            return None
        return status.st_ino, status.st_size

    def instances(self, under: str | StudyRef | SeriesRef | None = None) -> Iterator[StoredFile]:
        """Walk the originals in order of their paths."""
        for top in self._tops(under):
            for folder, folders, names in os.walk(top, onerror=_raise_unless_gone):
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
            if _is_tenant(name)
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

    def abandoned(self, *, older_than_s: float) -> Iterator[str]:
        """Temporary files of processes that died, by the time they were last written to."""
        before = time.time() - older_than_s
        for top in (*self._tops(None), *(f"{self._root}/{name}" for name in _OURS)):
            for folder, _, names in os.walk(top):
                for name in names:
                    path = os.path.join(folder, name)
                    with suppress(FileNotFoundError):
                        if name.endswith(_TEMPORARY) and os.stat(path).st_mtime < before:
                            yield os.path.relpath(path, self._root)

    # -------------------------------------------------------------- documents and journals

    def put_document(self, path: str, data: Iterable[bytes]) -> None:
        """Write under a temporary name, flush, rename."""
        target = self._absolute(path)
        folder, name = os.path.split(target)
        unique = f"{os.getpid()}-{self._token}-{next(self._numbers)}"
        temporary = os.path.join(folder, f".{name}.{unique}{_TEMPORARY}")
        with translated(f"writing {path}"):
            self._make_folder(folder)
            with open(temporary, "wb") as file:
                try:
                    file.writelines(data)
                    file.flush()
                    if self._durable:
                        os.fsync(file.fileno())
                except BaseException:  # also what the pieces raise
                    os.unlink(temporary)
                    raise
            os.replace(temporary, target)
            self._sync_folders({folder})

    def append(self, appends: Mapping[str, bytes], *, at: int | None = None) -> bool:
        """Append under a lock of the file; a torn end (a crash) is cut off first."""
        opened: list[int] = []
        folders: set[str] = set()
        with translated("appending to a journal"):
            try:
                for path, data in sorted(appends.items()):  # one order: no deadlock
                    fd, new = self._open_journal(path)
                    opened.append(fd)
                    if new:
                        folders.add(os.path.dirname(f"{self._root}/{path}"))
                    fcntl.flock(fd, fcntl.LOCK_EX)
                    if not append_whole(fd, data, at):
                        return False
                many = len(opened) >= _SYNCFS_FROM
                if self._durable and not many:
                    for fd in opened:
                        os.fsync(fd)
                self._sync_folders(folders, and_files=many)
            finally:
                for fd in opened:
                    os.close(fd)
        return True

    def _open_journal(self, path: str) -> tuple[int, bool]:
        """Open, or make; whether its entry in the folder may not be on the disk yet."""
        target = self._absolute(path)
        folder = os.path.dirname(target)
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
        first = folder not in self._known_folders  # who made it may have died too early
        try:
            fd = os.open(target, flags)
        except FileNotFoundError:
            if not os.path.isdir(folder):
                self._known_folders.clear()
            self._make_folder(folder)
            return os.open(target, flags | os.O_CREAT, 0o644), True
        if first:
            self._make_folder(folder)
        return fd, first

    def delete(self, paths: Sequence[str]) -> None:
        """Remove, and the folders that became empty."""
        folders = set()
        for path in paths:
            target = self._absolute(path)
            with translated(f"deleting {path}"), suppress(FileNotFoundError):
                os.unlink(target)
                folders.add(os.path.dirname(target))
        for folder in folders:
            self._remove_empty(folder)
        with translated("flushing a folder"):
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
        kept = f"quarantine/{path}"
        if os.path.exists(source):  # else moved before a crash
            numbers = itertools.count(2)
            while os.path.exists(f"{self._root}/{kept}"):  # another file that came by its name
                kept = f"quarantine/{path}.{next(numbers)}"
        note = json.dumps({"file_path": path, "reason": reason}, indent=1).encode()
        self.put_document(f"{kept}.reason.json", [note])
        with (
            translated(f"moving {path} to the quarantine"),
            suppress(FileNotFoundError),
        ):
            os.rename(source, f"{self._root}/{kept}")
            self._sync_folders({os.path.dirname(source), os.path.dirname(f"{self._root}/{kept}")})

    def _absolute(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise InvalidRequest(f"not a path below the root: {path[:80]!r}")
        return f"{self._root}/{path}"


def _is_tenant(name: str) -> bool:
    try:
        return bool(validate_tenant_id(name))
    except InvalidRequest:
        return False


def _raise_unless_gone(e: OSError) -> None:
    """Say that a folder can't be read: what is in it must not look lost."""
    if not isinstance(e, FileNotFoundError | NotADirectoryError):
        raise failure(e, f"reading the folder {e.filename}") from e


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
