"""Describe a stored file: its metadata as DICOM JSON, its bulk values and frames by position."""

from base64 import b64decode
from dataclasses import dataclass, replace
from struct import unpack
from typing import Any

from wado.dicom.elements import Mode
from wado.dicom.frames import PixelData, frame_starts, native_frame_bits
from wado.dicom.json_model import Found, Walk, in_order
from wado.dicom.part10 import MAX_FILE_META_BYTES, FileMeta, Incomplete, read_file_meta
from wado.dicom.sop_classes import TransferSyntax, transfer_syntax
from wado.dicom.window import FIRST_WINDOW, InflatedReader, Read, Window
from wado.errors import CannotUnderstand, WadoError

_AVAILABLE_TRANSFER_SYNTAX_UID = "00083002"
_EXTENDED_OFFSET_TABLE = "7FE00001"
_MAX_OFFSET_TABLE = 1 << 26


@dataclass(frozen=True, slots=True)
class Description:
    """What a stored file holds.

    Attributes
    ----------
    file_meta
        Its File Meta Information.
    metadata
        DICOM JSON Model of the data set, ready for a JSON writer. BulkDataURIs are relative to the
        series: ``instances/<SOP Instance UID>/bulkdata/<tag path>``.
    bulk
        Tag path (``7FE00010``, ``54000100/0/54001010``) to offset and length of each bulk value:
        in the file, or in the inflated data set if the transfer syntax is deflated.
    pixel
        Pixel Data and its frames; None if there is none.
    """

    file_meta: FileMeta
    metadata: dict[str, Any]
    bulk: dict[str, tuple[int, int]]
    pixel: PixelData | None


def describe(read: Read, file_size: int) -> Description:
    """Read the metadata of a stored file, passing over pixel data and other bulk values.

    Parameters
    ----------
    read
        Gives `length` bytes of the file from `offset`.
    file_size
        Size of the file in bytes.

    Raises
    ------
    CannotUnderstand
        Not a DICOM file, or it ends early, or breaks rules beyond what can be followed.

    References
    ----------
    PS3.10 §7; PS3.18 Annex F.
    """
    file_meta, head = _file_meta(read, file_size)
    syntax = transfer_syntax(file_meta.transfer_syntax_uid)
    if syntax.deflated:
        read = InflatedReader(read, file_size, file_meta.data_set_offset)
        window, start = Window(read, read.size()), 0
    else:
        window, start = Window(read, file_size, head), file_meta.data_set_offset
    found = _walk_somehow(window, start, syntax)
    _finish(found, file_meta)
    pixel = _pixel_data(found, read) if found.pixels else None
    if pixel and syntax.deflated:
        pixel = replace(pixel, deflated=True)
    return Description(file_meta, found.metadata, found.bulk, pixel)


def _file_meta(read: Read, file_size: int) -> tuple[FileMeta, bytes]:
    head = read(0, min(FIRST_WINDOW, file_size))
    try:
        return read_file_meta(head), head
    except Incomplete:
        if len(head) == file_size:
            raise
    head = read(0, min(MAX_FILE_META_BYTES + FIRST_WINDOW, file_size))
    return read_file_meta(head), head


def _walk_somehow(window: Window, start: int, syntax: TransferSyntax) -> Found:
    """Walk a data set; leave what is surprising to pydicom, which forgives more."""
    try:
        return _walk(window, start, syntax)
    except (WadoError, OSError):
        raise  # a store that doesn't answer says nothing about the file
    except Exception as surprise:  # noqa: BLE001 - hostile data finds ways that nobody thought of
        from wado.dicom.patient_reader import read_patiently  # noqa: PLC0415 - imports pydicom

        return read_patiently(window, start, syntax, surprise)


def _walk(window: Window, start: int, syntax: TransferSyntax) -> Found:
    mode = Mode.IMPLICIT if syntax.implicit else Mode.EXPLICIT
    walk = Walk(window, big_endian=syntax.big_endian)
    found = walk.data_set(start, mode)
    sign = walk.pixel_representation
    if not (walk.guessed and sign):
        return found
    # Values were met before the Pixel Representation that says whether they have a sign.
    return Walk(window, big_endian=syntax.big_endian, pixel_representation=sign).data_set(
        start, mode
    )


def _finish(found: Found, file_meta: FileMeta) -> None:
    """Add what is known only at the end: BulkDataURIs and the stored transfer syntax."""
    uid = _first(found.metadata, "00080018") or file_meta.sop_instance_uid
    for element, path in found.bulk_elements:
        element["BulkDataURI"] = f"instances/{uid}/bulkdata/{path}"
    found.metadata[_AVAILABLE_TRANSFER_SYNTAX_UID] = {
        "vr": "UI",
        "Value": [file_meta.transfer_syntax_uid],
    }
    found.metadata = in_order(found.metadata)


def _first(metadata: dict[str, Any], tag: str) -> Any:
    values = metadata.get(tag, {}).get("Value")
    return values[0] if values else None


def _pixel_data(found: Found, read: Read) -> PixelData:
    pixels = found.pixels
    assert pixels is not None
    frames = _first(found.metadata, "00280008")
    number = frames if isinstance(frames, int) and frames > 0 else 1
    pixel = PixelData(pixels.offset, pixels.length, pixels.items is not None, number)
    if pixels.items is None:
        bits = native_frame_bits(lambda tag: _first(found.metadata, tag), pixels.tag)
        if frames is not None and frames != number and bits:
            # Number of Frames is no number; how much there is tells it as well.
            number = max(1, pixels.length * 8 // bits)
            pixel = replace(pixel, number_of_frames=number)
        return replace(pixel, frame_bits=bits, reason=_native_reason(pixels.length, number, bits))
    pixel = replace(pixel, fragments=tuple(pixels.items[2:]))
    try:
        starts = frame_starts(read, pixels.items, number, _extended_offset_table(found, read))
    except CannotUnderstand as e:
        return replace(pixel, reason=str(e))
    return replace(pixel, starts=starts)


def _native_reason(length: int, number: int, bits: int | None) -> str:
    if bits is None:
        return "Rows, Columns, Samples per Pixel or Bits Allocated is missing"
    needed = (bits * number + 7) // 8
    return f"Pixel Data holds {length} bytes, its attributes ask for {needed}" * (needed > length)


def _extended_offset_table(found: Found, read: Read) -> list[int]:
    """Extended Offset Table (7FE0,0001) of 64 bit offsets (PS3.3 §C.7.6.3.1.8); empty if absent."""
    if _EXTENDED_OFFSET_TABLE in found.bulk:
        offset, length = found.bulk[_EXTENDED_OFFSET_TABLE]
        table = read(offset, min(length, _MAX_OFFSET_TABLE))
    else:
        table = b64decode(found.metadata.get(_EXTENDED_OFFSET_TABLE, {}).get("InlineBinary", ""))
    return list(unpack(f"<{len(table) // 8}Q", table[: len(table) // 8 * 8]))
