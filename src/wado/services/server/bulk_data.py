"""Bulk data of WADO-RS (PS3.18 §10.4.1.1.5): values that the metadata leave out."""

from wado.archive import retrieve
from wado.archive.pieces import Part
from wado.dicom.media_types import both_ways, select
from wado.errors import NotAcceptable
from wado.services.server.calls import Answer, Call
from wado.services.server.representations import (
    MAX_KEPT_PARTS,
    acceptable_to,
    basis_of,
    caching,
    wrapped,
)
from wado.services.server.service import Service


def bulk_data(service: Service, call: Call) -> Answer:
    """Retrieve one bulky value of an instance, where its metadata says it is."""
    found = retrieve.item(service.journals, call.instance)
    offers, values = retrieve.bulk_data(
        service.archive, service.journals, found, call.params["path"]
    )
    alternatives = both_ways(offers, multipart_first=len(values) > 1)
    offer = select(
        acceptable_to(call), alternatives if len(values) == 1 else alternatives[: len(offers)]
    )
    if offer is None:
        raise NotAcceptable(f"the value can be had as {offers[0].content_type}")
    location = f"{call.base_url}/{found.ref.path}/bulkdata/{call.params['path']}"
    parts = [Part(offer.content_type, pieces, location) for pieces in values]
    identity = (found.entry.digest, call.params["path"], offer.media_type)
    answer = wrapped(call, parts, identity, multipart=offer.multipart)
    answer.basis = basis_of(found) if len(parts) <= MAX_KEPT_PARTS else None
    answer.headers.append(caching(service))
    return answer
