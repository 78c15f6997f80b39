"""The viewer as a person has it before them, and the grey values that ought to be on the screen."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from playwright.sync_api import Page, expect
from pydicom import Dataset

PATIENCE_MS = 60_000
"""How long is waited for what comes within a second, unless other tests use the machine."""

TOLERANCE = 6
"""Grey levels: interpolation, rounding and the tables of the graphics card."""

Greys = npt.NDArray[np.float64]

_IS_DRAWN = """index => {
  const viewport = window.__viewer?.viewport;
  if (!viewport || document.querySelector('.sentence, .late')) return false;
  const at = viewport.getCurrentImageIdIndex();
  const shown = viewport.getCornerstoneImage()?.imageId;
  return (index === null || at === index)
    && Boolean(shown) && shown === viewport.getCurrentImageId();
}"""

_DISTANCE = "const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1])"

_COLOURS = """points => {
  const { viewport } = window.__viewer;
  const canvas = document.querySelector('.canvas canvas');
  const context = canvas.getContext('2d');
  return points.map(point => {
    const at = viewport.worldToCanvas(point).map(v => Math.floor(v * devicePixelRatio));
    return Array.from(context.getImageData(...at, 1, 1).data).slice(0, 3);
  });
}"""


class ViewerPage:
    """A page with the viewer; waits for what it asks for, and never a fixed time."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base

    def open_list(self, fragment: str = "") -> None:
        """Go to the study list."""
        self.page.goto(f"{self.base}/?test=1{fragment}")

    def open_series(self, study: str, series: str) -> None:
        """Go to a series by its address, and wait for its first image."""
        self.page.goto(f"{self.base}/?test=1#/study/{study}/series/{series}")
        self.wait_drawn()
        # It is asked for beside the image, and says what the keys and the tools are for.
        expect(self.page.locator(".series a[aria-current=true]")).to_be_attached()

    def wait_drawn(self, index: int | None = None) -> None:
        """Wait until the image (of that index) is on the screen."""
        self.page.wait_for_function(_IS_DRAWN, arg=index, timeout=PATIENCE_MS)

    def wait_left(self) -> None:
        """Wait until the viewport is gone."""
        self.page.wait_for_function("() => !window.__viewer", timeout=PATIENCE_MS)

    def wait_for(self, condition: str) -> None:
        """Wait until a condition of `viewport` holds: gestures are handed over frame by frame."""
        self.page.wait_for_function(
            f"() => {{ const {{ viewport }} = __viewer; {_DISTANCE}; return {condition} }}",
            timeout=PATIENCE_MS,
        )

    def ask(self, expression: str) -> Any:
        """Evaluate an expression of `viewport`, Cornerstone's."""
        return self.page.evaluate(
            f"() => {{ const {{ viewport }} = __viewer; return {expression} }}"
        )

    def window(self) -> tuple[float, float]:
        """Lower and upper end of the window."""
        voi = self.ask("viewport.getProperties().voiRange")
        return voi["lower"], voi["upper"]

    def instance(self) -> str:
        """SOP Instance UID of the image on the screen."""
        return str(self.ask("viewport.getCurrentImageId()").split("/instances/")[1].split("/")[0])

    def wait_window_text(self, width: float, center: float) -> None:
        """Wait for the window that the corner of the image names."""
        expect(self.page.locator("[data-test=window]")).to_have_text(f"W {width:g}  L {center:g}")

    def colours(self, points: Sequence[Sequence[float]]) -> Greys:
        """Red, green and blue on the screen at points of the patient."""
        return np.array(self.page.evaluate(_COLOURS, points), dtype=float)

    def assert_greys(self, points: Sequence[Sequence[float]], greys: Sequence[float]) -> None:
        """Compare the screen with the greys, until they agree or it takes too long."""
        wanted = np.asarray(greys, dtype=float)[:, None]
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while np.abs((seen := self.colours(points)) - wanted).max() > TOLERANCE:
            if time.monotonic() > deadline:
                break
            self.page.wait_for_timeout(100)
        np.testing.assert_allclose(seen, np.broadcast_to(wanted, seen.shape), atol=TOLERANCE)

    def drag(self, x: int, y: int, button: Any = "left") -> None:
        """Drag the mouse from the middle of the image."""
        box = self.page.locator(".canvas").bounding_box()
        assert box is not None
        start = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(*start)
        self.page.mouse.down(button=button)
        self.page.mouse.move(start[0] + x, start[1] + y, steps=4)
        self.page.mouse.up(button=button)


def window_greys(ds: Dataset, center: float, width: float) -> Greys:
    """Every pixel as 0-255, by the linear VOI LUT function (PS3.3 C.11.2.1.2.1)."""
    return windowed(ds, center, width, "LINEAR")


def windowed(ds: Dataset, center: float, width: float, function: str) -> Greys:
    """Every pixel as 0-255, by a VOI LUT function (PS3.3 C.11.2.1.2 and .3); others are linear."""
    values = ds.pixel_array * float(ds.get("RescaleSlope", 1)) + float(
        ds.get("RescaleIntercept", 0)
    )
    if function == "SIGMOID":
        share = 1 / (1 + np.exp(-4 * (values - center) / width))
    elif function == "LINEAR_EXACT":
        share = (values - center) / width + 0.5
    else:
        share = (values - (center - 0.5)) / (width - 1) + 0.5
    return np.asarray(np.clip(share, 0, 1) * 255)


def even_places(greys: Greys, amount: int = 16) -> list[tuple[int, int]]:
    """Rows and columns where the picture is even around, spread from black to white."""
    views = np.lib.stride_tricks.sliding_window_view(greys, (5, 5))
    spread = views.max(axis=(2, 3)) - views.min(axis=(2, 3))
    rows, columns = np.nonzero(spread <= 4)
    order = np.argsort(greys[rows + 2, columns + 2], kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, amount).astype(int)]
    return [(int(rows[i]) + 2, int(columns[i]) + 2) for i in chosen]


def patient_points(ds: Dataset, places: Sequence[tuple[int, int]]) -> list[list[float]]:
    """Centres of pixels in patient coordinates (PS3.3 C.7.6.2.1.1)."""
    origin = np.array(ds.ImagePositionPatient, dtype=float)
    along_row = np.array(ds.ImageOrientationPatient[:3], dtype=float) * float(ds.PixelSpacing[1])
    along_column = np.array(ds.ImageOrientationPatient[3:], dtype=float) * float(ds.PixelSpacing[0])
    return [
        [float(v) for v in origin + column * along_row + row * along_column]
        for row, column in places
    ]
