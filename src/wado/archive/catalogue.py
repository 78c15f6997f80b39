"""Catalogue: put what was announced into the index, the journals, and the record topics.

The order is index, then journal and records; the caller commits last. A crash anywhere repeats the
batch, and each step is idempotent (DESIGN §5.2).
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import orjson

from wado import vitals
from wado.archive.aside import bring_back, quarantine, set_deleted_aside
from wado.archive.attributes import image_of, state_of
from wado.archive.delete import delete_instances
from wado.archive.growth import OVERTAKEN, Growth, grow, must_be_ours
from wado.archive.journal import Journals, SeriesView, journal_line, metadata_of
from wado.archive.reading import must_answer, must_give_others, reading
from wado.archive.retrieve import Item
from wado.archive.store import as_stored
from wado.archive.transcode_rules import targets
from wado.archive.wanted_copies import Standing, order, standing
from wado.dicom.describe import Description, describe
from wado.dicom.uids import InstanceRef, SeriesRef
from wado.errors import (
    CannotUnderstand,
    InvalidMessage,
    InvalidRequest,
    NotFound,
    Unavailable,
    Unreadable,
    WadoError,
)
from wado.ports import Archive, Batch, Delivered, Message
from wado.records import (
    DicomDeleteMeta,
    DicomImageMeta,
    DicomImageRemoval,
    DicomStateMeta,
    DicomStoreMeta,
    Topic,
)
from wado.telemetry import get_logger

_log = get_logger("consumer")
_READ_AHEAD = 16
"""So many files of a store elsewhere are read at a time."""
_TRIES = 3
_PAUSE_S = 2.0
"""Before a file that can't be read is tried again; each time so much longer."""
_LARGE_LINE_BYTES = 256 << 10
_MAX_BYTES = 32 << 20
"""Metadata held at a time: a batch of large multi-frame objects is catalogued in several steps."""


@dataclass(frozen=True, slots=True)
class Catalogued:
    """An instance, read and ready to be catalogued."""

    meta: DicomStoreMeta
    image: DicomImageMeta
    line: bytes
    """Its line of the journal."""
    state: DicomStateMeta | None = None
    """Its part in the state of the series, if reading the line again would take much memory."""
    copies: Sequence[tuple[str, int]] = ()
    """What it is to be converted to: transfer syntax and quality."""


def catalogue_batch(
    archive: Archive,
    journals: Journals,
    batch: Batch,
    pause: Callable[[float], object] = time.sleep,
) -> int:
    """Catalogue a batch of `storage_queue`; how many instances are new, changed or deleted.

    A message or a file that can never be processed goes to the dead letters, its file to the
    quarantine, each with the reason. A file that can't be read is tried again behind the others,
    and then a dead letter, too; it stays where it is. The batch is not committed here.

    Parameters
    ----------
    archive, journals, batch
        What is catalogued, and where.
    pause
        Waits, for so many seconds, before files are tried again; it may raise Unavailable.

    Raises
    ------
    Unavailable
        A service does not answer, or another reader has the batch by now; the batch comes again.
    """
    read: dict[str, Catalogued] = {}
    unread: dict[Delivered, Unreadable] = {}
    size = done = 0
    for message, read_it in _readings(archive, journals, batch):
        vitals.goes_on()
        try:
            item = _read_message(archive, batch, message, read_it)
        except Unreadable as e:
            must_answer(archive.store)
            unread[message] = e
            continue
        if item is None:
            continue
        if isinstance(item, DicomDeleteMeta):
            # What was announced before it, is catalogued before it: one order.
            done += catalogue(archive, journals, read.values(), still_ours=batch.is_ours)
            read, size = {}, 0
            must_be_ours(batch.is_ours)
            _forget_deleted(archive, unread, item)
            done += _delete(archive, journals, batch, message, item, pause)
            continue
        read[item.meta.file_path] = item
        size += len(item.line)
        if size > _MAX_BYTES:
            done += catalogue(archive, journals, read.values(), still_ours=batch.is_ours)
            read, size = {}, 0
    done += catalogue(archive, journals, read.values(), still_ours=batch.is_ours)
    return done + _try_again(archive, journals, batch, unread, pause)


