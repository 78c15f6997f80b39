"""Journals on S3, which has no append: a manifest that is replaced only by who knows it (ADR 0016).

The manifest is the object that has the journal's name. It holds the journal's end; when that gets
long it becomes a segment, an object of its own. So an append is one conditional PUT of some
kilobytes, whatever is there, and the journal is what its manifest says: whole at any time.
"""

import io
import os
import random
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate, chain, groupby
from threading import Lock
from typing import Any, BinaryIO, cast

from wado.adapters.instance_store.s3_bucket import Bucket, Taken
from wado.adapters.instance_store.s3_manifest import Manifest, Segment, new_generation
from wado.adapters.instance_store.s3_reader import Windows
from wado.errors import NotFound, Unavailable, WadoError

SUFFIX = ".journal"
_SEGMENTS = ".segments"
_PLACES = ("metadata", "commitments")
_TAIL_BYTES = 1 << 16
"""How long the end in the manifest may get: each append sends it again."""
_SEGMENT_BYTES = 8 << 20
_SMALL_BYTES = 1 << 20
_MERGED = 16
"""So many small segments in a row become one."""
_BLOCK_BYTES = 1 << 20
_BLOCKS_BYTES = 16 << 20
_BUFFER_BYTES = 1 << 17
_CHANGE_S = 20.0
_MAX_PAUSE_S = 0.25
_LOCKS = 256
_KNOWN_BYTES = 16 << 20
_ENTRY_BYTES = 1000


@dataclass(frozen=True, slots=True)
class _Known:
    """A manifest as it was read or written last; without ETag there was none."""

    etag: str | None
    manifest: Manifest | None

    @property
    def there(self) -> Manifest | None:
        """The manifest of a journal that was not removed."""
        return self.manifest if self.manifest is not None and not self.manifest.gone else None


_NONE = _Known(None, None)
_Change = Callable[[Manifest | None, list[Segment]], Manifest]
"""Makes the next manifest of the present one; the segments it writes go to the list."""


