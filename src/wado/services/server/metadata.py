"""Metadata of WADO-RS (PS3.18 §10.4.1.1.2), as JSON or XML."""

from collections.abc import Iterator
from itertools import chain
from zlib import crc32

import orjson

from wado.archive import metadata, retrieve
from wado.archive.journal import Journals
from wado.archive.json_documents import gzipped
from wado.archive.metadata import Metadata
from wado.dicom.media_types import DICOM_JSON, DICOM_XML, JSON, Offer, select
from wado.dicom.multipart import boundary_of, closing, content_type, part_head
from wado.dicom.xml_model import to_xml
from wado.errors import NotAcceptable
from wado.services.server.calls import CROSS_ORIGIN, Answer, Basis, Call, matches_etag
from wado.services.server.compression import ON_THE_WAY, wants_gzip
from wado.services.server.representations import REVALIDATE, acceptable_to
from wado.services.server.service import Service

_OFFERS = (Offer(DICOM_JSON), Offer(JSON), Offer(DICOM_XML, multipart=True))
_OFFERS_OF_ONE = (*_OFFERS, Offer(DICOM_XML))
"""A single document holds one instance (PS3.19 §A.1), so it is given of one instance only."""
_KEPT_BYTES = 3 << 20
"""Answers up to this size are composed whole, and kept to be given again."""


def study_metadata(service: Service, call: Call) -> Answer:
    """Retrieve the metadata of a study."""
    return _answer(
        service, call, metadata.study_metadata(service.archive, service.journals, call.study)
    )


def series_metadata(service: Service, call: Call) -> Answer:
    """Retrieve the metadata of a series."""
    found = metadata.series_metadata(service.journals, call.series)
    (view, _), *_ = found.shown
    return _answer(service, call, found, Basis(view, Journals.view, in_memory=True))


def instance_metadata(service: Service, call: Call) -> Answer:
    """Retrieve the metadata of an instance."""
    found = retrieve.item(service.journals, call.instance)
    basis = Basis(found.view, Journals.view, in_memory=True)
    return _answer(service, call, metadata.instance_metadata(found), basis)


def _answer(service: Service, call: Call, found: Metadata, basis: Basis | None = None) -> Answer:
    offer = select(acceptable_to(call), _OFFERS_OF_ONE if found.count == 1 else _OFFERS)
    if offer is None:
        raise NotAcceptable(
            f'metadata can be had as {DICOM_JSON} and as multipart/related; type="{DICOM_XML}"'
        )
    gzip = wants_gzip(call)
    etag = _etag(call, found, offer, gzip=gzip)
    headers = [
        ("etag", etag),
        ("vary", "accept, accept-encoding, accept-charset"),
        REVALIDATE,
        *CROSS_ORIGIN,
    ]
    if matches_etag(call.headers.get("if-none-match"), etag):
        return Answer(304, headers)
    boundary = boundary_of(call.path, etag)
    headers.append(("content-location", f"{call.base_url}/{found.path}/metadata"))
    headers.append(
        ("content-type", content_type(boundary, DICOM_XML) if offer.multipart else offer.media_type)
    )
    if gzip:
        headers.append(("content-encoding", "gzip"))
    if call.method == "HEAD":
        return Answer(200, headers, stream=())
    if offer.media_type != DICOM_XML:
        return _json(service, call, found, Answer(200, headers, basis=basis), gzip=gzip)
    body = _xml(service, call, found, boundary if offer.multipart else "")
    return _composed(body, Answer(200, headers, basis=basis), gzip=gzip)


def _etag(call: Call, found: Metadata, offer: Offer, *, gzip: bool) -> str:
    """Tell apart all that the address holds; the address of the archive is part of the content."""
    form = "-xml" if offer.media_type == DICOM_XML else "-json"
    form += "-parts" * offer.multipart + "-gzip" * gzip
    return f'"{found.etag}-{crc32(call.base_url.encode()):x}{form}"'


def _json(service: Service, call: Call, found: Metadata, answer: Answer, *, gzip: bool) -> Answer:
    ready = metadata.ready_document(service.archive, found, gzip=gzip)
    if ready is not None:
        answer.pieces = (ready,)
        if ready.length > _KEPT_BYTES:
            answer.basis = None
        return answer
    body = metadata.json_document(service.archive, service.journals, found, call.base_url)
    return _composed(body, answer, gzip=gzip)


def _xml(service: Service, call: Call, found: Metadata, boundary: str) -> Iterator[bytes]:
    """Make a document for each instance; the parts of a multipart message if it has a boundary."""
    first = True
    for view, entry, text in metadata.objects(service.journals, found, call.base_url):
        document = to_xml(orjson.loads(text))
        if boundary:
            uid = entry.sop_instance_uid
            location = f"{call.base_url}/{view.ref.path}/instances/{uid}/metadata"
            yield part_head(
                boundary, DICOM_XML, first=first, length=len(document), location=location
            )
            first = False
        yield document
    if boundary:
        yield closing(boundary)


def _composed(body: Iterator[bytes], answer: Answer, *, gzip: bool) -> Answer:
    """Give a body that is made on the way: whole if it is short, else with flat memory."""
    if gzip:
        body = gzipped(body, ON_THE_WAY)
    begun: list[bytes] = []
    size = 0
    for piece in body:
        begun.append(piece)
        size += len(piece)
        if size > _KEPT_BYTES:
            answer.stream, answer.basis = chain(begun, body), None
            return answer
    answer.pieces = (b"".join(begun),)
    return answer
