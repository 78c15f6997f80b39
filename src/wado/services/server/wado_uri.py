"""The URI service (PS3.18 ch. 9), WADO-URI: one instance by its UIDs, in a form a browser shows.

What it gives is what WADO-RS gives by other names: pictures and documents as its rendered
resources, DICOM as its instances.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from wado.archive import rendering, retrieve
from wado.archive.deidentification import deidentified_instance
from wado.archive.pieces import Part
from wado.archive.retrieve import Item
from wado.dicom.deidentification import METHOD
from wado.dicom.media_types import (
    DICOM,
    EXPLICIT_VR_LITTLE_ENDIAN,
    MediaRange,
    Offer,
    acceptable,
    select,
)
from wado.dicom.rendering.options import MAX_VIEWPORT, RenderOptions, read_options
from wado.dicom.uids import InstanceRef, validate_uid
from wado.errors import InvalidRequest, NotAcceptable
from wado.services.server import wado_rs
from wado.services.server.addresses import HeaderLookup
from wado.services.server.calls import Answer, Call
from wado.services.server.charsets import check_charset
from wado.services.server.documents import document, metadata_of
from wado.services.server.rendered import PICTURES, Shot, render_item, renderer_of
from wado.services.server.representations import wrapped
from wado.services.server.service import Service

_GIF: Final = "image/gif"
_SINGLE = (*map(Offer, PICTURES), Offer(DICOM))
_MULTI = (Offer(DICOM), *map(Offer, PICTURES))
"""Of several frames the whole is meant, unless it is to be shown (PS3.18 §9.4.1)."""
NO_STORE = ("cache-control", "no-store")
_OF_PICTURES = (
    "annotation", "rows", "columns", "region", "windowCenter", "windowWidth", "frameNumber",
)  # fmt: skip
"""Parameters that must not come with ``contentType=application/dicom`` (PS3.18 §9.1.2.3)."""
_MAX_FRAME_DIGITS = 9
_WHOLE_REGION = 4

Parameters = Mapping[str, str]


def retrieve_object(service: Service, call: Call) -> Answer:
    """Retrieve an instance.

    Raises
    ------
    InvalidRequest
        A parameter is missing, has a wrong value, or goes beyond what this archive does.
    NotFound
        There is no such instance in that series of that study, or no such frame.
    NotAcceptable
        It can't be had in the form that was asked for.
    """
    asked = _parameters(call.query)
    ref = _ref(call.tenant_id, asked)
    _check(asked)
    check_charset(call)
    found = retrieve.item(service.journals, ref)
    wanted = _wanted(call, asked)
    if "anonymize" in asked:
        return _anonymous(service, call, found, asked)
    if rendering.is_image(found):
        return _image(service, call, found, _Request(asked, wanted))
    return _document(service, call, found, _Request(asked, wanted))


class _Request(NamedTuple):
    """The parameters, and the media types that are wanted, best first."""

    asked: Parameters
    wanted: tuple[MediaRange, ...]


# ------------------------------------------------------------------ the request


def _parameters(query: str) -> Parameters:
    """Read the query; of a repeated parameter the first one counts, empty ones don't."""
    pairs = parse_qsl(query, keep_blank_values=False)
    return dict(reversed([(name, value.strip()) for name, value in pairs]))


def _ref(tenant_id: str, asked: Parameters) -> InstanceRef:
    if asked.get("requestType") != "WADO":
        raise InvalidRequest("requestType must be WADO")
    uids = []
    for name in ("studyUID", "seriesUID", "objectUID"):
        if name not in asked:
            raise InvalidRequest(f"{name} is missing")
        uids.append(validate_uid(asked[name]))
    return InstanceRef.of(tenant_id, *uids)


