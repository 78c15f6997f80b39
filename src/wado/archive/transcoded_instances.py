"""Whole instances in another transfer syntax than they are stored in.

The header is written anew, and Pixel Data is put together frame after frame while it is sent, so
that an instance of any size passes with flat memory.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain
from struct import pack
from threading import Lock
from types import MappingProxyType

from wado.archive.frame_file import PLAIN
from wado.archive.pieces import Computed, FileSlice, Piece
from wado.archive.reading import reading
from wado.archive.retrieve import Item
from wado.archive.transcoding import TARGETS, Transcoder, in_order
from wado.archive.values import StoredValue, is_plain, swapped
from wado.dicom.codec_table import EXPLICIT_VR_LITTLE_ENDIAN, FAMILY, can_decode, is_lossy
from wado.dicom.elements import UNDEFINED_LENGTH
from wado.dicom.image import ImagePixel
from wado.dicom.media_types import DICOM, MediaRange, Offer, is_native, select
from wado.dicom.part10 import MAX_FILE_META_BYTES, file_meta, read_file_meta
from wado.dicom.rewriting import Changes, PixelsHere, Range, element_header, rewrite
from wado.dicom.sop_classes import transfer_syntax
from wado.dicom.window import InflatedReader, Read, Window, data_set_reader
from wado.errors import CannotUnderstand, NotAcceptable
from wado.ports import Archive

_FEW_FRAMES = 4
"""Up to so many compressed frames are made before the answer begins: then its length is known."""
_CHUNK_BYTES = 1 << 20
_NEVER_SENT = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.2"})
"""Implicit VR and big endian are not for the web (PS3.18 §8.7.3.4)."""
FRAMES_OF_WHOLE_BYTES = 8
"""However many bits a frame has, so many frames together end on a byte boundary."""
_ITEM = b"\xfe\xff\x00\xe0"
_EMPTY_OFFSET_TABLE = _ITEM + bytes(4)
_SEQUENCE_END = b"\xfe\xff\xdd\xe0" + bytes(4)
_PHOTOMETRIC_INTERPRETATION, _PLANAR_CONFIGURATION = 0x00280004, 0x00280006
_HIGH_BIT, _LOSSY_IMAGE_COMPRESSION = 0x00280102, 0x00282110


@lru_cache(maxsize=512)
def instance_offers(transfer_syntax_uid: str, *, has_pixels: bool) -> tuple[Offer, ...]:
    """Forms in which an instance can be given, the one for who names no transfer syntax first.

    That is Explicit VR Little Endian (PS3.18 §8.7.3.4), but for what is stored with loss: decoding
    it would only make it larger. What can't be decoded can be had as stored alone.
    """
    stored = [Offer(DICOM, transfer_syntax=transfer_syntax_uid)]
    if transfer_syntax_uid in _NEVER_SENT:
        stored = []
    if transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN:
        default = []
    elif has_pixels and not can_decode(transfer_syntax_uid):
        return tuple(stored)
    else:
        default = [Offer(DICOM, transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN, stored=False)]
    first = stored + default if is_lossy(transfer_syntax_uid) else default + stored
    if not has_pixels:
        return tuple(first)
    made = (Offer(DICOM, transfer_syntax=t, stored=False) for t in TARGETS)
    return (*first, *(offer for offer in made if offer.transfer_syntax != transfer_syntax_uid))


@lru_cache(maxsize=1024)
def choose_instance(
    ranges: tuple[MediaRange, ...], transfer_syntax_uid: str, *, has_pixels: bool, several: bool
) -> Offer | None:
    """Choose the form of an instance, alone or among `several`. None: nothing is acceptable."""
    offers = instance_offers(transfer_syntax_uid, has_pixels=has_pixels)
    return select(ranges, in_order(offers, several=several))


@dataclass(frozen=True, slots=True)
class Transcoded:
    """An instance in another transfer syntax: `stream` stands instead if its length isn't known."""

    pieces: tuple[Piece, ...] = ()
    stream: Iterator[Piece] | None = None


def transcoded(transcoder: Transcoder, found: Item, target_uid: str) -> Transcoded:
    """Write an instance anew.

    Raises
    ------
    NotAcceptable
        Its data set can't be followed, its pixels not be decoded, or not be encoded so.
    """
    try:
        return _transcoded(transcoder, found, target_uid)
    except CannotUnderstand as e:
        raise NotAcceptable(f"the instance can't be had in {target_uid}: {e}") from e


