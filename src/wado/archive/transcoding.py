"""Frames in another transfer syntax than they are stored in, worked out when they are sent."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import orjson

from wado.archive import retrieve
from wado.archive.frame_file import LONG_FRAME_BYTES, FrameFile, transcode_frame_file
from wado.archive.journal import Journals
from wado.archive.kept_frames import FrameKey, KeptFrames
from wado.archive.pieces import Computed, FileSlice, Piece
from wado.archive.pixel_workers import PixelWorkers
from wado.archive.reading import reading
from wado.archive.retrieve import Item
from wado.dicom.codec_table import EXPLICIT_VR_LITTLE_ENDIAN, RLE_LOSSLESS, can_decode
from wado.dicom.image import ImagePixel
from wado.dicom.media_types import (
    OCTET_STREAM,
    MediaRange,
    Offer,
    both_ways,
    is_native,
    media_type_of,
    select,
)
from wado.dicom.transcode import transcode
from wado.errors import CannotUnderstand, NotAcceptable, NotFound
from wado.ports import Archive

_JPEG = "1.2.840.10008.1.2.4."
TARGETS = (
    f"{_JPEG}80",
    f"{_JPEG}70",
    RLE_LOSSLESS,
    f"{_JPEG}201",
    f"{_JPEG}202",
    f"{_JPEG}90",
    f"{_JPEG}110",
)
"""Compressed transfer syntaxes that are made on demand, the quick ones first. For each media type
the first is its default (PS3.18 Table 8.7.3-5)."""

_MOST_TIMES_NATIVE = 2
_SPARE_BYTES = 1 << 20
"""How much longer a compressed frame may be than its pixels: headers, colour profiles, padding."""


@lru_cache(maxsize=256)
def frame_offers(transfer_syntax_uid: str) -> tuple[Offer, ...]:
    """Forms in which frames can be given: as stored, native, or made without loss.

    An octet stream without transfer syntax is native (PS3.18 §8.7.3.4); with any, as stored.
    """
    stored = retrieve.frame_offers_of(transfer_syntax_uid)
    if not can_decode(transfer_syntax_uid):
        return stored
    native = Offer(OCTET_STREAM, transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN, stored=False)
    known = [offer for offer in stored if offer.media_type != OCTET_STREAM]
    if not is_native(transfer_syntax_uid):
        known.append(native)
    known += [offer for offer in stored if offer.media_type == OCTET_STREAM]
    made = [Offer(media_type_of(t), transfer_syntax=t, stored=False) for t in TARGETS]
    return (*known, *(offer for offer in made if offer.transfer_syntax != transfer_syntax_uid))


@lru_cache(maxsize=1024)
def choose_frames(
    ranges: tuple[MediaRange, ...], transfer_syntax_uid: str, *, several: bool
) -> Offer | None:
    """Choose the form of frames; `several` need an envelope. None: nothing is acceptable."""
    return select(ranges, in_order(frame_offers(transfer_syntax_uid), several=several))


def in_order(offers: tuple[Offer, ...], *, several: bool) -> tuple[Offer, ...]:
    """Offers as multipart, and then, for what is one part, alone."""
    return both_ways(offers)[: len(offers)] if several else both_ways(offers)


def native_length(image: ImagePixel) -> int:
    """Length of a decoded frame in bytes."""
    return (image.pixels * image.samples_per_pixel * image.bits_allocated + 7) // 8


@dataclass(frozen=True, slots=True)
class Transcoder:
    """What transcoding needs.

    Parameters
    ----------
    archive, journals
        Where the instances are.
    pixels
        Processes that decode and encode.
    max_pixels
        Most pixels of a frame that is decoded.
    kept
        Where frames are kept for who asks again, if they are.
    """

    archive: Archive
    journals: Journals
    pixels: PixelWorkers
    max_pixels: int
    kept: KeptFrames | None = None

    def image(self, found: Item) -> ImagePixel:
        """Read the Image Pixel Module of an instance, or of a copy of it.

        Raises
        ------
        NotAcceptable
            It is no image, or its frames are too large to be decoded.
        """
        (text,) = self.journals.metadata(found.view, [found.entry])
        try:
            image = ImagePixel.of(orjson.loads(text))
        except CannotUnderstand as e:
            raise NotAcceptable(f"its pixels can't be decoded: {e}") from e
        if image.pixels > self.max_pixels:
            raise NotAcceptable(
                f"its frames have {image.pixels} pixels, over {self.max_pixels} aren't decoded"
            )
        return image_of_copy(image, found)

    def frame(
        self, found: Item, image: ImagePixel, number: int, target_uid: str
    ) -> tuple[bytes, str]:
        """Work out a frame in another transfer syntax, and its Photometric Interpretation.

        A copy that can't be read, as its file is gone or damaged, is replaced by the original.

        Raises
        ------
        NotAcceptable
            It can't be decoded, or not be encoded so; what is stored may still be had.
        """
        key = FrameKey(found.entry.digest, number, target_uid)
        made = self.kept.get(key) if self.kept is not None else None
        if made is not None:
            return made
        try:
            made = self._frame(found, image, number, target_uid)
        except (NotFound, NotAcceptable):
            if found.copy is None:
                raise
            original = retrieve.original_of(found)
            made = self._frame(original, self.image(original), number, target_uid)
        if self.kept is not None:
            self.kept.keep(key, made)
        return made

    def _frame(
        self, found: Item, image: ImagePixel, number: int, target_uid: str
    ) -> tuple[bytes, str]:
        check_length(found, image, number)
        source_uid = found.entry.transfer_syntax_uid
        run = self.pixels.run
        try:
            if (file := frame_file(self.archive, found, number)) is not None:
                return run(transcode_frame_file, file, image, source_uid, target_uid)
            data = read_frame(self.archive, found, number)
            return run(transcode, data, image, source_uid, target_uid)
        except CannotUnderstand as e:
            raise NotAcceptable(f"{e}; it can be had as stored: {source_uid}") from e

    def native_frames(
        self, found: Item, image: ImagePixel, numbers: Iterable[int]
    ) -> list[Computed]:
        """Frames as native bytes, decoded when they are sent."""
        length = native_length(image)

        def decoded(number: int) -> bytes:
            return self.frame(found, image, number, EXPLICIT_VR_LITTLE_ENDIAN)[0]

        return [Computed(length, partial(decoded, number)) for number in numbers]

    def frames(
        self, found: Item, image: ImagePixel, numbers: Iterable[int], target_uid: str
    ) -> Iterator[bytes]:
        """Work out frames one after the other; raises as `frame`."""
        return (self.frame(found, image, number, target_uid)[0] for number in numbers)


def image_of_copy(image: ImagePixel, found: Item) -> ImagePixel:
    """Describe the pixels of a copy, where `image` is what the metadata say of the original."""
    if found.copy is None:
        return image
    colour = found.copy.photometric_interpretation or image.photometric_interpretation
    return replace(
        image,
        photometric_interpretation=colour,
        planar_configuration=0,
        high_bit=image.bits_stored - 1,
    )


def check_length(found: Item, image: ImagePixel, number: int) -> None:
    """Refuse to read what can't be a frame of this image: it would take memory for nothing."""
    pixel = found.entry.pixel
    if pixel is None or pixel.reason or not 1 <= number <= pixel.number_of_frames:
        return  # said when it is located
    length = sum(size for _, size in pixel.frame(number))
    if length > _MOST_TIMES_NATIVE * native_length(image) + _SPARE_BYTES:
        raise NotAcceptable(f"frame {number} is stored in {length} bytes, too many for its pixels")


