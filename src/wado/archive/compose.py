"""Instances that come as metadata with bulk data (PS3.18 §10.5) become PS3.10 files.

Explicit VR Little Endian, or encapsulated Pixel Data as the bulk data is; text in UTF-8. What the
archive changes of the metadata is recorded in the Original Attributes Sequence.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from wado.archive.journal import Journals
from wado.archive.pixel_workers import PixelWorkers
from wado.archive.spool import Spool, SpooledPart
from wado.archive.store import Announced, Reception, Source
from wado.dicom.coded_media import Coded, NeedsDecoding
from wado.dicom.dataset_writer import UTF_8, Piece, Place, encode, inline_binary, keys_of
from wado.dicom.image import PIXEL_DATA, first_value
from wado.dicom.media_types import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    OCTET_STREAM,
    is_native,
    media_type_of,
)
from wado.dicom.part10 import IMPLEMENTATION_VERSION_NAME
from wado.dicom.pixel_elements import encapsulated, native, native_length
from wado.dicom.raster import Raster, decode_raster
from wado.dicom.uids import InstanceRef, StudyRef
from wado.dicom.wrapped_media import (
    COMPRESSED,
    RASTERS,
    Changes,
    check_image_class,
    coded_changes,
    coded_media,
    document_changes,
    frame_changes,
    raster_changes,
    transfer_syntax_of,
)
from wado.errors import CannotUnderstand, InvalidUID, TooLarge, WadoError
from wado.ports import Archive

_WRITE_BYTES = 1 << 18
_MAX_RASTER_BYTES = 32 << 20
"""Longest file that is decoded: it is handed to a worker process whole."""
_HEAD_BYTES = 1024
_DOCUMENT = "00420011"
_CHARACTER_SET = "00080005"
_ORIGINAL = "04000561"
_IDENTITY = {
    "SOP Class UID (0008,0016)": "00080016",
    "SOP Instance UID (0008,0018)": "00080018",
    "Study Instance UID (0020,000D)": "0020000D",
    "Series Instance UID (0020,000E)": "0020000E",
}
_LITTLE_ENDIAN = frozenset({EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2"})
"""Transfer syntaxes whose native pixels are as in Explicit VR Little Endian."""
_OFFSET_TABLES = ("7FE00001", "7FE00002")


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where instances are composed, for whom, and what of."""

    archive: Archive
    journals: Journals
    pixels: PixelWorkers
    spool: Spool
    tenant_id: str
    source: Source
    study: StudyRef | None
    max_pixels: int


@dataclass(slots=True)
class Composed:
    """An instance on its way in; `notes` say what the sender should know of it.

    `is_coerced` if attributes were changed, which is recorded in it.
    """

    reception: Reception
    is_coerced: bool
    notes: list[str]


@dataclass(slots=True)
class _Draft:
    """A data set being made ready."""

    metadata: dict[str, Any]
    transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN
    ready: dict[str, list[Piece]] = field(default_factory=dict)
    originals: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def apply(self, changes: Changes) -> None:
        for key, element in changes.replaced.items():
            self.replace(key, element)
        self.metadata |= changes.added

    def replace(self, key: str, element: Any) -> None:
        self.originals[key] = self.metadata[key]
        self.metadata[key] = element


def identity(metadata: Any) -> tuple[str, str]:
    """SOP Class and SOP Instance UID of an instance, as far as they are there, for its answer."""
    if not isinstance(metadata, Mapping):
        return "", ""
    elements = {str(key).upper(): value for key, value in metadata.items()}
    found = []
    for key in ("00080016", "00080018"):
        try:
            value = first_value(elements, key)
        except (AttributeError, TypeError, LookupError):
            value = None
        found.append(value if isinstance(value, str) and len(value) <= 64 else "")
    return found[0], found[1]


