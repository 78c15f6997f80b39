"""Derived copies: made of real images by real codecs, verified, announced; or why there is none."""

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels.utils import pixel_array

import copies
import pixel_jobs
import synthetic
from conversions import asked, failure, made, no_copies, rows, stored
from copies import DEFLATED_FRAMES, HTJ2K_RPCL, broken, deflated, derived_of
from independent import pixels_of
from wado.archive import conversion, image_conversion
from wado.archive.conversion import announce, convert
from wado.archive.copies import Converter
from wado.archive.journal import Journals
from wado.archive.pixel_workers import PixelWorkers
from wado.errors import CutShort, Unavailable
from wado.ports import Archive
from wado.transcode_settings import TranscodeSettings

JPEG = "1.2.840.10008.1.2.4."
BASELINE, JPEG_LOSSLESS, JPEG_LS, JPIP = (f"{JPEG}{n}" for n in (50, 70, 80, 94))
EXPLICIT = "1.2.840.10008.1.2.1"
FRAMES = 13


# ------------------------------------------------------------------ pixels


REAL = [
    "syntaxes/ctimage/cornerstonewadoimageloader__CTImage.dcm_JPEG2000TransferSyntax_1.2.840.10008.1.2.4.91.dcm",
    "syntaxes/wg04/dicom-test-files__CT1_JLSL.dcm",
    "syntaxes/wg04/dicom-test-files__MR1_RLE.dcm",
    "syntaxes/pydicom__image_dfl.dcm",
    "syntaxes/pydicom__ExplVR_BigEnd.dcm",
    "color/pydicom__GDCMJ2K_TextGBR.dcm",
    "multiframe/dcm4che__US-PAL-8-10x-echo.dcm",
    "multiframe/pydicom-data__emri_small.dcm",
]


@pytest.mark.parametrize("target", [JPEG_LOSSLESS, HTJ2K_RPCL])
@pytest.mark.parametrize("name", REAL)
def test_copies_of_real_images_have_their_pixels(
    converter: Converter, corpus: Path, name: str, target: str
) -> None:
    """By decoders that are not ours."""
    original = corpus / name
    path = made(converter, asked(stored(converter.archive, original), target))
    expected, found = pixels_of(original), pixels_of(path)
    assert len(found) == len(expected)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(other, one)


def test_copy_is_the_original_but_for_its_pixels(converter: Converter) -> None:
    ds = deflated(synthetic.multi_frame(FRAMES, patient_id="one", SeriesDescription="kept"))
    path = made(converter, asked(stored(converter.archive, ds)))
    copy = pydicom.dcmread(path)
    assert copy.file_meta.TransferSyntaxUID == HTJ2K_RPCL
    assert copy.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    left = {e.tag for e in copy} ^ {e.tag for e in ds}
    assert not left
    changed = {e.keyword for e in copy if ds[e.tag].value != e.value}
    assert changed == {"PixelData"}
    (row,) = rows(converter.archive)
    assert (row.succeeded, row.number_of_frames, row.derived_size) == (
        True,
        FRAMES,
        path.stat().st_size,
    )
    assert row.codec
    assert "OpenJPH" in row.codec
    assert row.transfer_syntax_uid == DEFLATED_FRAMES
    assert row.duration_ms > 0
    assert row.derived_path == str(path)[-len(row.derived_path or "") :]


def test_frames_of_a_large_object_are_worked_on_together_and_stay_in_order(
    converter: Converter,
) -> None:
    ds = synthetic.multi_frame(60, rows=64, columns=64)
    expected = ds.pixel_array.copy()
    assert len({frame.tobytes() for frame in expected}) == 60
    path = made(converter, asked(stored(converter.archive, deflated(ds)), JPEG_LS))
    np.testing.assert_array_equal(pixel_array(path), expected)
    assert len(converter.pixels.pids()) == 2


