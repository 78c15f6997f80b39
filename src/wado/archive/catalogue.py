"""Catalogue: put what was announced into the index, the journals, and the record topics.

The order is index, then journal and records; the caller commits last. A crash anywhere repeats the
batch, and each step is idempotent (DESIGN §5.2).
"""

import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import Thread
from typing import Any

from wado.archive.aside import bring_back, quarantine
from wado.archive.delete import delete_instances
from wado.archive.journal import Journals, journal_line, metadata_of
from wado.archive.paths import journal_path
from wado.archive.store import as_stored
from wado.dicom.describe import Description, describe
from wado.dicom.uids import InstanceRef, SeriesRef
from wado.errors import (
    CannotUnderstand,
    InvalidMessage,
    InvalidRequest,
    NotFound,
    Unavailable,
    WadoError,
)
from wado.ports import Archive, Batch, Delivered, Message
from wado.records import (
    DicomDeleteMeta,
    DicomImageMeta,
    DicomStateMeta,
    DicomStoreMeta,
    Topic,
)

_MAX_APPENDS = 128
"""Journals appended at a time; each is an open file."""
_READ_AHEAD = 16
"""So many files of a store elsewhere are read at a time."""
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


def catalogue_batch(archive: Archive, journals: Journals, batch: Batch) -> int:
    """Catalogue a batch of `storage_queue`; how many instances are new, changed or deleted.

    A message or a file that can never be processed goes to the dead letters, its file to the
    quarantine, each with the reason. The batch is not committed here.

    Raises
    ------
    Unavailable
        A service does not answer; the batch comes again.
    """
    read: dict[str, Catalogued] = {}
    size = done = 0
    for message, read_it in _readings(archive, journals, batch):
        item = _read_message(archive, batch, message, read_it)
        if item is None:
            continue
        if isinstance(item, DicomDeleteMeta):
            # What was announced before it, is catalogued before it: one order.
            done += catalogue(archive, journals, read.values())
            read, size = {}, 0
            done += delete_instances(archive, journals, item)
            continue
        read[item.meta.file_path] = item
        size += len(item.line)
        if size > _MAX_BYTES:
            done += catalogue(archive, journals, read.values())
            read, size = {}, 0
    return done + catalogue(archive, journals, read.values())


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
    with ThreadPoolExecutor(_READ_AHEAD) as threads:
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
    return read_instance(archive, _not_outdated(archive, journals, meta, meta.ref.series))


def _read_message(
    archive: Archive, batch: Batch, message: Delivered, read: Callable[[], Catalogued]
) -> Catalogued | DicomDeleteMeta | None:
    try:
        meta = _meta_of(message)
        ref = meta.ref
    except (InvalidMessage, InvalidRequest) as e:
        batch.reject(message, str(e))
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
        batch.reject(message, f"{ref.sop_instance_uid}: {e}")
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
    if bring_back(store, meta.ref, digest=meta.digest) or store.version(meta.file_path):
        return read_instance(archive, as_stored(archive, meta))
    batch.reject(message, f"the file {meta.file_path} is not there")
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
    Unavailable
        The file can't be read now.
    """
    with archive.store.open(meta.file_path) as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        try:
            description = describe(read, meta.file_size)
            image = image_of(meta, description)
            line = _line(meta, image, description)
            large = len(line) > _LARGE_LINE_BYTES
            state = state_of(meta, description.metadata, 0) if large else None
            return Catalogued(meta, image, line, state)
        except (WadoError, MemoryError):
            raise
        except OSError as e:
            raise Unavailable(f"reading {meta.file_path}: {e.strerror or e}") from e
        except Exception as e:  # one file must not stop all the others, whatever it holds
            raise CannotUnderstand(f"can't be catalogued: {type(e).__name__}: {e}") from e


def catalogue(
    archive: Archive,
    journals: Journals,
    items: Iterable[Catalogued],
    publish: Callable[[list[Message]], None] | None = None,
) -> int:
    """Put instances into index, journals and record topics; how many are new or changed.

    `publish` takes the records in place of the message log (a rebuild loads them itself).
    """
    by_series: dict[SeriesRef, list[Catalogued]] = defaultdict(list)
    for item in items:
        by_series[item.meta.ref.series].append(item)
    states: list[DicomStateMeta] = []
    appends: dict[str, bytes] = {}
    messages: list[Message] = []
    for ref, group in by_series.items():
        view = journals.view(ref)
        known = view.entries if view else {}
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
        # Empty, too: who wrote what is known already may have died before it was flushed.
        appends[journal_path(ref)] = b"".join(i.line for i in fresh)
    if not states:
        return 0
    archive.index.put(states, flush=False)
    # Visible once it is written; the three flushes together take as long as the longest of them.
    _all_at_once(
        lambda: _append(archive, appends),
        lambda: (publish or archive.log.publish)(messages),
        archive.index.flush,
    )
    return sum(data.count(b"\n") for data in appends.values())


def _state(item: Catalogued) -> DicomStateMeta:
    return item.state or state_of(item.meta, metadata_of(item.line), 0)


def _append(archive: Archive, appends: Mapping[str, bytes]) -> None:
    paths = sorted(appends)
    for start in range(0, len(paths), _MAX_APPENDS):
        archive.store.append({p: appends[p] for p in paths[start : start + _MAX_APPENDS]})


def _all_at_once(first: Callable[[], None], *others: Callable[[], None]) -> None:
    """Run functions at the same time, each in a thread; the first error of any is raised."""
    errors: list[BaseException] = []

    def guarded(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as e:  # noqa: BLE001 - raised again by the caller's thread
            errors.append(e)

    threads = [Thread(target=guarded, args=(function,)) for function in others]
    for thread in threads:
        thread.start()
    guarded(first)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


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


# ------------------------------------------------------------------ DICOM JSON -> records


def _text(element: Mapping[str, Any] | None) -> str | None:
    """All values joined by backslash; person names with their component groups joined by ``=``."""
    values = element.get("Value") if element else None
    if not values:
        return None
    if len(values) == 1 and isinstance(values[0], str):
        return values[0] or None
    return "\\".join(map(_one_text, values)) or None


def _one_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        groups = (value.get(g, "") for g in ("Alphabetic", "Ideographic", "Phonetic"))
        return "=".join(groups).rstrip("=")
    return str(value)


_TOO_LARGE = 1 << 63
"""What an index or a warehouse can't hold as a number."""


