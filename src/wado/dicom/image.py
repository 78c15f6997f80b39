"""The Image Pixel Module of an instance (PS3.3 §C.7.6.3), read from DICOM JSON.

Decoding, rendering and transcoding all stand on it; nothing here touches a pixel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from wado.errors import CannotUnderstand

PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA = "7FE00010", "7FE00008", "7FE00009"
_BITS = {FLOAT_PIXEL_DATA: 32, DOUBLE_PIXEL_DATA: 64}


def first_value(metadata: Mapping[str, Any], tag: str) -> Any:
    """First value of an element of DICOM JSON, None if it has none."""
    values = metadata.get(tag, {}).get("Value")
    return values[0] if values else None


@dataclass(frozen=True, slots=True)
class ImagePixel:
    """Image Pixel Module of an instance.

    `tag` is the element that holds the pixels: Pixel Data, or Float or Double Float Pixel Data.
    """

    rows: int
    columns: int
    samples_per_pixel: int
    photometric_interpretation: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    pixel_representation: int = 0
    planar_configuration: int = 0
    number_of_frames: int = 1
    tag: str = PIXEL_DATA

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Self:
        """Read the module; what has a default gets it.

        Raises
        ------
        CannotUnderstand
            Rows, columns or bits are missing, or no image has such.
        """
        tag = next((t for t in (PIXEL_DATA, *_BITS) if t in metadata), PIXEL_DATA)

        def number(at: str, default: int | None = None) -> int:
            value = first_value(metadata, at)
            if value is None and default is not None:
                return default
            if not isinstance(value, int) or value < 0:
                raise CannotUnderstand(f"({at[:4]},{at[4:]}) is {value!r}: not an image")
            return value

        allocated = _BITS.get(tag) or number("00280100")
        stored = number("00280101", allocated) or allocated
        frames = first_value(metadata, "00280008")
        image = cls(
            rows=number("00280010"),
            columns=number("00280011"),
            samples_per_pixel=number("00280002", 1),
            photometric_interpretation=str(first_value(metadata, "00280004") or "MONOCHROME2"),
            bits_allocated=allocated,
            bits_stored=stored,
            high_bit=number("00280102", stored - 1),
            pixel_representation=number("00280103", 0),
            planar_configuration=number("00280006", 0),
            number_of_frames=frames if isinstance(frames, int) and frames > 0 else 1,
            tag=tag,
        )
        if not image.rows or not image.columns or not 1 <= stored <= allocated <= 64:
            raise CannotUnderstand(
                f"{image.columns} x {image.rows} pixels of {stored} in {allocated} bits: no image"
            )
        return image

    @property
    def is_signed(self) -> bool:
        """Whether pixels are two's complement."""
        return self.pixel_representation == 1

    @property
    def is_float(self) -> bool:
        """Whether pixels are IEEE 754 numbers of 32 or 64 bits."""
        return self.tag != PIXEL_DATA

    @property
    def pixels(self) -> int:
        """Pixels of a frame."""
        return self.rows * self.columns
