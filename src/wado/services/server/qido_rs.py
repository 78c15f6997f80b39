"""QIDO-RS (PS3.18 §10.6): six resources, one way to answer."""

from collections.abc import Mapping
from types import MappingProxyType

from wado.archive.search import search
from wado.dicom.matching import Level, parse_search
from wado.dicom.media_types import DICOM_JSON, JSON, Offer, acceptable, select
from wado.dicom.uids import validate_uid
from wado.errors import NotAcceptable
from wado.services.server.calls import CROSS_ORIGIN, Answer, Call, dicom_json_answer, warning
from wado.services.server.service import Service

_OFFERS = (Offer(DICOM_JSON), Offer(JSON))
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
    offer = select(acceptable(call.headers.get("accept"), call.accept_parameter), _OFFERS)
    if offer is None:
        raise NotAcceptable(f"search results can be had as {DICOM_JSON}")
    parsed = parse_search(call.query, level)
    scope = {_SCOPE[name]: validate_uid(uid) for name, uid in call.params.items()}
    limits = (service.settings.default_limit, service.settings.max_limit)
    query = parsed.query(call.tenant_id, level, scope, limits=limits)
    found = search(service.archive, service.journals, query, base_url=call.base_url)
    # Nothing found is 204 (PS3.18 §10.6.3.1).
    answer = (
        dicom_json_answer(found.objects, media_type=offer.media_type)
        if found.objects
        else Answer(204, [*CROSS_ORIGIN, ("cache-control", "no-cache")])
    )
    answer.headers += [warning(text) for text in parsed.warnings]
    if found.more:
        text = (
            f"There are additional results that can be requested beyond these {len(found.objects)}"
        )
        answer.headers.append(warning(text))
    return answer
