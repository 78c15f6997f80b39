"""Whether copies are what they should be: decoded again and compared with their originals.

Originals are compared with the digest that was taken when they came, and decoded, too.
"""

import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from threading import Event, Lock
from typing import Any, NamedTuple

from wado.archive.copies import description_of, read_metadata
from wado.archive.derived import Copy
from wado.archive.digests import digest_of
from wado.archive.frame_file import FrameFile, read_frame_file
from wado.archive.journal import Journals, SeriesView
from wado.archive.mass_conversion import queue_copies
from wado.archive.pixel_workers import PixelWorkers
from wado.archive.reading import must_be_there
from wado.archive.retrieve import Item, copy_of, existing_frames
from wado.archive.selection import Selection
from wado.archive.transcode_rules import is_video
from wado.archive.transcoding import check_length, frame_file, read_frame
from wado.archive.video_verification import check_video
from wado.archive.wanted_copies import copies_by_rule, forget, order
from wado.dicom.codec_table import why_not_decoded
from wado.dicom.comparison import NO_DAMAGE, CodedFrame, Difference, compare
from wado.dicom.image import ImagePixel, first_value
from wado.dicom.media_types import is_native
from wado.dicom.transcode import decode
from wado.dicom.uids import InstanceRef, SeriesRef
from wado.errors import CannotUnderstand, NotAcceptable, NotFound, Unreadable
from wado.ports import Archive
from wado.transcode_settings import TranscodeSettings

_CANT = (CannotUnderstand, NotAcceptable, NotFound)


class Finding(StrEnum):
    """What can be wrong."""

    COPY_MISSING = "copy whose file is missing"
    COPY_CHANGED = "copy whose file is not as it was written"
    COPY_UNREADABLE = "copy that can't be decoded"
    PIXELS_DIFFER = "copy whose pixels are not those of the original"
    NOT_MARKED = "lossy copy that does not say so"
    ORIGINAL_MISSING = "original whose file is missing"
    ORIGINAL_CHANGED = "original whose file is not as it was received"
    UNREAD = "file that the disk does not give"


class Chosen(NamedTuple):
    """A copy (or, without a transfer syntax, an original) that is to be checked."""

    ref: InstanceRef
    transfer_syntax_uid: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of checking one; `finding` is None if nothing is wrong.

    `is_gone`: there is no such copy or instance any more. `not_decoded` says why frames were not
    decoded or compared, though nothing is wrong with the file. `copy` is that which was checked.
    """

    chosen: Chosen
    finding: Finding | None = None
    detail: str = ""
    is_gone: bool = False
    lossy: bool = False
    frames: int = 0
    read_bytes: int = 0
    not_decoded: str = ""
    copy: Copy | None = None

    @property
    def is_bad_copy(self) -> bool:
        """Whether it is to be made anew; what could not be read may be good, and stays."""
        return self.copy is not None and self.finding not in (None, Finding.UNREAD)


@dataclass(slots=True)
class Report:
    """What was checked, in numbers, and what is wrong."""

    copies: int = 0
    lossy_copies: int = 0
    compared_frames: int = 0
    originals: int = 0
    decoded_frames: int = 0
    read_bytes: int = 0
    gone: int = 0
    not_decoded: Counter[str] = field(default_factory=Counter)
    wrong: list[Checked] = field(default_factory=list)
    unread: list[tuple[SeriesRef, str]] = field(default_factory=list)
    """Series whose journals can't be read, and why."""

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.wrong and not self.unread

    def pass_over(self, ref: SeriesRef, why: Unreadable) -> None:
        """Count a series whose journal can't be read."""
        self.unread.append((ref, str(why)))

    def count(self, checked: Checked) -> None:
        """Count one more."""
        if checked.is_gone:
            self.gone += 1
            return
        if checked.chosen.transfer_syntax_uid:
            self.copies += 1
            self.lossy_copies += checked.lossy
            self.compared_frames += checked.frames
        else:
            self.originals += 1
            self.decoded_frames += checked.frames
        self.read_bytes += checked.read_bytes
        if checked.not_decoded:
            self.not_decoded[checked.not_decoded] += 1
        if checked.finding is not None:
            self.wrong.append(checked)


# ------------------------------------------------------------------ choosing


def everything(
    views: Iterable[SeriesView], selection: Selection, *, originals: bool
) -> Iterator[Chosen]:
    """Walk all copies, and with `originals` these, too."""
    for view in views:
        for item in selection.items(view):
            if originals:
                yield Chosen(item.ref)
            for uid in item.entry.derived.copies:
                yield Chosen(item.ref, uid)


