"""Viewports: proportions stay, regions are within the image (PS3.18 §8.3.5.1.3)."""

import pytest

from wado.dicom.rendering.options import Viewport
from wado.dicom.rendering.placement import place
from wado.errors import InvalidRequest


def test_without_viewport_the_image_keeps_its_size():
    assert place(None, 30, 20) == (30, 20, (0, 0, 30, 20), False, False)


@pytest.mark.parametrize(
    ("viewport", "size"),
    [
        (Viewport(100, 100), (100, 50)),
        (Viewport(100, 10), (20, 10)),
        (Viewport(400, 400), (400, 200)),
        (Viewport(400, 400, enlarge=False), (200, 100)),
        (Viewport(1, 1), (1, 1)),
        (Viewport(100, 100, 0, 0, 50, 100), (50, 100)),
        (Viewport(60, 60, 10, 10), (60, 28)),  # 190 x 90 of the image are left
    ],
)
def test_scaled_until_one_side_fits(viewport: Viewport, size: tuple[int, int]):
    assert place(viewport, 200, 100)[:2] == size


def test_a_negative_length_flips():
    placed = place(Viewport(10, 10, 5, 6, -20, 30), 200, 100)
    assert placed.box == (5, 6, 25, 36)
    assert (placed.flip_horizontally, placed.flip_vertically) == (True, False)
    assert place(Viewport(10, 10, region_height=-100), 200, 100).flip_vertically


@pytest.mark.parametrize(
    "viewport",
    [
        Viewport(10, 10, 200),
        Viewport(10, 10, 0, 100),
        Viewport(10, 10, 1, 0, 200),
        Viewport(10, 10, 0, 50, 10, -51),
    ],
)
def test_regions_beyond_the_edge(viewport: Viewport):
    with pytest.raises(InvalidRequest, match="not within the image"):
        place(viewport, 200, 100)
