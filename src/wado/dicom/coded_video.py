"""Headers of video: MP4 with H.264 or HEVC, MPEG-2, and bare HEVC (PS3.5 §8.2.5 to §8.2.8)."""

import re
from dataclasses import replace
from enum import StrEnum

from wado.dicom.coded_media import SYNTAX, Coded, Reader, boxes, number
from wado.errors import CannotUnderstand, UnsupportedMediaType

_HEAD_BYTES = 1 << 20
_MAX_MOVIE_BYTES = 64 << 20
_SCAN_BYTES = 1 << 20
_AVC, _HEVC = frozenset({b"avc1", b"avc3"}), frozenset({b"hvc1", b"hev1"})
_SAMPLE_ENTRY_BYTES = 78
"""Fields of a visual sample entry before its boxes (ISO/IEC 14496-12 §12.1.3)."""
_BASELINE, _MAIN, _HIGH, _STEREO = 66, 77, 100, 128
_MPEG_2_MAIN = 4
_MPEG_2_LEVELS = {8: "100", 6: "101", 4: "101"}
_FRAME_RATES = {1: 24000 / 1001, 2: 24.0, 3: 25.0, 4: 30000 / 1001, 5: 30.0, 6: 50.0,
                7: 60000 / 1001, 8: 60.0}  # fmt: skip

H264 = frozenset(f"{SYNTAX}{n}{f}" for n in (102, 103, 104, 105, 106) for f in ("", ".1"))
"""Transfer syntaxes of MPEG-4 AVC/H.264 (PS3.5 §8.2.7)."""
HEAD_BYTES = 1024
"""What `container_of` looks at."""
_PACKET_BYTES, _STAMPED_BYTES = 188, 192
_START = re.compile(rb"\x00\x00\x01([\x00-\xff][\x00-\xff])")
_HEVC_UNITS = frozenset({32, 33, 34, 35, 39})
"""Parameter sets, delimiter, SEI: what a byte stream of HEVC begins with (ITU-T H.265 §7.4.2.2)."""
_H264_UNITS = frozenset({6, 7, 8, 9})
"""The same of H.264 (ITU-T H.264 §7.4.1)."""


class Container(StrEnum):
    """What the stream of a video is put in."""

    MP4 = "MP4"
    TRANSPORT_STREAM = "MPEG-2 transport stream"
    PROGRAM_STREAM = "MPEG-2 program stream"
    MPEG_STREAM = "MPEG-2 video stream"
    H264_STREAM = "H.264 byte stream"
    HEVC_STREAM = "HEVC byte stream"

    @property
    def is_bare(self) -> bool:
        """Whether it is the video alone: without sound, and without times."""
        return self in (Container.MPEG_STREAM, Container.H264_STREAM, Container.HEVC_STREAM)


