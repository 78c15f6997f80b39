"""Compare the pixels of two frames, whatever their codings and colour spaces.

Importing this loads no codec and no numpy: the work is that of worker processes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from wado.dicom.image import ImagePixel
from wado.dicom.transcode import Decoded, decode
from wado.errors import CannotUnderstand

if TYPE_CHECKING:
    import numpy as np

NO_DAMAGE = 1 / 64
"""An error of this part of what Bits Stored can hold is loss: in a frame that is nearly flat it may
be more than all that is in it."""
_LUMINANCE_AND_CHROMA = frozenset({"YBR_FULL", "YBR_FULL_422"})


class CodedFrame(NamedTuple):
    """A frame as it is stored, and how to read it."""

    data: bytes
    image: ImagePixel
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True)
class Difference:
    """How two frames differ.

    Attributes
    ----------
    pixels
        Pixels of a frame.
    differing
        Pixels of which any sample differs.
    largest
        Largest difference of a sample; of floating point numbers, rounded up.
    root_mean_square
        Over all samples.
    spread
        Standard deviation of the samples of the first frame.
    """

    pixels: int
    differing: int
    largest: int
    root_mean_square: float = 0.0
    spread: float = 0.0


def compare(first: CodedFrame, second: CodedFrame) -> Difference:
    """Decode two frames and compare them.

    If one is luminance and chroma and the other RGB, the former is converted first: what rounding
    does then is a difference, of one or two.

    Raises
    ------
    CannotUnderstand
        One is damaged, or they have not the same size and number of samples.
    NotAcceptable
        There is no decoder for one.
    """
    one = decode(first.data, first.image, first.transfer_syntax_uid)
    other = decode(second.data, second.image, second.transfer_syntax_uid)
    bits = (first.image.bits_stored, second.image.bits_stored)
    return difference(one, other, max(bits))


def difference(first: Decoded, second: Decoded, bits_stored: int) -> Difference:
    """Compare decoded pixels; raises CannotUnderstand if their shapes are not the same."""
    import numpy as np  # noqa: PLC0415 - in workers only

    if first.pixels.shape != second.pixels.shape:
        raise CannotUnderstand(
            f"one frame is of {first.pixels.shape}, the other of {second.pixels.shape} samples"
        )
    one, other = first.pixels, second.pixels
    if first.photometric_interpretation != second.photometric_interpretation:
        one, other = (_rgb(each, bits_stored) for each in (first, second))
    if one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
        return Difference(_pixels(one), 0, 0, 0.0, 0.0)
    delta = _delta(one, other)
    differs = delta != 0
    if one.ndim == 3:
        differs = np.logical_or.reduce([differs[:, :, i] for i in range(one.shape[2])])
    return Difference(
        _pixels(one),
        int(np.count_nonzero(differs)),
        int(np.ceil(delta.max(initial=0))),
        _root_mean_square(delta),
        _root_mean_square(one, one.mean(dtype=np.float64)),
    )


def _root_mean_square(values: "np.ndarray", middle: float = 0.0) -> float:
    """Root mean square of the distances to `middle`; of short numbers, to some digits alone."""
    import numpy as np  # noqa: PLC0415

    kind = np.float32 if values.dtype.kind != "f" and values.dtype.itemsize <= 4 else np.float64
    flat = np.subtract(values.ravel(), middle, dtype=kind)
    return float(np.sqrt(np.dot(flat, flat) / max(flat.size, 1)))


def _pixels(samples: "np.ndarray") -> int:
    rows, columns = samples.shape[:2]
    return int(rows * columns)


def _delta(one: "np.ndarray", other: "np.ndarray") -> "np.ndarray":
    """Absolute differences; what is no number on one side only, differs without end."""
    import numpy as np  # noqa: PLC0415

    if "f" in one.dtype.kind + other.dtype.kind:
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        with np.errstate(all="ignore"):
            delta = np.abs(one.astype(np.float64) - other.astype(np.float64))
        most = np.finfo(np.float64).max ** 0.25
        return np.where(same, 0.0, np.nan_to_num(delta, nan=most, posinf=most).clip(max=most))
    if max(one.dtype.itemsize, other.dtype.itemsize) <= 2:
        return np.asarray(np.abs(one.astype(np.int32) - other))
    if max(one.dtype.itemsize, other.dtype.itemsize) <= 4:
        return np.abs(one.astype(np.int64) - other.astype(np.int64))
    # Without sign, what is subtracted wraps round to the right difference.
    larger, smaller = np.where(one > other, (one, other), (other, one)).astype(np.uint64)
    return np.asarray(larger - smaller)


def _rgb(frame: Decoded, bits_stored: int) -> "np.ndarray":
    """Convert luminance and chroma of the full range to RGB (PS3.3 §C.7.6.3.1.2)."""
    if frame.photometric_interpretation not in _LUMINANCE_AND_CHROMA:
        return frame.pixels
    import numpy as np  # noqa: PLC0415

    most, middle = (1 << bits_stored) - 1, 1 << (bits_stored - 1)
    y, cb, cr = np.moveaxis(frame.pixels.astype(np.float64), 2, 0)
    cb -= middle
    cr -= middle
    green = y - (0.114 * 1.772 / 0.587) * cb - (0.299 * 1.402 / 0.587) * cr
    mixed = np.stack([y + 1.402 * cr, green, y + 1.772 * cb], axis=2)
    return np.asarray(np.rint(mixed).clip(0, most), frame.pixels.dtype)
