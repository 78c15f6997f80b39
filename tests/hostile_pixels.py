"""Instances whose pixel data lie, end early, or would take all there is."""

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from struct import pack, pack_into
from typing import Any

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

import coded_streams
import every_syntax
from coded_streams import deflated
from every_syntax import (
    DEFLATED_FRAMES,
    ENCAPSULATED_UNCOMPRESSED,
    JPEG,
    OLD_HTJ2K,
    RLE,
    Example,
)
from example_pictures import GRAY_8, GRAY_16, native

LARGE = 60_000
SIDE = 8192
"""A side of images within the limit of the queue, for which little memory is enough to say no."""
MEGABYTE = 1 << 20
MPEG_2, HEVC = f"{JPEG}100", f"{JPEG}107"
PART_2, JPEG_XL, SPECTRAL = f"{JPEG}92", f"{JPEG}110", f"{JPEG}53"
FUZZED_TIMES = 2


def hostile_examples(bait: str) -> list[Example]:
    """Make them all; `bait` is an address that nobody may connect to."""
    makers: tuple[Callable[[], Iterator[Example]], ...] = (
        _of_false_size, _bombs, _cut_short, _mislabelled, _false_tables, _garbage, _of_odd_bits,
        _fuzzed, lambda: _videos(bait),
    )  # fmt: skip
    return [example for maker in makers for example in maker()]


def _coded(name: str, uid: str, *streams: bytes, **changes: Any) -> Example:
    """An instance of 8 bits with these code streams, whatever its attributes say."""
    ds = native(GRAY_8, f"hostile {name}")
    ds.file_meta.TransferSyntaxUID = UID(uid)
    if len(streams) > 1:
        ds.NumberOfFrames = len(streams)
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    items = b"".join(_item(stream) for stream in streams)
    ds.PixelData = _item(b"") + items
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return Example(name, ds, "unreadable")


def _item(value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return pack("<HHI", 0xFFFE, 0xE000, len(value)) + value


def _j2k() -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(GRAY_8.frames[0], codecformat="j2k", reversible=True))


def _htj2k() -> bytes:
    return bytes(imagecodecs.htj2k_encode(GRAY_8.frames[0], reversible=True))


def _jxl() -> bytes:
    return bytes(imagecodecs.jpegxl_encode(GRAY_8.frames[0], lossless=True, usecontainer=False))


def _spectral() -> bytes:
    ds = coded_streams.by_dcmtk(native(GRAY_8, "part"), "dcmcjpeg", "+es", "+un")
    return coded_streams.streams_of(ds)[0]


# ------------------------------------------------------------------ sizes


def _sized(stream: bytes, rows: int, columns: int) -> bytes:
    """A JPEG 2000 stream that claims another size, of one tile."""
    changed = bytearray(stream)
    pack_into(">II", changed, 8, columns, rows)
    pack_into(">II", changed, 24, columns, rows)
    return bytes(changed)


def _jxl_of_size(side: int) -> bytes:
    """The head of a JPEG XL stream of this size, and nothing that could be its pixels."""
    bits = (2 << 1) | ((side - 1) << 3) | (1 << 21)
    return b"\xff\x0a" + bits.to_bytes(8, "little") + bytes(64)


def _of_false_size() -> Iterator[Example]:
    huge = {"Rows": LARGE, "Columns": LARGE}
    ds = native(GRAY_16, "hostile native overflow")
    ds.Rows, ds.Columns, ds.NumberOfFrames = 65535, 65535, 2147483647
    yield Example("native overflow", ds, "unreadable")
    ds = native(GRAY_16, "hostile native frames")
    ds.NumberOfFrames = 10**9
    yield Example("native of a milliard frames", ds, "unreadable")
    yield _coded("JPEG XL of a milliard frames", JPEG_XL, _jxl(), NumberOfFrames=10**9)
    yield _coded("uncompressed overflow", ENCAPSULATED_UNCOMPRESSED, bytes(100), NumberOfFrames=1,
                 **huge)  # fmt: skip
    for side, name in ((LARGE, "60000"), (SIDE, "8192")):
        size = {"Rows": side, "Columns": side}
        yield _coded(f"JPEG 2000 of {name}", PART_2, _sized(_j2k(), side, side), **size)
        yield _coded(f"JPEG 2000 of {name}, unsaid", PART_2, _sized(_j2k(), side, side))
        yield _coded(f"HTJ2K of {name}", OLD_HTJ2K, _sized(_htj2k(), side, side), **size)
        yield _coded(f"JPEG XL of {name}", JPEG_XL, _jxl_of_size(side), **size)
        yield _coded(f"JPEG XL of {name}, unsaid", JPEG_XL, _jxl_of_size(side))
    yield _coded("JPEG of 60000", SPECTRAL, _jpeg_of_size(_spectral(), LARGE), **huge)
    yield _coded("RLE of 60000", RLE, pack("<II56x", 1, 64) + b"\x81\0" * 500, **huge)


