"""What stands for a series or an instance, how fast frames follow, and frames read from files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wado.archive.frame_file import FrameFile, read_frame_file
from wado.archive.journal import Entry, SeriesView
from wado.archive.rendering import (
    Renderer,
    Subject,
    frame_time_ms,
    is_image,
    representative,
    representative_frame,
    subject_of,
)
from wado.archive.retrieve import Item
from wado.dicom.frames import PixelData
from wado.dicom.image import ImagePixel
from wado.dicom.uids import InstanceRef, SeriesRef
from wado.errors import NotFound, TooLarge

CT, SEGMENTATION = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66.4"
EXPLICIT, MPEG4 = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.102"


def item(
    series: str, uid: str, sop_class: str = CT, syntax: str = EXPLICIT, frames: int | None = 1
) -> Item:
    pixel = PixelData(0, 8, encapsulated=False, number_of_frames=frames) if frames else None
    entry = Entry(uid, sop_class, syntax, 8, "", "", 1, frames or 1, pixel, {}, 0, 0)
    view = SeriesView(SeriesRef("t", "1", series), 1, 1, {uid: entry}, described=False)
    return Item(InstanceRef("t", "1", series, uid), entry, view)


def chosen(*items: Item) -> str | None:
    found = representative(items)
    return found.ref.sop_instance_uid if found else None


def test_the_middle_image_of_the_first_series_with_images():
    report = item("1.1", "9", frames=None)
    assert chosen(report, *(item("1.2", str(n)) for n in range(1, 6)), item("1.3", "7")) == "3"
    assert chosen(item("1.2", "4"), item("1.2", "5")) == "5"
    assert chosen(report) is None
    assert chosen() is None


def test_segmentations_and_videos_stand_for_others_only_at_need():
    segmentation = item("1.1", "9", SEGMENTATION)
    assert chosen(segmentation, item("1.2", "3")) == "3"
    assert chosen(segmentation) == "9"
    video = item("1.1", "8", syntax=MPEG4)
    assert not is_image(video)
    assert chosen(video, segmentation) == "9"


@pytest.mark.parametrize(
    ("frames", "named", "number"),
    [(1, None, 1), (2, None, 2), (5, None, 3), (5, 4, 4), (5, 6, 3), (5, 0, 3), (5, "2", 3)],
)
def test_frame_that_stands_for_an_instance(frames: int, named: Any, number: int):
    metadata = {"00286010": {"Value": [named]}} if named is not None else {}
    image = ImagePixel(1, 1, 1, "MONOCHROME2", 8, 8, 7)
    subject = Subject(item("1.2", "3", frames=frames), metadata, image)
    assert representative_frame(subject) == number


@pytest.mark.parametrize(
    ("elements", "time_ms"),
    [
        ({}, 100),
        ({"00181063": [40]}, 40),
        ({"00181063": [40], "00082144": [50]}, 20),
        ({"00181063": [40], "00180040": [10]}, 100),
        ({"00181065": [0, 30, 50]}, 40),
        ({"00181063": [0], "00082144": [0], "00181065": [None]}, 100),
        ({"00181063": ["fast"]}, 100),
    ],
)
def test_time_of_frames(elements: dict[str, list[Any]], time_ms: float):
    assert frame_time_ms({tag: {"Value": v} for tag, v in elements.items()}) == time_ms


def test_frames_are_read_from_their_file(tmp_path: Path):
    path = tmp_path / "a.dcm"
    path.write_bytes(bytes(range(100)))
    assert read_frame_file(FrameFile(str(path), ((10, 3),))) == bytes([10, 11, 12])
    assert read_frame_file(FrameFile(str(path), ((10, 2), (50, 1)))) == bytes([10, 11, 50])
    with pytest.raises(NotFound, match="ends early"):
        read_frame_file(FrameFile(str(path), ((90, 11),)))
    with pytest.raises(NotFound, match="gone"):
        read_frame_file(FrameFile(str(tmp_path / "b.dcm"), ((0, 1),)))


def test_metadata_that_are_too_long_are_not_parsed():
    found = item("1.2", "3")
    long = replace(found, entry=replace(found.entry, metadata_length=1 << 30))
    renderer = Renderer(None, None, None, None, 1)  # type: ignore[arg-type]  # not looked at
    with pytest.raises(TooLarge, match="metadata"):
        subject_of(renderer, long)
