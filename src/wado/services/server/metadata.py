"""Metadata of WADO-RS (PS3.18 §10.4.1.1.2): documents that lie ready."""

from collections.abc import Callable

from wado.archive import retrieve
from wado.archive.journal import Journals
from wado.archive.retrieve import Document
from wado.dicom.media_types import DICOM_JSON, JSON, Offer, select
from wado.errors import NotAcceptable
from wado.services.server.calls import CROSS_ORIGIN, Answer, Basis, Call, matches_etag
from wado.services.server.representations import REVALIDATE, acceptable_to
from wado.services.server.service import Service

_JSON_OFFERS = (Offer(DICOM_JSON), Offer(JSON))


def study_metadata(service: Service, call: Call) -> Answer:
    """Retrieve the metadata of a study."""
    return _metadata(
        call,
        lambda *, gzip: retrieve.study_metadata(
            service.archive, service.journals, call.study, gzip=gzip
        ),
    )


def series_metadata(service: Service, call: Call) -> Answer:
    """Retrieve the metadata of a series."""
    return _metadata(
        call,
        lambda *, gzip: retrieve.series_metadata(
            service.archive, service.journals, call.series, gzip=gzip
        ),
    )


def instance_metadata(service: Service, call: Call) -> Answer:
    """Retrieve the metadata of an instance."""
    found = retrieve.item(service.journals, call.instance)
    return _metadata(
        call,
        lambda *, gzip: retrieve.instance_metadata(  # noqa: ARG005 - small: sent as it is
            service.journals, found, base_url=call.base_url
        ),
    )


def _metadata(call: Call, find: Callable[..., Document]) -> Answer:
    offer = select(acceptable_to(call), _JSON_OFFERS)
    if offer is None:
        raise NotAcceptable(f"metadata can be had as {DICOM_JSON}")
    gzip = "gzip" in (call.headers.get("accept-encoding") or "")
    document = find(gzip=gzip)
    etag = f'"{document.etag}{"-gzip" if document.gzipped else ""}"'
    headers = [
        ("content-type", offer.media_type),
        ("etag", etag),
        ("vary", "accept, accept-encoding"),
        REVALIDATE,
        *CROSS_ORIGIN,
    ]
    if matches_etag(call.headers.get("if-none-match"), etag):
        return Answer(304, headers)
    if document.gzipped:
        headers.append(("content-encoding", "gzip"))
    basis = Basis(document.view, Journals.view, in_memory=True) if document.view else None
    return Answer(200, headers, document.pieces, stream=document.stream, basis=basis)
