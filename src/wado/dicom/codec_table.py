"""Which transfer syntaxes can be decoded, and which made (PS3.5 §8.2, §A.4); names no codec."""

from types import MappingProxyType
from urllib.parse import urlsplit

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"

NATIVE = frozenset(
    {
        "1.2.840.10008.1.2",
        EXPLICIT_VR_LITTLE_ENDIAN,
        "1.2.840.10008.1.2.1.99",
        "1.2.840.10008.1.2.2",
    }
)
"""Transfer syntaxes whose Pixel Data is not encapsulated."""

_JPEG = "1.2.840.10008.1.2.4."
JPEG_BASELINE, JPEG_EXTENDED = f"{_JPEG}50", f"{_JPEG}51"
JPEG_LS_NEAR, JPEG_2000, HTJ2K = f"{_JPEG}81", f"{_JPEG}91", f"{_JPEG}203"
JPEG_XL_RECOMPRESSION, JPEG_XL = f"{_JPEG}111", f"{_JPEG}112"

_FAMILIES = {
    "jpeg": (50, 51, *range(52, 67), 70),
    "jpeg_ls": (80, 81),
    "jpeg_2000": (90, 91, 92, 93),
    "htj2k": (201, 202, 203),
    "jpeg_xl": (110, 111, 112),
}

FAMILY = MappingProxyType(
    {
        **dict.fromkeys(NATIVE, "native"),
        ENCAPSULATED_UNCOMPRESSED: "native",
        DEFLATED_FRAMES: "deflated",
        RLE_LOSSLESS: "rle",
        **{f"{_JPEG}{n}": family for family, numbers in _FAMILIES.items() for n in numbers},
        # Written before HTJ2K had a UID of its own.
        "3.2.840.10008.1.2.4.96": "htj2k",
    }
)
"""Transfer syntax to the coding that its frames have."""

FAMILY_NAMES = MappingProxyType(
    {
        "native": "native",
        "deflated": "deflated",
        "rle": "RLE",
        "jpeg": "JPEG",
        "jpeg_ls": "JPEG-LS",
        "jpeg_2000": "JPEG 2000",
        "htj2k": "HTJ2K",
        "jpeg_xl": "JPEG XL",
    }
)
"""Codings as people call them."""

_LOSSY = frozenset(
    f"{_JPEG}{n}" for n in (*range(50, 57), *range(59, 65), 81, 91, 93, 111, 112, 203)
)
"""Not always lossy (a near-lossless stream may be exact), but nobody can tell by the UID."""

MAX_BITS = MappingProxyType(
    {
        EXPLICIT_VR_LITTLE_ENDIAN: 64,
        ENCAPSULATED_UNCOMPRESSED: 64,
        DEFLATED_FRAMES: 64,
        RLE_LOSSLESS: 64,
        **{f"{_JPEG}{n}": 16 for n in (57, 70, 80, 90, 110, 201, 202)},
    }
)
"""Lossless transfer syntax that can be made of pixels, to the most bits of its samples."""

LOSSY_TARGETS = MappingProxyType(
    {
        JPEG_BASELINE: "ISO_10918_1",
        JPEG_EXTENDED: "ISO_10918_1",
        JPEG_LS_NEAR: "ISO_14495_1",
        JPEG_2000: "ISO_15444_1",
        HTJ2K: "ISO_15444_15",
        JPEG_XL: "ISO_18181_1",
    }
)
"""Lossy transfer syntax that can be made, to its Lossy Image Compression Method (0028,2114)."""

_METHODS = MappingProxyType(
    {
        "jpeg": "ISO_10918_1",
        "jpeg_ls": "ISO_14495_1",
        "jpeg_2000": "ISO_15444_1",
        "htj2k": "ISO_15444_15",
        "jpeg_xl": "ISO_18181_1",
    }
)

_NO_DECODER = MappingProxyType(
    {
        f"{_JPEG}58": "JPEG lossless with arithmetic coding (process 15)",
        f"{_JPEG}59": "hierarchical JPEG, extended sequential (processes 16 and 18)",
        f"{_JPEG}60": "hierarchical JPEG, extended sequential, arithmetic (processes 17 and 19)",
        f"{_JPEG}61": "hierarchical JPEG, spectral selection (processes 20 and 22)",
        f"{_JPEG}62": "hierarchical JPEG, spectral selection, arithmetic (processes 21 and 23)",
        f"{_JPEG}63": "hierarchical JPEG, full progression (processes 24 and 26)",
        f"{_JPEG}64": "hierarchical JPEG, full progression, arithmetic (processes 25 and 27)",
        f"{_JPEG}65": "hierarchical JPEG, lossless (process 28)",
        f"{_JPEG}66": "hierarchical JPEG, lossless, arithmetic (process 29)",
    }
)
"""Codings that no decoder here knows. They are still tried when a frame is at hand: what it really
is stands in its frame header."""
_JPIP = frozenset(f"{_JPEG}{n}" for n in (94, 95, 204, 205))
_NO_IMAGES = MappingProxyType(
    {
        "1.2.840.10008.1.2.6.1": "it is wrapped as MIME mail (RFC 2557), which holds no frames",
        "1.2.840.10008.1.2.6.2": "it is XML, which holds no frames",
        "1.2.840.10008.1.2.7.1": "its pixels are a live stream (SMPTE ST 2110-20), not stored",
        "1.2.840.10008.1.2.7.2": "its pixels are a live stream (SMPTE ST 2110-20), not stored",
        "1.2.840.10008.1.2.7.3": "it is live sound (SMPTE ST 2110-30), no image",
    }
)
_VIDEO = MappingProxyType(
    {
        **{f"{_JPEG}{n}": "MPEG-2" for n in ("100", "100.1", "101", "101.1")},
        **{f"{_JPEG}{n}{f}": "H.264" for n in range(102, 107) for f in ("", ".1")},
        **{f"{_JPEG}{n}": "HEVC" for n in (107, 108)},
    }
)