def container_of(head: bytes) -> Container | None:
    """Tell by its first `HEAD_BYTES` what a stream is put in; None if it is nothing we know."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return Container.MP4
    for first, step in ((0, _PACKET_BYTES), (4, _STAMPED_BYTES)):  # as on a Blu-ray Disc
        packets = head[first::step]
        if packets and set(packets) == {0x47}:
            return Container.TRANSPORT_STREAM
    found = _START.search(head[:64])
    if found is None or head[: found.start()].strip(b"\0"):
        return None
    kind, layer = found[1]
    if kind in (0xBA, 0xB3):
        return Container.PROGRAM_STREAM if kind == 0xBA else Container.MPEG_STREAM
    if kind >> 1 in _HEVC_UNITS and layer == 1:
        return Container.HEVC_STREAM
    return Container.H264_STREAM if kind & 0x9F in _H264_UNITS else None


def mp4(read: Reader, size: int) -> Coded:
    """Read the boxes of an MP4 file: coding, size, number and time of frames.

    Raises
    ------
    UnsupportedMediaType
        Its profile or level has no transfer syntax.
    CannotUnderstand
        Not an MP4 file with a video track.
    """
    movie = _one(boxes(read, 0, size), b"moov")
    if movie is None or movie[1] - movie[0] > _MAX_MOVIE_BYTES:
        raise CannotUnderstand("the MP4 file has no index of its tracks")
    for kind, start, end in boxes(read, *movie):
        if kind == b"trak":
            coded = _track(read, start, end, size)
            if coded is not None:
                return coded
    raise CannotUnderstand("the MP4 file has no track of H.264 or HEVC video")


def _one(found: list[tuple[bytes, int, int]], kind: bytes) -> tuple[int, int] | None:
    return next(((start, end) for k, start, end in found if k == kind), None)


def _path(read: Reader, at: tuple[int, int], *kinds: bytes) -> tuple[int, int] | None:
    for kind in kinds:
        inner = _one(boxes(read, *at), kind)
        if inner is None:
            return None
        at = inner
    return at


def _track(read: Reader, start: int, end: int, size: int) -> Coded | None:
    media = _path(read, (start, end), b"mdia")
    table = _path(read, media, b"minf", b"stbl") if media else None
    entries = _path(read, table, b"stsd") if table else None
    header = _path(read, media, b"mdhd") if media else None
    if not (media and table and entries and header):
        return None
    # Version, flags and count stand before the sample entries.
    for kind, begin, stop in boxes(read, entries[0] + 8, entries[1]):
        if kind not in _AVC | _HEVC:
            continue
        fields = read(begin, _SAMPLE_ENTRY_BYTES)
        inner = boxes(read, begin + _SAMPLE_ENTRY_BYTES, stop)
        where = _one(inner, b"avcC" if kind in _AVC else b"hvcC")
        if where is None:
            raise CannotUnderstand("the video of the MP4 file lacks its configuration")
        configuration = read(where[0], where[1] - where[0])
        coded = _avc(configuration) if kind in _AVC else _hevc(configuration)
        frames, time_ms = _timing(read, table, header)
        return replace(
            coded,
            columns=number(fields, 24),
            rows=number(fields, 26),
            number_of_frames=frames,
            frame_time_ms=time_ms,
            end=size,
        )
    return None


def _timing(
    read: Reader, table: tuple[int, int], header: tuple[int, int]
) -> tuple[int | None, float | None]:
    """Number of samples, and milliseconds of each."""
    sizes = _path(read, table, b"stsz") or _path(read, table, b"stz2")
    frames = number(read(sizes[0], 12), 8, 4) if sizes else 0
    fields = read(header[0], 36)
    if fields[:1] == b"\1":
        scale, duration = number(fields, 20, 4), number(fields, 24, 8)
    else:
        scale, duration = number(fields, 12, 4), number(fields, 16, 4)
    if not frames:
        return None, None
    return frames, 1000 * duration / scale / frames if scale and duration else None


def _coded(uid: str, bits: int, method: str, *also: str) -> Coded:
    return Coded(
        f"{SYNTAX}{uid}",
        rows=0,
        columns=0,
        samples_per_pixel=3,
        bits_stored=bits,
        photometric_interpretation="YBR_PARTIAL_420",
        photometric_is_certain=True,
        lossy=True,
        method=method,
        also=tuple(f"{SYNTAX}{other}" for other in also),
        end=0,
        is_video=True,
    )


def _avc(configuration: bytes) -> Coded:
    """AVCDecoderConfigurationRecord (ISO/IEC 14496-15 §5.3.3.1)."""
    profile, constraints, level = (number(configuration, at, 1) for at in (1, 2, 3))
    # What a decoder of High Profile must also decode (ITU-T H.264 §A.2.4).
    high = profile in (_HIGH, _MAIN) or (profile == _BASELINE and constraints & 0x40)
    if high and level <= 41:
        return _coded("102", 8, "ISO_14496_10", "103", "104", "105", "106")
    if high and level == 42:
        return _coded("104", 8, "ISO_14496_10", "105", "106")
    if profile == _STEREO and level <= 42:
        return _coded("106", 8, "ISO_14496_10")
    raise UnsupportedMediaType(
        f"H.264 of profile {profile}, level {level / 10:g} has no transfer syntax: "
        "High Profile up to level 4.2 has"
    )


def _hevc(configuration: bytes) -> Coded:
    """HEVCDecoderConfigurationRecord (ISO/IEC 14496-15 §8.3.3.1)."""
    return _hevc_coded(number(configuration, 1, 1) & 0x1F, number(configuration, 12, 1))


_HEVC_LEVEL_5_1 = 153


def _hevc_coded(profile: int, level: int) -> Coded:
    if profile in (1, 2) and level <= _HEVC_LEVEL_5_1:
        # A bit stream of Main Profile is one of Main 10, too (ITU-T H.265 §A.3.3).
        also = ("108",) if profile == 1 else ()
        return _coded("107" if profile == 1 else "108", 8 if profile == 1 else 10,
                      "ISO_23008_2", *also)  # fmt: skip
    raise UnsupportedMediaType(
        f"HEVC of profile {profile}, level {level / 30:g} has no transfer syntax: "
        "Main and Main 10 up to level 5.1 have"
    )


# ------------------------------------------------------------------ MPEG-2

_SEQUENCE = re.compile(rb"\x00\x00\x01\xb3(.{8})", re.DOTALL)
_EXTENSION = re.compile(rb"\x00\x00\x01\xb5(.{6})", re.DOTALL)
_PICTURE = re.compile(rb"\x00\x00\x01\x00")


def mpeg(read: Reader, size: int) -> Coded:
    """Read the sequence header of an MPEG-2 video, in whatever stream, and count its pictures.

    Raises
    ------
    UnsupportedMediaType
        Its profile or level has no transfer syntax.
    CannotUnderstand
        Not MPEG-2 video.
    """
    head = read(0, _HEAD_BYTES)
    sequence = _SEQUENCE.search(head)
    extension = _EXTENSION.search(head, sequence.end() if sequence else 0)
    if sequence is None or extension is None:
        raise CannotUnderstand("not MPEG-2 video: it has no sequence header and extension")
    sizes, more = number(sequence[1], 0, 3), number(extension[1], 0, 3)
    # 4 bits of identifier, 8 of profile and level (ISO/IEC 13818-2 §6.2.2.3, §8).
    profile, level = more >> 16 & 7, more >> 12 & 15
    if profile != _MPEG_2_MAIN or level not in _MPEG_2_LEVELS:
        raise UnsupportedMediaType(
            f"MPEG-2 of profile {profile}, level {level} has no transfer syntax: "
            "Main Profile at Main Level or High Level has"
        )
    rate = _FRAME_RATES.get(sequence[1][3] & 15)
    return replace(
        _coded(_MPEG_2_LEVELS[level], 8, "ISO_13818_2", "101"),
        columns=sizes >> 12 | (more >> 7 & 3) << 12,
        rows=sizes & 0xFFF | (more >> 5 & 3) << 12,
        number_of_frames=_pictures(read, size) or None,
        frame_time_ms=1000 / rate if rate else None,
        end=size,
    )


def _pictures(read: Reader, size: int) -> int:
    """Count the pictures; start codes stand in transport streams, too, but may be cut there."""
    count = 0
    for start in range(0, size, _SCAN_BYTES):
        count += len(_PICTURE.findall(read(start, _SCAN_BYTES + 3)))
    return count


# ------------------------------------------------------------------ HEVC without a container

_SPS = re.compile(rb"\x00\x00\x01[\x42\x43].(.{64})", re.DOTALL)
_EMULATION = re.compile(rb"\x00\x00\x03")


def hevc(read: Reader, size: int) -> Coded:
    """Read the sequence parameter set of an HEVC byte stream (ITU-T H.265 §7.3.2.2).

    Raises
    ------
    UnsupportedMediaType
        Its profile or level has no transfer syntax.
    CannotUnderstand
        Not such a stream.
    """
    found = _SPS.search(read(0, _HEAD_BYTES) + bytes(64))
    if found is None:
        raise CannotUnderstand("not an HEVC byte stream: it has no sequence parameter set")
    data = _EMULATION.sub(b"\0\0", found[1])
    sub_layers = data[0] >> 1 & 7
    coded = _hevc_coded(data[1] & 0x1F, data[12])
    if sub_layers:
        raise UnsupportedMediaType("HEVC with temporal sub-layers is stored from an MP4 file only")
    bits = _Golomb(data[13:])
    bits.next()  # identifier
    if bits.next() != 1:
        raise UnsupportedMediaType("HEVC of another chroma format than 4:2:0")
    columns, rows = bits.next(), bits.next()
    if bits.take(1):  # cut at the edges, in units of two pixels
        left, right, top, bottom = (2 * bits.next() for _ in range(4))
        columns, rows = columns - left - right, rows - top - bottom
    return replace(coded, columns=columns, rows=rows, end=size)


class _Golomb:
    """Bits, most significant first, and Exp-Golomb numbers (ITU-T H.265 §9.2)."""

    def __init__(self, data: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in data)
        self._at = 0

    def take(self, count: int) -> int:
        value = self._bits[self._at : self._at + count]
        if len(value) < count:
            raise CannotUnderstand("the sequence parameter set ends early")
        self._at += count
        return int(value, 2)

    def next(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + (self.take(zeros) if zeros else 0)
