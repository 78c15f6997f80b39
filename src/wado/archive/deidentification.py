"""An instance made anew without who it is of; its pixels are a range of the stored file."""

from collections.abc import Mapping
from typing import Any

from wado.archive.pieces import Piece
from wado.archive.retrieve import Item, slices
from wado.archive.values import is_plain
from wado.dicom.dataset_writer import Place, element_head, encode
from wado.dicom.deidentification import deidentified
from wado.dicom.image import first_value
from wado.dicom.media_types import EXPLICIT_VR_LITTLE_ENDIAN, is_native
from wado.dicom.part10 import file_meta
from wado.errors import CannotUnderstand, InvalidRequest

_PIXEL_DATA = 0x7FE00010
_MAX_NATIVE_BYTES = 0xFFFFFFFE


def deidentified_instance(
    found: Item, metadata: Mapping[str, Any], key: bytes
) -> tuple[Piece, ...]:
    """Make the file of an instance in Explicit VR Little Endian, as pieces.

    Raises
    ------
    InvalidRequest
        It can't be done so that nobody can be recognised, with the reason.
    """
    entry, pixel = found.entry, found.entry.pixel
    if pixel is None or not is_native(entry.transfer_syntax_uid) or not is_plain(entry):
        raise InvalidRequest("only images that are stored uncompressed can be de-identified here")
    if not 0 < pixel.length <= _MAX_NATIVE_BYTES:
        raise InvalidRequest("the image has no pixels that could be copied")
    kept = deidentified(metadata, key)
    try:
        head = encode(kept, _nowhere, {})
    except CannotUnderstand as e:
        raise InvalidRequest(f"the image can't be written anew: {e}") from e
    pixels = slices(found, [(pixel.offset, pixel.length)])
    meta = file_meta(
        str(first_value(kept, "00080016")), str(first_value(kept, "00080018")),
        EXPLICIT_VR_LITTLE_ENDIAN,
    )  # fmt: skip
    data_set = b"".join(piece for piece in head if isinstance(piece, bytes))
    return (meta + data_set + element_head(_PIXEL_DATA, _vr(metadata), pixel.length), *pixels)


def _vr(metadata: Mapping[str, Any]) -> str:
    """VR of native Pixel Data (PS3.5 §8.2): words, but for pixels of a byte that say so."""
    bits = first_value(metadata, "00280100")
    return "OB" if bits == 8 and metadata["7FE00010"].get("vr") == "OB" else "OW"


def _nowhere(uri: str) -> Place:
    raise CannotUnderstand(f"a value lies elsewhere: {uri[:80]}")