def sample_of(all_of: Iterable[Chosen], count: int, seed: int) -> list[Chosen]:
    """Take at random: so many copies, and as many originals; in their order, with flat memory."""
    chance = random.Random(seed)  # noqa: S311 - a sample is no secret
    taken: dict[bool, list[Chosen]] = {True: [], False: []}
    seen = {True: 0, False: 0}
    for chosen in all_of:
        of = taken[is_copy := bool(chosen.transfer_syntax_uid)]
        seen[is_copy] += 1
        if len(of) < count:
            of.append(chosen)
        elif (place := chance.randrange(seen[is_copy])) < count:
            of[place] = chosen
    return sorted([*taken[True], *taken[False]])


# ------------------------------------------------------------------ checking


@dataclass(frozen=True, slots=True)
class Verifier:
    """Checks copies and originals; used from any thread.

    Parameters
    ----------
    archive, journals
        Where they are.
    pixels
        Processes that decode.
    max_pixels
        Most pixels of a frame that is decoded.
    frames
        Most frames of an instance that are looked at, taken at random; 0: all.
    seed
        Takes the same frames again.
    stop
        Set when it is to end: a video is given up, as Unavailable.
    turn
        Videos are looked at one by one.
    """

    archive: Archive
    journals: Journals
    pixels: PixelWorkers
    max_pixels: int
    frames: int = 0
    seed: int = 0
    stop: Event = field(default_factory=Event)
    turn: AbstractContextManager[Any] = field(default_factory=Lock)

    def check(self, chosen: Chosen) -> Checked:
        """Check one; what went while it was looked at is not wrong.

        Raises
        ------
        Unavailable
            It can't be checked now, nor others: the store is away, or no worker is free.
        """
        try:
            return self._checked(chosen)
        except Unreadable as e:
            must_be_there(self.archive.store)
            return Checked(chosen, Finding.UNREAD, str(e))

    def _checked(self, chosen: Chosen) -> Checked:
        found = self._find(chosen)
        if found is None:
            return Checked(chosen, is_gone=True)
        uid = chosen.transfer_syntax_uid
        checked = self._check_copy(found, uid) if uid else self._check(found)
        if checked.finding is not None and self._is_other_now(found, chosen):
            return Checked(chosen, is_gone=True)
        return checked

    def _find(self, chosen: Chosen) -> Item | None:
        view = self.journals.view(chosen.ref.series)
        entry = view.entries.get(chosen.ref.sop_instance_uid) if view else None
        if view is None or entry is None:
            return None
        copies = entry.derived.copies
        if chosen.transfer_syntax_uid and chosen.transfer_syntax_uid not in copies:
            return None
        return Item(chosen.ref, entry, view)

    def _is_other_now(self, found: Item, chosen: Chosen) -> bool:
        now, uid = self._find(chosen), chosen.transfer_syntax_uid
        if now is None or now.entry.digest != found.entry.digest:
            return True
        return bool(uid) and now.entry.derived.copies[uid] != found.entry.derived.copies[uid]

    # -------------------------------------------------------------- originals

    def _check(self, found: Item) -> Checked:
        checked = Checked(Chosen(found.ref), read_bytes=found.entry.file_size)
        try:
            digest = digest_of(self.archive.store, found.path)
        except NotFound:
            return replace(checked, finding=Finding.ORIGINAL_MISSING, read_bytes=0)
        if digest != found.entry.digest:
            return replace(checked, finding=Finding.ORIGINAL_CHANGED, detail="its SHA-256 differs")
        return checked if found.entry.pixel is None else self._decode(found, checked)

    def _decode(self, found: Item, checked: Checked) -> Checked:
        """Decode frames of an original, which is as it was received, however damaged."""
        assert found.entry.pixel is not None
        reason = why_not_decoded(found.entry.transfer_syntax_uid) or found.entry.pixel.reason
        if reason:
            return replace(checked, not_decoded=reason)
        try:
            original = _Pixels(found, self._image(found))
        except _CANT as e:
            return replace(checked, not_decoded=str(e))
        for number in self._numbers(found):
            if reason := self._why_not_decoded(original, number):
                return replace(checked, not_decoded=reason)
            checked = replace(checked, frames=checked.frames + 1)
        return checked

    def _image(self, found: Item) -> ImagePixel:
        image = ImagePixel.of(read_metadata(self.journals, found))
        if image.pixels > self.max_pixels:
            raise NotAcceptable(f"frames of over {self.max_pixels} pixels aren't decoded")
        native = is_native(found.entry.transfer_syntax_uid)
        return image if native else replace(image, planar_configuration=0)

    def _numbers(self, found: Item) -> Sequence[int]:
        """Choose frames."""
        assert found.entry.pixel is not None
        numbers = range(1, found.entry.pixel.number_of_frames + 1)
        if not self.frames or len(numbers) <= self.frames:
            return numbers
        name = f"{self.seed} {found.ref.sop_instance_uid}"
        return sorted(random.Random(name).sample(numbers, self.frames))  # noqa: S311 - a sample

    # -------------------------------------------------------------- copies

    def _check_copy(self, found: Item, uid: str) -> Checked:
        copied = copy_of(found, uid)
        assert copied is not None
        assert copied.copy is not None
        checked = Checked(Chosen(found.ref, uid), lossy=copied.copy.lossy, copy=copied.copy)
        try:
            digest = digest_of(self.archive.store, copied.path)
        except NotFound:
            return replace(checked, finding=Finding.COPY_MISSING)
        checked = replace(checked, read_bytes=copied.copy.file_size)
        if digest != copied.copy.digest:
            return replace(checked, finding=Finding.COPY_CHANGED, detail="its SHA-256 differs")
        try:
            metadata = _metadata_of_file(self.archive, copied)
        except (CannotUnderstand, NotFound) as e:
            return replace(checked, finding=Finding.COPY_UNREADABLE, detail=str(e))
        missing = _unmarked(metadata) if copied.copy.lossy else ""
        if missing:
            return replace(checked, finding=Finding.NOT_MARKED, detail=missing)
        if is_video(uid):
            return self._compare_video(found, copied, checked)
        return self._compare(found, copied, metadata, checked)

    def _compare_video(self, found: Item, copied: Item, checked: Checked) -> Checked:
        with self.turn:
            came = check_video(
                self.archive,
                self.journals,
                found,
                copied,
                every_frame=not self.frames,
                stop=self.stop,
            )
        checked = replace(checked, frames=came.frames, not_decoded=came.not_decoded)
        if came.unreadable:
            return replace(checked, finding=Finding.COPY_UNREADABLE, detail=came.unreadable)
        if came.differs:
            return replace(checked, finding=Finding.PIXELS_DIFFER, detail=came.differs)
        return checked

    def _compare(
        self, found: Item, copied: Item, metadata: Mapping[str, Any], checked: Checked
    ) -> Checked:
        try:
            original = _Pixels(found, self._image(found))
        except _CANT as e:
            return replace(checked, not_decoded=f"of the original: {e}")
        try:
            copy = _Pixels(copied, ImagePixel.of(metadata))
        except CannotUnderstand as e:
            return replace(checked, finding=Finding.COPY_UNREADABLE, detail=str(e))
        for number in self._numbers(found):
            checked = self._compare_frame(number, original, copy, checked)
            if checked.finding is not None or checked.not_decoded:
                break
        return checked

    def _compare_frame(
        self, number: int, original: "_Pixels", copy: "_Pixels", checked: Checked
    ) -> Checked:
        """Compare a frame; where that can't be done, find out which of the two is the reason."""
        try:
            frames = (self._stored(original, number), self._stored(copy, number))
            difference = self.pixels.run(compare_stored, *frames)
        except _CANT as e:
            if reason := self._why_not_decoded(copy, number):
                detail = f"frame {number}: {reason}"
                return replace(checked, finding=Finding.COPY_UNREADABLE, detail=detail)
            if reason := self._why_not_decoded(original, number):
                return replace(checked, not_decoded=f"of the original: {reason}")
            return replace(checked, finding=Finding.PIXELS_DIFFER, detail=f"frame {number}: {e}")
        checked = replace(checked, frames=checked.frames + 1)
        fault = _fault_of(difference, original.image, lossy=checked.lossy)
        if fault:
            detail = f"frame {number}: {fault}"
            return replace(checked, finding=Finding.PIXELS_DIFFER, detail=detail)
        return checked

    def _stored(self, of: "_Pixels", number: int) -> "_Stored":
        """Locate a frame, and read it if it is short."""
        found, image = of
        existing_frames((number,), found)
        check_length(found, image, number)
        file = frame_file(self.archive, found, number)
        data = read_frame(self.archive, found, number) if file is None else file
        return _Stored(data, image, found.entry.transfer_syntax_uid)

    def _why_not_decoded(self, of: "_Pixels", number: int) -> str:
        """Say why a frame can't be decoded; empty if it can."""
        try:
            self.pixels.run(decodes, self._stored(of, number))
        except _CANT as e:
            return str(e)
        return ""


