"""What of an image a viewport shows, and how large: cut, scaled in proportion, flipped."""

from typing import NamedTuple

from wado.dicom.rendering.options import Viewport
from wado.errors import InvalidRequest

_SLACK = 1e-6
"""How far a region may reach beyond the edge because decimals are not exact."""


class Placement(NamedTuple):
    """A picture of `width` by `height` pixels of the region `box` (left, top, right, bottom)."""

    width: int
    height: int
    box: tuple[float, float, float, float]
    flip_horizontally: bool = False
    flip_vertically: bool = False


def place(viewport: Viewport | None, columns: int, rows: int) -> Placement:
    """Fit an image of so many columns and rows into a viewport; without one it keeps its size.

    Raises
    ------
    InvalidRequest
        The region that the viewport shows is not within the image.

    References
    ----------
    PS3.18 §8.3.5.1.3.
    """
    if viewport is None:
        return Placement(columns, rows, (0.0, 0.0, float(columns), float(rows)))
    left, right = _span(viewport.left, viewport.region_width, columns)
    top, bottom = _span(viewport.top, viewport.region_height, rows)
    scale = min(viewport.width / (right - left), viewport.height / (bottom - top))
    if not viewport.enlarge:
        scale = min(scale, 1.0)
    return Placement(
        max(1, round((right - left) * scale)),
        max(1, round((bottom - top) * scale)),
        (left, top, right, bottom),
        flip_horizontally=(viewport.region_width or 0) < 0,
        flip_vertically=(viewport.region_height or 0) < 0,
    )


def _span(start: float, length: float | None, size: int) -> tuple[float, float]:
    end = size if length is None else start + abs(length)
    if not 0 <= start < end <= size + _SLACK:
        raise InvalidRequest(
            f"viewport shows pixels {start:g} to {end:g} of {size}: not within the image"
        )
    return start, min(end, float(size))