def test_image_by_plane_becomes_colour_by_pixel(converter: Converter) -> None:
    """Also where it stays native: so readers need not look at each copy."""
    ds = synthetic.colour()
    planes = np.moveaxis(ds.pixel_array, 2, 0)
    ds.PlanarConfiguration = 1
    ds.PixelData = planes.tobytes()
    meta = stored(converter.archive, synthetic.with_transfer_syntax(ds, "1.2.840.10008.1.2.2"))
    for target in (EXPLICIT, JPEG_LOSSLESS):
        path = made(converter, asked(meta, target))
        assert pydicom.dcmread(path).PlanarConfiguration == 0
        np.testing.assert_array_equal(pixel_array(path), np.moveaxis(planes, 0, 2))


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("syntaxes/pydicom-data__liver_deflate.dcm", 3),
        ("syntaxes/pydicom-data__liver_nonbyte_aligned_deflate.dcm", 3),
    ],
)
def test_what_does_not_fit_the_target_becomes_native(
    converter: Converter, corpus: Path, name: str, frames: int
) -> None:
    """Pixels of one bit, which HTJ2K can't have, in a transfer syntax that nobody shows."""
    meta = asked(stored(converter.archive, corpus / name))
    path = made(converter, meta)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == EXPLICIT
    for one, other in zip(pixels_of(corpus / name), pixels_of(path), strict=True):
        np.testing.assert_array_equal(other, one)
    assert len(pixels_of(path)) == frames
    (row,) = rows(converter.archive)
    assert row.target_transfer_syntax_uid == EXPLICIT
    assert convert(converter, meta) is None, "that copy is there, and is what would be made"


def test_what_does_not_fit_and_can_be_shown_stays_alone(converter: Converter, corpus: Path) -> None:
    meta = stored(converter.archive, corpus / "syntaxes/pydicom-data__liver_rle.dcm")
    assert "1-bit pixels" in failure(converter, asked(meta))


# ------------------------------------------------------------------ loss


def test_lossy_copy_says_so(converter: Converter) -> None:
    ds = synthetic.multi_frame(3, rows=64, columns=64)
    meta = stored(converter.archive, ds)
    path = made(converter, asked(meta, BASELINE, quality=80))
    copy = pydicom.dcmread(path)
    assert copy.LossyImageCompression == "01"
    assert copy.LossyImageCompressionMethod == "ISO_10918_1"
    frames = pydicom.encaps.generate_frames(copy.PixelData, number_of_frames=3)
    ratio = len(ds.PixelData) / sum(map(len, frames))
    assert float(copy.LossyImageCompressionRatio) == pytest.approx(ratio, rel=0.02)
    derived = derived_of(converter.archive, ds).copies[BASELINE]
    assert derived.lossy
    assert np.abs(pixel_array(path).astype(int) - ds.pixel_array).max() < 40


def test_history_of_loss_is_kept(converter: Converter) -> None:
    ds = synthetic.multi_frame(2, rows=32, columns=32)
    ds.LossyImageCompression = "01"
    ds.LossyImageCompressionRatio = ["9.5", "3"]
    ds.LossyImageCompressionMethod = ["ISO_10918_1", "ISO_15444_1"]
    meta = stored(converter.archive, deflated(ds))
    lossless = pydicom.dcmread(made(converter, asked(meta)))
    assert lossless.LossyImageCompression == "01"
    assert lossless.LossyImageCompressionMethod == ["ISO_10918_1", "ISO_15444_1"]
    assert not derived_of(converter.archive, ds).copies[HTJ2K_RPCL].lossy
    lossy = pydicom.dcmread(made(converter, asked(meta, BASELINE, quality=90)))
    assert lossy.LossyImageCompressionMethod == ["ISO_10918_1", "ISO_15444_1", "ISO_10918_1"]
    assert list(lossy.LossyImageCompressionRatio[:2]) == [9.5, 3]
    assert len(lossy.LossyImageCompressionRatio) == 3


def test_nothing_is_lost_unasked(converter: Converter) -> None:
    meta = stored(converter.archive, synthetic.multi_frame(2))
    assert "rule" in failure(converter, asked(meta, BASELINE))


# ------------------------------------------------------------------ failures


def test_damaged_frame_is_named(converter: Converter) -> None:
    good = deflated(synthetic.multi_frame(4))
    frames = list(pydicom.encaps.generate_frames(good.PixelData, number_of_frames=4))
    frames[2] = b"\x07not deflated"
    ds = synthetic.encapsulated(good, DEFLATED_FRAMES, frames)
    reason = failure(converter, asked(stored(converter.archive, ds)))
    assert reason.startswith("frame 3 of 4: ")


def test_frames_that_are_no_images_are_a_failure(converter: Converter) -> None:
    reason = failure(converter, asked(stored(converter.archive, broken(synthetic.ct()))))
    assert "JPEG XL" in reason