def _try_again(
    archive: Archive,
    journals: Journals,
    batch: Batch,
    unread: dict[Delivered, Unreadable],
    pause: Callable[[float], object],
) -> int:
    """Read again what could not be read, a few times; what still can't, is a dead letter.

    One bad place on a disk must not stop what comes after it: when the disk is mended, the dead
    letters are replayed.
    """
    done = 0
    for number in range(1, _TRIES):
        if unread:
            pause(_PAUSE_S * number)
        for message in list(unread):
            vitals.goes_on()
            read = partial(_read_announced, archive, journals, message)
            try:
                item = _read_message(archive, batch, message, read)
            except Unreadable as e:
                unread[message] = e
                continue
            del unread[message]
            if isinstance(item, Catalogued):
                done += catalogue(archive, journals, [item], still_ours=batch.is_ours)
    metas = {message: DicomStoreMeta.from_json(message.body) for message in unread}
    paths = {meta.file_path for meta in metas.values()}
    for tenant_id in {meta.tenant_id for meta in metas.values()}:
        must_give_others(archive.store, tenant_id, paths)
    for message, meta in metas.items():
        said = f"{meta.sop_instance_uid}: its file can't be read, while others can: "
        after = "; it stays where it is; once the disk is mended: wado dlq replay"
        _reject(batch, message, f"{said}{unread[message]}{after}")
        reason = str(unread[message])
        _log.error("not catalogued", path=meta.ref.path, tenant_id=meta.tenant_id, reason=reason)
    return done


def _delete(
    archive: Archive,
    journals: Journals,
    batch: Batch,
    message: Delivered,
    deletion: DicomDeleteMeta,
    pause: Callable[[float], object],
) -> int:
    """Carry out a deletion in its turn: it may not take what is stored after it.

    One that meets a journal that can't be read is a dead letter in the end, too.
    """
    for number in range(1, _TRIES + 1):
        must_be_ours(batch.is_ours)
        try:
            return delete_instances(archive, journals, deletion, batch.is_ours)
        except Unreadable as e:
            must_give_others(archive.store, deletion.tenant_id, ())
            if number == _TRIES:
                _reject(batch, message, f"{deletion.ref.path}: not all of it was deleted: {e}")
        if number < _TRIES:
            pause(_PAUSE_S * number)
    return 0


def _forget_deleted(
    archive: Archive, unread: dict[Delivered, Unreadable], deletion: DicomDeleteMeta
) -> None:
    """Set aside what is deleted and could not be read: no tombstone tells of it."""
    for message in list(unread):
        meta = DicomStoreMeta.from_json(message.body)
        if deletion.covers(meta.ref):
            set_deleted_aside(archive.store, [meta.file_path])
            del unread[message]


def _reject(batch: Batch, message: Delivered, reason: str) -> None:
    must_be_ours(batch.is_ours)
    batch.reject(message, reason)


def _readings(
    archive: Archive, journals: Journals, batch: Batch
) -> Iterator[tuple[Delivered, Callable[[], Catalogued]]]:
    """Messages in order, each with a function that reads the file it announces.

    Of a store elsewhere several are read at a time, but none past a deletion that is to come.
    """
    if archive.store.local_path("metadata") is not None:
        for message in batch.messages:
            yield message, partial(_read_announced, archive, journals, message)
        return
    waiting: deque[tuple[Delivered, Callable[[], Catalogued]]] = deque()
    with ThreadPoolExecutor(_READ_AHEAD, initializer=vitals.joining()) as threads:
        for message in batch.messages:
            read = partial(_read_announced, archive, journals, message)
            if _announces_file(message):
                waiting.append((message, threads.submit(read).result))
                if len(waiting) > _READ_AHEAD:
                    yield waiting.popleft()
                continue
            yield from waiting
            waiting.clear()
            yield message, read
        yield from waiting


def _announces_file(message: Delivered) -> bool:
    try:
        return isinstance(_meta_of(message), DicomStoreMeta)
    except InvalidMessage:
        return False


def _read_announced(archive: Archive, journals: Journals, message: Delivered) -> Catalogued:
    meta = _meta_of(message)
    assert isinstance(meta, DicomStoreMeta)
    with reading(meta.file_path):
        return read_instance(archive, _not_outdated(archive, journals, meta, meta.ref.series))


def _read_message(
    archive: Archive, batch: Batch, message: Delivered, read: Callable[[], Catalogued]
) -> Catalogued | DicomDeleteMeta | None:
    try:
        meta = _meta_of(message)
        ref = meta.ref
    except (InvalidMessage, InvalidRequest) as e:
        _reject(batch, message, str(e))
        return None
    if isinstance(meta, DicomDeleteMeta):
        return meta
    assert isinstance(ref, InstanceRef)
    try:
        return read()
    except NotFound:
        return _read_deleted(archive, batch, message, meta)
    except CannotUnderstand as e:
        # In this order: after a crash in between, the file is still there to say why.
        _reject(batch, message, f"{ref.sop_instance_uid}: {e}")
        must_be_ours(batch.is_ours)
        quarantine(archive.store, meta.file_path, str(e))
    return None