def _jpeg_of_size(stream: bytes, side: int) -> bytes:
    at = next(start for marker, start, _ in coded_streams.segments(stream) if marker == 0xC2)
    return stream[: at + 5] + pack(">HH", side, side) + stream[at + 9 :]


# ------------------------------------------------------------------ bombs


def _bombs() -> Iterator[Example]:
    zeros = _deflated_zeros(8)
    yield _coded("deflated 512 MB in a small frame", DEFLATED_FRAMES, zeros)
    yield _coded("deflated 512 MB", DEFLATED_FRAMES, zeros, Rows=16384, Columns=16384,
                 BitsAllocated=16, BitsStored=16, HighBit=15)  # fmt: skip
    runs = pack("<II56x", 1, 64) + b"\x81\0" * (2 * MEGABYTE)
    yield _coded("RLE of 256 MB in a small frame", RLE, runs)
    yield _coded("RLE of 256 MB", RLE, runs, Rows=16384, Columns=16384)
    yield _coded("RLE of a pixel too many", RLE, _rle_of_a_pixel_too_many(), BitsAllocated=16,
                 BitsStored=16, HighBit=15)  # fmt: skip
    flat = np.zeros((4000, 4000), "u2")
    packed = bytes(imagecodecs.jpegxl_encode(flat, lossless=True, effort=1, usecontainer=False))
    yield _coded("JPEG XL of 16 million pixels that is just large", JPEG_XL, packed, Rows=4000,
                 Columns=4000, BitsAllocated=16, BitsStored=16, HighBit=15)  # fmt: skip


