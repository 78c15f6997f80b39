"""Rendered resources of WADO-RS (PS3.18 §10.4.1.1.3): instances as pictures that browsers show."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from wado.archive import rendering, retrieve
from wado.archive.journal import Journals, SeriesView
from wado.archive.pieces import Part
from wado.archive.rendering import GIF, Renderer, Subject
from wado.archive.retrieve import Item
from wado.dicom.media_types import Offer, both_ways, select
from wado.dicom.multipart import boundary_of, closing, content_type, part_head
from wado.dicom.rendering.options import RenderOptions, read_options
from wado.dicom.rendering.placement import place
from wado.dicom.uids import SeriesRef
from wado.errors import NotAcceptable, TooLarge, WadoError
from wado.services.server.calls import CROSS_ORIGIN, Answer, Basis, Call, warning
from wado.services.server.documents import document, render_document
from wado.services.server.representations import (
    MAX_KEPT_PARTS,
    REVALIDATE,
    acceptable_to,
    entity_tag,
    let_cache,
    not_modified,
    wrapped,
)
from wado.services.server.service import Service
from wado.services.server.wado_rs import frame_numbers
from wado.telemetry import get_logger

PICTURES = ("image/jpeg", "image/png", GIF, "image/jp2")
"""Media types of pictures, the default first (PS3.18 Table 8.7.4-1)."""
OFFERS = tuple(Offer(name) for name in PICTURES)
_SEVERAL = tuple(Offer(name, multipart=True) for name in PICTURES)
_MAX_PICTURES = 10_000
_MAX_KEPT_BYTES = 1 << 20
"""Pictures up to this size are kept in memory, so that who asks again costs no worker."""
_WHOLE_PIXELS = 1 << 20
_WHOLE_FRAMES = 100
"""Animations up to so many pixels and frames are answered whole, with their length; longer ones
begin at once, and end when who asked goes away."""
_VERSION = "1"
"""Changes with how pictures look, so that their entity tags do."""

Look = Callable[[Journals, SeriesRef], SeriesView | None]
"""As `Basis` has it."""

_log = get_logger("wado-server")


@dataclass(frozen=True, slots=True)
class Shot:
    """Frames of an instance that make up one picture: one, or an animation of several."""

    found: Item
    numbers: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Asked:
    """How pictures are wanted, in which form, and what of that can't be done."""

    options: RenderOptions
    offer: Offer
    warnings: tuple[str, ...] = ()
    resource: str = "rendered"


# ------------------------------------------------------------------ handlers


def study(service: Service, call: Call) -> Answer:
    """Render all images of a study."""
    items = retrieve.study_items(service.archive, service.journals, call.study)
    return Answer(later=lambda: _collection(service, call, items))


def series(service: Service, call: Call) -> Answer:
    """Render all images of a series."""
    items = retrieve.series_items(service.journals, call.series)

    def later() -> Answer:
        answer = _collection(service, call, items)
        keep(answer, items[0], Journals.view)
        return answer

    return Answer(later=later)


def instance(service: Service, call: Call) -> Answer:
    """Render an instance: its picture, all its frames, or one that stands for them."""
    found = retrieve.item(service.journals, call.instance)
    if not rendering.is_image(found):
        return render_document(service, call, found)
    options, warnings = read_options(call.parameter)
    offer = _selected(call, both_ways(OFFERS, multipart_first=False))
    count = rendering.frame_count(found)

    def later() -> Answer:
        if count == 1 or offer.multipart or offer.media_type == GIF:
            asked = _Asked(options, offer, warnings)
            return _of_instance(service, call, Shot(found, range(1, count + 1)), asked)
        subject = rendering.subject_of(renderer_of(service), found)
        number = rendering.representative_frame(subject)
        asked = _Asked(options, offer, (*warnings, f"frame {number} of {count} stands for all"))
        return _of_instance(service, call, Shot(found, (number,)), asked)

    return Answer(later=later)


def frames(service: Service, call: Call) -> Answer:
    """Render frames of an instance."""
    found = retrieve.item(service.journals, call.instance)
    numbers = retrieve.existing_frames(frame_numbers(call.params["frames"]), found)
    if not rendering.is_image(found):
        raise NotAcceptable("frames of a video can't be rendered one by one")
    options, warnings = read_options(call.parameter)
    one = both_ways(OFFERS, multipart_first=False)
    offer = _selected(call, one if len(numbers) == 1 else (*_SEVERAL, *OFFERS))
    if len(numbers) > 1 and not offer.multipart and offer.media_type != GIF:
        # Clients in use ask for several frames as one picture.
        warnings = (*warnings, f"frame {numbers[0]} of {len(numbers)} asked for stands for all")
        numbers = numbers[:1]
    asked = _Asked(options, offer, warnings)
    return Answer(later=lambda: _of_instance(service, call, Shot(found, numbers), asked))