def _meta_of(message: Delivered) -> DicomStoreMeta | DicomDeleteMeta:
    try:
        return DicomStoreMeta.from_json(message.body)
    except InvalidMessage:
        with suppress(InvalidMessage):
            return DicomDeleteMeta.from_json(message.body)
        raise


def _read_deleted(
    archive: Archive, batch: Batch, message: Delivered, meta: DicomStoreMeta
) -> Catalogued | None:
    """Read an instance whose file is not there.

    If a deletion took it that came before its announcement, it was stored again after that, and
    is given back. A deletion that comes after it, too, has its turn later.
    """
    if _is_deleted_later(batch, message, meta.ref):
        return None
    store = archive.store
    must_be_ours(batch.is_ours)  # or a deletion that others read after it would be undone
    if bring_back(store, meta.ref, digest=meta.digest) or store.version(meta.file_path):
        return read_instance(archive, as_stored(archive, meta))
    _reject(batch, message, f"the file {meta.file_path} is not there")
    return None


def _is_deleted_later(batch: Batch, message: Delivered, ref: InstanceRef) -> bool:
    for later in batch.messages:
        if later.offset > message.offset and later.key == message.key:
            with suppress(InvalidMessage, InvalidRequest):
                meta = _meta_of(later)
                if isinstance(meta, DicomDeleteMeta) and meta.covers(ref):
                    return True
    return False


def _not_outdated(
    archive: Archive, journals: Journals, meta: DicomStoreMeta, series: SeriesRef
) -> DicomStoreMeta:
    """Trust the file rather than its announcement, where other versions of it are about.

    With `replace_duplicates` the file may be a later one than was announced, and announcements of
    two versions that came at the same time may be in either order.
    """
    version = archive.store.version(meta.file_path)
    if version is None or version[1] == meta.file_size:
        view = journals.view(series)
        entry = view.entries.get(meta.sop_instance_uid) if view else None
        if version is None or entry is None or entry.digest == meta.digest:
            return meta
    return as_stored(archive, meta)


def read_instance(archive: Archive, meta: DicomStoreMeta) -> Catalogued:
    """Read the header of a stored file and make its records.

    Raises
    ------
    NotFound
        The file is not there.
    CannotUnderstand
        The file can't be read as DICOM, or holds what can't be written down as DICOM JSON.
    Unreadable
        The file can't be read now.
    """
    path = meta.file_path
    with reading(path), archive.store.open(path) as file:

        def read(offset: int, length: int) -> bytes:
            vitals.goes_on()
            file.seek(offset)
            return file.read(length)

        try:
            description = describe(read, meta.file_size)
            image = image_of(meta, description)
            line = _line(meta, image, description)
            large = len(line) > _LARGE_LINE_BYTES
            state = state_of(meta, description.metadata, 0) if large else None
            copies = targets(archive.transcode, image, has_pixels=description.pixel is not None)
            return Catalogued(meta, image, line, state, copies)
        except (WadoError, MemoryError, OSError):
            raise
        except Exception as e:  # one file must not stop all the others, whatever it holds
            raise CannotUnderstand(f"can't be catalogued: {type(e).__name__}: {e}") from e


def catalogue(
    archive: Archive,
    journals: Journals,
    items: Iterable[Catalogued],
    publish: Callable[[list[Message]], None] | None = None,
    still_ours: Callable[[], bool] | None = None,
) -> int:
    """Put instances into index, journals and record topics; how many are new or changed.

    Copies that are to be made are announced when that is done: who makes them reads the journals.
    `publish` takes the records in place of the message log (a rebuild loads them itself).
    `still_ours` tells whether no other consumer has these instances in hand.

    Raises
    ------
    Unavailable
        A service does not answer; or this consumer was frozen, and another has gone on meanwhile.
    """
    by_series: dict[SeriesRef, list[Catalogued]] = defaultdict(list)
    for item in items:
        by_series[item.meta.ref.series].append(item)
    states: list[DicomStateMeta] = []
    growths: list[Growth] = []
    messages: list[Message] = []
    conversions: list[Message] = []
    for ref, group in by_series.items():
        seen = journals.memory(ref)
        known = seen.entries if seen else {}
        fresh = [
            i
            for i in group
            if (entry := known.get(i.meta.sop_instance_uid)) is None
            or entry.digest != i.meta.digest
        ]
        count = len(known) + len({i.meta.sop_instance_uid for i in group} - known.keys())
        state = replace(_state(group[-1]), number_of_series_related_instances=count)
        states.append(state)
        messages.append(Message(Topic.DICOM_STATE, state.key, state.to_json()))
        messages += [Message(Topic.DICOM_IMAGE, i.image.key, i.image.to_json()) for i in group]
        conversions += [m for i in group for m in _conversions(archive, i, seen)]
        # Empty, too: who wrote what is known already may have died before it was flushed.
        growths.append(Growth(ref, seen, b"".join(i.line for i in fresh)))
    if not states:
        return 0
    must_be_ours(still_ours)
    archive.index.put(states, flush=False)
    overtaken: list[SeriesRef] = []
    # Visible once it is written; the three flushes together take as long as the longest of them.
    failure = _all_at_once(
        lambda: overtaken.extend(grow(archive.store, journals, growths)),
        lambda: (publish or archive.log.publish)(messages),
        archive.index.flush,
    )
    if still_ours and not still_ours():
        overtaken = list(by_series)  # the records may have come behind those of others
    for ref in overtaken:
        _take_back(archive, journals, ref, by_series[ref])
    if failure or overtaken:
        raise failure or Unavailable(OVERTAKEN)
    if conversions:
        archive.log.publish(conversions)
    return sum(growth.lines.count(b"\n") for growth in growths)


