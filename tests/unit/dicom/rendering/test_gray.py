"""The grey-scale pipeline against values worked out by hand from PS3.3 §C.11."""

import math
from collections.abc import Sequence
from struct import pack

import numpy as np
import pytest

from wado.dicom.rendering.display import Display, Lut
from wado.dicom.rendering.gray import gray_picture
from wado.dicom.rendering.options import Window

TYPES = [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64]


def shown(pixels: Sequence[float], display: Display, kind: type = np.int16) -> list[int]:
    result: list[int] = gray_picture(np.array([pixels], kind), display)[0].tolist()
    return result


def linear(x: float, c: float, w: float) -> float:
    """The pseudo code of §C.11.2.1.2.1, with 0 and 255."""
    if x <= c - 0.5 - (w - 1) / 2:
        return 0
    if x > c - 0.5 + (w - 1) / 2:
        return 255
    return ((x - (c - 0.5)) / (w - 1) + 0.5) * 255


def linear_exact(x: float, c: float, w: float) -> float:
    """The pseudo code of §C.11.2.1.3.2."""
    if x <= c - w / 2:
        return 0
    if x > c + w / 2:
        return 255
    return ((x - c) / w + 0.5) * 255


def sigmoid(x: float, c: float, w: float) -> float:
    """The equation of §C.11.2.1.3.1."""
    return 255 / (1 + math.exp(-4 * (x - c) / w))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    ("window", "formula"),
    [
        (Window(40, 80, "LINEAR"), linear),
        (Window(12.5, 1, "LINEAR"), linear),
        (Window(7, 2, "LINEAR"), linear),
        (Window(40, 80, "LINEAR_EXACT"), linear_exact),
        (Window(40.25, 0.5, "LINEAR_EXACT"), linear_exact),
        (Window(40, 80, "SIGMOID"), sigmoid),
        (Window(64, 0.75, "SIGMOID"), sigmoid),
    ],
)
def test_windows(window: Window, formula, kind: type):
    values = list(range(128))
    wanted = [formula(x, window.center, window.width) for x in values]
    got = shown(values, Display(voi=window), kind)
    assert np.abs(np.array(got) - wanted).max() <= 0.5 + 1e-9


def test_values_of_the_standard():
    # §C.11.2.1.2.1: with centre 2048 and width 4096, 0 is black and 4095 white.
    assert shown([0, 2047, 2048, 4095], Display(voi=Window(2048, 4096))) == [0, 127, 128, 255]
    # Width 1 makes a threshold.
    assert shown([-1, 0, 1], Display(voi=Window(0.5, 1))) == [0, 0, 255]


def test_rescaled_values_are_windowed():
    display = Display(modality=(2.0, -1000.0), voi=Window(0, 100, "LINEAR_EXACT"))
    assert shown([0, 475, 500, 525, 900], display) == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("kind", TYPES)
def test_without_window_the_range_of_the_values(kind: type):
    assert shown([10, 20, 30, 110], Display(), kind) == [0, 26, 51, 255]


def test_negative_values():
    assert shown([-32768, 0, 32767], Display()) == [0, 128, 255]
    assert shown([-128, -1, 127], Display(voi=Window(0, 256)), np.int8) == [0, 127, 255]


@pytest.mark.parametrize("kind", TYPES)
def test_one_value_alone_is_black(kind: type):
    assert shown([5, 5, 5], Display(), kind) == [0, 0, 0]


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.float64])
def test_padding_does_not_count(kind: type):
    display = Display(padding=(-2000.0, -1500.0))
    assert shown([-2000, -1500, 0, 100, 200], display, kind) == [0, 0, 0, 128, 255]
    assert shown([-2000, -2000], display, kind) == [0, 0]  # nothing else is there


def test_numbers_that_are_none():
    assert shown([math.nan, 0, 1, math.inf, -math.inf], Display(), np.float32) == [
        0,
        0,
        255,
        255,
        0,
    ]
    assert shown([math.nan, math.nan], Display(), np.float32) == [0, 0]


def test_inverted():
    assert shown([0, 50, 100], Display(voi=Window(50, 100, "LINEAR_EXACT"), inverted=True)) == [
        255, 127, 0,
    ]  # fmt: skip


def test_a_known_range():
    assert shown([0, 0], Display(value_range=(0.0, 1.0)), np.uint8) == [0, 0]
    assert shown([0, 1], Display(value_range=(0.0, 1.0)), np.uint8) == [0, 255]
    assert shown([0, 2], Display(value_range=(0.0, 4.0)), np.uint8) == [0, 128]


def test_modality_lut():
    # 4 entries for the stored values -1, 0, 1, 2; values outside get the first and the last.
    lut = Lut(4, -1, 16, pack("<4H", 1000, 0, 500, 250))
    display = Display(modality=lut, voi=Window(500, 1000, "LINEAR_EXACT"))
    assert shown([-5, -1, 0, 1, 2, 9], display) == [255, 255, 0, 128, 64, 64]


def test_the_range_behind_a_modality_lut():
    lut = Lut(3, 0, 16, pack("<3H", 60, 20, 40))
    assert shown([1, 2], Display(modality=lut)) == [0, 255]  # 20 and 40 are there, 60 is not


@pytest.mark.parametrize(
    ("bits", "data", "wanted"),
    [
        (8, bytes([255, 0, 51, 102]), [255, 0, 51, 102]),  # two entries to a word
        (8, pack("<4H", 255, 0, 51, 102), [255, 0, 51, 102]),
        (12, pack("<4H", 4095, 0, 819, 1638), [255, 0, 51, 102]),
        (16, pack("<4H", 65535, 0, 13107, 26214), [255, 0, 51, 102]),
        (16, pack("<2H", 65535, 0), [255, 0, 0, 0]),  # ends early
    ],
)
def test_voi_lut(bits: int, data: bytes, wanted: list[int]):
    display = Display(modality=(1.0, -10.0), voi=Lut(4, -10, bits, data))
    assert shown([0, 1, 2, 3], display) == wanted
    assert shown([-7, 99], display) == [wanted[0], wanted[-1]]
    assert shown([0, 1, 2, 3], display, np.float64) == wanted
