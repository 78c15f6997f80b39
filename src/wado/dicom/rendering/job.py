"""The work of one frame, from its bytes to a picture in a file: what a worker process is given.

Arrays are imported when the work is done, not before: the server names `render_frame`, and must
not load numpy for that.
"""

from typing import NamedTuple

from wado.dicom.image import ImagePixel
from wado.dicom.rendering.display import Display
from wado.dicom.rendering.options import IccProfile
from wado.dicom.rendering.placement import Placement


class Form(NamedTuple):
    """The file that is wanted."""

    media_type: str
    quality: int
    placement: Placement
    icc_profile: IccProfile = "no"


def render_frame(
    frame: bytes, image: ImagePixel, transfer_syntax_uid: str, display: Display, form: Form
) -> bytes:
    """Decode, show and encode a frame.

    Parameters
    ----------
    frame
        Its bytes as stored, native ones in little endian and from a byte boundary on.
    image, transfer_syntax_uid
        How they are to be read.
    display
        How the instance is to be shown.
    form
        What to make of it.

    Returns
    -------
    file
        A file of the media type asked for.

    Raises
    ------
    CannotUnderstand
        The frame can't be decoded, or its colours are unknown.
    """
    from wado.dicom.rendering.pipeline import rendered  # noqa: PLC0415 - imports numpy

    return rendered(frame, image, transfer_syntax_uid, display, form)
