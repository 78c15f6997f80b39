"""Which transfer syntaxes can be decoded, and which encoded without loss (PS3.5 §8.2, §A.4)."""

from types import MappingProxyType

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
        **{f"{_JPEG}{n}": 16 for n in (70, 80, 90, 110, 201, 202)},
    }
)
"""Transfer syntax that can be made, to the most bits of its samples; all are lossless."""


def can_decode(transfer_syntax_uid: str) -> bool:
    """Whether frames of this transfer syntax can be decoded to pixels."""
    return transfer_syntax_uid in FAMILY


def can_encode(transfer_syntax_uid: str) -> bool:
    """Whether frames of this transfer syntax can be made: of the lossless ones only."""
    return transfer_syntax_uid in MAX_BITS


def is_lossy(transfer_syntax_uid: str) -> bool:
    """Whether pixels of this transfer syntax may differ from those that were acquired."""
    return transfer_syntax_uid in _LOSSY
