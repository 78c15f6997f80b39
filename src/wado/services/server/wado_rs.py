"""WADO-RS (PS3.18 §10.4): studies, series, instances and frames."""

from collections.abc import Sequence
from functools import partial

from wado.archive import forms, retrieve
from wado.archive.derived import NOTHING
from wado.archive.forms import Chosen
from wado.archive.retrieve import Item
from wado.archive.transcoding import choose_frames
from wado.dicom.codec_table import why_not_decoded
from wado.dicom.media_types import MediaRange, Offer
from wado.errors import InvalidRequest, NotAcceptable
from wado.services.server import bulk_data
from wado.services.server.calls import Answer, Call, warning
from wado.services.server.representations import acceptable_to
from wado.services.server.service import Service
from wado.services.server.transcoded import (
    chosen_copy,
    chosen_form,
    made_frames,
    made_instance,
    made_instances,
    stored_frames,
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
    chosen = chosen_form(service, call, found, several=False)
    ranges = acceptable_to(call)
    if chosen is None:
        return _bulk_data(service, call, ranges, [found])
    if chosen[1].stored:
        return stored_instance(service, call, chosen)
    return Answer(later=lambda: made_instance(service, call, ranges, chosen))


def _what_there_is(offers: Sequence[Offer]) -> str:
    return "it can be had as " + ", ".join(dict.fromkeys(offer.content_type for offer in offers))


def _instances(service: Service, call: Call, items: Sequence[Item]) -> Answer:
    """Answer with whole files, each in the best form that was asked for."""
    ranges = acceptable_to(call)
    several = len(items) > 1
    all_forms = (chosen_form(service, call, found, several=several) for found in items)
    chosen: list[Chosen] = [form for form in all_forms if form is not None]
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
        there = _what_there_is([o for found in items for o in forms.offers_of(found)])
        why = _why_not_made(items[0]) if len(items) == 1 and items[0].entry.pixel else ""
        raise NotAcceptable("; ".join(filter(None, (why, there))))
    return Answer(later=lambda: bulk_data.collection(service, call, items))


def _partial(answer: Answer, missing: int) -> Answer:
    """Say that only some could be had in an acceptable form (PS3.18 §10.4.3)."""
    if missing:
        answer.status = 206 if answer.status == 200 else answer.status
        answer.headers.append(warning(f"{missing} instances can't be had in the form asked for"))
    return answer


# ------------------------------------------------------------------ frames


def frames(service: Service, call: Call) -> Answer:
    """Retrieve frames of an instance: ranges of its file, or of a copy; others are made."""
    found = retrieve.item(service.journals, call.instance)
    numbers = retrieve.existing_frames(frame_numbers(call.params["frames"]), found)
    chosen = _chosen_frames(service, call, found, several=len(numbers) > 1)
    if chosen[1].stored:
        return stored_frames(service, call, chosen, numbers)
    return Answer(later=lambda: made_frames(service, call, found, numbers, chosen[1]))


def _chosen_frames(service: Service, call: Call, found: Item, *, several: bool) -> Chosen:
    ranges, uid = acceptable_to(call), found.entry.transfer_syntax_uid
    if found.entry.derived is NOTHING:
        offer = choose_frames(ranges, uid, several=several)
        if offer is not None:
            return found, offer
    else:
        choose = partial(forms.choose_frames, ranges, several=several)
        chosen = chosen_copy(service, call, found, choose)
        if chosen is not None:
            return chosen
    there = _what_there_is(forms.frame_offers(found))
    raise NotAcceptable("; ".join(filter(None, (_why_not_made(found), there))))


def _why_not_made(found: Item) -> str:
    """Say why there are no more forms: it can't be decoded, or that was tried in vain."""
    reasons = iter(found.entry.derived.failures.values())
    return why_not_decoded(found.entry.transfer_syntax_uid) or next(reasons, "")


def frame_numbers(text: str) -> list[int]:
    """Read a list of frame numbers (PS3.18 §10.4.1.1.6)."""
    names = text.replace("%2C", ",").replace("%2c", ",").split(",")
    if len(names) > _MAX_FRAMES or not all(
        name.isascii() and name.isdigit() and len(name) < 10 for name in names
    ):
        raise InvalidRequest(f"not a list of frame numbers: {text[:80]!r}")
    return [int(name) for name in names]