def render_item(
    service: Service,
    call: Call,
    shot: Shot,
    options: RenderOptions,
    media_type: str,
    warnings: tuple[str, ...] = (),
) -> Answer:
    """Render one frame of an instance, or several as an animated GIF, as a single part."""
    asked = _Asked(options, Offer(media_type), warnings)
    return Answer(later=lambda: _of_instance(service, call, shot, asked))


def thumbnail_of(
    service: Service, call: Call, shot: Shot, options: RenderOptions, media_type: str
) -> Answer:
    """Answer at once with a thumbnail as a single part; it says nothing of how long it holds."""
    asked = _Asked(options, Offer(media_type), resource="thumbnail")
    return _answered(service, call, [shot], asked)


def renderer_of(service: Service) -> Renderer:
    """Gather what pictures are made with."""
    return Renderer(
        service.archive,
        service.journals,
        service.files,
        service.pixels,
        service.settings.max_pixels,
    )


# ------------------------------------------------------------------ answers


def _selected(call: Call, alternatives: tuple[Offer, ...]) -> Offer:
    offer = select(acceptable_to(call), alternatives)
    if offer is None:
        forms = "multipart or single part" if not alternatives[0].multipart else "multipart"
        raise NotAcceptable(f"rendered images can be had as {', '.join(PICTURES)}, {forms}")
    return offer


def _of_instance(service: Service, call: Call, shot: Shot, asked: _Asked) -> Answer:
    answer = _answered(service, call, _shots([shot], asked.offer), asked)
    keep(answer, shot.found, Journals.recent)
    let_cache(service, call, answer)
    return answer


def _collection(service: Service, call: Call, items: Sequence[Item]) -> Answer:
    """Render the images among instances; a single document that is none is rendered as such."""
    images = [found for found in items if rendering.is_image(found)]
    if not images:
        if len(items) == 1:
            answer = document(service, call, items[0], acceptable_to(call))
            answer.headers = [pair for pair in answer.headers if pair[0] != REVALIDATE[0]]
            answer.headers.append(REVALIDATE)  # tomorrow there may be images
            answer.basis = None
            return answer
        raise NotAcceptable("there are no images to render")
    options, warnings = read_options(call.parameter)
    is_one = len(images) == 1 and rendering.frame_count(images[0]) == 1
    offer = _selected(call, (*OFFERS, *_SEVERAL) if is_one else (*_SEVERAL, *OFFERS))
    shots = [Shot(found, range(1, rendering.frame_count(found) + 1)) for found in images]
    if not (offer.multipart or is_one):
        chosen = rendering.representative(images)
        assert chosen is not None
        subject = rendering.subject_of(renderer_of(service), chosen)
        shots = [Shot(chosen, (rendering.representative_frame(subject),))]
        warnings = (*warnings, f"one of {len(images)} images stands for all")
    asked = _Asked(options, offer, warnings)
    answer = _answered(service, call, _shots(shots, offer), asked)
    answer.headers.append(REVALIDATE)
    return answer


def _shots(shots: Sequence[Shot], offer: Offer) -> list[Shot]:
    """Make animations of the frames of an instance, or a picture of each.

    Raises
    ------
    TooLarge
        So many pictures are more than anybody looks at.
    """
    count = sum(len(shot.numbers) for shot in shots)
    if count > _MAX_PICTURES:
        raise TooLarge(f"{count} pictures in one answer are too many: at most {_MAX_PICTURES}")
    if offer.media_type == GIF:
        return list(shots)
    return [Shot(shot.found, (number,)) for shot in shots for number in shot.numbers]


def _answered(service: Service, call: Call, shots: list[Shot], asked: _Asked) -> Answer:
    """Answer with pictures: a few are made at once, many while they are sent."""
    multipart = asked.offer.multipart
    shown = (f"{shot.found.entry.digest}:{_names(shot.numbers)}" for shot in shots)
    identity = (_VERSION, call.query, asked.offer.media_type, *shown)
    boundary = boundary_of(call.path, *identity)
    unchanged = not_modified(call, entity_tag(boundary, multipart=multipart))
    if unchanged is not None:  # before anything is rendered
        return unchanged
    studio = _Studio(renderer_of(service), call, asked)
    if len(shots) <= MAX_KEPT_PARTS and all(map(studio.is_small, shots)):
        parts, left_out = studio.parts(shots)
        answer = wrapped(call, parts, identity, multipart=multipart)
    else:
        answer, left_out = _streamed(studio, shots, boundary), []
    answer.headers.extend(warning(text) for text in (*asked.warnings, *left_out))
    return answer


