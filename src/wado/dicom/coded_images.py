"""Headers of still images: JPEG, JPEG-LS, JPEG 2000, HTJ2K, JPEG XL (PS3.5 §8.2)."""

from collections.abc import Mapping
from types import MappingProxyType

from wado.dicom.coded_media import SYNTAX, Coded, NeedsDecoding, Reader, boxes, number
from wado.errors import CannotUnderstand, UnsupportedMediaType

_MAX_HEADER_BYTES = 1 << 20
_SOS, _EOI, _APP14, _JFIF, _JPEG_LS = 0xDA, 0xD9, 0xEE, 0xE0, 0xF7
_FRAMES = frozenset({*range(0xC0, 0xD0), _JPEG_LS}) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = {0xC0: "50", 0xC1: "51"}
_PROGRESSIVE = 0xC2
_LOSSLESS = 0xC3


def jpeg(read: Reader, size: int) -> Coded:
    """Read the headers of a JPEG or JPEG-LS image up to its first scan.

    Raises
    ------
    NeedsDecoding
        Progressive: its transfer syntax is retired.
    CannotUnderstand
        Not such an image.
    """
    data = read(0, min(size, _MAX_HEADER_BYTES))
    if data[:2] != b"\xff\xd8":
        raise CannotUnderstand("not a JPEG image: it does not begin with FFD8")
    segments = _segments(data)
    kind = next((k for k in segments if k in _FRAMES), None)
    if kind is None or _SOS not in segments:
        raise CannotUnderstand("the JPEG image has no frame or no scan")
    if kind == _PROGRESSIVE:
        raise NeedsDecoding("progressive JPEG has no transfer syntax of today")
    frame, scan = segments[kind], segments[_SOS]
    samples = number(frame, 5, 1)
    if samples not in (1, 3):
        raise CannotUnderstand(f"the JPEG image has {samples} components: DICOM has 1 or 3")
    photometric, certain = _photometric(kind, samples, segments, frame)
    uid, lossy, also = _jpeg_syntax(kind, scan, number(frame, 0, 1))
    return Coded(
        uid,
        rows=number(frame, 1),
        columns=number(frame, 3),
        samples_per_pixel=samples,
        bits_stored=number(frame, 0, 1),
        photometric_interpretation=photometric,
        photometric_is_certain=certain,
        lossy=lossy,
        method="ISO_14495_1" if kind == _JPEG_LS else "ISO_10918_1",
        also=also,
        end=size,
    )


def _segments(data: bytes) -> Mapping[int, bytes]:
    """Marker segments up to the first scan; the first of each marker."""
    found: dict[int, bytes] = {}
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise CannotUnderstand("the JPEG image has no marker where one must stand")
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        length = number(data, at + 2)
        if marker == _EOI or length < 2:
            break
        found.setdefault(marker, data[at + 4 : at + 2 + length])
        if marker == _SOS:
            break
        at += 2 + length
    return found


def _jpeg_syntax(kind: int, scan: bytes, precision: int) -> tuple[str, bool, tuple[str, ...]]:
    """Transfer syntax, whether values were lost, and what else it may be called."""
    first = 1 + 2 * number(scan, 0, 1)  # behind the components of the scan
    selection = number(scan, first, 1)
    if kind == _JPEG_LS:  # NEAR: how far a value may be off
        return (f"{SYNTAX}81", True, ()) if selection else (f"{SYNTAX}80", False, (f"{SYNTAX}81",))
    if kind == _LOSSLESS:
        # Selection value 1 is first-order prediction (PS3.5 §A.4.1).
        return (f"{SYNTAX}70", False, (f"{SYNTAX}57",)) if selection == 1 else (
            f"{SYNTAX}57", False, (),
        )  # fmt: skip
    if kind not in _SEQUENTIAL:
        raise UnsupportedMediaType(f"JPEG of process SOF{kind - 0xC0} has no transfer syntax")
    also = (f"{SYNTAX}51",) if kind == 0xC0 and precision == 8 else ()
    return f"{SYNTAX}{_SEQUENTIAL[kind]}", True, also


