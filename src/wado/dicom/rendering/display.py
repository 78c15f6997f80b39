"""How an instance says that a frame is to be shown, read from its DICOM JSON.

The result is small and plain, so that it can be handed to another process together with the
bytes of the frame; lookup tables that the metadata leave out are fetched through `Bulk`.
"""

from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from struct import error as StructError  # noqa: N812 - the class is named `error`
from struct import pack
from typing import Any, NamedTuple

from wado.dicom.image import ImagePixel, first_value
from wado.dicom.rendering.options import VoiFunction, Window
from wado.dicom.rendering.planes import Overlay, overlays_of
from wado.errors import CannotUnderstand

Bulk = Callable[[str, int, int | None], bytes]
"""Bytes `start` to before `end` (None: all) of a bulk value by its tag path."""

_SHARED, _PER_FRAME = "52009229", "52009230"
_PIXEL_VALUE_TRANSFORMATION, _FRAME_VOI_LUT = "00289145", "00289132"
_MODALITY_LUTS, _VOI_LUTS = "00283000", "00283010"
_ICC_PROFILE, _OPTICAL_PATHS = "00282000", "00480105"
_FUNCTIONS: Mapping[str, VoiFunction] = {
    "LINEAR": "LINEAR",
    "LINEAR_EXACT": "LINEAR_EXACT",
    "SIGMOID": "SIGMOID",
}
_PADDINGS = (("00280120", "00280121"), ("00280122", "00280124"), ("00280123", "00280125"))
"""Pixel Padding Value and Range Limit, of whole numbers, of floats and of doubles."""
_SEGMENTATIONS = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})
_MAX_ENTRIES = 1 << 16
_MAX_LUT_BYTES = 4 << 20


class Lut(NamedTuple):
    """A lookup table (PS3.3 §C.11.1.1.1); `data` is little endian.

    `first` is the stored value that the first entry stands for.
    """

    entries: int
    first: int
    bits: int
    data: bytes
    segmented: bool = False


class Palette(NamedTuple):
    """Palette Color Lookup Tables (PS3.3 §C.7.9); `supplemental` leaves lower values grey."""

    red: Lut
    green: Lut
    blue: Lut
    supplemental: bool = False


@dataclass(frozen=True, slots=True)
class Display:
    """What happens to the stored values of a frame on their way to the screen, in this order.

    Attributes
    ----------
    modality
        Modality LUT: a table, or slope and intercept.
    voi
        VOI LUT: a table, a window, or None: the range of the values that are there.
    value_range
        Range of the values for a `voi` of None, if that is known beforehand.
    inverted
        Low values are bright.
    padding
        Lowest and highest stored value that stand for no pixel.
    palette
        Colours of the stored values.
    overlays
        Planes that apply to the frame.
    icc_profile
        ICC Profile (0028,2000), if it was asked for.
    text
        Lines to write into the picture.
    """

    modality: Lut | tuple[float, float] = (1.0, 0.0)
    voi: Lut | Window | None = None
    value_range: tuple[float, float] | None = None
    inverted: bool = False
    padding: tuple[float, float] | None = None
    palette: Palette | None = None
    overlays: tuple[Overlay, ...] = ()
    icc_profile: bytes = b""
    text: tuple[str, ...] = ()


def display_of(
    metadata: Mapping[str, Any], image: ImagePixel, number: int, bulk: Bulk, *, overlays: bool
) -> Display:
    """Read how a frame is to be shown.

    Parameters
    ----------
    metadata
        DICOM JSON of the instance.
    image
        Its Image Pixel Module.
    number
        Frame number, from 1.
    bulk
        Fetches bulk values.
    overlays
        Whether overlay planes are wanted.

    Raises
    ------
    CannotUnderstand
        A lookup table contradicts itself.

    References
    ----------
    PS3.3 §C.11.1, §C.11.2, §C.7.6.3, §C.7.6.16 (functional groups), §C.9.2 (overlays).
    """
    planes = tuple(overlays_of(metadata, image, number, bulk)) if overlays else ()
    if image.samples_per_pixel > 1:
        return Display(overlays=planes)
    palette = _palette(metadata, image, bulk)
    if palette is not None and not palette.supplemental:
        return Display(palette=palette, overlays=planes)
    groups = _groups(metadata, number)
    modality = _modality(groups, image, bulk)
    return Display(
        modality=modality,
        voi=_voi(groups, bulk, is_signed=_may_be_negative(image, modality)),
        value_range=_value_range(metadata, image),
        inverted=image.photometric_interpretation == "MONOCHROME1"
        or first_value(metadata, "20500020") == "INVERSE",
        padding=_padding(metadata),
        palette=palette,
        overlays=planes,
    )