def _number(element: Mapping[str, Any] | None) -> int | None:
    values = element.get("Value") if element else None
    if not values or values[0] is None:
        return None
    try:
        number = int(values[0])
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < _TOO_LARGE else None


_Read = Callable[[Mapping[str, Any] | None], str | int | None]

_STATE: Sequence[tuple[str, str, _Read]] = (
    ("patient_id", "00100020", _text),
    ("issuer_of_patient_id", "00100021", _text),
    ("patient_name", "00100010", _text),
    ("patient_birth_date", "00100030", _text),
    ("patient_sex", "00100040", _text),
    ("study_date", "00080020", _text),
    ("study_time", "00080030", _text),
    ("study_id", "00200010", _text),
    ("study_description", "00081030", _text),
    ("accession_number", "00080050", _text),
    ("referring_physician_name", "00080090", _text),
    ("timezone_offset_from_utc", "00080201", _text),
    ("modality", "00080060", _text),
    ("series_number", "00200011", _number),
    ("series_description", "0008103E", _text),
    ("series_date", "00080021", _text),
    ("series_time", "00080031", _text),
    ("body_part_examined", "00180015", _text),
    ("laterality", "00200060", _text),
    ("protocol_name", "00181030", _text),
    ("station_name", "00081010", _text),
    ("institution_name", "00080080", _text),
    ("manufacturer", "00080070", _text),
    ("manufacturer_model_name", "00081090", _text),
    ("performed_procedure_step_start_date", "00400244", _text),
    ("performed_procedure_step_start_time", "00400245", _text),
)

_IMAGE: Sequence[tuple[str, str, _Read]] = (
    ("patient_id", "00100020", _text),
    ("modality", "00080060", _text),
    ("study_date", "00080020", _text),
    ("instance_number", "00200013", _number),
    ("image_type", "00080008", _text),
    ("content_date", "00080023", _text),
    ("content_time", "00080033", _text),
    ("acquisition_date_time", "0008002A", _text),
    ("acquisition_number", "00200012", _number),
    ("rows", "00280010", _number),
    ("columns", "00280011", _number),
    ("number_of_frames", "00280008", _number),
    ("samples_per_pixel", "00280002", _number),
    ("photometric_interpretation", "00280004", _text),
    ("bits_allocated", "00280100", _number),
    ("bits_stored", "00280101", _number),
    ("pixel_representation", "00280103", _number),
    ("slice_thickness", "00180050", _text),
    ("pixel_spacing", "00280030", _text),
    ("image_position_patient", "00200032", _text),
    ("image_orientation_patient", "00200037", _text),
    ("lossy_image_compression", "00282110", _text),
)

_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})\Z")


def state_of(meta: DicomStoreMeta, metadata: Mapping[str, Any], count: int) -> DicomStateMeta:
    """Take patient, study and series attributes from DICOM JSON; the series has `count` images."""
    values: dict[str, Any] = {
        name: read(metadata[tag]) for name, tag, read in _STATE if tag in metadata
    }
    for name in ("study_date", "series_date", "patient_birth_date"):
        if values.get(name):
            values[name] = _normal_date(values[name])
    # Request Attributes Sequence: of several requests the first is searchable.
    requests = metadata.get("00400275", {}).get("Value") or [{}]
    request = requests[0] if isinstance(requests[0], dict) else {}  # hostile data: not a sequence
    values["scheduled_procedure_step_id"] = _text(request.get("00400009"))
    values["requested_procedure_id"] = _text(request.get("00401001"))
    return DicomStateMeta(
        tenant_id=meta.tenant_id,
        study_instance_uid=meta.study_instance_uid,
        series_instance_uid=meta.series_instance_uid,
        number_of_series_related_instances=count,
        updated_at=meta.received_at,  # not now: a replay must change nothing
        **values,
    )


def _normal_date(value: str) -> str:
    """``2004.01.19`` of ACR-NEMA (PS3.5 §6.2) as ``20040119``, so that ranges work."""
    match = _DATE.match(value.strip())
    return "".join(match.groups()) if match else value


def image_of(meta: DicomStoreMeta, description: Description) -> DicomImageMeta:
    """Take image attributes from DICOM JSON."""
    metadata = description.metadata
    values: dict[str, Any] = {
        name: read(metadata[tag]) for name, tag, read in _IMAGE if tag in metadata
    }
    return DicomImageMeta(
        tenant_id=meta.tenant_id,
        study_instance_uid=meta.study_instance_uid,
        series_instance_uid=meta.series_instance_uid,
        sop_instance_uid=meta.sop_instance_uid,
        sop_class_uid=meta.sop_class_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        file_path=meta.file_path,
        file_size=meta.file_size,
        digest=meta.digest,
        received_at=meta.received_at,
        trace_id=meta.trace_id,
        **values,
    )