class _Pixels(NamedTuple):
    """An instance or a copy, and how its pixels are to be read."""

    item: Item
    image: ImagePixel


class _Stored(NamedTuple):
    """A frame as it is stored, or where it is."""

    frame: bytes | FrameFile
    image: ImagePixel
    transfer_syntax_uid: str


def _metadata_of_file(archive: Archive, copied: Item) -> Mapping[str, Any]:
    """Describe the file of a copy, which must have the frames that the journal says."""
    description = description_of(archive, copied.path, copied.entry.file_size)
    if description.pixel != copied.entry.pixel:
        raise CannotUnderstand("its frames are not where the journal says")
    return description.metadata


def _unmarked(metadata: Mapping[str, Any]) -> str:
    """Name what a lossy image must say and this one does not (PS3.3 §C.7.6.1.1.5)."""
    missing = [name for name, tag in _MARKS.items() if first_value(metadata, tag) in (None, "")]
    if not missing and first_value(metadata, _MARKS["Lossy Image Compression"]) != "01":
        missing = ["Lossy Image Compression"]
    return f"it lacks {', '.join(missing)}" if missing else ""


_MARKS = {
    "Lossy Image Compression": "00282110",
    "Lossy Image Compression Ratio": "00282112",
    "Lossy Image Compression Method": "00282114",
}