def can_decode(transfer_syntax_uid: str) -> bool:
    """Whether frames of this transfer syntax can be decoded to pixels."""
    return transfer_syntax_uid in FAMILY and transfer_syntax_uid not in _NO_DECODER


def can_encode(transfer_syntax_uid: str, *, lossy: bool = False) -> bool:
    """Whether frames of this transfer syntax can be made of pixels; with loss only if `lossy`.

    Whether those of an image can be, shows when it is tried: what pixels a transfer syntax takes
    stands in docs/transfer-syntaxes.md. JPEG XL recompression is not made of pixels, but of a
    JPEG stream: see `recompresses`.
    """
    if transfer_syntax_uid in LOSSY_TARGETS:
        return lossy
    return transfer_syntax_uid in MAX_BITS


def recompresses(source_uid: str, target_uid: str) -> bool:
    """Whether JPEG streams may become JPEG XL or come back of it, every byte kept.

    It holds for JPEG with a cosine transform and 8 bits; others are refused when it is tried.
    """
    pair = (source_uid, target_uid)
    return JPEG_XL_RECOMPRESSION in pair and (
        source_uid in _RECOMPRESSED or target_uid in (JPEG_BASELINE, JPEG_EXTENDED)
    )


_RECOMPRESSED = frozenset(f"{_JPEG}{n}" for n in (50, 51, 53, 55))


def is_lossy(transfer_syntax_uid: str) -> bool:
    """Whether pixels of this transfer syntax may differ from those that were acquired."""
    return transfer_syntax_uid in _LOSSY


def lossy_method(transfer_syntax_uid: str) -> str:
    """Lossy Image Compression Method (0028,2114) of a lossy transfer syntax, empty if none is."""
    if not is_lossy(transfer_syntax_uid):
        return ""
    return _METHODS[FAMILY[transfer_syntax_uid]]


def why_not_decoded(transfer_syntax_uid: str, provider_url: str = "") -> str:
    """Say why frames of a transfer syntax can't be decoded; empty if they can.

    Parameters
    ----------
    transfer_syntax_uid
        Of the instance.
    provider_url
        Pixel Data Provider URL (0028,7FE0). Of it the host alone is named: the rest may hold what
        lets its reader in.
    """
    if can_decode(transfer_syntax_uid):
        return ""
    if transfer_syntax_uid in _JPIP:
        host = _host(provider_url)
        return f"its pixels are kept elsewhere: JPIP{f' at {host}' if host else ''}"
    if video := _VIDEO.get(transfer_syntax_uid):
        return f"it is video ({video}), which has no frames to be decoded one by one"
    if process := _NO_DECODER.get(transfer_syntax_uid):
        return f"there is no decoder for {process}"
    reason = _NO_IMAGES.get(transfer_syntax_uid)
    return reason or f"frames of transfer syntax {transfer_syntax_uid} can't be decoded"


def _host(url: str) -> str:
    try:
        return urlsplit(url.strip()).hostname or ""
    except ValueError:
        return ""


_DECODED_BY = MappingProxyType(
    {
        "native": "numpy",
        "deflated": "zlib",
        "rle": "pylibjpeg-rle",
        "jpeg": "imagecodecs (libjpeg-turbo)",
        "jpeg_ls": "imagecodecs (CharLS)",
        "jpeg_2000": "pylibjpeg-openjpeg (OpenJPEG)",
        "htj2k": "imagecodecs (OpenJPH)",
        "jpeg_xl": "imagecodecs (libjxl)",
    }
)
_ENCODED_BY = MappingProxyType(
    {**_DECODED_BY, "rle": "imagecodecs", "jpeg_2000": "imagecodecs (OpenJPEG)"}
)


def encoder_of(transfer_syntax_uid: str) -> str:
    """Name the library that makes frames of a transfer syntax."""
    return _ENCODED_BY[FAMILY[transfer_syntax_uid]]


def codec_of(source_uid: str, target_uid: str) -> str:
    """Name the libraries that change the coding of a frame, for the log; video is not asked."""
    if recompresses(source_uid, target_uid):
        return _ENCODED_BY["jpeg_xl"]
    source, target = FAMILY.get(source_uid, ""), FAMILY.get(target_uid, "")
    by = (_DECODED_BY.get(source), _ENCODED_BY.get(target))
    known = [name for name in by if name]
    return known[0] if len(set(known)) == 1 else " to ".join(known)
