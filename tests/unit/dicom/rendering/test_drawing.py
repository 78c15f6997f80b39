"""Overlays, text and viewports on a picture."""

import numpy as np
import pytest
from PIL import Image

from wado.dicom.image import ImagePixel
from wado.dicom.rendering.drawing import draw_overlays, placed, raw_pixels, write_text
from wado.dicom.rendering.options import Viewport
from wado.dicom.rendering.placement import place
from wado.dicom.rendering.planes import Overlay

BLACK = np.zeros((3, 4), np.uint8)


def drawn(*overlays: Overlay, raw: np.ndarray | None = None) -> list[str]:
    picture = draw_overlays(BLACK, overlays, raw)
    return ["".join("#" if x else "." for x in row) for row in picture]


def test_bits_begin_with_the_lowest():
    # 6 bits, row by row: 101, 011.
    assert drawn(Overlay(2, 3, 1, 1, bytes([0b110101]))) == ["#.#.", ".##.", "...."]
    assert drawn(Overlay(2, 3, 1, 1, bytes([0b01010000, 0b11]), 4)) == ["#.#.", ".##.", "...."]


@pytest.mark.parametrize(
    ("top", "left", "wanted"),
    [
        (2, 2, ["....", ".###", ".###"]),
        (3, 4, ["....", "....", "...#"]),
        (0, 0, ["##..", "#...", "...."]),
        (9, 1, ["....", "....", "...."]),
        (-9, -9, ["....", "....", "...."]),
    ],
)
def test_origin(top: int, left: int, wanted: list[str]):
    data = bytes([0b11111111, 0b11]) if top != 0 else bytes([0b11111111, 0])
    plane = Overlay(3, 3, top, left, data)
    if top == 0:  # the last of nine bits is not set: only what remains is seen
        assert drawn(plane) == ["##..", "#...", "...."]
    else:
        assert drawn(plane) == wanted


def test_planes_that_end_early_are_empty_there():
    assert drawn(Overlay(3, 4, 1, 1, bytes([0xFF]))) == ["####", "####", "...."]


def test_planes_in_unused_bits():
    frame = np.array([0x1FFF, 0x0FFF, 0x8000, 0x1000] + [0] * 8, "<u2").tobytes()
    raw = raw_pixels(frame, ImagePixel(3, 4, 1, "MONOCHROME2", 16, 12, 11))
    assert drawn(Overlay(3, 4, 1, 1, bit_position=12), raw=raw) == ["#..#", "....", "...."]
    assert drawn(Overlay(3, 4, 1, 1, bit_position=12)) == ["....", "....", "...."]
    assert raw_pixels(frame[:-1], ImagePixel(3, 4, 1, "MONOCHROME2", 16, 12, 11)) is None


def test_on_colour_and_not_on_what_was_given():
    picture = np.zeros((3, 4, 3), np.uint8)
    result = draw_overlays(picture, (Overlay(1, 1, 1, 1, b"\1"),), None)
    assert result[0, 0].tolist() == [255, 255, 255]
    assert result.sum() == 3 * 255
    assert not picture.any()


def test_a_region_is_cut_out_and_flipped():
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))

    def cut(viewport: Viewport) -> list[list[int]]:
        rows: list[list[int]] = np.asarray(placed(image, place(viewport, 4, 3))).tolist()
        return rows

    assert cut(Viewport(2, 2, 1, 1, 2, 2)) == [[5, 6], [9, 10]]
    assert cut(Viewport(2, 2, 1, 1, -2, 2)) == [[6, 5], [10, 9]]
    assert cut(Viewport(2, 2, 1, 1, 2, -2)) == [[9, 10], [5, 6]]
    assert cut(Viewport(4, 3)) == np.asarray(image).tolist()


def test_smaller_pictures_show_all_of_the_pixels():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::4] = 255
    small = np.asarray(placed(Image.fromarray(stripes), place(Viewport(8, 8), 64, 64)))
    assert small.shape == (8, 8)
    assert np.abs(small.astype(int) - 64).max() <= 12  # a quarter of them is white


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_text_is_white_with_a_black_outline(mode: str):
    image = write_text(
        Image.new(mode, (200, 100), 100 if mode == "L" else (100, 100, 100)), ("ID 7",)
    )
    values = np.asarray(image.convert("L"))
    assert values.max() > 200
    assert values.min() < 50
    assert (values[50:] == 100).all()
    plain = Image.new(mode, (9, 9))
    assert write_text(plain, ()) is plain