class S3Journals:
    """The journals of a bucket; used from any thread, and beside others on other machines."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._blocks = Windows(_BLOCKS_BYTES)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._known_bytes = 0
        self._lock = Lock()
        self._turns = [Lock() for _ in range(_LOCKS)]

    # -------------------------------------------------------------- reading

    def version(self, path: str) -> tuple[int, int] | None:
        """Generation and size; one request, which brings nothing if nothing changed."""
        manifest = self._look(path).there
        return (manifest.generation, manifest.size) if manifest else None

    def open(self, path: str) -> BinaryIO:
        """Open the journal as it is now; what comes later is not in it."""
        manifest = self._look(path).there
        if manifest is None:
            raise NotFound(f"{path}: no such file")
        raw = _JournalFile(manifest, lambda name, start: self._block(path, name, start))
        return cast("BinaryIO", io.BufferedReader(raw, _BUFFER_BYTES))

    def _block(self, path: str, name: str, start: int) -> memoryview:
        """A block of a segment, of memory if it was read lately."""
        key = (path, name, start)
        held = self._blocks.get(key)
        if held is None:
            data, _ = self._bucket.get(_segment(path, name), start, start + _BLOCK_BYTES)
            self._blocks.put(key, start, data)
            return data
        return held[1]

    def _look(self, path: str) -> _Known:
        """Read the manifest, if it is not the one that is known."""
        known = self._remembered(path)
        try:
            found = self._bucket.get_changed(path, known.etag if known else None)
        except NotFound:
            return self._remember(path, _NONE)
        if found is None:
            assert known is not None
            return known
        data, etag = found
        try:
            return self._remember(path, _Known(etag, Manifest.of(data)))
        except (ValueError, KeyError, TypeError) as e:
            raise Unavailable(f"{path} can't be read: {e}") from e

    def _remembered(self, path: str) -> _Known | None:
        with self._lock:
            if path in self._known:
                self._known.move_to_end(path)
            return self._known.get(path)

    def _remember(self, path: str, known: _Known) -> _Known:
        with self._lock:
            self._known_bytes -= _weight(self._known.pop(path, _NONE))
            if known.manifest is not None:
                self._known[path] = known
                self._known_bytes += _weight(known)
            while self._known_bytes > _KNOWN_BYTES and len(self._known) > 1:
                self._known_bytes -= _weight(self._known.popitem(last=False)[1])
        return known

    # -------------------------------------------------------------- writing

    def append(self, path: str, data: bytes, at: int | None = None) -> bool:
        """Append, if the journal is `at` bytes long."""

        def longer(manifest: Manifest | None, made: list[Segment]) -> Manifest:
            if manifest is None or manifest.gone:
                doomed = manifest.doomed if manifest else ()
                manifest = Manifest(new_generation(), doomed=doomed)
            tail = manifest.tail + data
            if len(tail) <= _TAIL_BYTES:
                return replace(manifest, tail=tail)
            self._write(path, manifest, (tail,), made)
            full = replace(manifest, segments=(*manifest.segments, *made), tail=b"")
            return self._merged(path, full, made)

        if not data:  # nothing waits to be flushed here
            return at is None or _length(self._look(path)) == at
        return self._change(path, longer, at)

    def replace(self, path: str, pieces: Iterable[bytes], at: int | None) -> bool:
        """Put a whole journal in place of one that is there, and `at` bytes long."""
        there = self._look(path).there
        if at is not None and (there is None or there.size != at):
            return False
        fresh = Manifest(new_generation())
        made: list[Segment] = []

        def other(manifest: Manifest | None, _made: list[Segment]) -> Manifest:
            old = manifest or fresh
            doomed = old.without(()).doomed
            new = replace(fresh, segments=tuple(made), writes=old.writes, doomed=doomed)
            return replace(new, tail=b"" if made else first)

        done, parts, first = False, _joined(pieces, _SEGMENT_BYTES), b""
        try:
            first = next(parts, b"")
            if len(first) > _TAIL_BYTES:  # else it is all of it
                self._write(path, fresh, chain((first,), parts), made)
            done = self._change(path, other, at, there=at is not None)
        finally:
            if not done:
                self._discard_unused(path, made)
        return done

    def remove(self, path: str, at: int | None) -> None:
        """Remove a journal, if it is `at` bytes long."""

        def gone(manifest: Manifest | None, _made: list[Segment]) -> Manifest:
            assert manifest is not None
            return replace(manifest.without(()), tail=b"", gone=True)

        self._change(path, gone, at, there=True)

    def _change(self, path: str, change: _Change, at: int | None, *, there: bool = False) -> bool:
        """Put the next manifest in place of the one it was made of, again until that succeeds.

        False if the journal is not `at` bytes long, or (where it must be `there`) absent.
        """
        write, deadline = os.urandom(6).hex(), time.monotonic() + _CHANGE_S
        with self._turns[hash(path) % _LOCKS]:
            remembered = self._remembered(path)
            known = remembered or self._look(path)
            pause = 0.0
            while True:
                fits = (at is None or _length(known) == at) and not (there and not known.there)
                if not fits and remembered is None:
                    return False
                made: list[Segment] = []
                if fits:
                    error = self._put(path, known, change(known.manifest, made).written(write))
                    if error is None:
                        return True
                known, remembered = self._look(path), None
                if known.manifest is not None and write in known.manifest.writes:
                    return True  # only the answer was lost
                self._discard_unused(path, made)
                if fits and error is not None:
                    if time.monotonic() > deadline:
                        raise error
                    time.sleep(random.uniform(0, pause))  # noqa: S311 - only to fall out of step
                    pause = min(2 * pause + 0.005, _MAX_PAUSE_S)

    def _put(self, path: str, known: _Known, manifest: Manifest) -> WadoError | None:
        """Try to write the next manifest; why it is not known to be there."""
        manifest, purged = manifest.purged()
        try:
            etag = self._bucket.put(path, manifest.to_bytes(), over=known.etag)
        except Taken:
            return Unavailable(f"{path}: too many write to it at the same time")
        except Unavailable as e:
            return e
        self._remember(path, _Known(etag, manifest))
        self._discard(path, purged)
        return None

    def _write(
        self, path: str, manifest: Manifest, pieces: Iterable[bytes], made: list[Segment]
    ) -> None:
        """Write bytes as segments."""
        for data in _joined(pieces, _SEGMENT_BYTES):
            name = f"{manifest.generation:x}-{os.urandom(8).hex()}"
            made.append(Segment(name, len(data)))
            self._bucket.put(_segment(path, name), data)

    def _merged(self, path: str, manifest: Manifest, made: list[Segment]) -> Manifest:
        """Make one of the last segments, if they are many and small."""
        last = manifest.segments[-_MERGED:]
        if len(last) < _MERGED or any(s.size >= _SMALL_BYTES for s in last):
            return manifest
        pieces = (bytes(self._block(path, s.name, 0)) for s in last)
        merged: list[Segment] = []
        self._write(path, manifest, (b"".join(pieces),), merged)
        made += merged
        return manifest.without((*manifest.segments[:-_MERGED], *merged))

    def _discard_unused(self, path: str, made: Sequence[Segment]) -> None:
        """Remove segments of a change that failed, unless the journal has them all the same."""
        if not made:
            return
        with suppress(WadoError):
            manifest = self._look(path).manifest or Manifest(0)
            used = {s.name for s in manifest.segments} | {name for name, _ in manifest.doomed}
            self._discard(path, [s.name for s in made if s.name not in used])

    def _discard(self, path: str, names: Sequence[str]) -> None:
        """Remove segments that no manifest has; those left are found as abandoned."""
        if names:
            with suppress(WadoError):
                self._bucket.delete([_segment(path, name) for name in names])

    def unreferenced(self, before_s: float) -> Iterator[str]:
        """Segments that were written before a time, and are in no journal."""
        for place in _PLACES:
            old = (o.path for o in self._bucket.walk(place) if o.modified_s < before_s)
            found = (path for path in old if f"{_SEGMENTS}/" in path)
            for folder, paths in groupby(found, key=lambda path: path.rpartition("/")[0]):
                journal = folder.removesuffix(_SEGMENTS) + SUFFIX
                manifest = self._look(journal).manifest or Manifest(0)
                used = {s.name for s in manifest.segments}
                used |= {name for name, at in manifest.doomed if at >= before_s}
                for path in paths:
                    if path.rpartition("/")[2] not in used:
                        yield path


class _JournalFile(io.RawIOBase):
    """A journal as its manifest has it."""

    def __init__(self, manifest: Manifest, block: Callable[[str, int], memoryview]) -> None:
        super().__init__()
        self._manifest = manifest
        self._block = block
        self._ends = list(accumulate(s.size for s in manifest.segments))
        self._tail = memoryview(manifest.tail)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._manifest.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        number = bisect_right(self._ends, self._at)
        if number == len(self._ends):
            sealed = self._ends[-1] if self._ends else 0
            piece = self._tail[self._at - sealed :]
        else:
            segment = self._manifest.segments[number]
            within = self._at - (self._ends[number] - segment.size)
            start = within // _BLOCK_BYTES * _BLOCK_BYTES
            piece = self._block(segment.name, start)[within - start : segment.size - start]
            if not piece:
                raise NotFound(f"the segment {segment.name} ends early")
        with memoryview(buffer).cast("B") as target:
            count = min(len(target), len(piece))
            target[:count] = piece[:count]
        self._at += count
        return count


def _segment(journal: str, name: str) -> str:
    return f"{journal.removesuffix(SUFFIX)}{_SEGMENTS}/{name}"


def _length(known: _Known) -> int:
    return known.there.size if known.there else 0


def _weight(known: _Known) -> int:
    if known.manifest is None:
        return 0
    manifest = known.manifest
    pieces = len(manifest.segments) + len(manifest.doomed) + 1
    return len(manifest.tail) + pieces * _ENTRY_BYTES


def _joined(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Cut and join pieces to such of one size; the last is shorter, and none is empty."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)
