"""What a client asks of a rendered image: the query parameters of PS3.18 §8.3.5, as values."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Literal, NamedTuple

from wado.errors import InvalidRequest

MAX_VIEWPORT = 8192
"""Widest and highest picture that is made to order, in pixels."""
DEFAULT_QUALITY = 90
THUMBNAIL_SIDE = 128
"""Sides of the square that a thumbnail fits in, if no other was asked for."""

VoiFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]
IccProfile = Literal["no", "yes", "srgb"]

_FUNCTIONS: dict[str, VoiFunction] = {
    "linear": "LINEAR",
    "linear-exact": "LINEAR_EXACT",
    "sigmoid": "SIGMOID",
}
_ANNOTATIONS = ("patient", "technique")
_ICC_PROFILES: dict[str, IccProfile] = {"no": "no", "yes": "yes", "srgb": "srgb"}
_OTHER_ICC_PROFILES = frozenset({"adobergb", "rommrgb", "displayp3"})
_DECIMAL = re.compile(
    r"[+-]?(?:\d{1,12}(?:\.\d{0,12})?|\.\d{1,12})(?:[eE][+-]?\d{1,2})?\Z", re.ASCII
)
_POSITIVE = re.compile(r"\d{1,9}\Z", re.ASCII)

Parameter = Callable[[str], str | None]
"""Value of a query parameter by its name, None if it was not given."""


class Window(NamedTuple):
    """A window on the values: VOI LUT Function (0028,1056), centre and width."""

    center: float
    width: float
    function: VoiFunction = "LINEAR"

    @property
    def is_possible(self) -> bool:
        """Whether the width may be so small (PS3.3 §C.11.2.1.2.1 and §C.11.2.1.3)."""
        usable = isfinite(self.center) and isfinite(self.width)
        return usable and (self.width >= 1 if self.function == "LINEAR" else self.width > 0)


class Viewport(NamedTuple):
    """Room for the picture, and the region of the image to show in it (PS3.18 §8.3.5.1.3).

    `width` and `height` are those of the room. The region starts at `left` and `top` and is
    `region_width` by `region_height` large; None reaches to the edge of the image. A negative one
    flips. With `enlarge` False a smaller image keeps its size.
    """

    width: int
    height: int
    left: float = 0.0
    top: float = 0.0
    region_width: float | None = None
    region_height: float | None = None
    enlarge: bool = True


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """How to render. What is None, or empty, is left to the image.

    Attributes
    ----------
    viewport, window, quality
        As the parameters of these names.
    annotations
        Some of ``patient`` and ``technique``: text that is burned into the picture.
    icc_profile
        Whether the picture carries an ICC profile: its own, or sRGB, into which it is turned.
    overlays
        Whether overlay planes are drawn.
    """

    viewport: Viewport | None = None
    window: Window | None = None
    quality: int = DEFAULT_QUALITY
    annotations: tuple[str, ...] = ()
    icc_profile: IccProfile = "no"
    overlays: bool = True


def read_options(parameter: Parameter) -> tuple[RenderOptions, tuple[str, ...]]:
    """Read the parameters of a rendered resource; also what of them can't be done.

    Raises
    ------
    InvalidRequest
        A parameter has a value that the Standard does not allow.
    """
    annotations, unknown = _annotations(parameter("annotation"))
    icc_profile, unsupported = _icc_profile(parameter("iccprofile"))
    warnings = []
    if unknown:
        warnings.append(f"The following annotation values are not supported: {', '.join(unknown)}")
    if unsupported:
        warnings.append(f"The following iccprofile value is not supported: {unsupported}")
    options = RenderOptions(
        viewport=_viewport(parameter("viewport")),
        window=_window(parameter("window")),
        quality=_quality(parameter("quality")),
        annotations=annotations,
        icc_profile=icc_profile,
    )
    return options, tuple(warnings)


def read_thumbnail_options(parameter: Parameter) -> RenderOptions:
    """Read the parameters of a thumbnail (PS3.18 §10.4.1.1.4): a viewport without a region.

    Nothing is burned in: a thumbnail shows no text that tells who the patient is, so overlays,
    which may hold some, are left out.

    Raises
    ------
    InvalidRequest
        The viewport has another form.
    """
    text = parameter("viewport")
    viewport = Viewport(THUMBNAIL_SIDE, THUMBNAIL_SIDE, enlarge=False)
    if text is not None:
        if text.count(",") != 1:
            raise InvalidRequest(f"viewport of a thumbnail is width,height, not {text[:80]!r}")
        viewport = _viewport(text) or viewport
    return RenderOptions(viewport=viewport, overlays=False)


def _viewport(text: str | None) -> Viewport | None:
    if text is None:
        return None
    names = text.split(",")
    if not 2 <= len(names) <= 6:
        raise InvalidRequest(f"viewport is width,height[,x,y[,width,height]], not {text[:80]!r}")
    width, height = (_side(name) for name in names[:2])
    left, top, region_width, region_height = (
        _decimal("viewport", name) if name.strip() else None
        for name in [*names[2:], *[""] * (6 - len(names))]
    )
    if region_width == 0 or region_height == 0:
        raise InvalidRequest(f"viewport {text[:80]!r} shows a region without pixels")
    # Only the absolute values of the corner count.
    return Viewport(width, height, abs(left or 0), abs(top or 0), region_width, region_height)


def _side(text: str) -> int:
    if not _POSITIVE.match(text.strip()) or not 1 <= int(text) <= MAX_VIEWPORT:
        raise InvalidRequest(
            f"width and height of a viewport are 1 to {MAX_VIEWPORT}, not {text[:80]!r}"
        )
    return int(text)


def _decimal(name: str, text: str) -> float:
    if not _DECIMAL.match(text.strip()):
        raise InvalidRequest(f"{name} has {text[:80]!r} where a number belongs")
    return float(text)


def _window(text: str | None) -> Window | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    function = _FUNCTIONS.get(names[2].lower()) if len(names) == 3 else None
    if function is None:
        known = ", ".join(_FUNCTIONS)
        raise InvalidRequest(f"window is centre,width,function ({known}), not {text[:80]!r}")
    window = Window(_decimal("window", names[0]), _decimal("window", names[1]), function)
    if not window.is_possible:
        least = "at least 1" if function == "LINEAR" else "more than 0"
        raise InvalidRequest(f"the width of a {names[2]} window is {least}, not {names[1]}")
    return window


def _quality(text: str | None) -> int:
    if text is None:
        return DEFAULT_QUALITY
    if not _POSITIVE.match(text.strip()) or not 1 <= int(text) <= 100:
        raise InvalidRequest(f"quality is a number from 1 to 100, not {text[:80]!r}")
    return int(text)


def _annotations(text: str | None) -> tuple[tuple[str, ...], list[str]]:
    """Read the known values, and those that nobody knows."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    unknown = [name[:80] for name in names if name.lower() not in _ANNOTATIONS]
    asked = {name.lower() for name in names}
    return tuple(name for name in _ANNOTATIONS if name in asked), unknown


def _icc_profile(text: str | None) -> tuple[IccProfile, str]:
    """Read the value, and its name if it is one that we can't do."""
    if text is None:
        return "no", ""
    name = text.strip().lower()
    if name in _OTHER_ICC_PROFILES:
        return "no", name
    if name not in _ICC_PROFILES:
        raise InvalidRequest(f"iccprofile is one of {', '.join(_ICC_PROFILES)}, not {text[:80]!r}")
    return _ICC_PROFILES[name], ""