def test_pixels_kept_elsewhere_are_a_failure_that_says_so(converter: Converter) -> None:
    ds = synthetic.ct()
    del ds.PixelData
    ds.PixelDataProviderURL = "https://pacs.example.org/jpip?token=secret"
    ds = synthetic.with_transfer_syntax(ds, JPIP)
    reason = failure(converter, asked(stored(converter.archive, ds)))
    assert "JPIP at pacs.example.org" in reason
    assert "secret" not in reason


def test_no_pixels_is_a_failure(converter: Converter) -> None:
    meta = stored(converter.archive, synthetic.structured_report())
    assert failure(converter, asked(meta)) == "it has no pixel data"


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"Rows": 65535, "Columns": 65535}, "4294836225 pixels"),
        ({"NumberOfFrames": 2**31 - 1}, "frames"),
        ({"NumberOfFrames": 3}, "3 frames"),
        ({"Rows": 0}, "no image"),
        ({"BitsAllocated": 4096, "BitsStored": 4096}, "no image"),
        ({"SamplesPerPixel": 65535}, "frame 1 of 2"),
    ],
)
def test_attributes_that_lie_are_a_failure(
    converter: Converter, attributes: dict[str, int], why: str
) -> None:
    ds = copies.jpeg_xl(synthetic.multi_frame(2))
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    assert why in failure(converter, asked(stored(converter.archive, ds)))


def test_native_pixels_beyond_what_a_value_may_have_are_refused(converter: Converter) -> None:
    """Four gigabytes of pixels, out of frames of a few bytes each."""
    ds = synthetic.multi_frame(2, rows=4, columns=4)
    frame = next(pydicom.encaps.generate_frames(deflated(ds).PixelData, number_of_frames=2))
    bomb = synthetic.encapsulated(ds, DEFLATED_FRAMES, [frame] * 3)
    bomb.Rows = bomb.Columns = 16_000
    bomb.NumberOfFrames = 3
    meta = stored(converter.archive, bomb)
    assert "frame 1 of 3" in failure(converter, asked(meta, EXPLICIT))


def test_what_is_recorded_as_failed_is_tried_again_only_if_asked(converter: Converter) -> None:
    meta = asked(stored(converter.archive, broken(synthetic.ct())))
    failure(converter, meta)
    assert convert(converter, meta) is None
    again = convert(converter, meta, again=True)
    assert again is not None
    assert announce(converter.archive, converter.journals, [again]) == [again]


def test_wrong_copies_are_not_kept(converter: Converter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were we to write a file that lacks a frame, nobody would get it."""
    rest = image_conversion._Frames.rest

    def without_the_last(
        self: image_conversion._Frames, first: tuple[bytes, str]
    ) -> Iterator[bytes]:
        *frames, _ = rest(self, first)
        return iter(frames)

    monkeypatch.setattr(image_conversion._Frames, "rest", without_the_last)
    meta = asked(stored(converter.archive, deflated(synthetic.multi_frame(3))))
    assert "the copy is not right" in failure(converter, meta)


# ------------------------------------------------------------------ what may pass later


def test_crash_is_tried_again_and_recorded_at_last(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_conversion, "copy_frame", pixel_jobs.die_of_it)
    monkeypatch.setattr(image_conversion, "copy_frame_file", pixel_jobs.die_of_it)
    monkeypatch.setenv("PYTHONPATH", str(Path(pixel_jobs.__file__).parent))
    pixels = PixelWorkers(workers=1, timeout_s=200, max_memory_bytes=8 << 30)
    settings = TranscodeSettings(attempts=2)
    converter = Converter(archive, Journals(archive.store), pixels, settings)
    try:
        meta = asked(stored(archive, deflated(synthetic.ct())))
        with pytest.raises(CutShort, match="died"):
            convert(converter, meta)
        assert no_copies(archive)
        last = convert(converter, replace(meta, attempt=2))
        assert last is not None
        assert "died" in (last.row.reason or "")
        assert last.row.attempt == 2
        converter.stop.set()
        with pytest.raises(Unavailable):
            convert(converter, replace(meta, attempt=2))
    finally:
        pixels.close()


def test_a_bad_place_on_the_disk_is_tried_again_and_recorded_at_last(
    converter: Converter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    meta = asked(stored(converter.archive, deflated(synthetic.ct())))
    monkeypatch.setattr(conversion, "convert_image", unreadable)
    with pytest.raises(CutShort):
        convert(converter, meta)
    last = replace(meta, attempt=converter.settings.attempts)
    assert failure(converter, last) == "it can't be read: Input/output error"
