"""Instances as pictures: what a frame needs is gathered here, and worked on in a worker process."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from wado.archive import forms, retrieve
from wado.archive.bulk_data import bulk_value
from wado.archive.frame_file import LONG_FRAME_BYTES, FrameFile, render_frame_file
from wado.archive.journal import Journals
from wado.archive.pieces import FileSlice, OpenFiles, cut, piece_length
from wado.archive.pixel_workers import PixelWorkers
from wado.archive.retrieve import Item
from wado.archive.transcoding import check_length, image_of_copy
from wado.dicom.codec_table import EXPLICIT_VR_LITTLE_ENDIAN
from wado.dicom.image import ImagePixel, first_value
from wado.dicom.media_types import media_type_of
from wado.dicom.rendering.animation import animated
from wado.dicom.rendering.display import (
    Display,
    annotation_lines,
    display_of,
    icc_profile_of,
)
from wado.dicom.rendering.job import Form, render_frame
from wado.dicom.rendering.options import RenderOptions
from wado.dicom.rendering.placement import place
from wado.errors import CannotUnderstand, NotAcceptable, NotFound, TooLarge
from wado.ports import Archive

GIF = "image/gif"
_FRAME_TIME_MS = 100.0
"""How long a frame is shown if the instance does not say."""
_MS_PER_S = 1000.0
_MAX_METADATA_BYTES = 32 << 20
"""Longest metadata that are parsed for a picture: those of ten thousand enhanced frames."""
_SEGMENTATIONS = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})


@dataclass(frozen=True, slots=True)
class Renderer:
    """What pictures are made with; one per process.

    `max_pixels` is how many a frame may have.
    """

    archive: Archive
    journals: Journals
    files: OpenFiles
    pixels: PixelWorkers
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Subject:
    """An instance with pixels, and what its metadata say of them.

    Its frames are read from `copy`, if there is one that is decoded faster.
    """

    found: Item
    metadata: Mapping[str, Any]
    image: ImagePixel
    copy: Item | None = None


def is_image(found: Item) -> bool:
    """Whether an instance has pixels that are pictures, and no video."""
    pixel = found.entry.pixel
    video = media_type_of(found.entry.transfer_syntax_uid).startswith("video/")
    return pixel is not None and not video


def frame_count(found: Item) -> int:
    """How many frames an instance has, as its pixel data tell."""
    pixel = found.entry.pixel
    return pixel.number_of_frames if pixel is not None else 0


def representative(items: Sequence[Item]) -> Item | None:
    """Choose the image that stands for all: the middle one of the first series with images.

    Segmentations are chosen only where there is nothing else. None if there are no images.
    """
    images = [found for found in items if is_image(found)]
    plain = [found for found in images if found.entry.sop_class_uid not in _SEGMENTATIONS]
    images = plain or images
    if not images:
        return None
    first = images[0].ref.series
    series = [found for found in images if found.ref.series == first]
    return series[len(series) // 2]


def representative_frame(subject: Subject) -> int:
    """Choose the frame that stands for an instance: the one it names, or the middle one.

    References
    ----------
    PS3.3 §C.7.6.6: Representative Frame Number (0028,6010).
    """
    count = frame_count(subject.found)
    named = first_value(subject.metadata, "00286010")
    return named if isinstance(named, int) and 1 <= named <= count else count // 2 + 1


def subject_of(renderer: Renderer, found: Item) -> Subject:
    """Read what the metadata of an instance say of its pixels.

    Raises
    ------
    NotAcceptable
        They describe no image.
    TooLarge
        Its frames have more pixels than we take on, or its metadata are too long: parsed, they
        take ten times the memory.
    """
    if found.entry.metadata_length > _MAX_METADATA_BYTES:
        raise TooLarge("the metadata are too long to be read for a picture; frames can be had")
    metadata: dict[str, Any] = {}
    for text in renderer.journals.metadata(found.view, [found.entry]):
        metadata = orjson.loads(text)
    try:
        image = ImagePixel.of(metadata)
    except CannotUnderstand as e:
        raise NotAcceptable(f"there is nothing to render: {e}") from e
    if image.pixels > renderer.max_pixels:
        raise TooLarge(
            f"a frame of {image.columns} x {image.rows} pixels is too large to be rendered: "
            f"the limit is {renderer.max_pixels} pixels"
        )
    source = forms.source_of(found)
    if found.entry.number_of_frames == 1:
        forms.refuse_what_failed(source, EXPLICIT_VR_LITTLE_ENDIAN)
    return Subject(found, metadata, image, source if source.copy is not None else None)


def render(
    renderer: Renderer, subject: Subject, number: int, options: RenderOptions, media_type: str
) -> bytes:
    """Render one frame as a file of a media type.

    Raises
    ------
    InvalidRequest
        The options do not fit the image.
    NotAcceptable
        The frame can't be shown, with the reason.
    NotFound
        There is no such frame.
    Unavailable
        All workers are busy.
    """
    if subject.copy is not None:
        image = image_of_copy(subject.image, subject.copy)
        from_copy = replace(subject, found=subject.copy, image=image)
        try:
            return _rendered(renderer, from_copy, number, options, media_type)
        except (NotFound, NotAcceptable):  # its file is gone or damaged: the original is there
            pass
    return _rendered(renderer, subject, number, options, media_type)


def _rendered(
    renderer: Renderer, subject: Subject, number: int, options: RenderOptions, media_type: str
) -> bytes:
    form = Form(
        media_type,
        options.quality,
        place(options.viewport, subject.image.columns, subject.image.rows),
        options.icc_profile,
    )
    try:
        display = _display(renderer, subject, number, options)
        uid = subject.found.entry.transfer_syntax_uid
        check_length(subject.found, subject.image, number)
        frame = _frame(renderer, subject.found, number)
        run = renderer.pixels.run
        if isinstance(frame, FrameFile):
            return run(render_frame_file, frame, subject.image, uid, display, form)
        return run(render_frame, frame, subject.image, uid, display, form)
    except CannotUnderstand as e:
        raise NotAcceptable(f"frame {number} can't be rendered: {e}") from e


def render_animation(
    renderer: Renderer, subject: Subject, numbers: Iterable[int], options: RenderOptions
) -> Iterator[bytes]:
    """Render frames as one animated GIF, a frame at a time; raises as `render`."""
    pictures = (render(renderer, subject, number, options, GIF) for number in numbers)
    return animated(pictures, frame_time_ms(subject.metadata))


def frame_time_ms(metadata: Mapping[str, Any]) -> float:
    """How long a frame of a cine loop is shown, in milliseconds (PS3.3 §C.7.6.5)."""
    for tag in ("00082144", "00180040"):  # Recommended Display Frame Rate, Cine Rate
        rate = first_value(metadata, tag)
        if isinstance(rate, int | float) and rate > 0:
            return _MS_PER_S / rate
    time = first_value(metadata, "00181063")
    if isinstance(time, int | float) and time > 0:
        return float(time)
    vector = metadata.get("00181065", {}).get("Value") or []
    times = [t for t in vector if isinstance(t, int | float) and t > 0]
    return sum(times) / len(times) if times else _FRAME_TIME_MS


def _display(renderer: Renderer, subject: Subject, number: int, options: RenderOptions) -> Display:
    metadata = subject.metadata

    def bulk(path: str, start: int, end: int | None) -> bytes:
        found = retrieve.original_of(subject.found)
        (pieces,) = bulk_value(renderer.archive, renderer.journals, found, path).parts
        stop = sum(map(piece_length, pieces)) if end is None else end
        return b"".join(map(renderer.files.bytes_of, cut(pieces, start, stop)))

    display = display_of(metadata, subject.image, number, bulk, overlays=options.overlays)
    if options.window is not None and display.palette is None:
        display = replace(display, voi=options.window)
    if options.annotations:
        display = replace(display, text=annotation_lines(metadata, options.annotations))
    if options.icc_profile != "no":
        display = replace(display, icc_profile=icc_profile_of(metadata, bulk))
    return display


def _frame(renderer: Renderer, found: Item, number: int) -> bytes | FrameFile:
    """Read a frame, or say where it is: a long one is read where it is needed."""
    retrieve.existing_frames((number,), found)
    (pieces,) = retrieve.frames(renderer.archive, found, (number,))
    if sum(map(piece_length, pieces)) >= LONG_FRAME_BYTES:
        path = renderer.archive.store.local_path(found.path)
        slices = [piece for piece in pieces if isinstance(piece, FileSlice)]
        if path is not None and len(slices) == len(pieces):
            return FrameFile(str(path), tuple((piece.offset, piece.length) for piece in slices))
    return b"".join(map(renderer.files.bytes_of, pieces))
