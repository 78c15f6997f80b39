"""The grey-scale pipeline: Modality LUT, VOI LUT, Presentation LUT Shape (PS3.4 §N.2.1)."""

from typing import Any

import numpy as np
import numpy.typing as npt

from wado.dicom.rendering.display import Display, Lut
from wado.dicom.rendering.options import Window
from wado.dicom.rendering.tables import entries_of, looked_up

Floats = npt.NDArray[np.float64]
Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

WHITE = 255.0


def gray_picture(pixels: npt.NDArray[Any], display: Display) -> Picture:
    """Turn stored values into grey levels of 8 bits.

    Pixels of up to 16 bits go through one table of all their values, worked out first: looking up
    costs a tenth of calculating.

    Parameters
    ----------
    pixels
        Stored values, any shape; whole numbers or floats.
    display
        What to do with them.
    """
    if pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2:
        return _levels(pixels.astype(np.float64), display, _is_wanted(pixels, display))
    values, index = indexed(pixels)
    wanted: Mask | None = None
    if _needs_range(display):
        wanted = np.zeros(values.size, np.bool_)
        wanted[index] = True
        wanted &= _is_wanted(values, display)
    return np.take(_levels(values.astype(np.float64), display, wanted), index, mode="clip")


def indexed(
    pixels: npt.NDArray[Any],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.unsignedinteger[Any]]]:
    """Give all values from the lowest to the highest of pixels, and where each pixel's stands."""
    low, high = int(pixels.min()), int(pixels.max())
    unsigned = np.dtype(f"u{pixels.dtype.itemsize}")
    index = pixels.view(unsigned)
    if low:
        index = index - unsigned.type(low & (1 << 8 * unsigned.itemsize) - 1)  # modulo: no sign
    return np.arange(low, high + 1), index


def _needs_range(display: Display) -> bool:
    return display.voi is None and display.value_range is None


def _is_wanted(values: npt.NDArray[Any], display: Display) -> Mask:
    """Which values are pixels: numbers, and no padding."""
    wanted: Mask = np.isfinite(values)
    if display.padding is not None:
        low, high = display.padding
        wanted &= ~((values >= low) & (values <= high))
    return wanted


def _levels(stored: Floats, display: Display, wanted: Mask | None) -> Picture:
    values = modality_values(stored, display.modality)
    if isinstance(display.voi, Lut):
        entries = entries_of(display.voi)
        scale = WHITE / ((1 << display.voi.bits) - 1)
        levels = looked_up(values, display.voi, entries).astype(np.float64) * scale
    else:
        levels = windowed(values, display.voi or _whole_range(values, display, wanted))
    np.clip(levels, 0.0, WHITE, out=levels)
    picture: Picture = np.rint(np.nan_to_num(levels, copy=False)).astype(np.uint8)
    return np.bitwise_not(picture) if display.inverted else picture


def modality_values(stored: Floats, modality: Lut | tuple[float, float]) -> Floats:
    """Apply the Modality LUT (PS3.3 §C.11.1)."""
    if isinstance(modality, Lut):
        return looked_up(stored, modality, entries_of(modality)).astype(np.float64)
    slope, intercept = modality
    return stored if (slope, intercept) == (1.0, 0.0) else stored * slope + intercept


def _whole_range(values: Floats, display: Display, wanted: Mask | None) -> Window:
    """Window from the lowest to the highest value that is there; one value alone is black."""
    if display.value_range is not None:
        low, high = display.value_range
    else:
        shown = values[wanted] if wanted is not None and wanted.any() else values
        shown = shown[np.isfinite(shown)]
        low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.0, 0.0)
    if high <= low:
        return Window(low + 0.5, 1.0, "LINEAR")
    return Window(low / 2 + high / 2, high - low, "LINEAR_EXACT")


def windowed(values: Floats, window: Window) -> Floats:
    """Apply a window; levels may lie outside 0 to 255 and are to be cut.

    References
    ----------
    PS3.3 §C.11.2.1.2.1 (LINEAR), §C.11.2.1.3.2 (LINEAR_EXACT), §C.11.2.1.3.1 (SIGMOID).
    """
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        exponent = np.clip(-4.0 * (values - center) / width, -700.0, 700.0)
        return WHITE / (1.0 + np.exp(exponent))
    if window.function == "LINEAR":
        center, width = center - 0.5, width - 1.0
    if width <= 0:
        return np.where(values > center, WHITE, 0.0)
    result: Floats = (values - center) * (WHITE / width) + WHITE / 2
    return result
