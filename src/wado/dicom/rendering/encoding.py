"""Pictures as files of the rendered media types (PS3.18 Table 8.7.4-1)."""

from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageCms

from wado.dicom.rendering.options import IccProfile
from wado.errors import CannotUnderstand, NotAcceptable

_FINE_QUALITY = 90
"""From this quality on, colour keeps its resolution."""
_PNG_LEVEL = 3
"""Compresses as well as most, in a third of the time."""
_GIF_COLOURS = 256
_ICC_DATE = slice(24, 36)
"""Where an ICC profile holds its date: ours has none, so that a picture is always the same."""


def encoded(image: Image.Image, media_type: str, quality: int, icc_profile: bytes = b"") -> bytes:
    """Encode a picture.

    Raises
    ------
    NotAcceptable
        Another media type than jpeg, png, gif or jp2.
    """
    out = BytesIO()
    icc = {"icc_profile": icc_profile} if icc_profile else {}
    if media_type == "image/jpeg":
        subsampling = "4:4:4" if quality >= _FINE_QUALITY else "4:2:0"
        image.save(out, "JPEG", quality=quality, subsampling=subsampling, **icc)
    elif media_type == "image/png":
        image.save(out, "PNG", compress_level=_PNG_LEVEL, **icc)
    elif media_type == "image/gif":
        if image.mode != "L":
            image = image.quantize(_GIF_COLOURS, Image.Quantize.MEDIANCUT)
        image.save(out, "GIF")
    elif media_type == "image/jp2":
        image.save(out, "JPEG2000", irreversible=quality < 100, quality_mode="dB",
                   quality_layers=[_decibel(quality)])  # fmt: skip
    else:
        raise NotAcceptable(f"no picture can be had as {media_type}")
    return out.getvalue()


def _decibel(quality: int) -> float:
    """Signal to noise ratio of JPEG 2000 that looks like this quality of JPEG; 0 is lossless."""
    return 0.0 if quality == 100 else 20.0 + 0.3 * quality


def with_profile(
    image: Image.Image, wanted: IccProfile, own_profile: bytes
) -> tuple[Image.Image, bytes]:
    """Give the picture the profile that is wanted, and the profile to go with it.

    An image without one is taken for sRGB (PS3.18 §8.3.5.1.5).

    Raises
    ------
    CannotUnderstand
        The image's own profile can't be read.
    """
    if wanted == "no":
        return image, b""
    image = image.convert("RGB")
    if wanted == "yes" or not own_profile:
        return image, own_profile or srgb_profile()
    try:
        own = ImageCms.ImageCmsProfile(BytesIO(own_profile))
        srgb = ImageCms.ImageCmsProfile(BytesIO(srgb_profile()))
        changed = ImageCms.profileToProfile(image, own, srgb)
    except (ImageCms.PyCMSError, OSError, ValueError) as e:
        raise CannotUnderstand(f"the ICC profile of the image can't be used: {e}") from e
    return changed or image, srgb_profile()


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """Make the ICC profile of sRGB, without a date."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[_ICC_DATE] = bytes(12)
    return bytes(profile)
