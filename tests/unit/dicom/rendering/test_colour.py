"""Colour spaces and palettes against the equations of PS3.3 §C.7.6.3.1.2 and §C.7.9."""

from struct import pack

import numpy as np
import pytest

from wado.dicom.rendering.colour import colour_picture, palette_picture, supplemented
from wado.dicom.rendering.display import Lut, Palette
from wado.dicom.rendering.tables import entries_of
from wado.errors import CannotUnderstand


def rgb(samples: list[float], kind: str, bits: int = 8, dtype: type = np.uint8) -> list[int]:
    result: list[int] = colour_picture(np.array([[samples]], dtype), kind, bits)[0, 0].tolist()
    return result


def ybr_full(r: int, g: int, b: int) -> list[int]:
    """RGB to YBR_FULL as the Standard writes it."""
    return [
        round(0.2990 * r + 0.5870 * g + 0.1140 * b),
        round(-0.1687 * r - 0.3313 * g + 0.5000 * b + 128),
        round(0.5000 * r - 0.4187 * g - 0.0813 * b + 128),
    ]


def ybr_partial(r: int, g: int, b: int) -> list[int]:
    """RGB to YBR_PARTIAL_422 as the Standard writes it."""
    return [
        round(0.2568 * r + 0.5041 * g + 0.0979 * b + 16),
        round(-0.1482 * r - 0.2910 * g + 0.4392 * b + 128),
        round(0.4392 * r - 0.3678 * g - 0.0714 * b + 128),
    ]


COLOURS = [(0, 0, 0), (255, 255, 255), (200, 30, 90), (10, 240, 100), (40, 50, 250), (77, 77, 77)]


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("YBR_FULL", ybr_full),
        ("YBR_FULL_422", ybr_full),
        ("YBR_PARTIAL_422", ybr_partial),
        ("YBR_PARTIAL_420", ybr_partial),
    ],
)
def test_luminance_and_chroma_become_rgb(kind: str, made, colour: tuple[int, int, int]):
    samples = [min(max(x, 0), 255) for x in made(*colour)]
    assert np.abs(np.array(rgb(samples, kind)) - colour).max() <= 2  # three samples were rounded


@pytest.mark.parametrize("kind", ["RGB", "YBR_RCT", "YBR_ICT"])
def test_rgb_stays(kind: str):
    assert rgb([1, 2, 255], kind) == [1, 2, 255]


@pytest.mark.parametrize(
    ("bits", "dtype", "samples"),
    [
        (16, np.uint16, [0, 65535, 32896]),
        (12, np.uint16, [0, 4095, 2056]),
        (5, np.uint8, [0, 31, 15.562]),
        (32, np.uint32, [0, 4294967295, 2155905152]),
    ],
)
def test_other_bits_are_scaled(bits: int, dtype: type, samples: list[float]):
    got = rgb(samples, "RGB", bits, dtype)
    assert got[:2] == [0, 255]
    assert abs(got[2] - 128) <= (0 if bits > 8 else 5)


@pytest.mark.parametrize("kind", ["HSV", "CMYK", "ARGB", "XYB"])
def test_retired_colour_spaces(kind: str):
    with pytest.raises(CannotUnderstand):
        rgb([1, 2, 3], kind)


def test_four_samples():
    with pytest.raises(CannotUnderstand):
        rgb([1, 2, 3, 4], "RGB")


# ------------------------------------------------------------------ palettes


def lut(*entries: int, first: int = 0, bits: int = 16) -> Lut:
    return Lut(len(entries), first, bits, pack(f"<{len(entries)}H", *entries))


def palette(first: int = 0, *, supplemental: bool = False) -> Palette:
    return Palette(
        lut(0, 0x8080, 0xFFFF, first=first),
        lut(0xFFFF, 0, 0x4040, first=first),
        lut(0x1010, 0x2020, 0x3030, first=first),
        supplemental,
    )


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.int32])
def test_palette(kind: type):
    picture = palette_picture(np.array([[0, 1, 2, 9]], kind), palette())
    assert picture.tolist() == [
        [[0, 255, 16], [128, 0, 32], [255, 64, 48], [255, 64, 48]],
    ]


def test_palette_from_a_negative_value_on():
    picture = palette_picture(np.array([[-2, -1, 0]], np.int16), palette(first=-2))
    assert picture[0, :, 0].tolist() == [0, 128, 255]


def test_palette_that_claims_16_bits_and_has_8():
    luts = Palette(lut(0, 255), lut(255, 0), lut(16, 32))
    picture = palette_picture(np.array([[0, 1]], np.uint8), luts)
    assert picture.tolist() == [[[0, 255, 16], [255, 0, 32]]]


def test_supplemental_palette_colours_its_values_alone():
    pixels = np.array([[99, 100, 102, 103]], np.uint16)
    gray = np.array([[1, 2, 3, 4]], np.uint8)
    picture = supplemented(gray, pixels, palette(first=100, supplemental=True))
    assert picture.tolist() == [[[1, 1, 1], [0, 255, 16], [255, 64, 48], [4, 4, 4]]]
    nothing = supplemented(gray, pixels, palette(first=1000, supplemental=True))
    assert nothing[..., 0].tolist() == gray.tolist()


def segmented(entries: int, *words: int, bits: int = 16) -> list[int]:
    data = bytes(words) if bits == 8 else pack(f"<{len(words)}H", *words)
    result: list[int] = entries_of(Lut(entries, 0, bits, data, segmented=True)).tolist()
    return result


def test_segments():
    # Discrete: 3 values. Linear: 4 steps from 30 to 50.
    assert segmented(7, 0, 3, 10, 20, 30, 1, 4, 50) == [10, 20, 30, 35, 40, 45, 50]
    assert segmented(7, 0, 3, 10, 20, 30, 1, 4, 50, bits=8) == [10, 20, 30, 35, 40, 45, 50]


def test_segments_that_repeat():
    # The indirect segment repeats two segments from byte 0 on: the offset counts bytes.
    words = (0, 1, 10, 1, 2, 30, 2, 2, 0, 0)
    assert segmented(6, *words) == [10, 20, 30, 10, 20, 30]
    # From the linear segment, byte 6, on: it starts from the last value, 30.
    assert segmented(5, *(*words[:6], 2, 1, 6, 0)) == [10, 20, 30, 30, 30]
    assert segmented(6, 0, 1, 10, 1, 2, 30, 2, 2, 0, 0, 0, 0, bits=8) == [10, 20, 30, 10, 20, 30]


@pytest.mark.parametrize(
    "words", [(), (1, 2, 30), (3, 1, 1), (2, 9, 100, 0), (0, 1, 5, 2, 1, 6, 0), (0, 0)]
)
def test_segments_that_make_no_sense(words: tuple[int, ...]):
    with pytest.raises(CannotUnderstand):
        segmented(8, *words)
