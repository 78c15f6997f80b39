r"""The journal of a series: what retrieval needs without opening DICOM files.

One line per instance, ``<entry>\t<DICOM JSON>\n``, appended by the one consumer that reads the
study's partition; a later line of the same SOP Instance UID wins. An instance becomes visible by
one append, whatever is there already. Lines ``{"derived":…}`` tell of its derived copies. A line
``{"described":…}`` says that the ready metadata documents cover all lines before it; the next
append makes them stale by its mere place.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any, BinaryIO

import orjson

from wado.archive.derived import NOTHING, Derived
from wado.archive.paths import journal_path
from wado.archive.reading import reading
from wado.dicom.frames import PixelData
from wado.dicom.uids import SeriesRef
from wado.errors import NotFound, Unavailable, Unreadable
from wado.ports import InstanceStore

RECENT_S = 0.05
"""How old the view of a series may be that `Journals.recent` gives."""
ON_REQUEST = "deleted on request"
"""Why an instance was deleted: not because its file was lost, which is not told to clients."""
_HEAD_BYTES = 512
"""What tells two journals apart: it holds when the first line was written."""
_MAX_LOOKED_AT = 10_000
_MAX_BYTES = 100 << 20
"""Entries that a process keeps parsed, by the length of their text, which tells their size in
memory well enough; series used least recently are forgotten first."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One instance of a series.

    `bulk` maps a tag path to (offset, length) in the file; `metadata_offset` and
    `metadata_length` locate its DICOM JSON in the journal, in the line at `line_offset`.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    file_size: int
    digest: str
    received_at: str
    instance_number: int | None
    number_of_frames: int
    pixel: PixelData | None
    bulk: Mapping[str, tuple[int, int]]
    metadata_offset: int
    metadata_length: int
    line_offset: int = 0
    derived: Derived = NOTHING


@dataclass(frozen=True, slots=True)
class SeriesView:
    """A series as its journal has it up to `size` bytes; immutable.

    `described` tells that the ready metadata documents show exactly this, if they are as long as
    `documents` says: by their ending, in bytes, where that is known; `deleted` has the time
    (ISO 8601, UTC) of each instance that was deleted, and not stored again; `weight` is the length
    of the text of the entries in bytes. `head` is how the journal begins: another one that came by
    the same identity begins otherwise.
    """

    ref: SeriesRef
    identity: int
    size: int
    entries: Mapping[str, Entry] = field(repr=False)
    described: bool
    weight: int = 0
    head: bytes = field(default=b"", repr=False)
    deleted: Mapping[str, str] = field(default_factory=dict, repr=False)
    documents: Mapping[str, int] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        """Changes with every change of the series."""
        return f"{self.identity:x}-{self.size:x}"

    def ordered(self) -> list[Entry]:
        """Entries by Instance Number, then UID."""
        return sorted(
            self.entries.values(),
            key=lambda e: (e.instance_number is None, e.instance_number or 0, e.sop_instance_uid),
        )


def journal_line(entry: Mapping[str, Any], metadata: Mapping[str, Any] | bytes) -> bytes:
    """Make the line of an instance; `entry` has the fields of `Entry` but for the last three."""
    text = metadata if isinstance(metadata, bytes) else orjson.dumps(metadata)
    return orjson.dumps(entry) + b"\t" + text + b"\n"


def metadata_of(line: bytes) -> dict[str, Any]:
    """Take the DICOM JSON from the line of an instance."""
    metadata: dict[str, Any] = orjson.loads(line[line.index(b"\t") + 1 :])
    return metadata


def described_line(documents: Mapping[str, int] | None = None) -> bytes:
    """Make the line that says that the metadata documents are up to date, and how long they are.

    By their length a reader sees that who was overtaken (it was frozen while it wrote) put older
    ones in their place.
    """
    return orjson.dumps({"described": dict(documents or {}) or True}) + b"\t\n"


def deleted_line(sop_instance_uid: str, reason: str, *, at: str = "") -> bytes:
    """Make the line that takes an instance out of the series.

    With `ON_REQUEST` as `reason` its UID stays known as deleted, `at` that time (default: now).
    """
    entry = {
        "sop_instance_uid": sop_instance_uid,
        "deleted": at or datetime.now(UTC).isoformat(timespec="microseconds"),
        "reason": reason,
    }
    return orjson.dumps(entry) + b"\t\n"


