"""WADO-RS (PS3.18 §10.4): studies, series, instances and frames."""

from collections.abc import Sequence

from wado.archive import retrieve
from wado.archive.pieces import Part
from wado.archive.retrieve import Item
from wado.archive.transcoding import choose_frames, frame_offers
from wado.dicom.media_types import MediaRange, Offer
from wado.errors import InvalidRequest, NotAcceptable
from wado.services.server import bulk_data
from wado.services.server.calls import Answer, Call, warning
from wado.services.server.representations import (
    MAX_KEPT_PARTS,
    acceptable_to,
    basis_of,
    let_cache,
    wrapped,
)
from wado.services.server.service import Service
from wado.services.server.transcoded import (
    Chosen,
    chosen_form,
    made_frames,
    made_instance,
    made_instances,
    offers_of,
    stored_instance,
    stored_instances,
)

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
    """Retrieve an instance: byte for byte as it was received, or transcoded."""
    found = retrieve.item(service.journals, call.instance)
    ranges = acceptable_to(call)
    offer = chosen_form(ranges, found, several=False)
    if offer is None:
        return _bulk_data(service, call, ranges, [found])
    if offer.stored:
        return stored_instance(service, call, (found, offer))
    return Answer(later=lambda: made_instance(service, call, ranges, (found, offer)))


def _what_there_is(offers: Sequence[Offer]) -> str:
    return "it can be had as " + ", ".join(dict.fromkeys(offer.content_type for offer in offers))


def _instances(service: Service, call: Call, items: Sequence[Item]) -> Answer:
    """Answer with whole files, each in the best form that was asked for."""
    ranges = acceptable_to(call)
    several = len(items) > 1
    forms = ((found, chosen_form(ranges, found, several=several)) for found in items)
    chosen: list[Chosen] = [(found, offer) for found, offer in forms if offer is not None]
    if not chosen:
        return _bulk_data(service, call, ranges, items)
    missing = len(items) - len(chosen)
    if all(offer.stored for _, offer in chosen):
        return _partial(stored_instances(service, call, chosen), missing)
    if len(items) == 1:
        return Answer(later=lambda: made_instance(service, call, ranges, chosen[0]))
    return _partial(made_instances(service, call, ranges, chosen), missing)


def _bulk_data(
    service: Service, call: Call, ranges: tuple[MediaRange, ...], items: Sequence[Item]
) -> Answer:
    """Give bulk data to who wants no DICOM files but octets (PS3.18 Table 10.4.4-1)."""
    if not bulk_data.asked_for(ranges):
        raise NotAcceptable(_what_there_is([o for found in items for o in offers_of(found)]))
    return Answer(later=lambda: bulk_data.collection(service, call, items))


def _partial(answer: Answer, missing: int) -> Answer:
    """Say that only some could be had in an acceptable form (PS3.18 §10.4.3)."""
    if missing:
        answer.status = 206 if answer.status == 200 else answer.status
        answer.headers.append(warning(f"{missing} instances can't be had in the form asked for"))
    return answer


# ------------------------------------------------------------------ frames


def frames(service: Service, call: Call) -> Answer:
    """Retrieve frames of an instance: ranges of its file."""
    found = retrieve.item(service.journals, call.instance)
    numbers = retrieve.existing_frames(frame_numbers(call.params["frames"]), found)
    uid = found.entry.transfer_syntax_uid
    offer = choose_frames(acceptable_to(call), uid, several=len(numbers) > 1)
    if offer is None:
        raise NotAcceptable(_what_there_is(frame_offers(uid)))
    if not offer.stored:
        return Answer(later=lambda: made_frames(service, call, found, numbers, offer))
    parts = [
        Part(offer.content_type, pieces)
        for pieces in retrieve.frames(service.archive, found, numbers)
    ]
    identity = (found.entry.digest, call.params["frames"], offer.media_type)
    answer = wrapped(call, parts, identity, multipart=offer.multipart)
    answer.basis = basis_of(found) if len(numbers) <= MAX_KEPT_PARTS else None
    let_cache(service, answer)
    return answer


def frame_numbers(text: str) -> list[int]:
    """Read a list of frame numbers (PS3.18 §10.4.1.1.6)."""
    names = text.replace("%2C", ",").replace("%2c", ",").split(",")
    if len(names) > _MAX_FRAMES or not all(
        name.isascii() and name.isdigit() and len(name) < 10 for name in names
    ):
        raise InvalidRequest(f"not a list of frame numbers: {text[:80]!r}")
    return [int(name) for name in names]