def icc_profile_of(metadata: Mapping[str, Any], bulk: Bulk) -> bytes:
    """ICC Profile (0028,2000) of an image, or of its first Optical Path; empty if it has none."""
    for holder in (metadata, *_items(metadata, _OPTICAL_PATHS)[:1]):
        if _ICC_PROFILE in holder:
            return _data(holder[_ICC_PROFILE], bulk)
    return b""


class _Groups(NamedTuple):
    """Where attributes of a frame are looked up: its own group, the shared one, the top level."""

    transformation: tuple[Mapping[str, Any], ...]
    voi: tuple[Mapping[str, Any], ...]


def _groups(metadata: Mapping[str, Any], number: int) -> _Groups:
    groups = (
        *_items(metadata, _PER_FRAME)[number - 1 : number],
        *_items(metadata, _SHARED)[:1],
    )

    def of(sequence: str) -> tuple[Mapping[str, Any], ...]:
        return (*(item for group in groups for item in _items(group, sequence)[:1]), metadata)

    return _Groups(of(_PIXEL_VALUE_TRANSFORMATION), of(_FRAME_VOI_LUT))


def _items(holder: Mapping[str, Any], tag: str) -> list[Mapping[str, Any]]:
    """Items of a sequence; none if something else stands there."""
    values = holder.get(tag, {}).get("Value") or []
    return values if all(isinstance(item, Mapping) for item in values) else []


def _number(holder: Mapping[str, Any], tag: str) -> float | None:
    value = first_value(holder, tag)
    if isinstance(value, int | float) and isfinite(value):
        return float(value)
    return None


def _modality(groups: _Groups, image: ImagePixel, bulk: Bulk) -> Lut | tuple[float, float]:
    """Modality LUT Sequence, or Rescale Slope and Intercept, or nothing to do."""
    for holder in groups.transformation:
        sequence = _items(holder, _MODALITY_LUTS)
        if sequence and sequence[0]:
            return _lut(sequence[0], "00283002", "00283006", bulk, is_signed=image.is_signed)
        slope, intercept = _number(holder, "00281053"), _number(holder, "00281052")
        if slope is not None or intercept is not None:
            return slope or 1.0, intercept or 0.0  # a slope of 0 would leave nothing to see
    return 1.0, 0.0


def _may_be_negative(image: ImagePixel, modality: Lut | tuple[float, float]) -> bool:
    """Whether the VOI LUT is given values below 0: its descriptor then has a sign."""
    if isinstance(modality, Lut):
        return False
    slope, intercept = modality
    return image.is_signed or intercept < 0 or slope < 0


def _voi(groups: _Groups, bulk: Bulk, *, is_signed: bool) -> Lut | Window | None:
    """First window, or else first table; alternatives are for a user to choose."""
    for holder in groups.voi:
        center, width = _number(holder, "00281050"), _number(holder, "00281051")
        if center is not None and width is not None:
            function = str(first_value(holder, "00281056") or "LINEAR")
            window = Window(center, width, _FUNCTIONS.get(function, "LINEAR"))
            if window.is_possible:
                return window
        sequence = _items(holder, _VOI_LUTS)
        if sequence and sequence[0]:
            return _lut(sequence[0], "00283002", "00283006", bulk, is_signed=is_signed)
    return None


def _value_range(metadata: Mapping[str, Any], image: ImagePixel) -> tuple[float, float] | None:
    """Range of a segmentation, the same for all its frames: an empty one stays black."""
    if image.bits_stored == 1:
        return 0.0, 1.0
    if str(first_value(metadata, "00080016")) not in _SEGMENTATIONS:
        return None
    kind = first_value(metadata, "00620001")
    if kind == "FRACTIONAL":
        return 0.0, _number(metadata, "0062000E") or 255.0
    numbers = (_number(item, "00620004") for item in _items(metadata, "00620002"))
    return 0.0, max((n for n in numbers if n), default=1.0)


def _padding(metadata: Mapping[str, Any]) -> tuple[float, float] | None:
    """Range of Pixel Padding (PS3.3 §C.7.5.1.1.2)."""
    for value_tag, limit_tag in _PADDINGS:
        value = _number(metadata, value_tag)
        if value is not None:
            limit = _number(metadata, limit_tag)
            other = value if limit is None else limit
            return min(value, other), max(value, other)
    return None


