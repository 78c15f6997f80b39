"""Instances as files: temporary name, flush, rename without overwriting, flush of the folder."""

import fcntl
import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from wado import vitals
from wado.adapters.instance_store.incoming import IncomingFile
from wado.adapters.instance_store.layout import (
    OURS,
    checked,
    file_at,
    is_tenant,
    same_data_set,
)
from wado.adapters.instance_store.posix import (
    append_whole,
    failure,
    is_as_long,
    rename_exclusively,
    sync_file_system,
    sync_folder,
    sync_parents,
    translated,
)
from wado.archive.paths import instance_path
from wado.dicom.uids import InstanceRef, SeriesRef, StudyRef
from wado.errors import InvalidRequest, NotFound, WadoError
from wado.ports import Incoming, StoredFile, StoreOutcome

_MAX_KNOWN_FOLDERS = 20_000
_MAX_TRIES = 20
"""How often a folder is made that others remove while it is empty."""
_TEMPORARY = ".part"
_SYNCFS_FROM = 3
"""From so many files on, one flush of the file system is quicker than one of each file."""

T = TypeVar("T")


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
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with translated("opening an incoming file"):
            fd = self._within(folder, lambda: os.open(temporary, flags, 0o644))
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
                vitals.goes_on("commit files")
                file.sync()

    def _publish(self, file: IncomingFile, folders: set[str], *, replace: bool) -> StoreOutcome:
        """Give a flushed file its name, unless one is there."""
        if file.ref is None:
            raise InvalidRequest("the instance was not identified")
        target = os.path.join(self._root, instance_path(file.ref))
        folders.add(os.path.dirname(target))
        while True:
            if self._named(file, target):
                return StoreOutcome.STORED
            try:
                outcome = self._compared(file, target, replace=replace)
            except FileNotFoundError:  # deleted while we compared
                continue
            with suppress(FileNotFoundError):
                os.unlink(file.temporary)
            return outcome

    def _named(self, file: IncomingFile, target: str) -> bool:
        """Rename to `target`, unless that is taken."""
        try:
            self._within(
                os.path.dirname(target), lambda: rename_exclusively(file.temporary, target)
            )
        except FileExistsError:
            return False
        return True

    @staticmethod
    def _compared(file: IncomingFile, target: str, *, replace: bool) -> StoreOutcome:
        with open(file.temporary, "rb") as ours, open(target, "rb") as theirs:
            if same_data_set(ours, theirs):
                return StoreOutcome.SAME
        if not replace:
            return StoreOutcome.DIFFERENT
        os.replace(file.temporary, target)
        return StoreOutcome.REPLACED

    def _within(self, folder: str, act: Callable[[], T]) -> T:
        """Do something in a folder, which is made anew when it vanishes: empty ones do."""
        for tries_left in reversed(range(_MAX_TRIES)):
            try:
                self._make_folder(folder)
                return act()
            except FileNotFoundError:
                self._known_folders.clear()
                if not tries_left:
                    raise
        raise AssertionError("unreachable")

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
                with suppress(FileNotFoundError):  # who removed it flushed what was in it
                    sync_folder(folder)
        except OSError:
            with self._lock:
                self._new_folders |= new
            raise

    # -------------------------------------------------------------- reading

    def open(self, path: str, *, ahead: tuple[int, int] | None = None) -> BinaryIO:  # noqa: ARG002
        """Open for reading; the system reads ahead by itself."""
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

    def instances(
        self, under: str | StudyRef | SeriesRef | None = None, *, place: str = ""
    ) -> Iterator[StoredFile]:
        """Walk the originals, or those below `place`, in order of their paths."""
        root = self._absolute(place) if place else self._root
        for top in self._tops(root, under):
            for folder, folders, names in os.walk(top, onerror=_raise_unless_gone):
                folders.sort()
                for name in sorted(names):
                    found = self._stored_file(root, folder, name, place)
                    if found:
                        yield found

    @staticmethod
    def _tops(root: str, under: str | StudyRef | SeriesRef | None) -> list[str]:
        match under:
            case SeriesRef():
                parts = (under.tenant_id, under.study_instance_uid, under.series_instance_uid)
                return [os.path.join(root, *parts)]
            case StudyRef():
                return [os.path.join(root, under.tenant_id, under.study_instance_uid)]
            case str():
                return [os.path.join(root, under)]
        if not os.path.isdir(root):
            return []
        return [os.path.join(root, name) for name in sorted(os.listdir(root)) if is_tenant(name)]

    def _stored_file(self, root: str, folder: str, name: str, place: str) -> StoredFile | None:
        path = os.path.join(folder, name)
        found = file_at(os.path.relpath(path, root), place)
        if found is None:
            return None
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return None
        times = (status.st_mtime, status.st_ctime)
        return StoredFile(
            found[0], os.path.relpath(path, self._root), status.st_size, *times, found[1]
        )

    def abandoned(self, *, older_than_s: float) -> Iterator[str]:
        """Temporary files of processes that died, by the time they were last written to."""
        before = time.time() - older_than_s
        for top in (*self._tops(self._root, None), *(f"{self._root}/{name}" for name in OURS)):
            for folder, _, names in os.walk(top):
                for name in names:
                    path = os.path.join(folder, name)
                    with suppress(FileNotFoundError):
                        if name.endswith(_TEMPORARY) and os.stat(path).st_mtime < before:
                            yield os.path.relpath(path, self._root)

    # -------------------------------------------------------------- documents and journals

    def put_document(self, path: str, data: Iterable[bytes], *, at: int | None = None) -> bool:
        """Write under a temporary name, flush, rename."""
        target = self._absolute(path)
        folder, name = os.path.split(target)
        unique = f"{os.getpid()}-{self._token}-{next(self._numbers)}"
        temporary = os.path.join(folder, f".{name}.{unique}{_TEMPORARY}")
        with translated(f"writing {path}"):
            with self._within(folder, lambda: open(temporary, "wb")) as file:
                try:
                    file.writelines(data)
                    file.flush()
                    if self._durable:
                        os.fsync(file.fileno())
                except BaseException:  # also what the pieces raise
                    os.unlink(temporary)
                    raise
            if at is None:
                os.replace(temporary, target)
            elif not self._in_turn(path, at, lambda: os.replace(temporary, target)):
                os.unlink(temporary)
                return False
            self._sync_folders({folder})
        return True

    def _in_turn(self, path: str, at: int, change: Callable[[], None]) -> bool:
        """Change a journal as a whole while nobody appends, if it is `at` bytes long."""
        try:
            fd = self._lock_journal(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            if os.fstat(fd).st_size != at:
                return False
            change()
        finally:
            os.close(fd)
        return True

    def append(
        self, appends: Mapping[str, bytes], *, at: int | Mapping[str, int] | None = None
    ) -> bool:
        """Append under a lock of the file; a torn end (a crash) is cut off first."""
        lengths = at if isinstance(at, Mapping) else dict.fromkeys(appends, at)
        opened: list[int] = []
        folders: set[str] = set()
        with translated("appending to a journal"):
            try:
                for path in sorted(appends):  # one order: no deadlock
                    new = self._prepare_journal(path)
                    fd = self._lock_journal(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
                    opened.append(fd)
                    if new or not os.fstat(fd).st_size:
                        folders.add(os.path.dirname(f"{self._root}/{path}"))
                    if not is_as_long(fd, lengths[path]):
                        return False
                for fd, path in zip(opened, sorted(appends), strict=True):
                    append_whole(fd, appends[path])
                many = len(opened) >= _SYNCFS_FROM
                if self._durable and not many:
                    for fd in opened:
                        os.fsync(fd)
                self._sync_folders(folders, and_files=many)
            finally:
                for fd in opened:
                    os.close(fd)
        return True

    def _prepare_journal(self, path: str) -> bool:
        """Make the folder; whether the journal's entry in it may not be on the disk yet."""
        target = self._absolute(path)
        folder = os.path.dirname(target)
        first = folder not in self._known_folders  # who made it may have died too early
        if os.path.exists(target):
            if first:
                self._make_folder(folder)
            return first
        if not os.path.isdir(folder):
            self._known_folders.clear()
        self._make_folder(folder)
        return True

    def _lock_journal(self, path: str, flags: int) -> int:
        """Open a journal and wait for our turn."""
        target = self._absolute(path)

        def opened() -> int:
            return os.open(target, flags | os.O_CLOEXEC, 0o644)

        while True:
            makes = flags & os.O_CREAT
            fd = self._within(os.path.dirname(target), opened) if makes else opened()
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return fd
            os.close(fd)  # it was replaced or removed while we waited

    def delete(self, paths: Sequence[str], *, at: int | None = None) -> None:
        """Remove, and the folders that became empty."""
        folders = set()
        for path in paths:
            target = self._absolute(path)
            with translated(f"deleting {path}"), suppress(FileNotFoundError):
                if at is None:
                    os.unlink(target)
                else:
                    self._in_turn(path, at, partial(os.unlink, target))
                folders.add(os.path.dirname(target))
        self._leave(folders)

    def _leave(self, folders: set[str]) -> None:
        """Remove folders that became empty, flush the others."""
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

    def move(self, moves: Mapping[str, str]) -> Collection[str]:
        """Rename without overwriting; flush the folders of all, together."""
        moved: set[str] = set()
        folders: set[str] = set()
        try:
            for old, new in moves.items():
                source, target = self._absolute(old), self._absolute(new)
                with translated(f"moving {old} to {new}"):
                    if self._moved(source, target):
                        moved.add(old)
                        folders |= {os.path.dirname(source), os.path.dirname(target)}
        finally:
            self._leave(folders)
        return moved

    def _moved(self, source: str, target: str) -> bool:
        if not os.path.exists(source):
            return False
        try:
            self._within(os.path.dirname(target), lambda: rename_exclusively(source, target))
        except FileExistsError:
            return False
        except FileNotFoundError:
            if os.path.exists(source):
                raise
            return False  # another moved it
        return True

    def _absolute(self, path: str) -> str:
        return f"{self._root}/{checked(path)}"


def _raise_unless_gone(e: OSError) -> None:
    """Say that a folder can't be read: what is in it must not look lost."""
    if not isinstance(e, FileNotFoundError | NotADirectoryError):
        raise failure(e, f"reading the folder {e.filename}") from e