def _transcoded(transcoder: Transcoder, found: Item, target_uid: str) -> Transcoded:
    entry, pixel = found.entry, found.entry.pixel
    meta = file_meta(entry.sop_class_uid, entry.sop_instance_uid, target_uid)
    native = is_native(entry.transfer_syntax_uid)
    if pixel is None or (native and target_uid == EXPLICIT_VR_LITTLE_ENDIAN):
        stays = Changes(pixel_representation=_sign(transcoder, found))
        before, _, after = _DataSet(transcoder.archive, found).rewritten(stays)
        return Transcoded((meta, *before, *after))
    stored = transcoder.image(found)
    is_plain = FAMILY[entry.transfer_syntax_uid] in PLAIN
    image = stored if is_plain else replace(stored, planar_configuration=0)
    first, colour = transcoder.frame(found, image, 1, target_uid)
    more = _by_plane(image, colour, target_uid)
    before, tag, after = around_pixels(transcoder.archive, found, stored, colour, more)
    if target_uid == EXPLICIT_VR_LITTLE_ENDIAN:
        pixels = _native_element(transcoder, found, image, tag, first)
        return Transcoded((meta, *before, *pixels, *after))
    rest = range(2, image.number_of_frames + 1)
    frames = chain((first,), transcoder.frames(found, image, rest, target_uid))
    stream = chain((meta, *before), encapsulated_element(tag, frames), after)
    if image.number_of_frames <= _FEW_FRAMES:
        return Transcoded(tuple(stream))
    return Transcoded(stream=stream)


def _by_plane(image: ImagePixel, colour: str, target_uid: str) -> dict[int, tuple[bytes, bytes]]:
    """Planar Configuration of native samples that stay by plane."""
    stay = target_uid == EXPLICIT_VR_LITTLE_ENDIAN and colour == image.photometric_interpretation
    if not stay or not image.planar_configuration:
        return {}
    return {_PLANAR_CONFIGURATION: (b"US", pack("<H", image.planar_configuration))}


def around_pixels(
    archive: Archive,
    found: Item,
    stored: ImagePixel,
    colour: str,
    more: Mapping[int, tuple[bytes, bytes]] = MappingProxyType({}),
) -> tuple[list[Piece], int, list[Piece]]:
    """Rewrite the data set of an image that gets other pixels.

    Parameters
    ----------
    archive, found
        The image.
    stored
        Its Image Pixel Module.
    colour
        Photometric Interpretation of its new pixels, which lie colour by pixel.
    more
        Tag to VR and value of what else becomes different.

    Returns
    -------
    before, tag, after
        Pieces before the element with the pixels, its tag, and the pieces after it.
    """
    pixel = found.entry.pixel
    assert pixel is not None
    changes = Changes(
        {**_changed_elements(stored, colour, found.entry.transfer_syntax_uid), **more},
        pixel.offset + pixel.length + (8 if pixel.encapsulated else 0),
        stored.pixel_representation,
    )
    return _DataSet(archive, found).rewritten(changes)


def _sign(transcoder: Transcoder, found: Item) -> int:
    """Pixel Representation, on which VRs of an image in Implicit VR depend."""
    if found.entry.pixel is None:
        return 0
    try:
        return transcoder.image(found).pixel_representation
    except NotAcceptable:  # too large to decode, or no proper image: sent as it is
        return 0


def _changed_elements(
    image: ImagePixel, colour: str, source_uid: str
) -> dict[int, tuple[bytes, bytes]]:
    """Attributes that describe the pixels otherwise than before (PS3.5 §8.2)."""
    text = colour.encode("ascii", "replace")
    changed = {_PHOTOMETRIC_INTERPRETATION: (b"CS", text + b" " * (len(text) % 2))}
    if image.samples_per_pixel > 1:
        changed[_PLANAR_CONFIGURATION] = (b"US", bytes(2))
    if image.high_bit != image.bits_stored - 1:
        changed[_HIGH_BIT] = (b"US", pack("<H", image.bits_stored - 1))
    if is_lossy(source_uid) and FAMILY[source_uid] == "jpeg":
        changed[_LOSSY_IMAGE_COMPRESSION] = (b"CS", b"01")
    return changed


def _native_element(
    transcoder: Transcoder, found: Item, image: ImagePixel, tag: int, first: bytes
) -> list[Piece]:
    """Pixel Data as a value of known length, decoded while it is sent."""
    count = image.number_of_frames
    bits = image.pixels * image.samples_per_pixel * image.bits_allocated
    header, length = native_header(tag, image)
    pieces: list[Piece] = [header]
    if bits % 8 == 0:
        pieces.append(first)
        pieces += transcoder.native_frames(found, image, range(2, count + 1))
    else:
        pieces += _packed_frames(transcoder, found, image, bits)
    return pieces + [b"\0"] * (length % 2)