def compose(shop: Workshop, metadata: Any) -> Composed:
    """Write one instance; the caller commits its reception.

    Raises
    ------
    WadoError
        It can't be stored; nothing of it is left.
    """
    draft = _Draft(keys_of(metadata))
    sop_class_uid, ref = _identify(shop, draft)
    _bulk_pixels(shop, draft, sop_class_uid)
    _document(shop, draft, sop_class_uid)
    _inline_pixels(draft)
    _unicode(draft)
    if draft.originals:
        draft.metadata[_ORIGINAL] = _original_attributes(shop, draft, ref)
    pieces = encode(draft.metadata, lambda uri: _place(shop, uri), draft.ready)
    announced = Announced(sop_class_uid, ref.sop_instance_uid, draft.transfer_syntax_uid)
    reception = Reception(
        shop.archive, shop.tenant_id, shop.source, announced=announced, study=shop.study
    )
    try:
        for data in _gathered(pieces):
            reception.write(data)
        reception.finish()
    except BaseException:
        reception.abort()
        raise
    for key in draft.originals:
        text = f"({key[:4]},{key[4:]}) was changed: see Original Attributes Sequence"
        draft.notes.append(text)
    return Composed(reception, bool(draft.originals), draft.notes)


def _identify(shop: Workshop, draft: _Draft) -> tuple[str, InstanceRef]:
    """Take the UIDs, which the Standard doesn't let us make up."""
    values = {}
    for name, key in _IDENTITY.items():
        value = first_value(draft.metadata, key)
        if not isinstance(value, str) or not value.strip("\0 "):
            raise CannotUnderstand(f"the metadata lacks {name}")
        values[key] = value
    try:
        ref = InstanceRef.of(
            shop.tenant_id, values["0020000D"], values["0020000E"], values["00080018"]
        )
    except InvalidUID as e:
        raise CannotUnderstand(str(e)) from e
    return values["00080016"].strip("\0 "), ref