# ------------------------------------------------------------------ lookup tables


def _palette(metadata: Mapping[str, Any], image: ImagePixel, bulk: Bulk) -> Palette | None:
    """Palette of a palette image, or the supplemental one of a grey image (§C.7.6.19)."""
    supplemental = image.photometric_interpretation != "PALETTE COLOR"
    if supplemental and first_value(metadata, "00089205") not in ("COLOR", "MIXED"):
        return None
    if "00281101" not in metadata:
        if supplemental:
            return None
        raise CannotUnderstand("the image is PALETTE COLOR, and has no palette")
    luts = []
    for n in (1, 2, 3):
        segmented = f"0028122{n}" in metadata
        tag = f"0028122{n}" if segmented else f"0028120{n}"
        lut = _lut(metadata, f"0028110{n}", tag, bulk, is_signed=image.is_signed)
        luts.append(lut._replace(segmented=segmented))
    return Palette(luts[0], luts[1], luts[2], supplemental)


def _lut(
    holder: Mapping[str, Any], descriptor_tag: str, data_tag: str, bulk: Bulk, *, is_signed: bool
) -> Lut:
    descriptor = holder.get(descriptor_tag, {}).get("Value") or []
    if len(descriptor) != 3 or not all(isinstance(n, int) for n in descriptor):
        raise CannotUnderstand(f"the LUT descriptor {_name(descriptor_tag)} is {descriptor!r}")
    entries, first, bits = descriptor
    # The first and third values are unsigned whatever the VR; 65536 does not fit, and is 0.
    entries, bits = entries & 0xFFFF or _MAX_ENTRIES, bits & 0xFFFF
    if is_signed and first > 0x7FFF:
        first -= 0x10000
    if not 1 <= bits <= 16 or data_tag not in holder:
        raise CannotUnderstand(f"a LUT of {bits} bits, or without data {_name(data_tag)}")
    return Lut(entries, first, bits, _data(holder[data_tag], bulk))


def _name(tag: str) -> str:
    return f"({tag[:4]},{tag[4:]})"


def _data(element: Mapping[str, Any], bulk: Bulk) -> bytes:
    """Bytes of an element in little endian, wherever it holds them."""
    if "InlineBinary" in element:
        return b64decode(element["InlineBinary"])
    if "BulkDataURI" in element:
        return bulk(element["BulkDataURI"].partition("/bulkdata/")[2], 0, _MAX_LUT_BYTES)
    values = element.get("Value") or []
    try:
        return pack(f"<{len(values)}H", *(n & 0xFFFF for n in values))
    except (TypeError, StructError) as e:
        raise CannotUnderstand(f"a LUT holds what is no number: {e}") from e


# ------------------------------------------------------------------ text


_PATIENT = (("Name", "00100010"), ("ID", "00100020"), ("Born", "00100030"), ("Sex", "00100040"))
_TECHNIQUE = (
    ("", "00080060", ""),
    ("Series", "00200011", ""),
    ("Image", "00200013", ""),
    ("Date", "00080020", ""),
    ("Thickness", "00180050", " mm"),
    ("Location", "00201041", " mm"),
    ("kVp", "00180060", ""),
    ("Current", "00181151", " mA"),
    ("TR", "00180080", " ms"),
    ("TE", "00180081", " ms"),
)


def annotation_lines(metadata: Mapping[str, Any], annotations: tuple[str, ...]) -> tuple[str, ...]:
    """Text about the patient and the technique (PS3.18 §8.3.5.1.1), line by line."""
    lines: list[str] = []
    if "patient" in annotations:
        lines += _lines(metadata, ((label, tag, "") for label, tag in _PATIENT))
    if "technique" in annotations:
        lines += _lines(metadata, iter(_TECHNIQUE))
    return tuple(lines)


def _lines(metadata: Mapping[str, Any], wanted: Iterator[tuple[str, str, str]]) -> Iterator[str]:
    for label, tag, unit in wanted:
        value = first_value(metadata, tag)
        if isinstance(value, Mapping):  # a name: the first of its groups that is there
            groups = (text for text in value.values() if isinstance(text, str) and text)
            value = next(groups, "").replace("^", " ").strip()
        if value not in (None, ""):
            yield f"{label}: {value}{unit}" if label else f"{value}{unit}"
