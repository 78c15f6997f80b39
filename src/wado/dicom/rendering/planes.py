"""Overlay planes of an image: which bits, and where they lie on it (PS3.3 §C.9.2)."""

from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from wado.dicom.image import ImagePixel, first_value

_MAX_SIDE = 1 << 16
_GROUPS = tuple(f"60{n:02X}" for n in range(0, 32, 2))
"""Up to 16 planes, in even groups."""


class Overlay(NamedTuple):
    """A plane of `rows` by `columns` bits, its first at `top`, `left` of the image (from 1).

    `data` begins with the byte that holds the first bit, after `first_bit` others. Without data
    the plane is bit `bit_position` of the stored pixels (retired, and found in old images).
    """

    rows: int
    columns: int
    top: int
    left: int
    data: bytes = b""
    first_bit: int = 0
    bit_position: int | None = None


def overlays_of(
    metadata: Mapping[str, Any],
    image: ImagePixel,
    number: int,
    bulk: Callable[[str, int, int | None], bytes],
) -> Iterator[Overlay]:
    """Read the planes that apply to a frame (number from 1); those that make no sense are left."""
    for group in _GROUPS:
        rows, columns = (first_value(metadata, f"{group}{n}") for n in ("0010", "0011"))
        if not (_is_side(rows) and _is_side(columns)):
            continue
        index = _index(metadata, group, number)
        if index is None:
            continue
        origin = metadata.get(f"{group}0050", {}).get("Value") or [1, 1]
        top, left = origin if _are_numbers(origin) else (1, 1)
        plane = Overlay(rows, columns, top, left)
        if f"{group}3000" in metadata:
            yield _filled(plane, metadata[f"{group}3000"], index, bulk)
        elif (position := first_value(metadata, f"{group}0102")) in _unused_bits(image):
            yield plane._replace(bit_position=position)


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and 0 < value <= _MAX_SIDE


def _are_numbers(values: Any) -> bool:
    return len(values) == 2 and all(isinstance(n, int) for n in values)


def _index(metadata: Mapping[str, Any], group: str, number: int) -> int | None:
    """Which frame of the overlay lies on a frame of the image; None if none does."""
    frames = first_value(metadata, f"{group}0015")
    if not isinstance(frames, int) or frames < 1:
        return 0
    origin = first_value(metadata, f"{group}0051")
    first = origin if isinstance(origin, int) and origin > 0 else 1
    return number - first if first <= number < first + frames else None


def _unused_bits(image: ImagePixel) -> range | tuple[int, ...]:
    """Bits of a pixel above and below those that are stored."""
    low = image.high_bit - image.bits_stored + 1
    return (*range(max(low, 0)), *range(image.high_bit + 1, image.bits_allocated))


def _filled(
    plane: Overlay,
    element: Mapping[str, Any],
    index: int,
    bulk: Callable[[str, int, int | None], bytes],
) -> Overlay:
    """Add the bits, which follow those of the frame before without a gap."""
    bits = plane.rows * plane.columns
    first, last = index * bits, (index + 1) * bits
    start, end = first // 8, (last + 7) // 8
    if "BulkDataURI" in element:
        data = bulk(element["BulkDataURI"].partition("/bulkdata/")[2], start, end)
    else:
        data = b64decode(element.get("InlineBinary", ""))[start:end]
    return plane._replace(data=data, first_bit=first % 8)
