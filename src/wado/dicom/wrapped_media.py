"""Media that come beside metadata: what they make of the data set (PS3.18 §10.5, Table 8.7.3-5)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from wado.dicom.coded_images import jpeg, jpeg_2000, jpeg_xl
from wado.dicom.coded_media import Coded, Reader
from wado.dicom.coded_video import hevc, mp4, mpeg
from wado.dicom.image import first_value
from wado.dicom.raster import Raster
from wado.errors import CannotUnderstand, SOPClassMismatch

RLE_MEDIA_TYPE, RLE_LOSSLESS = "image/dicom-rle", "1.2.840.10008.1.2.5"
RASTERS = frozenset({"image/png", "image/gif"})
"""Decoded and stored as native pixels: no transfer syntax holds them."""

_CODED = MappingProxyType(
    {
        "image/jpeg": jpeg,
        "image/jls": jpeg,
        "image/jp2": jpeg_2000,
        "image/jpx": jpeg_2000,
        "image/jphc": jpeg_2000,
        "image/jxl": jpeg_xl,
        "video/mp4": mp4,
        "video/quicktime": mp4,
        "video/mpeg": mpeg,
        "video/mpeg2": mpeg,
        "video/h265": hevc,
    }
)
COMPRESSED = frozenset({*_CODED, RLE_MEDIA_TYPE})
"""Media types that become encapsulated Pixel Data."""

_CLASSES = "1.2.840.10008.5.1.4.1.1."
_DOCUMENTS = MappingProxyType(
    {
        f"{_CLASSES}104.1": ("application/pdf", b"%PDF"),
        f"{_CLASSES}104.2": ("text/xml", b""),
        f"{_CLASSES}104.3": ("model/stl", b""),
        f"{_CLASSES}104.4": ("model/obj", b""),
        f"{_CLASSES}104.5": ("model/mtl", b""),
    }
)
"""Encapsulated Document SOP classes: media type, and how such a file begins."""

_DOCUMENT_ALIASES = MappingProxyType(
    {"application/hl7-v3+xml": "text/xml", "application/xml": "text/xml",
     "application/sla": "model/stl", "application/vnd.ms-pki.stl": "model/stl"}
)  # fmt: skip
_ONE_FRAME = frozenset(
    f"{_CLASSES}{n}"
    for n in ("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "2", "4", "6.1", "7",
              "77.1.1", "77.1.2", "77.1.3", "77.1.4", "128")
)  # fmt: skip
"""Image SOP classes of one frame; the Multi-frame Module is not in their IODs (PS3.3 §A)."""

_SAMPLES_OF = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1}
_MAX_RATIO = 1e6
_MAX_SIDE = 0xFFFF
"""Rows and Columns are of VR US."""


@dataclass(slots=True)
class Changes:
    """Elements that the archive adds to a data set, and those of it that it contradicts."""

    added: dict[str, Any] = field(default_factory=dict)
    replaced: dict[str, Any] = field(default_factory=dict)


def coded_media(media_type: str, read: Reader, size: int) -> Coded | None:
    """Read the headers of a compressed image or video; None for RLE, which has none.

    Raises
    ------
    CannotUnderstand
        The bytes are not of the media type, or DICOM can't hold them.
    UnsupportedMediaType
        No transfer syntax holds this kind of them.
    """
    return None if media_type == RLE_MEDIA_TYPE else _CODED[media_type](read, size)


def transfer_syntax_of(coded: Coded | None, claimed: str) -> str:
    """Transfer syntax of a bit stream, which may be the one that was claimed for it.

    Raises
    ------
    CannotUnderstand
        It can't be.
    """
    if coded is None:
        fits, own = claimed in ("", RLE_LOSSLESS), RLE_LOSSLESS
    else:
        own = coded.transfer_syntax_uid
        fits = claimed.removesuffix(".1") in ("", own, *coded.also)
    if not fits:
        raise CannotUnderstand(f"the bulk data is in transfer syntax {own}, not in {claimed[:70]}")
    return claimed or own


def check_image_class(sop_class_uid: str, *, several_frames: bool) -> None:
    """Check that a SOP class can have the Pixel Data that came.

    Raises
    ------
    SOPClassMismatch
        It can't.
    """
    if sop_class_uid in _DOCUMENTS:
        raise SOPClassMismatch("an Encapsulated Document can't have Pixel Data")
    if several_frames and sop_class_uid in _ONE_FRAME:
        raise SOPClassMismatch(
            f"SOP class {sop_class_uid} is of one frame: video and animations need another"
        )


def document_changes(
    metadata: Mapping[str, Any], sop_class_uid: str, media_type: str, head: bytes, size: int
) -> Changes:
    """Complete the Encapsulated Document Module (PS3.3 §C.24.2).

    Raises
    ------
    SOPClassMismatch
        The document is not one of the SOP class.
    """
    media_type = _DOCUMENT_ALIASES.get(media_type, media_type)
    expected, begins = _DOCUMENTS.get(sop_class_uid, (media_type, b""))
    if media_type not in (expected, "application/octet-stream"):
        raise SOPClassMismatch(f"SOP class {sop_class_uid} holds {expected}, not {media_type[:80]}")
    if begins not in head[:1024]:
        raise SOPClassMismatch(f"the document is not one of {expected}")
    if media_type == "application/octet-stream" and sop_class_uid not in _DOCUMENTS:
        return Changes()
    return _changes(
        metadata,
        certain={"00420015": _one("UL", size)},
        usual={"00420012": _one("LO", expected)},
    )


def coded_changes(
    metadata: Mapping[str, Any], coded: Coded, frames: int, encoded_bytes: int
) -> Changes:
    """Derive Image Pixel, Multi-frame and Lossy Image Compression attributes.

    Parameters
    ----------
    frames
        As counted, 0 if that is not known.
    encoded_bytes
        Length of all frames.

    Raises
    ------
    CannotUnderstand
        The image has no pixels, or has more rows or columns than DICOM counts.
    """
    if not (0 < coded.rows <= _MAX_SIDE and 0 < coded.columns <= _MAX_SIDE):
        raise CannotUnderstand(f"an image of {coded.columns} x {coded.rows} pixels can't be held")
    certain = {
        "00280010": _one("US", coded.rows),
        "00280011": _one("US", coded.columns),
        "00280002": _one("US", coded.samples_per_pixel),
    }
    usual = _bits(metadata, certain, coded.bits_stored, coded.bits_allocated)
    usual["00280103"] = _one("US", coded.pixel_representation)
    _colour(metadata, coded, certain, usual)
    _frames(metadata, certain, usual, frames, coded.frame_time_ms)
    if coded.lossy:
        certain["00282110"] = _one("CS", "01")
        pixels = coded.rows * coded.columns * coded.samples_per_pixel * coded.bits_allocated // 8
        ratio = min(pixels * max(frames, 1) / max(encoded_bytes, 1), _MAX_RATIO)
        usual["00282112"] = _one("DS", round(ratio, 2))
        usual["00282114"] = _one("CS", coded.method)
    return _changes(metadata, certain, usual)


def frame_changes(metadata: Mapping[str, Any], frames: int) -> Changes:
    """Derive the Number of Frames, where nothing else can be told."""
    certain: dict[str, Any] = {}
    _frames(metadata, certain, {}, frames, None)
    return _changes(metadata, certain, {})


def raster_changes(metadata: Mapping[str, Any], raster: Raster) -> Changes:
    """Derive the same of an image that was decoded: what it is now is certain."""
    bits, colour = raster.bits_allocated, raster.samples_per_pixel == 3
    certain = {
        "00280010": _one("US", raster.rows),
        "00280011": _one("US", raster.columns),
        "00280002": _one("US", raster.samples_per_pixel),
        "00280004": _one("CS", "RGB" if colour else "MONOCHROME2"),
        "00280100": _one("US", bits),
        "00280101": _one("US", bits),
        "00280102": _one("US", bits - 1),
        "00280103": _one("US", 0),
    }
    if colour:
        certain["00280006"] = _one("US", 0)
    elif _samples(metadata) == 1:  # MONOCHROME1 is a way to show the same samples
        certain.pop("00280004")
    usual = {"00280004": _one("CS", "MONOCHROME2")}
    _frames(metadata, certain, usual, raster.number_of_frames, raster.frame_time_ms)
    if raster.lossy:
        certain["00282110"] = _one("CS", "01")
        usual["00282114"] = _one("CS", "ISO_10918_1")
    return _changes(metadata, certain, usual)


def _one(vr: str, value: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}


def _changes(
    metadata: Mapping[str, Any], certain: Mapping[str, Any], usual: Mapping[str, Any]
) -> Changes:
    """Add what is absent; replace what contradicts what is certain."""
    changes = Changes()
    for key, element in {**usual, **certain}.items():
        if not metadata.get(key, {}).get("Value"):
            changes.added[key] = element
        elif key in certain and not _same(metadata[key]["Value"], element["Value"]):
            changes.replaced[key] = element
    return changes


def _same(given: Any, derived: list[Any]) -> bool:
    return isinstance(given, list) and [str(v).strip() for v in given] == list(map(str, derived))


def _bits(
    metadata: Mapping[str, Any], certain: dict[str, Any], stored: int, allocated: int
) -> dict[str, Any]:
    """Bits of a sample: fewer may be used than the bit stream has room for, not more."""
    given = first_value(metadata, "00280101")
    if isinstance(given, int) and not 0 < given <= stored:
        certain |= {"00280101": _one("US", stored), "00280102": _one("US", stored - 1)}
    used = given if isinstance(given, int) and 0 < given <= stored else stored
    space = first_value(metadata, "00280100")
    if not isinstance(space, int) or space < stored or space % 8:
        certain["00280100"] = _one("US", allocated)
    return {"00280101": _one("US", used), "00280102": _one("US", used - 1)}


def _samples(metadata: Mapping[str, Any]) -> int:
    return _SAMPLES_OF.get(str(first_value(metadata, "00280004")), 3)


def _colour(
    metadata: Mapping[str, Any], coded: Coded, certain: dict[str, Any], usual: dict[str, Any]
) -> None:
    photometric = _one("CS", coded.photometric_interpretation)
    wrong = "00280004" in metadata and _samples(metadata) != coded.samples_per_pixel
    # What one component shows (MONOCHROME1, PALETTE COLOR) only the sender knows.
    if wrong or (coded.photometric_is_certain and coded.samples_per_pixel > 1):
        certain["00280004"] = photometric
    usual["00280004"] = photometric
    if coded.samples_per_pixel > 1:
        usual["00280006"] = _one("US", 0)


def _frames(
    metadata: Mapping[str, Any],
    certain: dict[str, Any],
    usual: dict[str, Any],
    frames: int,
    frame_time_ms: float | None,
) -> None:
    if frames > 1 or (frames and "00280008" in metadata):
        certain["00280008"] = _one("IS", frames)
    if frames > 1 and frame_time_ms:
        usual["00181063"] = _one("DS", round(frame_time_ms, 3))
        usual["00280009"] = _one("AT", "00181063")
