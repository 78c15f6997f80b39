"""Instances that are no images, shown (PS3.18 §8.7.4): reports, documents, video, waveforms.

Reports and waveforms become pages; documents and video go out as the bytes that were stored, range
by range, so that a player can seek in them.
"""

from base64 import b64decode
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlencode

import orjson

from wado.archive.bulk_data import bulk_value
from wado.archive.pieces import Part, Piece, cut
from wado.archive.retrieve import Item
from wado.archive.transcode_rules import is_video
from wado.archive.video import container, playable, stream_of, without_mp4
from wado.dicom.codec_table import why_not_decoded
from wado.dicom.coded_video import Container
from wado.dicom.image import first_value
from wado.dicom.media_types import OCTET_STREAM, MediaRange, Offer, media_type_of, select
from wado.dicom.report import Reference, is_report, read_report
from wado.dicom.report_page import to_html, to_text
from wado.dicom.waveforms import WAVEFORMS, multiplex_groups, waveform_page
from wado.dicom.xml_model import to_xml
from wado.errors import NotAcceptable
from wado.services.server.calls import Answer, Call, inert
from wado.services.server.charsets import check_charset
from wado.services.server.representations import (
    REVALIDATE,
    acceptable_to,
    basis_of,
    let_cache,
    wrapped,
)
from wado.services.server.service import Service

HTML, PLAIN, XML = "text/html", "text/plain", "text/xml"
_TEXTS = tuple(Offer(name) for name in (HTML, PLAIN, XML, "application/xml"))
_DOCUMENT, _DOCUMENT_LENGTH, _MIME_TYPE = "00420011", "00420015", "00420012"
_MAX_METADATA_BYTES = 32 << 20
"""Longest metadata that are turned into a page: a person reads less."""
_MAX_WAVEFORM_BYTES = 64 << 20
_MP4 = Offer("video/mp4")
_BYTE_STREAM = "video/H264"
Ranges = tuple[MediaRange, ...]


class _Form(NamedTuple):
    """Media types in which bytes that are stored can be had, and of which file they are."""

    offers: tuple[Offer, ...]
    pieces: tuple[Piece, ...]
    found: Item
    may_change: bool = False


def render_document(service: Service, call: Call, found: Item) -> Answer:
    """Answer with an instance that has no image pixels in a form that a browser shows."""
    return Answer(later=lambda: document(service, call, found, acceptable_to(call)))


def document(service: Service, call: Call, found: Item, wanted: Ranges) -> Answer:
    """Answer at once with an instance in one of the media types that are wanted; takes its time.

    Raises
    ------
    NotAcceptable
        It has no such form, or none in a media type that was asked for.
    """
    forms = _video(service, found)
    metadata = {} if forms else metadata_of(service, found)
    forms = forms or _document(service, found, metadata)
    if not forms and not is_report(metadata) and WAVEFORMS not in metadata:
        why = why_not_decoded(found.entry.transfer_syntax_uid)
        raise NotAcceptable(why or "instances of this SOP class have no rendered form")
    offers = tuple(offer for form in forms for offer in form.offers) or _TEXTS
    offer = select(wanted, offers)
    if offer is None:
        names = ", ".join(offer.media_type for offer in offers)
        if is_video(found.entry.transfer_syntax_uid) and select(wanted, (_MP4,)):
            raise without_mp4(service.archive.transcode, found, names)
        raise NotAcceptable(f"the instance can be had as {names}")
    if forms:
        form = next(form for form in forms if offer in form.offers)
        return _as_stored(service, call, form, offer.media_type)
    check_charset(call)
    return _as_text(service, call, found, metadata, offer.media_type)


def metadata_of(service: Service, found: Item) -> Mapping[str, Any]:
    """Read the metadata of an instance, unless they are too long to be looked at."""
    if found.entry.metadata_length > _MAX_METADATA_BYTES:
        raise NotAcceptable("the data set is too long to be shown; it can be had as DICOM")
    (text,) = service.journals.metadata(found.view, [found.entry])
    metadata: Mapping[str, Any] = orjson.loads(text)
    return metadata


# ------------------------------------------------------------------ as stored


def _as_stored(service: Service, call: Call, form: _Form, media_type: str) -> Answer:
    part, found = Part(media_type, form.pieces), form.found
    answer = wrapped(call, [part], (found.entry.digest, media_type), multipart=False)
    if not form.may_change:
        let_cache(service, call, answer)
    elif answer.status < HTTPStatus.BAD_REQUEST:
        answer.headers.append(REVALIDATE)
    answer.headers += inert(media_type)
    answer.basis = basis_of(found)
    return answer