def _check(asked: Parameters) -> None:
    """Refuse what can't be done rather than leave it out: the client would not see it."""
    if "presentationUID" in asked or "presentationSeriesUID" in asked:
        raise InvalidRequest("presentation states are not applied here: leave presentationUID out")
    if ("windowCenter" in asked) != ("windowWidth" in asked):
        raise InvalidRequest("windowCenter and windowWidth come together or not at all")
    if asked.get("anonymize", "yes") != "yes":
        raise InvalidRequest(f"anonymize can only be yes, not {asked['anonymize'][:20]!r}")


def _wanted(call: Call, asked: Parameters) -> tuple[MediaRange, ...]:
    """Read contentType, which stands before the Accept header."""
    wanted = acceptable(call.headers.get("accept"), asked.get("contentType"))
    if "contentType" in asked and not wanted:
        raise InvalidRequest(f"contentType names no media type: {asked['contentType'][:80]!r}")
    return wanted


# ------------------------------------------------------------------ forms


def _image(service: Service, call: Call, found: Item, request: _Request) -> Answer:
    """Answer with a picture, all frames as an animation, or the instance."""
    asked, frames = request.asked, found.entry.number_of_frames
    number = _frame_number(asked.get("frameNumber"), found)
    whole = frames > 1 and number is None and not any(map(_shows, request.wanted))
    offer = select(request.wanted, _MULTI if whole else _SINGLE)
    if offer is None:
        raise NotAcceptable(f"the image can be had as {', '.join((*PICTURES, DICOM))}")
    if offer.media_type == DICOM:
        return _dicom(service, call, found, asked)
    options, warnings = _options(service, found, asked)
    if number is not None or frames == 1:
        numbers = range(number or 1, (number or 1) + 1)
    elif offer.media_type == _GIF:
        numbers = range(1, frames + 1)
    else:
        subject = rendering.subject_of(renderer_of(service), found)
        chosen = rendering.representative_frame(subject)
        numbers = range(chosen, chosen + 1)
        warnings = (*warnings, f"frame {chosen} of {frames} stands for all")
    return render_item(service, call, Shot(found, numbers), options, offer.media_type, warnings)


def _shows(wanted: MediaRange) -> bool:
    """Whether who asks for this shows what it gets: a browser, for its page or an image in it."""
    return wanted.media_type.startswith(("image/", "text/html"))


def _document(service: Service, call: Call, found: Item, request: _Request) -> Answer:
    """Answer with what is no image in the best form that can be had, DICOM if in no other."""
    for wanted in request.wanted:
        if wanted.media_type == DICOM:
            return _dicom(service, call, found, request.asked)
        try:
            return document(service, call, found, (wanted,))
        except NotAcceptable:
            if wanted.media_type in ("application/*", "*/*"):
                return _dicom(service, call, found, request.asked)
    return document(service, call, found, request.wanted)


def _dicom(service: Service, call: Call, found: Item, asked: Parameters) -> Answer:
    """Answer with the instance as WADO-RS does, as a single part."""
    named = [name for name in _OF_PICTURES if name in asked]
    if named and "contentType" in asked:
        raise InvalidRequest(f"{named[0]} is not for {DICOM}")
    syntax = asked.get("transferSyntax", "")
    if syntax and syntax != "*":
        validate_uid(syntax)
    accept = f"{DICOM};transfer-syntax={syntax}" if syntax else DICOM
    ref = found.ref
    uids = (ref.study_instance_uid, ref.series_instance_uid, ref.sop_instance_uid)
    params = dict(zip(("study", "series", "instance"), uids, strict=True))
    headers = _Accepting(call.headers, accept)
    return wado_rs.instance(service, replace(call, params=params, query="", headers=headers))