def _rle_of_a_pixel_too_many() -> bytes:
    """Two segments, for 16 bits, the last of which goes on behind the last pixel."""
    count = GRAY_8.frames[0].size
    runs = b"\x81\7" * (count // 128) + bytes([count % 128 - 1]) + bytes(count % 128)
    first, last = (s + b"\0" * (len(s) % 2) for s in (runs, runs + b"\0\7"))
    return pack("<III52x", 2, 64, 64 + len(first)) + first + last


def _deflated_zeros(pieces: int) -> bytes:
    """64 MB of zeros so many times, without the work of deflating them all."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    piece = packer.compress(bytes(64 * MEGABYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    return piece * pieces + packer.flush()


def _cut_short() -> Iterator[Example]:
    plain = GRAY_8.frames[0].tobytes()
    for name, uid, stream in (
        ("JPEG 2000", PART_2, _j2k()), ("HTJ2K", OLD_HTJ2K, _htj2k()), ("JPEG XL", JPEG_XL, _jxl()),
        ("JPEG", SPECTRAL, _spectral()), ("deflated", DEFLATED_FRAMES, deflated(plain)),
        ("uncompressed", ENCAPSULATED_UNCOMPRESSED, plain),
    ):  # fmt: skip
        for part in (2, 20):
            yield _coded(f"{name}, cut to 1/{part}", uid, stream[: len(stream) // part])
        yield _coded(f"{name}, empty", uid, b"")


# ------------------------------------------------------------------ lies


def _mislabelled() -> Iterator[Example]:
    streams = {
        PART_2: _j2k(), JPEG_XL: _jxl(), SPECTRAL: _spectral(), OLD_HTJ2K: _htj2k(),
        DEFLATED_FRAMES: deflated(GRAY_8.frames[0].tobytes()),
        MPEG_2: coded_streams.video("mpeg2video", "mpegts"),
    }  # fmt: skip
    labels = list(streams)
    for uid, other in zip(labels, [*labels[1:], labels[0]], strict=True):
        yield _coded(f"{other} called {uid}", uid, streams[other])
    ds = native(GRAY_16, "hostile native called JPEG XL")
    yield _relabelled("native called JPEG XL", ds, JPEG_XL)


def _relabelled(name: str, ds: Dataset, uid: str) -> Example:
    """Native Pixel Data of defined length under a transfer syntax that encapsulates."""
    ds.file_meta.TransferSyntaxUID = UID(uid)
    return Example(name, ds, "unreadable")


def _false_tables() -> Iterator[Example]:
    stream = _jxl()
    item = _item(stream)
    tables = {
        "beyond the end": pack("<II", 0, 0xFFFFFF00),
        "backwards": pack("<II", len(item), 0),
        "within an item": pack("<II", 0, 12),
        "all the same": pack("<II", 0, 0),
        "of 100,000 frames": pack("<100000I", *range(100_000)),
    }
    for name, table in tables.items():
        body = _item(table) + item + item
        yield _of_body(f"offset table {name}", body, 2)
    empty = _item(b"")
    yield _of_body("100,000 empty fragments", empty * 100_001, 100_000)
    yield _of_body("no fragment", empty, 1)
    yield _of_body("fewer fragments than frames", empty + item, 3)
    example = _coded("extended offset table", JPEG_XL, stream, stream)
    example.ds.ExtendedOffsetTable = pack("<QQ", 0, 1 << 62)
    example.ds.ExtendedOffsetTableLengths = pack("<QQ", 1 << 63, 1 << 63)
    yield example


def _of_body(name: str, body: bytes, frames: int) -> Example:
    example = _coded(name, JPEG_XL, b"")
    example.ds.PixelData, example.ds.NumberOfFrames = body, frames
    example.ds["PixelData"].is_undefined_length = True
    return example


def _garbage() -> Iterator[Example]:
    noise = random.Random(6).randbytes(100_000)
    for uid in (PART_2, OLD_HTJ2K, JPEG_XL, SPECTRAL, DEFLATED_FRAMES, MPEG_2, HEVC):
        yield _coded(f"NUL called {uid}", uid, bytes(100_000))
        yield _coded(f"noise called {uid}", uid, noise)
    yield _coded("JPEG of markers alone", SPECTRAL, b"\xff\xd8" + b"\xff\xfe\0\2" * 50_000)
    yield _coded("JPEG without end", SPECTRAL, b"\xff\xd8\xff\xe0" + b"\xff" * 100_000)
    boxes = pack(">I4s", 8, b"free") * 20_000
    yield _coded("JPEG XL of boxes", JPEG_XL, b"\0\0\0\x0cJXL \r\n\x87\n" + boxes)


_ODD: tuple[dict[str, Any], ...] = (
    {"SamplesPerPixel": 0}, {"SamplesPerPixel": 65535}, {"BitsAllocated": 0},
    {"BitsAllocated": 65535, "BitsStored": 65535, "HighBit": 65534}, {"BitsStored": 33},
    {"HighBit": 65535}, {"Rows": 0}, {"Columns": 0}, {"PixelRepresentation": 7},
    {"PlanarConfiguration": 9}, {"PhotometricInterpretation": "PALETTE COLOR"},
    {"PhotometricInterpretation": "\x1b[31m"}, {"NumberOfFrames": -1}, {"NumberOfFrames": 0},
)  # fmt: skip


def _of_odd_bits() -> Iterator[Example]:
    for number, changes in enumerate(_ODD):
        yield _coded(f"odd attributes {number}", JPEG_XL, _jxl(), **changes)
        stream = deflated(GRAY_8.frames[0].tobytes())
        yield _coded(f"odd attributes {number}, deflated", DEFLATED_FRAMES, stream, **changes)


def _fuzzed() -> Iterator[Example]:
    """Good examples with some bytes changed behind the head of each code stream."""
    chance = random.Random(42)
    streams = {
        PART_2: _j2k(), JPEG_XL: _jxl(), SPECTRAL: _spectral(), OLD_HTJ2K: _htj2k(),
        DEFLATED_FRAMES: deflated(GRAY_8.frames[0].tobytes()),
        MPEG_2: coded_streams.video("mpeg2video", "mpegts"),
    }  # fmt: skip
    for uid, stream in streams.items():
        for number in range(FUZZED_TIMES):
            changed = bytearray(stream)
            for _ in range(8):
                changed[chance.randrange(20, len(changed))] = chance.randrange(256)
            yield _coded(f"{uid} fuzzed {number}", uid, bytes(changed))


# ------------------------------------------------------------------ video


def _videos(bait: str) -> Iterator[Example]:
    """What a video program may follow, and what would keep it busy."""
    texts = {
        "playlist": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{bait}/a.ts\n",
        "endless playlist": f"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\n{bait}/b.ts\n",
        "concatenation": "ffconcat version 1.0\nfile '/etc/passwd'\n",
        "address": f"ffconcat version 1.0\nfile '{bait}/c.ts'\n",
        "session": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nu={bait}\nm=video 5004 RTP/AVP 33\n",
    }
    for name, text in texts.items():
        for uid in (MPEG_2, HEVC):
            yield _video(f"{name} called {uid}", uid, text.encode() * 3)
    long = coded_streams.video("mpeg2video", "mpegts", frames=3000, size="32x32")
    yield _video("3000 frames called 10", MPEG_2, long)
    film = coded_streams.video("mpeg2video", "mpegts")
    yield _video("film cut short", MPEG_2, film[: len(film) // 3])
    yield _video("film of a milliard frames", MPEG_2, film, NumberOfFrames=10**9)
    at = film.index(b"\0\0\1\xb3")
    wide = film[: at + 4] + b"\xff\xff\xff" + film[at + 7 :]
    yield _video("film of 4095 x 4095", MPEG_2, wide)


def _video(name: str, uid: str, stream: bytes, **changes: Any) -> Example:
    return replace(
        _coded(name, uid, stream, **{
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.4.1", "NumberOfFrames": 10, "Rows": 48,
            "Columns": 64, "SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_PARTIAL_420",
            **changes,
        }),
        kind="video",
    )  # fmt: skip


def good_examples() -> list[Example]:
    """Good ones of each coding, to be sent among them: shown, and converted."""
    makers = (every_syntax._nearly_native, every_syntax._jpeg_xl, every_syntax._htj2k)
    return [example for maker in makers for example in maker()][::3]
