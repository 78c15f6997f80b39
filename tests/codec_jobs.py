"""Jobs for tests of codecs on hostile frames; run in processes of their own."""

import resource

from wado.dicom.image import ImagePixel
from wado.dicom.transcode import decode


def load() -> int:
    """Load all codecs; the most memory of this process in KiB."""
    import rle.utils  # noqa: F401, PLC0415
    from openjpeg import utils  # noqa: F401, PLC0415

    import wado.dicom.codecs  # noqa: F401, PLC0415

    return peak_kib()


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def shape_of(data: bytes, image: ImagePixel, transfer_syntax_uid: str) -> tuple[int, ...]:
    """Decode; of the pixels only the shape is sent back."""
    shape: tuple[int, ...] = decode(data, image, transfer_syntax_uid).pixels.shape
    return shape
