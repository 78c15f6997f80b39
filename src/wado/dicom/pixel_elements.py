"""Pixel Data as it stands in a file, native or encapsulated, around pieces that lie elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from struct import pack
from typing import Any

from wado.dicom.dataset_writer import (
    MAX_VALUE_BYTES,
    Piece,
    Place,
    element_head,
    item_head,
    length_of,
)
from wado.dicom.elements import PIXEL_DATA, UNDEFINED_LENGTH
from wado.dicom.image import PIXEL_DATA as PIXEL_KEY
from wado.dicom.image import ImagePixel
from wado.errors import CannotUnderstand

_DELIMITATION = b"\xfe\xff\xdd\xe0\0\0\0\0"
_EXTENDED_OFFSETS, _EXTENDED_LENGTHS = 0x7FE00001, 0x7FE00002
_ITEM_HEADER = 8
_FRAGMENTABLE = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in range(100, 107))
"""Video that may be in several fragments, by its own transfer syntax (PS3.5 §8.2.5)."""


def native_length(metadata: Mapping[str, Any]) -> int:
    """Length of native Pixel Data by the attributes of the image.

    Raises
    ------
    CannotUnderstand
        They don't tell.
    """
    image = ImagePixel.of({**metadata, PIXEL_KEY: {}})
    samples = image.pixels * image.samples_per_pixel * image.number_of_frames
    if image.photometric_interpretation == "YBR_FULL_422":
        samples = samples * 2 // 3
    return (samples * image.bits_allocated + 7) // 8


def native(metadata: Mapping[str, Any], place: Place) -> list[Piece]:
    """Make native Pixel Data.

    Raises
    ------
    CannotUnderstand
        The attributes of the image are missing, or speak of another length.
    """
    expected = native_length(metadata)
    if place.length not in (expected, expected + (expected & 1)):
        raise CannotUnderstand(f"Pixel Data is of {place.length} bytes; it must be {expected}")
    if place.length > MAX_VALUE_BYTES:
        raise CannotUnderstand(f"native Pixel Data can't be longer than {MAX_VALUE_BYTES} bytes")
    # OW for more than 8 bits; at 8 and 1 either will do (PS3.5 §A.2).
    vr = "OB" if metadata.get("00280100", {}).get("Value") == [8] else "OW"
    padding = place.length & 1
    return [element_head(PIXEL_DATA, vr, place.length + padding), place, b"\0" * padding]


def encapsulated(
    transfer_syntax_uid: str, streams: Sequence[Place], *, is_video: bool
) -> tuple[str, dict[str, list[Piece]]]:
    """Make encapsulated Pixel Data: a fragment for each stream, and a table of their offsets.

    Returns
    -------
    transfer_syntax_uid, elements
        A video too long for one fragment gets the fragmentable transfer syntax.

    Raises
    ------
    CannotUnderstand
        A stream is too long.
    """
    if is_video:
        fragments = list(_cut(streams[0]))
        if len(fragments) > 1:
            base = transfer_syntax_uid.removesuffix(".1")
            if base not in _FRAGMENTABLE:
                raise CannotUnderstand("a video of this transfer syntax can't be over 4 GB")
            transfer_syntax_uid = f"{base}.1"
    else:
        fragments = list(streams)
    elements: dict[str, list[Piece]] = {}
    lengths = [fragment.length + (fragment.length & 1) for fragment in fragments]
    if max(lengths) > MAX_VALUE_BYTES:
        raise CannotUnderstand("a compressed frame can't be over 4 GB")
    offsets = [0, *accumulate(length + _ITEM_HEADER for length in lengths)][:-1]
    table = b""
    if not is_video and len(streams) > 1:
        if offsets[-1] < UNDEFINED_LENGTH:
            table = pack(f"<{len(offsets)}I", *offsets)
        else:
            elements = _extended(offsets, streams)
    pieces: list[Piece] = [element_head(PIXEL_DATA, "OB", UNDEFINED_LENGTH)]
    pieces += [item_head(len(table)), table]
    for fragment, length in zip(fragments, lengths, strict=True):
        pieces += [item_head(length), fragment, b"\0" * (length - fragment.length)]
    pieces.append(_DELIMITATION)
    elements[PIXEL_KEY] = pieces
    return transfer_syntax_uid, elements


def _cut(stream: Place) -> Iterator[Place]:
    """Fragments of a stream: one, unless it is longer than a fragment can be."""
    if stream.length <= MAX_VALUE_BYTES:
        yield stream
        return
    if stream.slice is None:
        raise CannotUnderstand("a compressed frame can't be over 4 GB")
    for start in range(0, stream.length, MAX_VALUE_BYTES):
        yield stream.slice(start, min(start + MAX_VALUE_BYTES, stream.length))


def _extended(offsets: Sequence[int], streams: Sequence[Place]) -> dict[str, list[Piece]]:
    """Extended Offset Table and its lengths: for what 32 bits can't count (PS3.5 §A.4)."""
    found: dict[str, list[Piece]] = {}
    for tag, numbers in (
        (_EXTENDED_OFFSETS, offsets),
        (_EXTENDED_LENGTHS, [stream.length for stream in streams]),
    ):
        value: list[Piece] = [pack(f"<{len(numbers)}Q", *numbers)]
        found[f"{tag:08X}"] = [element_head(tag, "OV", length_of(value)), *value]
    return found
