"""Derived copies: made, verified, and announced; what can't be made is recorded with the reason.

The order is file, row for the warehouse, line of the journal; the caller commits last. A crash
anywhere repeats the work, and a copy that was announced is not made again.
"""

import errno
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from wado.archive.copies import Converted, Converter, Made
from wado.archive.digests import digest_of
from wado.archive.image_conversion import convert_image
from wado.archive.journal import Entry, Journals, SeriesView
from wado.archive.paths import derived_path, instance_path, journal_path
from wado.archive.reading import must_answer
from wado.archive.retrieve import Item
from wado.archive.transcode_rules import is_video
from wado.archive.video_conversion import convert_video
from wado.archive.wanted_copies import Standing, forget, standing
from wado.dicom.uids import InstanceRef, SeriesRef, validate_uid
from wado.errors import (
    CannotUnderstand,
    CutShort,
    NotFound,
    OutOfResources,
    Unavailable,
    Unreadable,
    WadoError,
)
from wado.ports import Archive, Message
from wado.records import Topic, TranscodeLog, TranscodeMeta

_MS_PER_S = 1000.0
_MAX_REASON = 1000
"""Characters of a reason: some libraries say a lot."""
_MAX_TRIES = 20
"""How often lines are appended to a journal that grows meanwhile."""
_OF_ONE_FILE = frozenset({errno.EIO, errno.ESTALE})


def convert(converter: Converter, meta: TranscodeMeta, *, again: bool = False) -> Converted | None:
    """Make the copy that is asked for; nothing of it is announced here.

    Parameters
    ----------
    converter
        What conversion needs.
    meta
        What is to be made of what.
    again
        Try what is recorded as failed, too.

    Returns
    -------
    converted
        A copy whose file is durable, or the failure, with the reason; to be given to `announce`.
        None: there is nothing to do. The instance is gone, or was replaced, or the copy (one in
        its place, or the record of its failure) is there.

    Raises
    ------
    CutShort
        A pixel worker crashed, took too long or too much memory, or the disk does not give the
        original or its journal; and `meta.attempt` is not the last: it may be tried again. The row
        of this attempt is published.
    InvalidRequest
        The message names what can't be.
    Unavailable, OutOfResources
        A service does not answer, the disk is full, or the service is to stop; the same may be
        asked again, as often as need be.
    """
    ref, target = meta.ref, validate_uid(meta.target_transfer_syntax_uid)
    try:
        found = _original(converter.journals, ref, meta.digest)
    except Unreadable as e:
        return _without_journal(converter, meta, e)
    if found is None:
        return None
    known = standing(converter.archive.store, found, target)
    if known is Standing.THERE or (known is Standing.FAILED and not again):
        return None
    series = converter.archive.index.series(ref.series)
    modality = series["modality"] if series else None
    began_s = time.monotonic()
    try:
        made = _made(converter, found, meta)
    except (Unavailable, OutOfResources):
        raise
    except WadoError as e:
        may_pass = isinstance(e, CutShort) and _may_pass(converter, meta)
        if _original(converter.journals, ref, meta.digest) is None:
            return None  # it went while we worked on it
        failed = _failed(_row(found, meta, modality, began_s), meta, str(e))
        if may_pass:
            publish_rows(converter.archive, [failed.row])
            raise
        return failed
    return _succeeded(_row(found, meta, modality, began_s), found, made)


def _without_journal(converter: Converter, meta: TranscodeMeta, why: Unreadable) -> Converted:
    """Give up what is asked for, as of its original nothing is known; raises as `convert`."""
    must_answer(converter.archive.store)  # else it is away, and waited for
    reason = f"its journal can't be read: {why}"
    failed = _failed(TranscodeLog.of(meta), meta, reason)
    if _may_pass(converter, meta):
        publish_rows(converter.archive, [failed.row])
        raise CutShort(reason) from why
    return failed


def _original(journals: Journals, ref: InstanceRef, digest: str) -> Item | None:
    """Find the original with this digest, if that is what the archive has now."""
    view = journals.view(ref.series)
    entry = _entry(view, ref.sop_instance_uid, digest)
    return None if view is None or entry is None else Item(ref, entry, view)


def _entry(view: SeriesView | None, sop_instance_uid: str, digest: str) -> Entry | None:
    entry = view.entries.get(sop_instance_uid) if view else None
    return entry if entry is not None and entry.digest == digest else None


def _made(converter: Converter, found: Item, meta: TranscodeMeta) -> Made:
    convert_it = convert_video if is_video(found.entry.transfer_syntax_uid) else convert_image
    try:
        return convert_it(converter, found, meta)
    except Unreadable as e:
        must_answer(converter.archive.store)  # else it is away, and waited for
        raise CutShort(f"it can't be read: {e}") from e
    except (WadoError, MemoryError):
        raise
    except OSError as e:
        if e.errno in _OF_ONE_FILE:  # as a rule: the others shall not wait for it
            raise CutShort(f"it can't be read: {e.strerror}") from e
        raise Unavailable(f"converting {found.path}: {e.strerror or e}") from e
    except Exception as e:  # one image must not stop all the others, whatever it holds
        raise CannotUnderstand(f"it can't be converted: {type(e).__name__}: {e}") from e


def _may_pass(converter: Converter, meta: TranscodeMeta) -> bool:
    """Whether work that was cut short is to be tried again."""
    if converter.stop.is_set():
        raise Unavailable("the service is stopping")
    return meta.attempt < converter.settings.attempts


