"""Instances as objects of S3, under the same names that files have below the storage root.

What is promised rests on two things that S3 promises: an object is whole or absent as soon as PUT
is answered, and a PUT with a condition succeeds only if the condition holds (ADR 0016).
"""

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import BinaryIO, TypeVar, cast

from wado.adapters.instance_store.incoming import IncomingFile
from wado.adapters.instance_store.layout import checked, file_at, is_tenant, same_data_set
from wado.adapters.instance_store.posix import failure, translated
from wado.adapters.instance_store.s3_bucket import MAX_PUT_BYTES, Bucket, NoAnswer, Object, Taken
from wado.adapters.instance_store.s3_journals import SUFFIX, S3Journals
from wado.adapters.instance_store.s3_reader import ObjectFile, Windows
from wado.archive.paths import instance_path
from wado.dicom.uids import InstanceRef, SeriesRef, StudyRef
from wado.errors import InvalidRequest, NotFound, TooLarge, WadoError
from wado.ports import Incoming, StoredFile, StoreOutcome

_INCOMING = "incoming"
_WHOLE_BYTES = 4 << 20
"""Files up to this length are sent from memory, longer ones from the disk."""
_THREADS = 16
_MAX_TRIES = 20
"""How often a file is stored that another keeps storing and deleting."""
_LISTED_AHEAD = 8
_COPY_BYTES = 1 << 20

T = TypeVar("T")
U = TypeVar("U")


class SpooledFile(IncomingFile):
    """A file on its way in: on the disk of this machine, without a name, so that it can't stay."""

    __slots__ = ()

    def write(self, data: Sequence[bytes | memoryview]) -> None:
        """Append the pieces in order; TooLarge when S3 can't take so much as one object."""
        if self.size + sum(map(len, data)) > MAX_PUT_BYTES:
            raise TooLarge(f"S3 takes at most {MAX_PUT_BYTES} bytes as one object")
        super().write(data)

    def put(self, bucket: Bucket, path: str, *, is_new: bool) -> None:
        """Write it to S3; raises as `Bucket.put`."""
        if self.size <= _WHOLE_BYTES:
            with translated("reading an incoming file"):
                data = os.pread(self._fd, self.size, 0)
            bucket.put(path, data, over=None if is_new else "*")
        else:
            bucket.put_file(path, self._fd, self.size, over=None if is_new else "*")

    def reader(self) -> BinaryIO:
        """Open it from its beginning."""
        return open(f"/proc/self/fd/{self._fd}", "rb")


