"""Parts of a request that wait for each other: on the disk, all in one file that has no name."""

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import FileIO
from urllib.parse import urljoin

from wado.dicom.media_types import MediaType
from wado.errors import OutOfResources, TooLarge
from wado.ports import InstanceStore

_READ_BYTES = 1 << 20
_MAX_PARTS = 100_000
"""Each part that waits takes some memory."""
_MAX_USES = 16
"""How many times as much as came, instances may take: else one part would fill the disk."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(slots=True)
class SpooledPart:
    """A part of a message: `length` bytes at `start` of the spool."""

    media_type: MediaType
    location: str
    start: int
    length: int = 0


def unnamed_file(store: InstanceStore) -> FileIO:
    """Open a file on the disk of a store, if that is on this machine.

    Without a name: the system takes the space back, however this process ends.

    Raises
    ------
    OutOfResources
        There is none to be had.
    """
    below = store.local_path("incoming")
    folder = below if below is not None and below.is_dir() else None
    try:
        return tempfile.TemporaryFile(dir=folder, buffering=0)
    except OSError as e:
        raise OutOfResources(f"no file for large data can be had: {e.strerror}") from e


def write_all(file: FileIO, data: bytes) -> None:
    """Append to an unnamed file; raises OutOfResources if there is no space."""
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as e:
        raise OutOfResources(f"large data can't be kept: {e.strerror}") from e


class Spool:
    """The parts of one request; gone when it is closed, and with the process.

    Parameters
    ----------
    store
        On whose disk it lies, if that is on this machine.
    base_url
        Address that relative references are resolved against.
    """

    def __init__(self, store: InstanceStore, base_url: str) -> None:
        self._file = unnamed_file(store)
        self._base_url = base_url.rstrip("/") + "/"
        self._size = self._taken = 0
        self._parts: dict[str, list[SpooledPart]] = {}
        self._count = 0
        self._used: set[str] = set()
        self.metadata: list[SpooledPart] = []

    def begin(self, media_type: MediaType, location: str, *, is_metadata: bool) -> SpooledPart:
        """Begin the next part.

        Raises
        ------
        TooLarge
            There are too many parts.
        """
        self._count += 1
        if self._count > _MAX_PARTS:
            raise TooLarge(f"the request has over {_MAX_PARTS} parts of metadata and bulk data")
        part = SpooledPart(media_type, location, self._size)
        if is_metadata:
            self.metadata.append(part)
        else:
            self._parts.setdefault(self._key(location), []).append(part)
        return part

    def write(self, part: SpooledPart, data: bytes | memoryview) -> None:
        """Append to the part that was begun last.

        Raises
        ------
        OutOfResources
            There is no space.
        """
        view = memoryview(data)
        while view:
            try:
                written = os.write(self._file.fileno(), view)
            except OSError as e:
                what = "the disk is full" if e.errno in _FULL else f"{e.strerror}"
                raise OutOfResources(f"bulk data can't be kept: {what}") from e
            part.length += written
            self._size += written
            view = view[written:]

    def parts(self, uri: str) -> list[SpooledPart]:
        """Parts whose Content-Location is a BulkDataURI, in the order in which they came."""
        key = self._key(uri)
        self._used.add(key)
        return self._parts.get(key, [])

    def unused(self) -> list[str]:
        """Content-Locations of parts that nobody asked for."""
        return [
            parts[0].location or "none" for key, parts in self._parts.items()
            if key not in self._used
        ]  # fmt: skip

    def read_at(self, part: SpooledPart, offset: int, length: int) -> bytes:
        """Read some bytes of a part, at most so many."""
        length = max(min(length, part.length - offset), 0)
        return os.pread(self._file.fileno(), length, part.start + offset)

    def chunks(self, parts: Iterable[SpooledPart]) -> Iterator[bytes]:
        """Read parts from their beginning to their end."""
        for part in parts:
            yield from self.slices(part, 0, part.length)

    def slices(self, part: SpooledPart, start: int, end: int) -> Iterator[bytes]:
        """Read from one offset of a part to another.

        Raises
        ------
        TooLarge
            Bulk data is used again and again.
        """
        while start < end:
            data = self.read_at(part, start, min(_READ_BYTES, end - start))
            if not data:
                raise OutOfResources("the file of bulk data was cut off")
            self._taken += len(data)
            if self._taken > _MAX_USES * self._size:
                raise TooLarge(f"instances take more than {_MAX_USES} times the bulk data sent")
            yield data
            start += len(data)

    def close(self) -> None:
        """Give the space back."""
        self._file.close()

    def _key(self, uri: str) -> str:
        uri = uri.strip().removeprefix("<").removesuffix(">")
        try:
            return urljoin(self._base_url, uri)
        except ValueError:  # no URI that one could resolve: it stands for itself
            return uri