def _names(numbers: Sequence[int]) -> str:
    return f"{numbers[0]}-{numbers[-1]}" if isinstance(numbers, range) else str(numbers)


def _streamed(studio: "_Studio", shots: list[Shot], boundary: str) -> Answer:
    """Answer with pictures that are made one by one; the first at once, lest nothing can be had."""
    offer = studio.asked.offer
    headers = [
        ("etag", entity_tag(boundary, multipart=offer.multipart)),
        ("vary", "accept"),
        *CROSS_ORIGIN,
    ]
    if offer.multipart:
        headers.append(("content-type", content_type(boundary, offer.media_type)))
        stream = _enveloped(studio, shots, boundary)
    else:
        headers.append(("content-type", offer.media_type))
        headers.append(("content-location", studio.location(shots[0])))
        stream = studio.content(shots[0])
    first = next(stream)
    return Answer(200, headers, stream=chain((first,), stream))


def _enveloped(studio: "_Studio", shots: list[Shot], boundary: str) -> Iterator[bytes]:
    """Give the parts; a picture that can't be made is left out, unless that leaves none."""
    first, failure = True, None
    for shot in shots:
        content = studio.content(shot)
        try:
            beginning = next(content)
        except WadoError as e:
            _log.warning("left out of rendered images", instance=shot.found.ref.path, reason=str(e))
            failure = e
            continue
        head = part_head(
            boundary, studio.asked.offer.media_type, first=first, location=studio.location(shot)
        )
        yield head + beginning
        yield from content
        first = False
    if first and failure is not None:
        raise failure
    yield closing(boundary)


def keep(answer: Answer, found: Item, look: Look) -> None:
    """Let an answer that is whole and not large be given again, from memory."""
    length = answer.body_length
    pieces = [piece for piece in answer.pieces if isinstance(piece, bytes)]
    is_made = 0 < len(pieces) == len(answer.pieces)
    if not is_made or length is None or length > _MAX_KEPT_BYTES:
        return
    answer.pieces = (b"".join(pieces),)
    answer.basis = Basis(found.view, look, in_memory=True)


class _Studio:
    """Makes the pictures of one answer; instances with many frames are read about once."""

    def __init__(self, renderer: Renderer, call: Call, asked: _Asked) -> None:
        self.asked = asked
        self._renderer = renderer
        self._base_url = call.base_url
        self._subject: Subject | None = None

    def content(self, shot: Shot) -> Iterator[bytes]:
        """Make a picture: in one piece, or frame after frame of an animation."""
        subject, options = self._subject_of(shot.found), self.asked.options
        if len(shot.numbers) == 1:
            media_type = self.asked.offer.media_type
            yield rendering.render(self._renderer, subject, shot.numbers[0], options, media_type)
        else:
            yield from rendering.render_animation(self._renderer, subject, shot.numbers, options)

    def parts(self, shots: Sequence[Shot]) -> tuple[list[Part], list[str]]:
        """Make pictures as parts of an answer; also why others are left out, unless all are."""
        parts, failures = [], []
        for shot in shots:
            try:
                body = b"".join(self.content(shot))
            except NotAcceptable as e:
                failures.append(e)
                continue
            parts.append(Part(self.asked.offer.media_type, (body,), self.location(shot)))
        if not parts:
            raise failures[0]
        return parts, [f"left out: {e}" for e in failures]

    def is_small(self, shot: Shot) -> bool:
        """Whether a picture may be made as a whole: no long animation."""
        if len(shot.numbers) == 1:
            return True
        if len(shot.numbers) > _WHOLE_FRAMES:
            return False
        image = self._subject_of(shot.found).image
        at = place(self.asked.options.viewport, image.columns, image.rows)
        return at.width * at.height * len(shot.numbers) <= _WHOLE_PIXELS

    def location(self, shot: Shot) -> str:
        """Address of a picture by itself."""
        at = f"{self._base_url}/{shot.found.ref.path}"
        if len(shot.numbers) == 1 and rendering.frame_count(shot.found) > 1:
            at = f"{at}/frames/{shot.numbers[0]}"
        return f"{at}/{self.asked.resource}"

    def _subject_of(self, found: Item) -> Subject:
        if self._subject is None or self._subject.found is not found:
            self._subject = rendering.subject_of(self._renderer, found)
        return self._subject