def native_header(tag: int, image: ImagePixel) -> tuple[bytes, int]:
    """Header of native Pixel Data, and the bytes of all its frames; the value has an even length.

    Raises
    ------
    NotAcceptable
        They are more than a value may have.
    """
    bits = image.pixels * image.samples_per_pixel * image.bits_allocated
    length = (bits * image.number_of_frames + 7) // 8
    if length + length % 2 >= UNDEFINED_LENGTH:
        raise NotAcceptable(f"its pixels would take {length} bytes: more than a value may have")
    vr = b"OW" if image.bits_allocated > 8 else b"OB"
    return element_header(tag, vr, length + length % 2), length


def packed(frames: Iterable[bytes], bits: int) -> bytes:
    """Put frames of so many bits behind each other, bit by bit (PS3.5 §8.1.1)."""
    value = place = 0
    for frame in frames:
        value |= int.from_bytes(frame, "little") << place
        place += bits
    return value.to_bytes((place + 7) // 8, "little")


def _packed_frames(
    transcoder: Transcoder, found: Item, image: ImagePixel, bits: int
) -> Iterator[Computed]:
    def made(numbers: range) -> bytes:
        frames = transcoder.frames(found, image, numbers, EXPLICIT_VR_LITTLE_ENDIAN)
        return packed(frames, bits)

    for start in range(1, image.number_of_frames + 1, FRAMES_OF_WHOLE_BYTES):
        stop = min(start + FRAMES_OF_WHOLE_BYTES, image.number_of_frames + 1)
        numbers = range(start, stop)
        length = (bits * len(numbers) + 7) // 8
        yield Computed(length, partial(made, numbers))


def encapsulated_element(tag: int, frames: Iterator[bytes]) -> Iterator[bytes]:
    """Pixel Data as fragments, one for each frame (PS3.5 §A.4)."""
    yield element_header(tag, b"OB", UNDEFINED_LENGTH) + _EMPTY_OFFSET_TABLE
    for frame in frames:
        padding = b"\0" * (len(frame) % 2)
        yield _ITEM + pack("<I", len(frame) + len(padding))
        yield frame + padding if padding else frame
    yield _SEQUENCE_END


class _DataSet:
    """The data set of a stored instance; ranges of it may be read by any thread."""

    def __init__(self, archive: Archive, found: Item) -> None:
        self._store = archive.store
        self._path = found.path
        self._entry = found.entry
        self._lock = Lock()
        self._reader: Read | None = None
        offset = found.entry.pixel.offset if found.entry.pixel else 0
        self._pixels = StoredValue(archive.store, self._path, found.entry, offset)

    def rewritten(self, changes: Changes) -> tuple[list[Piece], int, list[Piece]]:
        """Pieces before the pixels, tag of their element (0 if they stay), and pieces after."""
        entry = self._entry
        head = self._read(0, min(MAX_FILE_META_BYTES, entry.file_size))
        start, size = read_file_meta(head).data_set_offset, entry.file_size
        reader = data_set_reader(self._read, size, entry.transfer_syntax_uid, start)
        if isinstance(reader, InflatedReader):
            start, size = 0, reader.size()
        syntax = transfer_syntax(entry.transfer_syntax_uid)
        parts = rewrite(Window(reader, size), start, syntax, changes)
        self._reader = reader
        at = next((i for i, p in enumerate(parts) if isinstance(p, PixelsHere)), len(parts))
        here = parts[at] if at < len(parts) else None
        tag = here.tag if isinstance(here, PixelsHere) else 0
        return self._pieces(parts[:at]), tag, self._pieces(parts[at + 1 :])

    def _pieces(self, parts: Sequence[bytes | Range | PixelsHere]) -> list[Piece]:
        pieces: list[Piece] = []
        for part in parts:
            if isinstance(part, Range):
                pieces += self._located(part)
            elif isinstance(part, bytes):
                pieces.append(part)
        return pieces

    def _located(self, part: Range) -> Iterator[Piece]:
        pixel = self._entry.pixel
        if pixel is not None and part.offset == pixel.offset and part.word_bytes > 1:
            yield from self._pixels.chunks(part.offset, 0, part.length * 8)
            return
        if is_plain(self._entry) and part.word_bytes == 1:
            yield FileSlice(self._path, part.offset, part.length, self._entry.digest)
            return
        end = part.offset + part.length
        for offset in range(part.offset, end, _CHUNK_BYTES):
            chunk = Range(offset, min(_CHUNK_BYTES, end - offset), part.word_bytes)
            yield Computed(chunk.length, partial(self._bytes, chunk))

    def _bytes(self, part: Range) -> bytes:
        assert self._reader is not None
        with self._lock:
            data = self._reader(part.offset, part.length)
        return swapped(data, part.word_bytes) if part.word_bytes > 1 else data

    def _read(self, offset: int, length: int) -> bytes:
        """Read from the file, which isn't kept open: nobody would say when to close it."""
        with reading(self._path), self._store.open(self._path) as file:
            file.seek(offset)
            return file.read(length)