def _fault_of(found: Difference, image: ImagePixel, *, lossy: bool) -> str:
    """Say what is wrong with the pixels of a copy; a lossy one may differ, but not be another."""
    if not lossy:
        if not found.differing:
            return ""
        return f"{found.differing} of {found.pixels} pixels differ, by up to {found.largest}"
    levels = (1 << image.bits_stored) - 1
    limit = max(found.spread, levels * NO_DAMAGE)
    if found.root_mean_square <= limit:
        return ""
    return (
        f"pixels differ by {found.root_mean_square:.3g} (root mean square), "
        f"which is over {limit:.3g}: no loss, but damage"
    )


def compare_stored(one: _Stored, other: _Stored) -> Difference:
    """Compare two frames that are read first; runs in a worker."""
    first, second = (CodedFrame(_data(frame), image, uid) for frame, image, uid in (one, other))
    return compare(first, second)


def decodes(stored: _Stored) -> None:
    """Decode a frame, for the errors alone; runs in a worker."""
    decode(_data(stored.frame), stored.image, stored.transfer_syntax_uid)


def _data(frame: bytes | FrameFile) -> bytes:
    return read_frame_file(frame) if isinstance(frame, FrameFile) else frame


# ------------------------------------------------------------------ mending


def mend(
    archive: Archive, journals: Journals, settings: TranscodeSettings, wrong: Sequence[Checked]
) -> tuple[int, int]:
    """Forget and remove bad copies, and order them anew from the webworkers.

    A lossy one is ordered if there is a rule for it. For bad originals nothing can be
    done here: they come back out of a back-up, or from who sent them. What could not be read stays,
    and so does what was made anew since it was checked.

    Returns
    -------
    removed, ordered
        How many copies.

    Raises
    ------
    Unavailable
        A service does not answer; it may be done again.
    """
    removed, ordered, trace_id = 0, 0, os.urandom(16).hex()
    for checked in wrong:
        (ref, uid) = checked.chosen
        if not checked.is_bad_copy:
            continue
        view = journals.view(ref.series)
        entry = view.entries.get(ref.sop_instance_uid) if view else None
        copy = entry.derived.copies.get(uid) if entry else None
        if view is None or entry is None or copy is None or copy != checked.copy:
            continue
        wanted = copy.instead_of or uid
        rules = dict(copies_by_rule(journals, Item(ref, entry, view), settings))
        removed += len(forget(archive, journals, ref.series, [(ref.sop_instance_uid, uid)]))
        if wanted in rules or not checked.lossy:  # at once: what stops us takes no orders with it
            anew = order(ref, entry, wanted, rules.get(wanted, 0), trace_id)
            ordered += queue_copies(archive, [anew])
    return removed, ordered