def _photometric(
    kind: int, samples: int, segments: Mapping[int, bytes], frame: bytes
) -> tuple[str, bool]:
    """Colour as the markers say it, and whether they do."""
    if samples == 1:
        return "MONOCHROME2", False
    ids = bytes(frame[6:15:3])
    adobe = segments.get(_APP14, b"")
    if adobe[:5] == b"Adobe" and len(adobe) > 11:
        rgb, certain = adobe[11] == 0, True
    elif segments.get(_JFIF, b"")[:4] == b"JFIF":
        rgb, certain = False, True
    else:
        rgb = ids == b"RGB" or kind not in _SEQUENTIAL
        certain = ids == b"RGB"
    if rgb:
        return "RGB", certain
    subsampled = number(frame, 7, 1) >> 4 > 1  # of the first component, against the others
    return ("YBR_FULL_422" if subsampled else "YBR_FULL"), certain


# ------------------------------------------------------------------ JPEG 2000 and HTJ2K

_SIZ, _COD, _CAP, _SOD, _SOT = 0xFF51, 0xFF52, 0xFF50, 0xFF93, 0xFF90
_CAP_HT = 1 << 17
"""Bit 15 of Pcap, counted from the most significant: Part 15 is used (T.814)."""
_RPCL = 2


def jpeg_2000(read: Reader, size: int) -> Coded:
    """Read the main header of a JPEG 2000 codestream, bare or in a JP2, JPX or JPH file.

    Raises
    ------
    CannotUnderstand
        Not such an image.
    """
    start, end = _codestream(read, size)
    segments = _main_header(read(start, min(end - start, _MAX_HEADER_BYTES)))
    siz, cod = segments.get(_SIZ, b""), segments.get(_COD, b"")
    samples = number(siz, 34)
    if samples not in (1, 3):
        raise CannotUnderstand(f"the image has {samples} components: DICOM has 1 or 3")
    depth = number(siz, 36, 1)
    reversible, mixed = number(cod, 9, 1) == 1, number(cod, 4, 1) == 1
    high_throughput = bool(_CAP in segments and number(segments[_CAP], 0, 4) & _CAP_HT)
    uid, also = _jpeg_2000_syntax(
        reversible=reversible,
        high_throughput=high_throughput,
        part_2=bool(number(siz, 0) & 0x8000),
        rpcl=number(cod, 1, 1) == _RPCL,
    )
    colour = ("YBR_RCT" if reversible else "YBR_ICT") if mixed else "RGB"
    return Coded(
        uid,
        rows=number(siz, 6, 4) - number(siz, 14, 4),
        columns=number(siz, 2, 4) - number(siz, 10, 4),
        samples_per_pixel=samples,
        bits_stored=(depth & 0x7F) + 1,
        pixel_representation=depth >> 7,
        photometric_interpretation="MONOCHROME2" if samples == 1 else colour,
        photometric_is_certain=samples == 3 and mixed,
        lossy=not reversible,
        method="ISO_15444_15" if high_throughput else "ISO_15444_1",
        also=also,
        start=start,
        end=end,
    )


def _codestream(read: Reader, size: int) -> tuple[int, int]:
    """Start and end of the codestream: a file format around it isn't stored (PS3.5 §A.4.4)."""
    head = read(0, 12)
    if head[:4] == b"\xff\x4f\xff\x51":
        return 0, size
    if head[4:8] != b"jP  ":
        raise CannotUnderstand("not a JPEG 2000 image: neither a codestream nor a JP2 file")
    for kind, start, end in boxes(read, 0, size):
        if kind == b"jp2c":
            return start, end
    raise CannotUnderstand("the JP2 file has no codestream")


def _main_header(data: bytes) -> Mapping[int, bytes]:
    found: dict[int, bytes] = {}
    at = 2
    while at + 4 <= len(data):
        marker, length = number(data, at), number(data, at + 2)
        if marker in (_SOT, _SOD) or length < 2:
            break
        found.setdefault(marker, data[at + 4 : at + 2 + length])
        at += 2 + length
    return found


def _jpeg_2000_syntax(
    *, reversible: bool, high_throughput: bool, part_2: bool, rpcl: bool
) -> tuple[str, tuple[str, ...]]:
    """Transfer syntax; lossless streams may also go by the syntax that allows loss."""
    if high_throughput:
        if not reversible:
            return f"{SYNTAX}203", ()
        return f"{SYNTAX}201", (*((f"{SYNTAX}202",) if rpcl else ()), f"{SYNTAX}203")
    lossless, general = ("92", "93") if part_2 else ("90", "91")
    if reversible:
        return f"{SYNTAX}{lossless}", (f"{SYNTAX}{general}",)
    return f"{SYNTAX}{general}", ()