def _conversions(archive: Archive, item: Catalogued, seen: SeriesView | None) -> Iterator[Message]:
    """Announce the copies of an instance that are to be made.

    Of an instance that was sent again, those that are there, or could not be made, are left out.
    """
    meta = item.meta
    entry = seen.entries.get(meta.sop_instance_uid) if seen and item.copies else None
    found = None
    if seen and entry and entry.digest == meta.digest:
        found = Item(meta.ref, entry, seen)
    for target_uid, quality in item.copies:
        if found and standing(archive.store, found, target_uid) is not Standing.MISSING:
            continue
        wanted = order(meta.ref, meta, target_uid, quality, meta.trace_id)
        yield Message(Topic.TRANSCODE, wanted.key, wanted.to_json())


def _state(item: Catalogued) -> DicomStateMeta:
    return item.state or state_of(item.meta, metadata_of(item.line), 0)


def _take_back(
    archive: Archive, journals: Journals, ref: SeriesRef, items: Iterable[Catalogued]
) -> None:
    """Tell index and records once more what the journal says: what we told them was older.

    A series without instances is left in the index: one may just be coming. If not, the webworker
    takes it out.
    """
    view = journals.view(ref)
    entries = view.entries if view else {}
    latest: dict[str, Catalogued] = {item.meta.sop_instance_uid: item for item in items}
    gone = sorted(latest.keys() - entries.keys())
    at = (ref.tenant_id, ref.study_instance_uid, ref.series_instance_uid)
    removal = DicomImageRemoval(*at, gone)
    messages = [Message(Topic.DICOM_IMAGE, removal.key, removal.to_json())] if gone else []
    for uid in sorted(latest.keys() & entries.keys()):
        if entries[uid].digest != latest[uid].meta.digest:
            with suppress(NotFound, CannotUnderstand):
                image = read_instance(archive, as_stored(archive, latest[uid].meta)).image
                messages.append(Message(Topic.DICOM_IMAGE, image.key, image.to_json()))
    if view and entries:
        last = max(entries.values(), key=lambda entry: entry.line_offset)
        meta = replace(next(iter(latest.values())).meta, received_at=last.received_at)
        metadata = orjson.loads(b"".join(journals.metadata(view, [last])))
        state = state_of(meta, metadata, len(entries))
        messages.append(Message(Topic.DICOM_STATE, state.key, state.to_json()))
        archive.index.put([state])
    archive.log.publish(messages)


def _all_at_once(*functions: Callable[[], None]) -> BaseException | None:
    """Run functions at the same time, each in a thread; the first error, once all have ended."""
    with ThreadPoolExecutor(len(functions), initializer=vitals.joining()) as threads:
        running = [threads.submit(function) for function in functions]
    return next(filter(None, (each.exception() for each in running)), None)


def _line(meta: DicomStoreMeta, image: DicomImageMeta, description: Description) -> bytes:
    entry = {
        "sop_instance_uid": meta.sop_instance_uid,
        "sop_class_uid": meta.sop_class_uid,
        "transfer_syntax_uid": meta.transfer_syntax_uid,
        "file_size": meta.file_size,
        "digest": meta.digest,
        "received_at": meta.received_at,
        "instance_number": image.instance_number,
        "number_of_frames": image.number_of_frames or 1,
        "pixel": description.pixel.to_json() if description.pixel else None,
        "bulk": description.bulk,
    }
    return journal_line(entry, description.metadata)
