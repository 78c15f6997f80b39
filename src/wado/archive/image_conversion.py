"""Copies of images: frame after frame through the pixel workers, several at a time, in order.

A copy of ten thousand frames passes with flat memory: no more frames are held than are worked on.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from wado.archive import retrieve
from wado.archive.copies import Converter, Made, read_metadata, write_copy
from wado.archive.frame_file import PLAIN, copy_frame, copy_frame_file
from wado.archive.pieces import OpenFiles
from wado.archive.retrieve import Item
from wado.archive.spool import unnamed_file, write_all
from wado.archive.transcoded_instances import (
    FRAMES_OF_WHOLE_BYTES,
    around_pixels,
    encapsulated_element,
    native_header,
    packed,
)
from wado.archive.transcoding import (
    bytes_of,
    check_length,
    frame_file,
    native_length,
    read_frame,
)
from wado.dicom.codec_table import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    FAMILY,
    LOSSY_TARGETS,
    codec_of,
    why_not_decoded,
)
from wado.dicom.image import ImagePixel, first_value
from wado.dicom.part10 import file_meta
from wado.errors import CannotUnderstand, NotAcceptable, Unavailable
from wado.records import TranscodeMeta

_AHEAD_BYTES = 64 << 20
"""Frames that are worked on or wait for their turn, by their native length."""
_LOSSY, _RATIO, _METHOD = 0x00282110, 0x00282112, 0x00282114
_PIXEL_DATA_PROVIDER_URL = "00287FE0"


def convert_image(converter: Converter, found: Item, meta: TranscodeMeta) -> Made:
    """Make the copy of an image.

    What does not fit the target becomes Explicit VR Little Endian, if viewers can't show the
    original; else it has no use.

    Returns
    -------
    made
        The copy, maybe in another transfer syntax than was asked for.

    Raises
    ------
    CannotUnderstand, NotAcceptable
        It can't be made; the message says which frame is the reason. Also if it does not fit, and
        there is a copy that viewers can show.
    CutShort
        A worker crashed, took too long or too much memory.
    Unavailable, OutOfResources
        Not now.
    """
    image, history = _attributes(converter, found)
    source_uid, target_uid = found.entry.transfer_syntax_uid, meta.target_transfer_syntax_uid
    frames = _Frames(converter, found, image, target_uid, meta.quality)
    try:
        first = frames.frame(1)
    except NotAcceptable:
        has_native = EXPLICIT_VR_LITTLE_ENDIAN in (target_uid, *found.entry.derived.copies)
        if has_native or source_uid in converter.settings.displayable:
            raise
        target_uid = EXPLICIT_VR_LITTLE_ENDIAN
        frames = replace(frames, target_uid=target_uid, quality=0)
        first = frames.frame(1)
    lossy = target_uid in LOSSY_TARGETS
    chunks = _lossy_file(frames, first, history) if lossy else _file(frames, first)
    copy = write_copy(converter, found, target_uid, chunks, lossy=lossy)
    return Made(copy, codec_of(source_uid, target_uid))


def _attributes(converter: Converter, found: Item) -> tuple[ImagePixel, Mapping[str, Any]]:
    """Read the Image Pixel Module, and what was lost before; all else is not kept in memory."""
    metadata = read_metadata(converter.journals, found)
    _check_pixels(found, metadata)
    tags = (f"{tag:08X}" for tag in (_RATIO, _METHOD))
    return _image(converter, metadata), {tag: metadata[tag] for tag in tags if tag in metadata}


def _check_pixels(found: Item, metadata: Mapping[str, Any]) -> None:
    """See that there are frames to be worked on."""
    provider = str(first_value(metadata, _PIXEL_DATA_PROVIDER_URL) or "")
    reason = why_not_decoded(found.entry.transfer_syntax_uid, provider)
    pixel = found.entry.pixel
    if not reason:
        reason = "it has no pixel data" if pixel is None else pixel.reason
    if reason:
        raise CannotUnderstand(reason)


def _image(converter: Converter, metadata: Mapping[str, Any]) -> ImagePixel:
    image = ImagePixel.of(metadata)
    most = converter.settings.max_pixels
    if image.pixels > most:
        raise NotAcceptable(f"its frames have {image.pixels} pixels, over {most} aren't decoded")
    return image


# ------------------------------------------------------------------ frames


@dataclass(frozen=True, slots=True)
class _Frames:
    """The frames of an image in another coding; those that are not the first come in order."""

    converter: Converter
    found: Item
    stored: ImagePixel
    target_uid: str
    quality: int = 0

    @property
    def count(self) -> int:
        pixel = self.found.entry.pixel
        assert pixel is not None
        return pixel.number_of_frames

    @property
    def image(self) -> ImagePixel:
        """Image Pixel Module by which the frames are decoded."""
        is_plain = FAMILY[self.found.entry.transfer_syntax_uid] in PLAIN
        return self.stored if is_plain else replace(self.stored, planar_configuration=0)

    def frame(self, number: int, stored: bytes | None = None) -> tuple[bytes, str]:
        """Work out a frame, which is read if it isn't given, and its Photometric Interpretation."""
        if self.converter.stop.is_set():
            raise Unavailable("the service is stopping")
        try:
            return self._frame(number, stored)
        except CannotUnderstand as e:
            if self.count == 1:
                raise
            raise type(e)(f"frame {number} of {self.count}: {e}") from e

    def _frame(self, number: int, stored: bytes | None) -> tuple[bytes, str]:
        archive, run = self.converter.archive, self.converter.pixels.run
        how = (self.image, self.found.entry.transfer_syntax_uid, self.target_uid, self.quality)
        if stored is not None:
            return run(copy_frame, stored, *how)
        check_length(self.found, self.image, number)
        if (file := frame_file(archive, self.found, number)) is not None:
            return run(copy_frame_file, file, *how)
        return run(copy_frame, read_frame(archive, self.found, number), *how)

    def rest(self, first: tuple[bytes, str]) -> Iterator[bytes]:
        """All frames, the first of which is known: a few are worked on at a time."""
        data, colour = first
        yield data
        numbers = range(2, self.count + 1)
        threads = min(self._at_a_time(), len(numbers))
        if threads < 2:
            for number, stored in self._inflated(numbers):
                yield _coloured(number, self.frame(number, stored), colour)
            return
        waiting: deque[tuple[int, Future[tuple[bytes, str]]]] = deque()
        with ThreadPoolExecutor(threads, "frames") as pool:
            try:
                for number, stored in self._inflated(numbers):
                    waiting.append((number, pool.submit(self.frame, number, stored)))
                    if len(waiting) >= threads:
                        yield _next_of(waiting, colour)
                while waiting:
                    yield _next_of(waiting, colour)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _inflated(self, numbers: range) -> Iterator[tuple[int, bytes | None]]:
        """Frames of a deflated data set, which is inflated once; of others their numbers alone."""
        pixel = self.found.entry.pixel
        if pixel is None or not pixel.deflated:
            yield from ((number, None) for number in numbers)
            return
        located = retrieve.frames(self.converter.archive, self.found, numbers)
        for number, pieces in zip(numbers, located, strict=True):
            yield number, b"".join(bytes_of(self.converter.archive, p) for p in pieces)

    def _at_a_time(self) -> int:
        by_size = _AHEAD_BYTES // max(native_length(self.stored), 1)
        return max(min(self.converter.pixels.workers + 1, by_size), 1)


