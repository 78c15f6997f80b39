"""Small images with structure, as scans have it; noise would tell little of loss."""

from dataclasses import replace

import numpy as np

from wado.dicom.image import ImagePixel

ROWS, COLUMNS = 96, 80


def gray(**changes: object) -> ImagePixel:
    """Describe an image of 12 bits in 16."""
    plain = ImagePixel(
        rows=ROWS, columns=COLUMNS, samples_per_pixel=1, photometric_interpretation="MONOCHROME2",
        bits_allocated=16, bits_stored=12, high_bit=11,
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def rgb(**changes: object) -> ImagePixel:
    """Describe a colour image of 8 bits."""
    return gray(
        **{
            "samples_per_pixel": 3,
            "photometric_interpretation": "RGB",
            "bits_allocated": 8,
            "bits_stored": 8,
            "high_bit": 7,
            **changes,
        }
    )


def picture(image: ImagePixel) -> np.ndarray:
    """Waves and edges that use the range of the image, with its sign."""
    y, x = np.mgrid[0 : image.rows, 0 : image.columns]
    wave = (np.sin(x / 9) * np.cos(y / 7) + 1) / 2
    wave[(x - 40) ** 2 + (y - 40) ** 2 < 300] = 0.9
    wave[:5] = 0
    most = (1 << image.bits_stored) - 1
    low = -(1 << image.bits_stored - 1) if image.is_signed else 0
    kind = f"{'i' if image.is_signed else 'u'}{image.bits_allocated // 8}"
    planes = [np.rint(wave * part * most + low) for part in (1, 0.5, 0.8)]
    planes = planes[: image.samples_per_pixel]
    return np.stack(planes, axis=-1).squeeze().astype(kind)
