"""WADO-RS (PS3.18 §10.4): studies, series, instances and frames."""

from collections.abc import Sequence

from wado.archive import retrieve
from wado.archive.pieces import Part
from wado.archive.retrieve import Item
from wado.dicom.media_types import DICOM, Offer, both_ways, select
from wado.errors import InvalidRequest, NotAcceptable
from wado.services.server.calls import Answer, Call
from wado.services.server.representations import (
    MAX_KEPT_PARTS,
    acceptable_to,
    basis_of,
    caching,
    wrapped,
)
from wado.services.server.service import Service

_MAX_FRAMES = 10_000

# ------------------------------------------------------------------ instances


def study(service: Service, call: Call) -> Answer:
    """Retrieve all instances of a study."""
    return _instances(
        service, call, retrieve.study_items(service.archive, service.journals, call.study)
    )


def series(service: Service, call: Call) -> Answer:
    """Retrieve all instances of a series."""
    return _instances(service, call, retrieve.series_items(service.journals, call.series))


def instance(service: Service, call: Call) -> Answer:
    """Retrieve an instance, byte for byte as it was received."""
    found = retrieve.item(service.journals, call.instance)
    answer = _instances(service, call, [found])
    answer.basis = basis_of(found)
    return answer


def _instances(service: Service, call: Call, items: Sequence[Item]) -> Answer:
    """Answer with whole files: those that can be had in a form that was asked for."""
    ranges = acceptable_to(call)
    chosen: list[tuple[Item, Offer]] = []
    for found in items:
        offers = both_ways((Offer(DICOM, transfer_syntax=found.entry.transfer_syntax_uid),))
        offer = select(ranges, offers if len(items) == 1 else offers[:1])
        if offer is not None:
            chosen.append((found, offer))
    if not chosen:
        raise NotAcceptable("stored in another transfer syntax than those asked for")
    parts = [
        Part(offer.content_type, (retrieve.whole(found),), f"{call.base_url}/{found.ref.path}")
        for found, offer in chosen
    ]
    identity = tuple(found.entry.digest for found, _ in chosen)
    answer = wrapped(call, parts, identity, multipart=chosen[0][1].multipart)
    answer.headers.append(caching(service))
    return answer


# ------------------------------------------------------------------ frames


def frames(service: Service, call: Call) -> Answer:
    """Retrieve frames of an instance: ranges of its file."""
    found = retrieve.item(service.journals, call.instance)
    numbers = retrieve.existing_frames(_frame_numbers(call.params["frames"]), found)
    offers = retrieve.frame_offers(found)
    alternatives = both_ways(offers)
    offer = select(
        acceptable_to(call), alternatives if len(numbers) == 1 else alternatives[: len(offers)]
    )
    if offer is None:
        raise NotAcceptable(f"the frames can be had as {offers[0].content_type}")
    parts = [
        Part(offer.content_type, pieces)
        for pieces in retrieve.frames(service.archive, found, numbers)
    ]
    identity = (found.entry.digest, call.params["frames"], offer.media_type)
    answer = wrapped(call, parts, identity, multipart=offer.multipart)
    answer.basis = basis_of(found) if len(numbers) <= MAX_KEPT_PARTS else None
    answer.headers.append(caching(service))
    return answer


def _frame_numbers(text: str) -> list[int]:
    """Read a list of frame numbers (PS3.18 §10.4.1.1.6)."""
    names = text.replace("%2C", ",").replace("%2c", ",").split(",")
    if len(names) > _MAX_FRAMES or not all(
        name.isascii() and name.isdigit() and len(name) < 10 for name in names
    ):
        raise InvalidRequest(f"not a list of frame numbers: {text[:80]!r}")
    return [int(name) for name in names]
