"""Small pictures of every kind of pixels, and native instances of them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

import synthetic
from coded_streams import Pixels


@dataclass(frozen=True)
class Picture:
    """Pixels of an instance, before they are coded."""

    name: str
    frames: tuple[Pixels, ...]
    bits_stored: int
    photometric_interpretation: str = "MONOCHROME2"
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def is_colour(self) -> bool:
        """Whether it has three samples."""
        return self.frames[0].ndim == 3


def _ramp(rows: int, columns: int, most: int, shift: int = 0) -> Pixels:
    y, x = np.mgrid[0:rows, 0:columns]
    wave = np.sin(x / 5 + shift) + np.cos(y / 7) + (x + 2 * y) / (columns + 2 * rows)
    low, high = -2.0, 3.0
    ramp: Pixels = np.clip((wave - low) / (high - low) * most, 0, most).astype(np.int64)
    return ramp


def _colour(shift: int = 0) -> Pixels:
    planes = [_ramp(40, 36, 255, shift + n) for n in (0, 2, 4)]
    return np.stack(planes, -1).astype("u1")


def _palette() -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for name, values in (
        ("Red", np.arange(256)), ("Green", np.arange(255, -1, -1)), ("Blue", np.arange(256) // 2),
    ):  # fmt: skip
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        attributes[f"{name}PaletteColorLookupTableData"] = (values * 257).astype("<u2").tobytes()
    return attributes


GRAY_8 = Picture("gray-8", (_ramp(33, 47, 255).astype("u1"),), 8)
GRAY_12 = Picture("gray-12", (_ramp(48, 39, 4095).astype("u2"),), 12)
GRAY_16 = Picture("gray-16", (_ramp(37, 51, 65535).astype("u2"),), 16)
SIGNED_16 = Picture("signed-16", ((_ramp(41, 33, 65535) - 32768).astype("i2"),), 16)
SIGNED_12 = Picture("signed-12", ((_ramp(35, 32, 4095) - 2048).astype("i2"),), 12)
RGB = Picture("rgb", (_colour(),), 8, "RGB")
YBR = Picture("ybr-full", (_colour(3),), 8, "YBR_FULL")
PALETTE = Picture("palette", (_ramp(33, 34, 255).astype("u1"),), 8, "PALETTE COLOR", _palette())
FRAMES_8 = Picture("frames-8", tuple(_ramp(32, 31, 255, n).astype("u1") for n in range(3)), 8)
FRAMES_16 = Picture("frames-16", tuple(_ramp(31, 32, 65535, n).astype("u2") for n in range(3)), 16)
FRAMES_RGB = Picture("frames-rgb", (_colour(), _colour(1)), 8, "RGB")
LOSSLESS = (
    GRAY_8,
    PALETTE,
    FRAMES_8,
    RGB,
    YBR,
    GRAY_12,
    GRAY_16,
    SIGNED_12,
    SIGNED_16,
    FRAMES_16,
    FRAMES_RGB,
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MULTI_FRAME = {(8, False): ".2", (16, False): ".3", (8, True): ".4"}


def native(picture: Picture, name: str) -> Dataset:
    """Make an instance of a picture in Explicit VR Little Endian; `name` makes its UIDs."""
    first = picture.frames[0]
    allocated = first.dtype.itemsize * 8
    sop_class = _SECONDARY_CAPTURE
    if len(picture.frames) > 1:
        sop_class += _MULTI_FRAME[allocated, picture.is_colour]
    ds = synthetic.instance(
        sop_class, study="every syntax", series=name, patient_id="SYNTAX", ConversionType="SYN"
    )
    if len(picture.frames) > 1:
        ds.NumberOfFrames, ds.FrameTime, ds.FrameIncrementPointer = (
            len(picture.frames),
            40,
            0x00181063,
        )
    ds.SamplesPerPixel = 3 if picture.is_colour else 1
    if picture.is_colour:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = picture.photometric_interpretation
    ds.Rows, ds.Columns = first.shape[:2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = (
        allocated, picture.bits_stored, picture.bits_stored - 1,
    )  # fmt: skip
    ds.PixelRepresentation = int(first.dtype.kind == "i")
    for keyword, value in picture.attributes.items():
        setattr(ds, keyword, value)
    if not picture.is_colour and picture.photometric_interpretation == "MONOCHROME2":
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    body = b"".join(little(frame) for frame in picture.frames)
    ds.PixelData = body + b"\0" * (len(body) % 2)
    ds["PixelData"].VR = "OW" if allocated == 16 else "OB"
    return ds


def little(frame: Pixels) -> bytes:
    return frame.astype(frame.dtype.newbyteorder("<")).tobytes()