def _gathered(pieces: Iterable[Piece]) -> Iterator[bytes]:
    """Put small pieces together; read what lies elsewhere."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        for data in (piece,) if isinstance(piece, bytes) else piece.read():
            held.append(data)
            size += len(data)
            if size >= _WRITE_BYTES:
                yield b"".join(held)
                held, size = [], 0
    if held:
        yield b"".join(held)


# ------------------------------------------------------------------ bulk data


def _found(shop: Workshop, uri: str) -> list[SpooledPart]:
    parts = shop.spool.parts(uri)
    if not parts:
        raise CannotUnderstand(f"no part of the message has the Content-Location {uri[:200]}")
    return parts


def _place(shop: Workshop, uri: str) -> Place:
    """Value of an element other than Pixel Data: the parts one after the other."""
    parts = _found(shop, uri)
    name = parts[0].media_type.name
    if name in COMPRESSED or name in RASTERS:
        raise CannotUnderstand(f"{name} can be Pixel Data only, not {uri[:200]}")
    return _joined(shop, parts)


def _joined(shop: Workshop, parts: list[SpooledPart]) -> Place:
    return Place(sum(part.length for part in parts), lambda: shop.spool.chunks(parts))


def _part_of(shop: Workshop, part: SpooledPart, start: int, end: int) -> Place:
    return Place(
        end - start,
        lambda: shop.spool.slices(part, start, end),
        lambda first, last: _part_of(shop, part, start + first, start + last),
    )


def _uri_of(draft: _Draft, key: str) -> str | None:
    uri = draft.metadata.get(key, {}).get("BulkDataURI")
    return None if uri is None else str(uri)


def _bulk_pixels(shop: Workshop, draft: _Draft, sop_class_uid: str) -> None:
    uri = _uri_of(draft, PIXEL_DATA)
    if uri is None:
        return
    parts = _found(shop, uri)
    if len({(part.media_type.name, _claimed(part)) for part in parts}) > 1:
        raise CannotUnderstand("the parts of Pixel Data are of several media types")
    name, claimed = parts[0].media_type.name, _claimed(parts[0])
    try:
        if name in RASTERS:
            _decoded(shop, draft, parts, sop_class_uid)
        elif name in COMPRESSED or (name == OCTET_STREAM and not is_native(claimed)):
            _compressed(shop, draft, parts, sop_class_uid)
        elif name == OCTET_STREAM and claimed in _LITTLE_ENDIAN:
            check_image_class(sop_class_uid, several_frames=False)
            draft.ready[PIXEL_DATA] = native(draft.metadata, _joined(shop, parts))
        else:
            raise CannotUnderstand(f"{name[:80]} {claimed[:70]} can't be Pixel Data")
    except NeedsDecoding:
        _decoded(shop, draft, parts, sop_class_uid)


def _claimed(part: SpooledPart) -> str:
    """Transfer syntax that a part names; native if it is an octet stream that names none."""
    claimed = part.media_type.parameters.get("transfer-syntax", "")
    if not claimed and part.media_type.name == OCTET_STREAM:
        return EXPLICIT_VR_LITTLE_ENDIAN
    return claimed


def _compressed(
    shop: Workshop, draft: _Draft, parts: list[SpooledPart], sop_class_uid: str
) -> None:
    """Keep the bit streams as they are: one part is one frame, or a whole video."""
    media_type = parts[0].media_type.name
    if media_type not in COMPRESSED:
        media_type = _media_type_of(_claimed(parts[0]))
    streams = [(part, _coded(shop, part, media_type)) for part in parts]
    coded = streams[0][1]
    if any(_differs(coded, other) for _, other in streams):
        raise CannotUnderstand("the frames differ in size or in how they are coded")
    is_video = coded is not None and coded.is_video
    if is_video and len(parts) > 1:
        raise CannotUnderstand("a video must come as one part")
    frames = (coded.number_of_frames or 0) if coded and is_video else len(parts)
    check_image_class(sop_class_uid, several_frames=is_video or frames > 1)
    if not is_video or not frames:
        _check_frames(draft.metadata, frames)
    draft.transfer_syntax_uid = transfer_syntax_of(coded, _claimed(parts[0]))
    spans = [(part, *_span(part, stream)) for part, stream in streams]
    if coded is not None:
        size = sum(end - start for _, start, end in spans)
        draft.apply(coded_changes(draft.metadata, coded, frames, size))
    else:
        draft.apply(frame_changes(draft.metadata, frames))
        native_length(draft.metadata)  # RLE says nothing of the image: the metadata must
    places = [_part_of(shop, part, start, end) for part, start, end in spans]
    draft.transfer_syntax_uid, draft.ready = encapsulated(
        draft.transfer_syntax_uid, places, is_video=is_video
    )
    for key in _OFFSET_TABLES:  # they told of other fragments
        draft.metadata.pop(key, None)


def _media_type_of(transfer_syntax_uid: str) -> str:
    name = media_type_of(transfer_syntax_uid).lower()
    if name not in COMPRESSED:
        raise CannotUnderstand(f"transfer syntax {transfer_syntax_uid[:70]} can't be stored so")
    return name


def _coded(shop: Workshop, part: SpooledPart, media_type: str) -> Coded | None:
    def read(offset: int, length: int) -> bytes:
        return shop.spool.read_at(part, offset, length)

    return coded_media(media_type, read, part.length)


def _differs(one: Coded | None, other: Coded | None) -> bool:
    if one is None or other is None:
        return False
    return (one.transfer_syntax_uid, one.rows, one.columns, one.samples_per_pixel) != (
        other.transfer_syntax_uid, other.rows, other.columns, other.samples_per_pixel
    )  # fmt: skip


def _span(part: SpooledPart, coded: Coded | None) -> tuple[int, int]:
    return (0, part.length) if coded is None else (coded.start, coded.end)


def _check_frames(metadata: Mapping[str, Any], frames: int) -> None:
    """Check that all frames came: one that is missing must not go unnoticed."""
    stated = first_value(metadata, "00280008")
    if not frames and stated is None:
        raise CannotUnderstand("neither the video nor the metadata tells the Number of Frames")
    if frames and stated is not None and str(stated).strip() != str(frames):
        raise CannotUnderstand(f"Number of Frames is {stated!r:.20}, and {frames} parts came")


def _decoded(shop: Workshop, draft: _Draft, parts: list[SpooledPart], sop_class_uid: str) -> None:
    if len(parts) > 1:
        raise CannotUnderstand("an image that must be decoded has to come as one part")
    if parts[0].length > _MAX_RASTER_BYTES:
        raise TooLarge(f"images of over {_MAX_RASTER_BYTES} bytes are not decoded")
    data = b"".join(shop.spool.chunks(parts))
    raster: Raster = shop.pixels.run(decode_raster, data, shop.max_pixels)
    check_image_class(sop_class_uid, several_frames=raster.number_of_frames > 1)
    draft.apply(raster_changes(draft.metadata, raster))
    place = Place(len(raster.data), lambda: (raster.data,))
    draft.ready[PIXEL_DATA] = native(draft.metadata, place)


def _document(shop: Workshop, draft: _Draft, sop_class_uid: str) -> None:
    uri = _uri_of(draft, _DOCUMENT)
    if uri is None:
        return
    parts = _found(shop, uri)
    head = shop.spool.read_at(parts[0], 0, _HEAD_BYTES)
    size = sum(part.length for part in parts)
    media_type = parts[0].media_type.name
    draft.apply(document_changes(draft.metadata, sop_class_uid, media_type, head, size))
    draft.metadata[_DOCUMENT] = {"vr": "OB", "BulkDataURI": uri}


def _inline_pixels(draft: _Draft) -> None:
    """Check Pixel Data that stands in the metadata, as that which came in a part."""
    element = draft.metadata.get(PIXEL_DATA, {})
    if "InlineBinary" in element:
        data = inline_binary(int(PIXEL_DATA, 16), "OW", element["InlineBinary"])
        draft.ready[PIXEL_DATA] = native(draft.metadata, Place(len(data), lambda: (data,)))


# ------------------------------------------------------------------ what is changed


def _unicode(draft: _Draft) -> None:
    """Say that text is UTF-8, if it is more than ASCII: JSON and XML hold Unicode, so must we.

    That is no coercion, as no value changes; the Original Attributes Sequence can't hold it, where
    Specific Character Set tells how the item itself is encoded (PS3.3 §C.12.1.1.9).
    """
    try:
        is_ascii = orjson.dumps(draft.metadata).isascii()
    except (TypeError, ValueError) as e:  # lone surrogates, integers of over 64 bits
        raise CannotUnderstand(f"a value of the metadata can't be stored: {e}") from e
    if is_ascii:
        return
    stated = draft.metadata.get(_CHARACTER_SET, {}).get("Value")
    if stated and stated != [UTF_8]:
        draft.notes.append(f"text is stored in UTF-8: Specific Character Set was {stated!r:.60}")
    draft.metadata[_CHARACTER_SET] = {"vr": "CS", "Value": [UTF_8]}


def _original_attributes(shop: Workshop, draft: _Draft, ref: InstanceRef) -> Any:
    """Original Attributes Sequence (PS3.3 §C.12.1.1.9): what was there, who changed it, when."""
    item = {
        "04000550": {"vr": "SQ", "Value": [draft.originals]},
        "04000562": {"vr": "DT", "Value": [_modified_at(shop, ref)]},
        "04000563": {"vr": "LO", "Value": [IMPLEMENTATION_VERSION_NAME]},
        "04000564": {"vr": "LO"},
        "04000565": {"vr": "CS", "Value": ["COERCE"]},
    }
    before = draft.metadata.get(_ORIGINAL, {}).get("Value") or []
    return {"vr": "SQ", "Value": [*before, item]}


def _modified_at(shop: Workshop, ref: InstanceRef) -> str:
    """When it was changed: the first time. Who sends the same again must get the same file."""
    view = shop.journals.view(ref.series)
    entry = view.entries.get(ref.sop_instance_uid) if view else None
    if view and entry:
        try:
            (text,) = shop.journals.metadata(view, [entry])
            known = orjson.loads(text).get(_ORIGINAL, {}).get("Value") or [{}]
            at = first_value(known[-1], "04000562")
        except (WadoError, ValueError):
            at = None
        if isinstance(at, str):
            return at
    return datetime.now(UTC).strftime("%Y%m%d%H%M%S.%f+0000")