class S3InstanceStore:
    """The `InstanceStore` of many machines, in a bucket.

    Parameters
    ----------
    bucket
        Where everything lies.
    root
        Folder of this machine in which files wait while they come in.
    """

    def __init__(self, bucket: Bucket, root: Path) -> None:
        self._bucket = bucket
        self._incoming = Path(os.path.abspath(root)) / _INCOMING
        with translated(f"opening the storage root {root}"):
            self._incoming.mkdir(parents=True, exist_ok=True)
        self._journals = S3Journals(bucket)
        self._windows = Windows()
        self._threads: ThreadPoolExecutor | None = None
        self._lock = Lock()

    # -------------------------------------------------------------- originals

    def receive(self, ref: InstanceRef | None) -> SpooledFile:
        """Open a new file, to be written piece by piece."""
        with (
            translated("opening an incoming file"),
            tempfile.TemporaryFile(dir=self._incoming, buffering=0) as file,
        ):
            return SpooledFile(os.dup(file.fileno()), "", ref)

    def commit(
        self, incoming: Sequence[Incoming], *, replace: bool
    ) -> Sequence[StoreOutcome | WadoError]:
        """Store files, several at a time; those of one path in their order.

        When S3 does not answer for one, those that were not begun are not tried.
        """
        files = cast("Sequence[SpooledFile]", incoming)
        by_ref: dict[InstanceRef | None, list[SpooledFile]] = {}
        for file in files:
            by_ref.setdefault(file.ref, []).append(file)
        outcomes: dict[int, StoreOutcome | WadoError] = {}
        away: list[NoAnswer] = []

        def store(group: list[SpooledFile]) -> None:
            for file in group:
                outcomes[id(file)] = self._outcome(file, away, replace=replace)

        self._in_parallel(store, list(by_ref.values()))
        return [outcomes[id(file)] for file in files]

    def _outcome(
        self, file: SpooledFile, away: list[NoAnswer], *, replace: bool
    ) -> StoreOutcome | WadoError:
        try:
            if away:
                return NoAnswer(str(away[0]))
            return self._publish(file, replace=replace)
        except OSError as e:
            return failure(e, "storing a file")
        except NoAnswer as e:
            away.append(e)
            return e
        except WadoError as e:
            return e
        finally:
            file.close()

    def _publish(self, file: SpooledFile, *, replace: bool) -> StoreOutcome:
        """Give a file its name, unless one is there.

        When the answer is lost the file may be there all the same, and it was not announced: the
        sender repeats it, and it is the same then.
        """
        if file.ref is None:
            raise InvalidRequest("the instance was not identified")
        path = instance_path(file.ref)
        for _ in range(_MAX_TRIES):
            try:
                file.put(self._bucket, path, is_new=True)
            except Taken:
                pass
            else:
                return StoreOutcome.STORED
            try:
                with file.reader() as ours, self._open(path) as theirs:
                    is_same = same_data_set(ours, cast("BinaryIO", theirs))
            except NotFound:  # deleted while we compared
                continue
            if is_same:
                return StoreOutcome.SAME
            if not replace:
                return StoreOutcome.DIFFERENT
            file.put(self._bucket, path, is_new=False)
            return StoreOutcome.REPLACED
        raise NoAnswer(f"{path}: others store and delete it all the time")

    def _in_parallel(self, act: Callable[[T], U], items: Sequence[T]) -> list[U]:
        """Do something with each, several at a time; the first error is raised when all ended."""
        if len(items) < 2:
            return [act(item) for item in items]
        futures = [self._pool().submit(act, item) for item in items]
        results, errors = [], []
        for future in futures:
            try:
                results.append(future.result())
            except Exception as e:  # noqa: BLE001 - raised below
                errors.append(e)
                for other in futures:
                    other.cancel()
        if errors:
            raise errors[0]
        return results

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="s3")
            return self._threads

    # -------------------------------------------------------------- reading

    def open(self, path: str, *, ahead: tuple[int, int] | None = None) -> BinaryIO:
        """Open for reading; what will be read first is asked for at once."""
        if checked(path).endswith(SUFFIX):
            return self._journals.open(path)
        return cast("BinaryIO", self._open(path, ahead))

    def _open(self, path: str, ahead: tuple[int, int] | None = None) -> ObjectFile:
        return ObjectFile(self._bucket, path, self._windows, ahead)

    def local_path(self, path: str) -> Path | None:
        """None; but what comes in waits on this machine."""
        return self._incoming if checked(path) == _INCOMING else None

    def version(self, path: str) -> tuple[int, int] | None:
        """Identity (made of the ETag and the time) and size."""
        if checked(path).endswith(SUFFIX):
            return self._journals.version(path)
        found = self._bucket.stat(path)
        return (_identity(found), found.size) if found else None

    def instances(
        self, under: str | StudyRef | SeriesRef | None = None, *, place: str = ""
    ) -> Iterator[StoredFile]:
        """Walk the originals, or those below `place`, in order of their paths.

        S3 lists by bytes, in which ``1.2.3/`` comes before ``1.2/``: so study by study.
        """
        root = f"{checked(place)}/" if place else ""

        def listed(prefix: str) -> list[StoredFile]:
            found = []
            for item in self._bucket.walk(prefix):
                path = item.path.removeprefix(root)
                at = file_at(path, place)
                if at is not None:
                    times = (item.modified_s, item.modified_s)
                    file = StoredFile(at[0], item.path, item.size, *times, at[1])
                    found.append((path.split("/"), file))
            return [file for _, file in sorted(found, key=lambda pair: pair[0])]

        for files in self._ahead(listed, self._prefixes(root, under)):
            yield from files

    def _prefixes(self, root: str, under: str | StudyRef | SeriesRef | None) -> Iterator[str]:
        match under:
            case SeriesRef():
                study = f"{root}{under.tenant_id}/{under.study_instance_uid}"
                yield f"{study}/{under.series_instance_uid}"
                return
            case StudyRef():
                yield f"{root}{under.tenant_id}/{under.study_instance_uid}"
                return
            case str():
                tenants = [under]
            case None:
                tenants = [t for t in self._bucket.folders(root.rstrip("/")) if is_tenant(t)]
        for tenant in tenants:
            for study in self._bucket.folders(f"{root}{tenant}"):
                yield f"{root}{tenant}/{study}"

    def _ahead(self, act: Callable[[str], T], items: Iterable[str]) -> Iterator[T]:
        """Do something with each in order, with a few ahead of who takes the results."""
        waiting: deque[Future[T]] = deque()
        try:
            for item in items:
                waiting.append(self._pool().submit(act, item))
                if len(waiting) > _LISTED_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def abandoned(self, *, older_than_s: float) -> Iterator[str]:
        """Segments of journals whose writers died; what came in halfway leaves nothing."""
        return self._journals.unreferenced(time.time() - older_than_s)

    # -------------------------------------------------------------- documents and journals

    def put_document(self, path: str, data: Iterable[bytes], *, at: int | None = None) -> bool:
        """Replace whole: a document by one PUT, a journal by its manifest."""
        if checked(path).endswith(SUFFIX):
            return self._journals.replace(path, data, at)
        if at is not None:
            raise InvalidRequest(f"no journal: {path}")
        with translated(f"writing {path}"):
            file = self.receive(None)
            try:
                for piece in data:
                    file.write([piece])
                file.put(self._bucket, path, is_new=False)
            finally:
                file.close()
        return True

    def append(
        self, appends: Mapping[str, bytes], *, at: int | Mapping[str, int] | None = None
    ) -> bool:
        """Append to journals, several at a time."""
        lengths = at if isinstance(at, Mapping) else dict.fromkeys(appends, at)
        for path in appends:
            if not checked(path).endswith(SUFFIX):
                raise InvalidRequest(f"no journal: {path}")
        return all(
            self._in_parallel(
                lambda item: self._journals.append(*item, lengths[item[0]]), list(appends.items())
            )
        )

    def delete(self, paths: Sequence[str], *, at: int | None = None) -> None:
        """Remove objects; journals in turn with appends."""
        journals = [path for path in paths if checked(path).endswith(SUFFIX)]
        others = [path for path in paths if not path.endswith(SUFFIX)]
        if others and at is not None:
            raise InvalidRequest(f"no journal: {others[0]}")
        self._in_parallel(lambda path: self._journals.remove(path, at), journals)
        if others:
            self._bucket.delete(others)

    # -------------------------------------------------------------- moves

    def move(self, moves: Mapping[str, str]) -> Collection[str]:
        """Copy, then delete; interrupted in between, it is finished when it is asked again."""
        pairs = [(checked(old), checked(new)) for old, new in moves.items()]
        moved = self._in_parallel(lambda pair: self._move(*pair), pairs)
        return {old for (old, _), is_moved in zip(pairs, moved, strict=True) if is_moved}

    def _move(self, old: str, new: str) -> bool:
        for _ in range(_MAX_TRIES):
            try:
                source = self._bucket.stat(old)
                if source is None:
                    return False
                is_ours = self._bucket.copy(old, new)
                if not is_ours and not self._is_copy(old, new):
                    return False
            except NotFound:  # another moved it
                return False
            if self._bucket.delete_if(old, source.etag):
                return True
            if is_ours:  # it was replaced meanwhile: this is a copy of what is no more
                self._bucket.delete([new])
        raise NoAnswer(f"{old}: others replace it all the time")

    def _is_copy(self, old: str, new: str) -> bool:
        """Whether both hold the same bytes: who copied them died before the one was removed."""
        with self._open(old) as one, self._open(new) as two:
            if one.size != two.size:
                return False
            while piece := one.read(_COPY_BYTES):
                if piece != two.read(_COPY_BYTES):
                    return False
        return True


def _identity(found: Object) -> int:
    text = f"{found.etag} {found.modified_s}".encode()
    return int.from_bytes(blake2b(text, digest_size=7).digest())