def _next_of(waiting: deque[tuple[int, Future[tuple[bytes, str]]]], colour: str) -> bytes:
    number, future = waiting.popleft()
    return _coloured(number, future.result(), colour)


def _coloured(number: int, frame: tuple[bytes, str], colour: str) -> bytes:
    """Give a frame, if it is of the colour of the others: there is one attribute for all."""
    data, its_colour = frame
    if its_colour != colour:
        raise CannotUnderstand(f"frame {number} is {its_colour}, those before it are {colour}")
    return data


# ------------------------------------------------------------------ files


def _file(frames: _Frames, first: tuple[bytes, str]) -> Iterator[bytes]:
    """The file of a copy, its frames encoded while it is written."""
    return _around(frames, first[1], frames.rest(first), {})


def _around(
    frames: _Frames,
    colour: str,
    data: Iterator[bytes],
    more: Mapping[int, tuple[bytes, bytes]],
) -> Iterator[bytes]:
    archive, found = frames.converter.archive, frames.found
    before, tag, after = around_pixels(archive, found, frames.stored, colour, more)
    entry = found.entry
    yield file_meta(entry.sop_class_uid, entry.sop_instance_uid, frames.target_uid)
    with closing(OpenFiles(archive.store, max_open=1)) as files:
        yield from files.chunks(before)
        if frames.target_uid == EXPLICIT_VR_LITTLE_ENDIAN:
            yield from _native(tag, frames.image, data)
        else:
            yield from encapsulated_element(tag, data)
        yield from files.chunks(after)


def _native(tag: int, image: ImagePixel, data: Iterator[bytes]) -> Iterator[bytes]:
    header, length = native_header(tag, image)
    yield header
    bits = image.pixels * image.samples_per_pixel * image.bits_allocated
    if bits % 8 == 0:
        yield from data
    else:
        while group := list(islice(data, FRAMES_OF_WHOLE_BYTES)):
            yield packed(group, bits)
    yield b"\0" * (length % 2)


def _lossy_file(
    frames: _Frames, first: tuple[bytes, str], history: Mapping[str, Any]
) -> Iterator[bytes]:
    """The file of a lossy copy: how much smaller it became, stands before its frames."""
    with unnamed_file(frames.converter.archive.store) as spool:
        lengths = []
        for data in frames.rest(first):
            write_all(spool, data)
            lengths.append(len(data))
        spool.seek(0)
        ratio = native_length(frames.stored) * len(lengths) / sum(lengths)
        more = lossy_elements(history, ratio, LOSSY_TARGETS[frames.target_uid])
        yield from _around(frames, first[1], map(spool.read, lengths), more)


def lossy_elements(
    metadata: Mapping[str, Any], ratio: float, method: str
) -> dict[int, tuple[bytes, bytes]]:
    """Attributes of a lossy copy: what was done to it before, and what was done now.

    References
    ----------
    PS3.3 §C.7.6.1.1.5.
    """

    def appended(tag: int, value: str) -> bytes:
        known = metadata.get(f"{tag:08X}", {}).get("Value") or []
        text = "\\".join([*(str(v) for v in known if v is not None), value]).encode(
            "ascii", "replace"
        )
        return text + b" " * (len(text) % 2)

    return {
        _LOSSY: (b"CS", b"01"),
        _RATIO: (b"DS", appended(_RATIO, f"{ratio:.2f}")),
        _METHOD: (b"CS", appended(_METHOD, method)),
    }
