"""Pictures as files, and animations put together from them."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageCms

from wado.dicom.rendering.animation import animated
from wado.dicom.rendering.encoding import encoded, srgb_profile, with_profile
from wado.errors import CannotUnderstand, NotAcceptable

GRADIENT = Image.fromarray(np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8) * 2)
COLOUR = Image.merge("RGB", (GRADIENT, GRADIENT.transpose(Image.Transpose.ROTATE_180), GRADIENT))


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("image", [GRADIENT, COLOUR], ids=["gray", "colour"])
@pytest.mark.parametrize(
    ("media_type", "name", "error"),
    [("image/jpeg", "JPEG", 6), ("image/png", "PNG", 0), ("image/gif", "GIF", 25),
     ("image/jp2", "JPEG2000", 15)],
)  # fmt: skip
def test_formats(image: Image.Image, media_type: str, name: str, error: int):
    found = opened(encoded(image, media_type, 90))
    assert found.format == name
    differences = np.asarray(found.convert("RGB"), int) - np.asarray(image.convert("RGB"), int)
    assert np.abs(differences).max() <= error


def test_quality():
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64), np.uint8))
    sizes = [len(encoded(noise, "image/jpeg", quality)) for quality in (1, 50, 100)]
    assert sizes == sorted(set(sizes))


def test_other_media_types():
    with pytest.raises(NotAcceptable):
        encoded(GRADIENT, "image/webp", 90)


def test_profiles():
    assert with_profile(GRADIENT, "no", b"own") == (GRADIENT, b"")
    image, profile = with_profile(GRADIENT, "yes", b"")
    assert image.mode == "RGB"
    assert profile == srgb_profile()
    for media_type in ("image/jpeg", "image/png"):
        assert opened(encoded(image, media_type, 90, profile)).info["icc_profile"] == profile
    assert with_profile(COLOUR, "yes", b"own")[1] == b"own"
    ImageCms.ImageCmsProfile(io.BytesIO(profile))


def test_a_picture_is_turned_into_srgb():
    image, profile = with_profile(COLOUR, "srgb", srgb_profile())
    assert np.abs(np.asarray(image, int) - np.asarray(COLOUR, int)).max() <= 1
    assert profile == srgb_profile()
    # A profile in which red and blue have changed places.
    swapped = profile.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")
    red, _ = with_profile(Image.new("RGB", (1, 1), (200, 10, 10)), "srgb", swapped)
    assert np.abs(np.asarray(red, int)[0, 0] - [10, 10, 200]).max() <= 2
    with pytest.raises(CannotUnderstand):
        with_profile(COLOUR, "srgb", b"no profile")


# ------------------------------------------------------------------ animations


def pictures() -> list[Image.Image]:
    red = Image.new("RGB", (30, 20), (200, 10, 10))
    return [red, COLOUR.resize((30, 20)), GRADIENT.resize((30, 20))]


def test_frames_keep_their_colours_and_times():
    data = b"".join(animated((encoded(p, "image/gif", 90) for p in pictures()), 40.0))
    found = Image.open(io.BytesIO(data))
    assert (found.format, found.size, found.n_frames) == ("GIF", (30, 20), 3)  # type: ignore[attr-defined]
    assert found.info["loop"] == 0
    for index, picture in enumerate(pictures()):
        found.seek(index)
        assert found.info["duration"] == 40
        shown = np.asarray(found.convert("RGB"), int)
        assert np.abs(shown - np.asarray(picture.convert("RGB"), int)).max() <= 25


@pytest.mark.parametrize(("delay_ms", "shown"), [(0.1, 10), (66.6, 70), (1e9, 655350)])
def test_times_that_gif_can_say(delay_ms: float, shown: int):
    data = b"".join(animated([encoded(GRADIENT, "image/gif", 90)] * 2, delay_ms))
    assert opened(data).info["duration"] == shown


def test_frames_are_made_one_by_one():
    made = []

    def one_by_one() -> Iterator[bytes]:
        for picture in pictures():
            made.append(picture)
            yield encoded(picture, "image/gif", 90)

    stream = animated(one_by_one(), 100)
    next(stream)
    assert len(made) == 1


@pytest.mark.parametrize("data", [b"\xff\xd8\xff", encoded(GRADIENT, "image/png", 90)])
def test_other_files_are_no_frames(data: bytes):
    with pytest.raises(CannotUnderstand):
        list(animated([data], 100))