def compacted_line() -> bytes:
    """Make the line with which a compacted journal begins: unlike any other's."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    return orjson.dumps({"compacted": now, "unique": os.urandom(8).hex()}) + b"\t\n"


class Journals:
    """Reads journals, and keeps what it parsed; always as fresh as the file.

    One per process; used from any thread.
    """

    def __init__(self, store: InstanceStore, *, max_bytes: int = _MAX_BYTES) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._bytes = 0
        self._views: OrderedDict[SeriesRef, SeriesView] = OrderedDict()
        self._looked_at: dict[SeriesRef, float] = {}
        self._lock = threading.Lock()

    def knows(self, ref: SeriesRef) -> bool:
        """Whether `view` has little to read: the series was looked at before."""
        return ref in self._views

    def view(self, ref: SeriesRef) -> SeriesView | None:
        """The series as it is now, or None if the archive has no instance of it."""
        view = self.memory(ref)
        return view if view is not None and view.entries else None

    def memory(self, ref: SeriesRef) -> SeriesView | None:
        """Like `view`, and a series without instances whose deleted ones are remembered."""
        known = self._views.get(ref)
        try:
            version = self._store.version(journal_path(ref))
        except Unavailable as e:
            raise Unreadable(str(e)) from e
        if version is None:
            if known is not None:
                self._remember(ref, None)
            return None
        if known is None or (known.identity, known.size) != version:
            view = self._read(ref, known, version)
            if view is not known:
                self._remember(ref, view)
            return view
        with self._lock:
            if ref in self._views:
                self._views.move_to_end(ref)
        return known

    def recent(self, ref: SeriesRef) -> SeriesView | None:
        """The series as it was at most `RECENT_S` ago; saves a look at the file each time.

        For what can't have changed unless it is gone: a known instance. Who misses something in
        it asks `view`.
        """
        known = self._views.get(ref)
        now = monotonic()
        if known is not None and now - self._looked_at.get(ref, 0.0) < RECENT_S:
            return known if known.entries else None
        if len(self._looked_at) > _MAX_LOOKED_AT:
            self._looked_at.clear()
        view = self.view(ref)
        self._looked_at[ref] = now  # not before: who comes while we look would be given the old one
        return view

    def _read(
        self, ref: SeriesRef, known: SeriesView | None, version: tuple[int, int]
    ) -> SeriesView:
        identity, _ = version
        path = journal_path(ref)
        with reading(path), self._store.open(path) as file:
            head = file.read(_HEAD_BYTES)
            if (
                known is None
                or known.identity != identity
                or known.size > version[1]
                or not head.startswith(known.head)
            ):
                known = SeriesView(ref, identity, 0, {}, described=False)
            entries, size = dict(known.entries), known.size
            described: bool | dict[str, int] = dict(known.documents) or known.described
            deleted, weight = dict(known.deleted), known.weight
            file.seek(size)
            for line in file:  # one by one: the journal of a long series is large
                if not line.endswith(b"\n"):
                    break  # being written, or torn
                described = _apply(entries, deleted, line[:-1], size)
                size += len(line)
                weight += line.find(b"\t")
        if size == known.size:
            return known
        documents = described if isinstance(described, dict) else {}
        return SeriesView(
            ref, identity, size, entries, bool(described), weight, head[:size], deleted, documents
        )

    def _remember(self, ref: SeriesRef, view: SeriesView | None) -> None:
        with self._lock:
            old = self._views.pop(ref, None)
            self._bytes -= old.weight if old else 0
            if view is None:
                return
            self._views[ref] = view
            self._bytes += view.weight
            while self._bytes > self._max_bytes and len(self._views) > 1:
                _, forgotten = self._views.popitem(last=False)
                self._bytes -= forgotten.weight

    def metadata(self, view: SeriesView, entries: Iterable[Entry] | None = None) -> Iterator[bytes]:
        """DICOM JSON of instances, one object each, in the order of `entries` (default: all)."""
        chosen = view.ordered() if entries is None else list(entries)
        path = journal_path(view.ref)
        with reading(path), self._store.open(path) as file:
            if self._is_as_in(view):
                yield from _texts(file, chosen)
                return
        now = self.memory(view.ref)  # it was compacted since: each line has another place
        known = now.entries if now else {}
        if any(entry.sop_instance_uid not in known for entry in chosen):
            raise NotFound("instances were deleted meanwhile")
        with reading(path), self._store.open(path) as file:
            yield from _texts(file, [known[entry.sop_instance_uid] for entry in chosen])

    def _is_as_in(self, view: SeriesView) -> bool:
        version = self._store.version(journal_path(view.ref))
        return version is not None and version[0] == view.identity


def _texts(file: BinaryIO, entries: Iterable[Entry]) -> Iterator[bytes]:
    for entry in entries:
        file.seek(entry.metadata_offset)
        text = file.read(entry.metadata_length)
        if len(text) != entry.metadata_length:
            raise NotFound(f"metadata of {entry.sop_instance_uid}")
        yield text


def _apply(
    entries: dict[str, Entry], deleted: dict[str, str], line: bytes, offset: int
) -> bool | dict[str, int]:
    """Add a line to the entries; whether it says that documents are up to date (how long)."""
    tab = line.find(b"\t")
    try:
        value: dict[str, Any] = orjson.loads(line[:tab] if tab >= 0 else line)
    except ValueError:  # a torn line: its message was not committed and comes again
        return False
    described: bool | dict[str, int] = value.get("described", False)
    if described:
        return described
    if value.get("compacted"):
        return False
    if uid := value.get("derived"):
        entry = entries.get(uid)
        if entry is not None and entry.digest == value["digest"]:
            derived = entry.derived.having(value, len(line) + 1)
            entries[uid] = replace(entry, derived=derived)
        return False
    uid = value["sop_instance_uid"]
    if value.get("deleted"):
        entries.pop(uid, None)
        if value.get("reason") == ON_REQUEST:
            deleted[uid] = value["deleted"]
        return False
    deleted.pop(uid, None)
    known = entries.get(uid)
    pixel = value.get("pixel")
    entries[uid] = Entry(
        sop_instance_uid=uid,
        sop_class_uid=value["sop_class_uid"],
        transfer_syntax_uid=value["transfer_syntax_uid"],
        file_size=value["file_size"],
        digest=value["digest"],
        received_at=value["received_at"],
        instance_number=value["instance_number"],
        number_of_frames=value["number_of_frames"],
        pixel=PixelData.from_json(pixel) if pixel else None,
        bulk=value["bulk"],
        metadata_offset=offset + tab + 1,
        metadata_length=len(line) - tab - 1,
        line_offset=offset,
        derived=known.derived if known and known.digest == value["digest"] else NOTHING,
    )
    return False
