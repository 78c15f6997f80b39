"""Copies that are wanted of what is stored already, and copies that are not wanted any more."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto

import orjson

from wado.archive.derived import failure_line
from wado.archive.journal import Entry, Journals, SeriesView
from wado.archive.paths import derived_path, instance_path, journal_path
from wado.archive.pieces import OpenFiles
from wado.archive.retrieve import Item
from wado.archive.selection import Selection
from wado.archive.transcode_rules import VIDEO_TARGET, is_video, targets
from wado.archive.video import playable, playable_copy
from wado.dicom.codec_table import can_encode, is_lossy
from wado.dicom.image import first_value
from wado.dicom.uids import InstanceRef, SeriesRef, validate_uid
from wado.errors import InvalidRequest, NotFound, Unavailable, Unreadable
from wado.ports import Archive, InstanceStore
from wado.records import DicomImageMeta, DicomStoreMeta, TranscodeMeta
from wado.transcode_settings import TranscodeSettings

_MAX_TRIES = 20


@dataclass(frozen=True, slots=True)
class Wish:
    """Which copies are wanted.

    Attributes
    ----------
    settings
        Their rules decide, unless there is a target; also where nothing is converted on arrival.
    target_uid, quality
        The transfer syntax of all copies, and the quality of a lossy one, else 0.
    failed
        Only those that could not be made before.
    """

    settings: TranscodeSettings
    target_uid: str = ""
    quality: int = 0
    failed: bool = False

    def check(self) -> None:
        """Refuse what can't be made.

        Raises
        ------
        InvalidRequest
            Says why.
        """
        if not self.target_uid:
            return
        target = validate_uid(self.target_uid)
        lossy = is_lossy(target)
        if target != VIDEO_TARGET and not can_encode(target, lossy=True):
            raise InvalidRequest(f"copies in {target} can't be made: see docs/transfer-syntaxes.md")
        if lossy and not self.quality:
            raise InvalidRequest(f"{target} is lossy: say with --quality how good copies must be")
        if self.quality and not lossy:
            raise InvalidRequest(f"{target} is lossless: leave out --quality")


@dataclass(slots=True)
class Found:
    """What a walk saw until now.

    `instances` were looked at; `wanted` counts what is to be made, by transfer syntax of original
    and copy; `there` and `failed` the copies that are there, and those that could not be made.
    """

    instances: int = 0
    wanted: Counter[tuple[str, str]] = field(default_factory=Counter)
    there: int = 0
    failed: int = 0


def wanted_copies(
    store: InstanceStore,
    journals: Journals,
    views: Iterable[SeriesView],
    chosen: Selection,
    wish: Wish,
    found: Found,
) -> Iterator[TranscodeMeta]:
    """Walk copies that are to be made, series after series, with flat memory; counts in `found`."""
    trace_id = os.urandom(16).hex()
    for view in views:
        for item in chosen.items(view):
            found.instances += 1
            for target_uid, quality in _wanted(store, journals, item, wish, found):
                found.wanted[item.entry.transfer_syntax_uid, target_uid] += 1
                yield order(item.ref, item.entry, target_uid, quality, trace_id)


def order(
    ref: InstanceRef,
    stored: Entry | DicomStoreMeta,
    target_uid: str,
    quality: int = 0,
    trace_id: str = "",
) -> TranscodeMeta:
    """Make the record by which a copy of what is stored is ordered."""
    return TranscodeMeta(
        tenant_id=ref.tenant_id,
        study_instance_uid=ref.study_instance_uid,
        series_instance_uid=ref.series_instance_uid,
        sop_instance_uid=ref.sop_instance_uid,
        sop_class_uid=stored.sop_class_uid,
        transfer_syntax_uid=stored.transfer_syntax_uid,
        target_transfer_syntax_uid=target_uid,
        file_path=instance_path(ref),
        file_size=stored.file_size,
        digest=stored.digest,
        trace_id=trace_id,
        quality=quality,
        requested_at=datetime.now(UTC).isoformat(timespec="microseconds"),
    )


class Standing(Enum):
    """What is known of a copy that is asked for."""

    MISSING = auto()
    THERE = auto()
    FAILED = auto()


def standing(store: InstanceStore, found: Item, target_uid: str) -> Standing:
    """Say how it stands with a copy that is asked for; whoever orders or makes copies asks this.

    A copy that was made in its place, where it does not fit, stands for it; so does an original
    that viewers play as it is.

    Raises
    ------
    Unavailable
        The file of a video can't be looked at now.
    """
    derived, source = found.entry.derived, found.entry.transfer_syntax_uid
    video = is_video(source) and is_video(target_uid)
    instead = {copy.instead_of for copy in derived.copies.values()}
    if target_uid in derived.copies or target_uid in instead:
        return Standing.THERE
    if playable_copy(found) is not None if video else target_uid == source:
        return Standing.THERE
    if target_uid in derived.failures:
        return Standing.FAILED
    if video:
        # What can't be read now is for who converts to find out, and to put on record.
        with (
            suppress(NotFound, Unreadable, OSError),
            closing(OpenFiles(store, max_open=1)) as files,
        ):
            if playable(files, found) is not None:
                return Standing.THERE
    return Standing.MISSING


def _wanted(
    store: InstanceStore, journals: Journals, item: Item, wish: Wish, found: Found
) -> Iterator[tuple[str, int]]:
    by_rule = dict(_targets(journals, item, wish))
    if wish.failed:
        for target_uid in item.entry.derived.failures:
            if wish.target_uid and target_uid not in by_rule:
                continue
            if standing(store, item, target_uid) is Standing.FAILED:
                yield target_uid, by_rule.get(target_uid, 0)
        return
    for target_uid, quality in by_rule.items():
        match standing(store, item, target_uid):
            case Standing.THERE:
                found.there += 1
            case Standing.FAILED:
                found.failed += 1
            case Standing.MISSING:
                yield target_uid, quality


def _targets(journals: Journals, item: Item, wish: Wish) -> list[tuple[str, int]]:
    entry = item.entry
    if not wish.target_uid:
        return copies_by_rule(journals, item, wish.settings)
    source = entry.transfer_syntax_uid
    fits = entry.pixel is not None and is_video(source) == is_video(wish.target_uid)
    return [(wish.target_uid, wish.quality)] if fits and source != wish.target_uid else []


def copies_by_rule(
    journals: Journals, item: Item, settings: TranscodeSettings
) -> list[tuple[str, int]]:
    """Ask the rules which copies an instance is to have: transfer syntax and quality of each."""
    enabled = settings.model_copy(update={"enabled": True})
    has_pixels = item.entry.pixel is not None
    return targets(enabled, _image(journals, item, settings), has_pixels=has_pixels)


def _image(journals: Journals, item: Item, settings: TranscodeSettings) -> DicomImageMeta:
    """Give what rules look at; the metadata are read only if there are rules."""
    metadata = {}
    if settings.rules:
        (text,) = journals.metadata(item.view, [item.entry])
        metadata = orjson.loads(text)

    def number(tag: str) -> int | None:
        value = first_value(metadata, tag)
        return value if isinstance(value, int) else None

    modality = first_value(metadata, "00080060")
    ref, entry = item.ref, item.entry
    return DicomImageMeta(
        ref.tenant_id,
        ref.study_instance_uid,
        ref.series_instance_uid,
        ref.sop_instance_uid,
        entry.sop_class_uid,
        entry.transfer_syntax_uid,
        instance_path(ref),
        entry.file_size,
        entry.digest,
        entry.received_at,
        "",
        modality=None if modality is None else str(modality),
        rows=number("00280010"),
        columns=number("00280011"),
        number_of_frames=entry.number_of_frames,
    )


# ------------------------------------------------------------------ not wanted


def forget(
    archive: Archive,
    journals: Journals,
    ref: SeriesRef,
    unwanted: Iterable[tuple[str, str]],
) -> list[tuple[str, str]]:
    """Forget copies, and failures, of a series: SOP Instance UID and transfer syntax of each.

    The journal forgets first, then the files go; the metadata of the series are described again.

    Returns
    -------
    forgotten
        Those that there were.

    Raises
    ------
    Unavailable
        The journal can't be written now.
    """
    forgotten: dict[tuple[str, str], None] = {}
    waiting = list(unwanted)
    for _ in range(_MAX_TRIES):
        # Again, until there are none: a webworker may just have made one, whose file is gone now.
        view = journals.view(ref)
        lines = {which: line for which in waiting if (line := _forgetting(view, *which))}
        if view is None or not lines:
            break
        if archive.store.append({journal_path(ref): b"".join(lines.values())}, at=view.size):
            archive.store.delete([_copy_path(ref, *which) for which in lines])
            forgotten.update(dict.fromkeys(lines))
    else:
        raise Unavailable(f"the journal of {ref.path} changes all the time")
    if forgotten:
        archive.index.await_description([ref])
    return list(forgotten)


def _forgetting(view: SeriesView | None, sop_instance_uid: str, target_uid: str) -> bytes:
    """Make the line by which a copy is forgotten; nothing if there is none to forget."""
    entry = view.entries.get(sop_instance_uid) if view else None
    if entry is None:
        return b""
    if target_uid not in entry.derived.copies and target_uid not in entry.derived.failures:
        return b""
    return failure_line(sop_instance_uid, entry.digest, target_uid, "")


def _copy_path(ref: SeriesRef, sop_instance_uid: str, target_uid: str) -> str:
    at = InstanceRef(
        ref.tenant_id, ref.study_instance_uid, ref.series_instance_uid, sop_instance_uid
    )
    return derived_path(at, target_uid)
