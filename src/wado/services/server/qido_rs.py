"""QIDO-RS (PS3.18 §10.6): six resources, one way to answer."""

from collections.abc import Mapping
from gzip import compress
from hashlib import sha256
from types import MappingProxyType

import orjson

from wado.archive.search import Found, search
from wado.dicom.matching import Level
from wado.dicom.media_types import DICOM_JSON, DICOM_XML, JSON, Offer, select
from wado.dicom.multipart import boundary_of, closing, content_type, part_head
from wado.dicom.search_request import parse_search
from wado.dicom.uids import validate_uid
from wado.dicom.xml_model import to_xml
from wado.errors import NotAcceptable
from wado.services.server.calls import CROSS_ORIGIN, Answer, Call, dicom_json_answer, warning
from wado.services.server.compression import wants_gzip
from wado.services.server.representations import acceptable_to
from wado.services.server.service import Service

_XML = Offer(DICOM_XML, multipart=True)
_OFFERS = (Offer(DICOM_JSON), Offer(JSON), _XML)
_WORTH_PACKING_BYTES = 4096
_GZIP_LEVEL = 1
"""Rows of a search are much alike: the quickest level makes them ten times smaller."""
_SCOPE: Mapping[str, str] = MappingProxyType(
    {"study": "study_instance_uid", "series": "series_instance_uid"}
)


def studies(service: Service, call: Call) -> Answer:
    """Search for studies."""
    return _search(service, call, Level.STUDY)


def series(service: Service, call: Call) -> Answer:
    """Search for series, of one study or of all."""
    return _search(service, call, Level.SERIES)


def instances(service: Service, call: Call) -> Answer:
    """Search for instances, of a series, of a study, or of all."""
    return _search(service, call, Level.INSTANCE)


def _search(service: Service, call: Call, level: Level) -> Answer:
    offer = select(acceptable_to(call), _OFFERS)
    if offer is None:
        raise NotAcceptable(f"search results can be had as {DICOM_JSON}, or {DICOM_XML} multipart")
    parsed = parse_search(call.query, level)
    scope = {_SCOPE[name]: validate_uid(uid) for name, uid in call.params.items()}
    limits = (service.settings.default_limit, service.settings.max_limit)
    query = parsed.query(call.tenant_id, level, scope, limits=limits)
    found = search(service.archive, service.journals, query, base_url=call.base_url)
    answer = _answer(call, found, offer)
    answer.headers += [warning(text) for text in parsed.warnings]
    if found.more:
        text = (
            f"There are additional results that can be requested beyond these {len(found.objects)}"
        )
        answer.headers.append(warning(text))
    return answer


def _answer(call: Call, found: Found, offer: Offer) -> Answer:
    """Write the results; nothing found is 204 (PS3.18 §10.6.3.1)."""
    if not found.objects:
        return Answer(204, [*CROSS_ORIGIN, ("cache-control", "no-cache")])
    if offer == _XML:
        body, media_type = _xml(call, found)
    else:
        body, media_type = orjson.dumps(found.objects), offer.media_type
    answer = dicom_json_answer(body, media_type=media_type)
    answer.headers.append(("vary", "accept, accept-encoding"))
    if len(body) >= _WORTH_PACKING_BYTES and wants_gzip(call):
        answer.pieces = (compress(body, _GZIP_LEVEL, mtime=0),)
        answer.headers.append(("content-encoding", "gzip"))
    return answer


def _xml(call: Call, found: Found) -> tuple[bytes, str]:
    """Write each result as a document in a part of its own; the message and its media type."""
    documents = [to_xml(item) for item in found.objects]
    content = sha256(b"".join(documents)).hexdigest()
    boundary = boundary_of(call.path, content)
    pieces: list[bytes] = []
    for number, document in enumerate(documents):
        head = part_head(boundary, DICOM_XML, first=number == 0, length=len(document))
        pieces += [head, document]
    return b"".join([*pieces, closing(boundary)]), content_type(boundary, DICOM_XML)
