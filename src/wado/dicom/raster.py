"""Images that DICOM doesn't hold as they are (PNG, GIF, progressive JPEG), decoded to pixels.

Runs in a worker process: the libraries are slow to load, and the files come from strangers.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from wado.errors import CannotUnderstand, TooLarge

if TYPE_CHECKING:
    from PIL.Image import Image

_SIXTEEN_BITS = frozenset({"I;16", "I;16B", "I;16L", "I"})
_WHITE = (255, 255, 255, 255)


@dataclass(frozen=True, slots=True)
class Raster:
    """Pixels as native little-endian bytes, frame by frame, samples of a pixel together."""

    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    number_of_frames: int
    frame_time_ms: float | None
    lossy: bool
    data: bytes


def decode_raster(data: bytes, max_pixels: int) -> Raster:
    """Decode an image, all frames of an animation; transparent parts become white.

    Raises
    ------
    CannotUnderstand
        Not such an image, or it is broken.
    TooLarge
        It has more than `max_pixels` pixels in all its frames.
    """
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - slow to import

    Image.MAX_IMAGE_PIXELS = None  # the limit is ours
    try:
        with Image.open(BytesIO(data), formats=("PNG", "GIF", "JPEG")) as image:
            count = getattr(image, "n_frames", 1)
            if image.width * image.height * count > max_pixels:
                raise TooLarge(
                    f"{image.width} x {image.height} x {count} pixels: over {max_pixels} are "
                    "not decoded"
                )
            return _raster(image, count, data)
    except UnidentifiedImageError as e:
        raise CannotUnderstand("not an image of the media type that is named") from e
    except (OSError, SyntaxError, ValueError, EOFError) as e:
        raise CannotUnderstand(f"the image can't be decoded: {e}") from e


def _raster(image: "Image", count: int, data: bytes) -> Raster:
    if image.format == "PNG" and (image.mode in _SIXTEEN_BITS or _depth(data) == 16):
        return _sixteen_bits(data)
    frames, durations = [], []
    gray = image.mode in ("1", "L") and count == 1
    for index in range(count):
        image.seek(index)
        durations.append(float(image.info.get("duration") or 0))
        frames.append((image.convert("L") if gray else _opaque(image)).tobytes())
    return Raster(
        rows=image.height,
        columns=image.width,
        samples_per_pixel=1 if gray else 3,
        bits_allocated=8,
        number_of_frames=count,
        frame_time_ms=(sum(durations) / count or None) if count > 1 else None,
        lossy=image.format == "JPEG",
        data=b"".join(frames),
    )


def _depth(png: bytes) -> int:
    """Bits of a sample, from the IHDR chunk."""
    return png[24]


def _opaque(image: "Image") -> "Image":
    """As RGB, on white where it is transparent."""
    from PIL import Image  # noqa: PLC0415 - slow to import

    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, _WHITE)
    ground.alpha_composite(image.convert("RGBA"))
    return ground.convert("RGB")


def _sixteen_bits(data: bytes) -> Raster:
    """A PNG of 16 bits: the other library would cut colour to 8."""
    import imagecodecs  # noqa: PLC0415 - slow to import

    try:
        pixels: Any = imagecodecs.png_decode(data)
    except imagecodecs.PngError as e:
        raise CannotUnderstand(f"the image can't be decoded: {e}") from e
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):  # an alpha channel
        opacity = pixels[..., -1:].astype("f8") / 65535
        pixels = (pixels[..., :-1] * opacity + 65535 * (1 - opacity)).round().astype("u2")
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    return Raster(
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        samples_per_pixel=1 if pixels.ndim == 2 else 3,
        bits_allocated=16,
        number_of_frames=1,
        frame_time_ms=None,
        lossy=False,
        data=pixels.astype("<u2").tobytes(),
    )