def _anonymous(service: Service, call: Call, found: Item, asked: Parameters) -> Answer:
    """Answer with an image without who it is of; refuse what might show it.

    References
    ----------
    PS3.18 §9.1.2.2; PS3.15 Annex E.
    """
    key = service.settings.deidentification_key
    if not key:
        raise InvalidRequest("anonymize is off here: server.deidentification_key is not set")
    if asked.get("contentType") != DICOM:
        raise InvalidRequest(f"anonymize=yes goes with contentType={DICOM} alone")
    if asked.get("transferSyntax", "*") not in ("*", EXPLICIT_VR_LITTLE_ENDIAN):
        raise InvalidRequest(f"anonymize=yes gives {EXPLICIT_VR_LITTLE_ENDIAN} alone")
    metadata = metadata_of(service, found)
    pieces = deidentified_instance(found, metadata, key.encode())
    part = Part(f"{DICOM};transfer-syntax={EXPLICIT_VR_LITTLE_ENDIAN}", pieces)
    answer = wrapped(call, [part], (found.entry.digest, "anonymous", METHOD), multipart=False)
    answer.headers.append(NO_STORE)
    return answer


class _Accepting:
    """Headers of a request, but for what it accepts."""

    def __init__(self, headers: HeaderLookup, accept: str) -> None:
        self._headers = headers
        self._accept = accept

    def get(self, key: str, /) -> Any:
        """Value of a header, or None."""
        return self._accept if key == "accept" else self._headers.get(key)


# ------------------------------------------------------------------ pictures


def _frame_number(text: str | None, found: Item) -> int | None:
    """Read frameNumber; an instance without frames passes it over (PS3.18 §9.1.2.3)."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_FRAME_DIGITS):
        raise InvalidRequest(f"frameNumber is a number from 1, not {text[:20]!r}")
    (number,) = retrieve.existing_frames((int(text),), found)
    return number


def _options(
    service: Service, found: Item, asked: Parameters
) -> tuple[RenderOptions, tuple[str, ...]]:
    """Say in the parameters of WADO-RS how to render."""
    named = {"annotation": asked.get("annotation"), "quality": asked.get("imageQuality")}
    if "windowCenter" in asked:
        named["window"] = f"{asked['windowCenter']},{asked['windowWidth']},linear"
    room = [_side(asked, name) for name in ("columns", "rows")]
    region = _region(asked.get("region"))
    if region is not None:
        image = rendering.subject_of(renderer_of(service), found).image
        named["viewport"] = _viewport(room, region, (image.columns, image.rows))
    elif any(room):
        named["viewport"] = ",".join(str(side or MAX_VIEWPORT) for side in room)
    return read_options(named.get)


def _side(asked: Parameters, name: str) -> int | None:
    text = asked.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_VIEWPORT):
        raise InvalidRequest(f"{name} is a number from 1 to {MAX_VIEWPORT}, not {text[:20]!r}")
    return int(text)


def _region(text: str | None) -> tuple[float, ...] | None:
    """Read ``xmin,ymin,xmax,ymax``, each a part of the side of the image from 0 to 1."""
    if text is None:
        return None
    try:
        edges = tuple(map(float, text.split(",")))
    except ValueError:
        edges = ()
    if len(edges) != _WHOLE_REGION or not all(0 <= edge <= 1 for edge in edges):
        raise InvalidRequest(f"region is xmin,ymin,xmax,ymax from 0 to 1, not {text[:80]!r}")
    if edges[0] >= edges[2] or edges[1] >= edges[3]:
        raise InvalidRequest("region is empty: xmin,ymin,xmax,ymax")
    return edges


def _viewport(room: list[int | None], region: tuple[float, ...], sides: tuple[int, int]) -> str:
    """Turn a region to pixels; without room it keeps its size."""
    left, top, right, bottom = (
        round(edge * side, 3) for edge, side in zip(region, (*sides, *sides), strict=True)
    )
    size = (right - left, bottom - top)
    if any(room):
        width, height = (side or MAX_VIEWPORT for side in room)
    else:
        width, height = (min(max(1, round(side)), MAX_VIEWPORT) for side in size)
    return f"{width},{height},{left},{top},{size[0]:.3f},{size[1]:.3f}"
