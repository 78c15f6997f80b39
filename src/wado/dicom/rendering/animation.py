"""One animated GIF out of pictures that are GIFs each, frame after frame with flat memory."""

from collections.abc import Iterable, Iterator
from struct import pack

from wado.errors import CannotUnderstand

_HEAD_BYTES = 13
_IMAGE, _EXTENSION, _TRAILER = 0x2C, 0x21, 0x3B
_DESCRIPTOR_BYTES = 10
_TABLE_FLAG = 0x80
_FOREVER = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
_NO_DISPOSAL = 1 << 2


def animated(pictures: Iterable[bytes], delay_ms: float) -> Iterator[bytes]:
    """Join GIFs of the same size; each keeps its own colours.

    Parameters
    ----------
    pictures
        GIF files of one picture each.
    delay_ms
        How long each is shown; GIF counts in hundredths of a second.

    References
    ----------
    Graphics Interchange Format, version 89a, §18 to §27.
    """
    delay = round(min(max(delay_ms / 10, 1.0), 65535.0))
    control = b"!\xf9\x04" + pack("<BHB", _NO_DISPOSAL, delay, 0) + b"\0"
    first = True
    for picture in pictures:
        if first:
            # The screen has no colours of its own.
            yield b"GIF89a" + picture[6:10] + b"\x70\0\0" + _FOREVER
            first = False
        yield control + _local_image(picture)
    yield bytes([_TRAILER])


def _local_image(picture: bytes) -> bytes:
    """Cut out the image of a GIF, its global colours made its own."""
    if not picture.startswith((b"GIF87a", b"GIF89a")):
        raise CannotUnderstand("not a GIF")
    flags = picture[10]
    table_length = 3 << (flags & 7) + 1 if flags & _TABLE_FLAG else 0
    at = _HEAD_BYTES + table_length
    while picture[at] == _EXTENSION:
        at = _after_blocks(picture, at + 2)
    if picture[at] != _IMAGE:
        raise CannotUnderstand("a GIF without an image")
    descriptor, local = picture[at : at + _DESCRIPTOR_BYTES], picture[at + 9]
    at += _DESCRIPTOR_BYTES
    end = at + (3 << (local & 7) + 1 if local & _TABLE_FLAG else 0)
    after = _after_blocks(picture, end + 1)
    if local & _TABLE_FLAG:
        return descriptor + picture[at:after]
    table = picture[_HEAD_BYTES : _HEAD_BYTES + table_length]
    merged = (local & ~7) | _TABLE_FLAG | (flags & 7)
    return descriptor[:9] + bytes([merged]) + table + picture[at:after]


def _after_blocks(picture: bytes, at: int) -> int:
    """Pass over data blocks up to the empty one that ends them."""
    while length := picture[at]:
        at += length + 1
    return at + 1