def _succeeded(row: TranscodeLog, found: Item, made: Made) -> Converted:
    copy, asked = made.copy, row.requested_transfer_syntax_uid
    if copy.transfer_syntax_uid != asked:
        copy = replace(copy, instead_of=asked)
    row = replace(
        row,
        target_transfer_syntax_uid=copy.transfer_syntax_uid,
        succeeded=True,
        derived_path=derived_path(found.ref, copy.transfer_syntax_uid),
        derived_size=copy.file_size,
        codec=made.codec or None,
    )
    return Converted(row, found.ref, found.entry.digest, copy)


def _failed(row: TranscodeLog, meta: TranscodeMeta, reason: str) -> Converted:
    return Converted(replace(row, reason=reason[:_MAX_REASON]), meta.ref, meta.digest)


def _row(found: Item, meta: TranscodeMeta, modality: str | None, began_s: float) -> TranscodeLog:
    entry = found.entry
    return replace(
        TranscodeLog.of(meta),
        transfer_syntax_uid=entry.transfer_syntax_uid,
        file_path=instance_path(found.ref),
        file_size=entry.file_size,
        duration_ms=round((time.monotonic() - began_s) * _MS_PER_S, 3),
        number_of_frames=entry.number_of_frames,
        modality=modality,
    )


# ------------------------------------------------------------------ announcing


def announce(archive: Archive, journals: Journals, results: Iterable[Converted]) -> list[Converted]:
    """Publish what came of conversions, and then write it into the journals.

    A failure whose journal can't be read is only published. What was made of an original that went
    meanwhile is removed again. To announce the same again (after a crash) is harmless: a line that
    is there is not written twice. The metadata of the series are then described again.

    Returns
    -------
    announced
        Those that are on record now.

    Raises
    ------
    Unavailable
        The log or a journal can't be written now, or the file of a copy went meanwhile: it is to
        be converted and announced again.
    """
    waiting: dict[SeriesRef, list[Converted]] = defaultdict(list)
    unread: list[Converted] = []
    for result in results:
        try:
            view = journals.view(result.series)
        except Unreadable:
            must_answer(archive.store)
            if result.copy is not None:
                raise  # who converts it again records that
            unread.append(result)
            continue
        if _counts(archive, journals, view, result):
            waiting[result.series].append(result)
    rows = [result.row for group in (*waiting.values(), unread) for result in group]
    publish_rows(archive, rows)
    told = [r for ref in sorted(waiting) for r in _tell(archive, journals, ref, waiting[ref])]
    if told:
        archive.index.await_description(sorted({result.series for result in told}))
    return told + unread


def publish_rows(archive: Archive, rows: Iterable[TranscodeLog]) -> None:
    """Publish what came of attempts, for the warehouse; the same again replaces it there."""
    messages = [Message(Topic.TRANSCODE_LOG, row.key, row.to_json()) for row in rows]
    if messages:
        archive.log.publish(messages)


def _tell(
    archive: Archive, journals: Journals, ref: SeriesRef, group: list[Converted]
) -> list[Converted]:
    """Append the lines of a series to its journal, if they hold for what it is then."""
    for _ in range(_MAX_TRIES):
        view = journals.view(ref)
        group = [result for result in group if _counts(archive, journals, view, result)]
        lines = b"".join(result.line for result in group if not _is_told(view, result))
        if not lines or archive.store.append(
            {journal_path(ref): lines}, at=view.size if view else 0
        ):
            return group
    raise Unavailable("the journal changes all the time")


def _counts(
    archive: Archive, journals: Journals, view: SeriesView | None, result: Converted
) -> bool:
    """Whether the original is still there; if not, its copy goes, too."""
    row, copy = result.row, result.copy
    entry = _entry(view, row.sop_instance_uid, result.digest)
    if copy is None:
        return entry is not None
    path = derived_path(result.ref, copy.transfer_syntax_uid)
    if entry is None:
        _remove_superseded(archive, journals, result.ref, copy.transfer_syntax_uid)
        return False
    version = archive.store.version(path)
    if version is None or version[1] != copy.file_size:
        raise Unavailable(f"{path} changed before it was announced")
    return True


def _remove_superseded(
    archive: Archive, journals: Journals, ref: InstanceRef, target_uid: str
) -> None:
    """Remove the copy of an original that was replaced, but not that of the one that is there.

    If it took the place of that one's copy, the journal forgets that, too: nobody may get pixels
    of what was replaced.
    """
    path, view = derived_path(ref, target_uid), journals.view(ref.series)
    now = view.entries.get(ref.sop_instance_uid) if view else None
    known = now.derived.copies.get(target_uid) if now else None
    if known is not None:
        with suppress(NotFound):
            if digest_of(archive.store, path) == known.digest:
                return
        forget(archive, journals, ref.series, [(ref.sop_instance_uid, target_uid)])
    archive.store.delete([path])


def _is_told(view: SeriesView | None, result: Converted) -> bool:
    entry = _entry(view, result.row.sop_instance_uid, result.digest)
    assert entry is not None
    uid = result.row.target_transfer_syntax_uid
    if result.copy is None:
        return entry.derived.failures.get(uid) == result.row.reason
    known = entry.derived.copies.get(uid)
    return known is not None and known.digest == result.copy.digest