def _video(service: Service, found: Item) -> tuple[_Form, ...]:
    """Locate the streams of a video: that which browsers play is first.

    What is played may be a copy that is made later, so only an original that is played stays the
    answer for good.
    """
    stream = stream_of(found)
    if stream is None:
        return ()
    played = playable(service.files, found)
    if played is found:
        return (_Form((_MP4,), stream, found),)
    names = _video_types(container(service.files, stream), found)
    stored = _Form(tuple(map(Offer, names)), stream, found, may_change=True)
    if played is None:
        return (stored,)
    return _Form((_MP4,), stream_of(played) or (), played, may_change=True), stored


def _video_types(kind: Container | None, found: Item) -> tuple[str, ...]:
    """Name what is in a stream that browsers don't play."""
    named = media_type_of(found.entry.transfer_syntax_uid)
    others = (named,) if named != _MP4.media_type else ()
    if kind is Container.TRANSPORT_STREAM:
        return "video/mp2t", *dict.fromkeys((*others, "video/mpeg"))
    return others or (_BYTE_STREAM if kind is Container.H264_STREAM else OCTET_STREAM,)


def _document(service: Service, found: Item, metadata: Mapping[str, Any]) -> tuple[_Form, ...]:
    """Locate an encapsulated document, without the byte that may pad it (PS3.3 §C.24.2)."""
    element = metadata.get(_DOCUMENT)
    if element is None or found.entry.pixel is not None:
        return ()
    if "InlineBinary" in element:
        pieces: tuple[Piece, ...] = (b64decode(element["InlineBinary"]),)
    else:
        value = bulk_value(service.archive, service.journals, found, _DOCUMENT)
        pieces = value.parts[0]
    length = first_value(metadata, _DOCUMENT_LENGTH)
    if isinstance(length, int) and length > 0:
        pieces = tuple(cut(pieces, 0, length))
    named = str(first_value(metadata, _MIME_TYPE) or "").strip().lower()
    return (_Form(tuple(map(Offer, _document_types(named))), pieces, found),)


def _document_types(named: str) -> tuple[str, ...]:
    if named in (XML, "application/xml"):
        return XML, "application/xml"
    is_name = named.count("/") == 1 and named.replace("/", "").replace("-", "").isprintable()
    plain = is_name and named.isascii() and not set(named) & set(' ,;"<>\\()')
    return (named,) if plain else (OCTET_STREAM,)


# ------------------------------------------------------------------ as text


def _as_text(
    service: Service, call: Call, found: Item, metadata: Mapping[str, Any], media_type: str
) -> Answer:
    if media_type == HTML:
        text = _page(service, call, found, metadata).encode()
    elif media_type == PLAIN and is_report(metadata):
        text = to_text(read_report(metadata)).encode()
    elif media_type == PLAIN:
        raise NotAcceptable(f"a waveform can be had as {HTML} or {XML}")
    else:
        text = to_xml(metadata)
    part = Part(f"{media_type}; charset=utf-8", (text,))
    identity = (found.entry.digest, media_type, call.origin)
    answer = wrapped(call, [part], identity, multipart=False)
    site = "/".join(call.origin.split("/")[:3])
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src 'self' {site}"
    answer.headers += [
        REVALIDATE,
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
    ]
    answer.basis = basis_of(found)
    return answer


def _page(service: Service, call: Call, found: Item, metadata: Mapping[str, Any]) -> str:
    uid = found.ref.sop_instance_uid
    if is_report(metadata):
        return to_html(read_report(metadata), lambda r: _address(call, r), uid)
    groups = multiplex_groups(metadata, lambda path: _bulk(service, found, path))
    return waveform_page(metadata, groups)


def _address(call: Call, reference: Reference) -> str:
    """Address where a browser sees an instance; which form it has, WADO-URI decides."""
    if not (reference.study_instance_uid and reference.series_instance_uid):
        return ""
    parameters = {
        "requestType": "WADO",
        "studyUID": reference.study_instance_uid,
        "seriesUID": reference.series_instance_uid,
        "objectUID": reference.sop_instance_uid,
    }
    if reference.frames:
        parameters["frameNumber"] = str(reference.frames[0])
    return f"{call.origin}/wado?{urlencode(parameters)}"


def _bulk(service: Service, found: Item, path: str) -> bytes:
    """Read a bulky value whole, in little endian; empty if it is too long to be drawn."""
    _, length = found.entry.bulk.get(path, (0, 0))
    if not 0 < length <= _MAX_WAVEFORM_BYTES:
        return b""
    value = bulk_value(service.archive, service.journals, found, path)
    return b"".join(service.files.bytes_of(piece) for piece in value.parts[0])
