"""Thumbnails of WADO-RS (PS3.18 §10.4.1.1.4): one small picture, whatever it stands for."""

from collections.abc import Sequence

from wado.archive import rendering, retrieve
from wado.archive.journal import Journals
from wado.archive.retrieve import Item
from wado.dicom.media_types import select
from wado.dicom.rendering.options import read_thumbnail_options
from wado.errors import NotAcceptable
from wado.services.server.calls import Answer, Call
from wado.services.server.rendered import (
    OFFERS,
    PICTURES,
    Look,
    Shot,
    keep,
    renderer_of,
    thumbnail_of,
)
from wado.services.server.representations import REVALIDATE, acceptable_to, let_cache
from wado.services.server.service import Service
from wado.services.server.wado_rs import frame_numbers


def study(service: Service, call: Call) -> Answer:
    """Show the middle image of the first series that has images."""
    items = retrieve.study_items(service.archive, service.journals, call.study)
    return _of_several(service, call, items, None)


def series(service: Service, call: Call) -> Answer:
    """Show the middle image of a series."""
    items = retrieve.series_items(service.journals, call.series)
    return _of_several(service, call, items, Journals.view)


def instance(service: Service, call: Call) -> Answer:
    """Show the frame that stands for an instance."""
    return _of_instance(service, call, None)


def frames(service: Service, call: Call) -> Answer:
    """Show a frame; of several the first."""
    return _of_instance(service, call, frame_numbers(call.params["frames"]))


def _of_several(service: Service, call: Call, items: Sequence[Item], look: Look | None) -> Answer:
    def later() -> Answer:
        answer = _thumbnail(service, call, rendering.representative(items), None)
        if look is not None:
            keep(answer, items[0], look)
        answer.headers.append(REVALIDATE)  # tomorrow another may be in the middle
        return answer

    return Answer(later=later)


def _of_instance(service: Service, call: Call, numbers: Sequence[int] | None) -> Answer:
    found = retrieve.item(service.journals, call.instance)
    if numbers:
        retrieve.existing_frames(numbers, found)

    def later() -> Answer:
        shown = found if rendering.is_image(found) else None
        answer = _thumbnail(service, call, shown, numbers[0] if numbers else None)
        keep(answer, found, Journals.recent)
        let_cache(service, call, answer)
        return answer

    return Answer(later=later)


def _thumbnail(service: Service, call: Call, found: Item | None, number: int | None) -> Answer:
    options = read_thumbnail_options(call.parameter)
    offer = select(acceptable_to(call), OFFERS)
    if offer is None:
        raise NotAcceptable(f"thumbnails can be had as {', '.join(PICTURES)}")
    if found is None:
        raise NotAcceptable("there is no image to make a thumbnail of")
    if number is None:
        number = rendering.representative_frame(rendering.subject_of(renderer_of(service), found))
    return thumbnail_of(service, call, Shot(found, (number,)), options, offer.media_type)