# ------------------------------------------------------------------ JPEG XL

_RATIOS = MappingProxyType(
    {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
)


class _Bits:
    """Bits of a JPEG XL header, least significant first (ISO/IEC 18181-1)."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise CannotUnderstand("the JPEG XL header ends early")
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        return value

    def choice(self, *choices: tuple[int, int]) -> int:
        """U32(): one of four (offset, bits)."""
        offset, bits = choices[self.take(2)]
        return offset + self.take(bits)


def jpeg_xl(read: Reader, size: int) -> Coded:
    """Read the header of a JPEG XL image, bare or in its container.

    Raises
    ------
    CannotUnderstand
        Not such an image, or one that DICOM can't hold (animated, with extra channels).
    """
    head, recompressed = _jxl_head(read, size)
    bits = _Bits(head[2:])
    rows, columns = _jxl_size(bits)
    depth, samples, xyb = _jxl_metadata(bits)
    uid = f"{SYNTAX}112" if xyb else f"{SYNTAX}110"
    if recompressed:
        uid = f"{SYNTAX}111"
    colour = "XYB" if xyb and not recompressed else "RGB"
    return Coded(
        uid,
        rows=rows,
        columns=columns,
        samples_per_pixel=samples,
        bits_stored=depth,
        photometric_interpretation="MONOCHROME2" if samples == 1 else colour,
        lossy=xyb or recompressed,
        method="ISO_10918_1" if recompressed else "ISO_18181_1",
        also=(f"{SYNTAX}112",),
        end=size,
    )


_JXL_HEAD_BYTES = 64


def _jxl_head(read: Reader, size: int) -> tuple[bytes, bool]:
    """First bytes of the codestream, and whether a JPEG can be rebuilt from it."""
    head = read(0, _JXL_HEAD_BYTES)
    if head[:2] == b"\xff\x0a":
        return head, False
    if head[4:8] != b"JXL ":
        raise CannotUnderstand("not a JPEG XL image")
    found, recompressed = b"", False
    for kind, start, _ in boxes(read, 0, size):
        recompressed |= kind == b"jbrd"
        if not found and kind in (b"jxlc", b"jxlp"):  # a part begins with its number
            found = read(start + (4 if kind == b"jxlp" else 0), _JXL_HEAD_BYTES)
    if found[:2] != b"\xff\x0a":
        raise CannotUnderstand("the JPEG XL file has no codestream")
    return found, recompressed


def _jxl_size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)

    def side() -> int:
        if small:
            return (bits.take(5) + 1) * 8
        return bits.choice((1, 9), (1, 13), (1, 18), (1, 30))

    rows = side()
    ratio = bits.take(3)
    if not ratio:
        return rows, side()
    over, under = _RATIOS[ratio]
    return rows, rows * over // under


def _jxl_metadata(bits: _Bits) -> tuple[int, int, bool]:
    """Bits of a sample, samples of a pixel, and whether colour is XYB."""
    if bits.take(1):  # all is default
        return 8, 3, True
    if bits.take(1):
        bits.take(3)  # orientation
        if bits.take(1):
            _jxl_size(bits)
        if bits.take(1) or bits.take(1):
            raise CannotUnderstand("JPEG XL with a preview or an animation is not stored")
    if bits.take(1):
        raise CannotUnderstand("JPEG XL of floating point numbers is not stored")
    depth = bits.choice((8, 0), (10, 0), (12, 0), (1, 6))
    bits.take(1)  # whether 16 bits suffice to decode it
    if bits.choice((0, 0), (1, 0), (2, 4), (1, 12)):
        raise CannotUnderstand("JPEG XL with extra channels (transparency) is not stored")
    xyb = bool(bits.take(1))
    samples = 3
    if not bits.take(1):  # a colour encoding of its own
        bits.take(1)  # whether a profile is there
        samples = 1 if bits.choice((0, 0), (1, 0), (2, 4), (18, 6)) == 1 else 3
    return depth, samples, xyb