def read_frame(archive: Archive, found: Item, number: int) -> bytes:
    """Read the stored bytes of a frame: inflated, in little endian, from a byte boundary on.

    Raises
    ------
    NotFound
        There is no such frame, or it can't be located.
    """
    retrieve.existing_frames((number,), found)
    (pieces,) = retrieve.frames(archive, found, (number,))
    return b"".join(bytes_of(archive, piece) for piece in pieces)


def frame_file(archive: Archive, found: Item, number: int) -> FrameFile | None:
    """Say where a long frame is: a worker reads it, so that none that waits is held in memory."""
    retrieve.existing_frames((number,), found)
    (pieces,) = retrieve.frames(archive, found, (number,))
    slices = [piece for piece in pieces if isinstance(piece, FileSlice)]
    path = archive.store.local_path(found.path)
    if path is None or len(slices) != len(pieces):
        return None
    if sum(piece.length for piece in slices) < LONG_FRAME_BYTES:
        return None
    return FrameFile(str(path), tuple((piece.offset, piece.length) for piece in slices))


def bytes_of(archive: Archive, piece: Piece) -> bytes:
    """Read or work out a piece; NotFound if its file is gone or ends early, or Unreadable."""
    match piece:
        case bytes():
            return piece
        case Computed():
            return piece.make()
        case FileSlice():
            with (
                reading(piece.path),
                archive.store.open(piece.path, ahead=piece.ahead) as file,
            ):
                file.seek(piece.offset)
                data = file.read(piece.length)
            if len(data) != piece.length:
                raise NotFound(f"{piece.path} ends early")
            return data
