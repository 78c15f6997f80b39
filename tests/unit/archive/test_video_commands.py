"""Which level, size and transfer syntax a video gets when it is encoded."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wado.archive.video_commands import Video, target_of

JPEG = "1.2.840.10008.1.2.4."
VIDEO = Video("hevc", 1920, 1080, 30.0, is_interlaced=False, is_remuxed=False, sound="")


@pytest.mark.parametrize(
    ("columns", "rows", "rate", "level", "uid"),
    [
        (96, 64, 25, "4.1", "102"),
        (720, 576, 25, "4.1", "102"),
        (1280, 720, 60, "4.1", "102"),
        (1920, 1080, 30, "4.1", "102"),
        (1920, 1080, 30.2, "4.2", "104"),
        (1920, 1080, 60, "4.2", "104"),
        (1280, 720, 120, "4.2", "104"),
    ],
)
def test_the_lowest_level_that_holds_it(columns: int, rows: int, rate: float, level: str, uid: str):
    target = target_of(replace(VIDEO, columns=columns, rows=rows, rate=rate))
    assert (target.columns, target.rows) == (columns, rows)
    assert (target.level.name, target.level.transfer_syntax_uid) == (level, f"{JPEG}{uid}")
    assert target.filters == "null"


def test_odd_sides_get_a_line():
    target = target_of(replace(VIDEO, columns=719, rows=575))
    assert (target.columns, target.rows, target.filters) == (720, 576, "pad=720:576")


@given(
    st.integers(1, 1 << 14), st.integers(1, 1 << 14), st.floats(1, 240),
)  # fmt: skip
def test_what_no_level_holds_becomes_smaller(columns: int, rows: int, rate: float):
    target = target_of(replace(VIDEO, columns=columns, rows=rows, rate=rate))
    assert target.level.holds(target.columns, target.rows, rate)
    assert target.columns % 2 == target.rows % 2 == 0
    assert 2 <= target.columns <= columns + 1
    assert 2 <= target.rows <= rows + 1


def test_the_proportions_of_a_large_one_stay():
    target = target_of(replace(VIDEO, columns=3840, rows=2160, rate=25))
    assert target.columns / target.rows == pytest.approx(16 / 9, rel=0.01)
    assert target.columns * target.rows > 0.95 * 1920 * 1080
    assert target.filters == f"scale={target.columns}:{target.rows}:flags=lanczos"
