"""Storage commitment over the web (PS3.18 ch. 13): the request, and the check of its result."""

import asyncio
import os
import time
from collections.abc import AsyncIterable, Mapping
from typing import Any

import orjson

from wado.archive.commitment import (
    Transaction,
    Wanted,
    find_transaction,
    read_request,
    request_commitment,
)
from wado.archive.paths import commitment_path
from wado.dicom.media_types import DICOM_JSON, DICOM_XML, JSON, Offer, parse_media_type, select
from wado.dicom.uids import validate_uid
from wado.dicom.xml_model import from_xml, to_xml
from wado.errors import InvalidRequest, NotAcceptable, TooLarge, UnsupportedMediaType
from wado.records import CommitmentMeta
from wado.services.server.calls import CROSS_ORIGIN, Answer, Call, dicom_json_answer
from wado.services.server.representations import acceptable_to
from wado.services.server.service import Service

_POLL_S = 0.02
_RETRY_AFTER = ("retry-after", "2")
_BYTES_OF_REFERENCE = 1024
"""Of one reference in a payload at the most: in XML with indents it is about 500."""
_BYTES_BESIDE = 65_536
_OFFERS = (Offer(DICOM_JSON), Offer(JSON), Offer(DICOM_XML))
_XML = "application/xml"


async def request(service: Service, call: Call, body: AsyncIterable[bytes]) -> Answer:
    """Request storage commitment; answers with the result if that is there soon."""
    media_type = _chosen(call)
    transaction_uid = validate_uid(call.params["transaction"])
    header = call.headers.get("content-type")
    name = parse_media_type(header).name if header else ""
    if name not in (DICOM_JSON, JSON, DICOM_XML, _XML):
        raise UnsupportedMediaType(f"requests can be read as {DICOM_JSON} or {DICOM_XML}")
    data = await _whole(service, body)
    loop = asyncio.get_running_loop()
    deadline = time.monotonic() + service.settings.commitment_wait_s
    transaction = await loop.run_in_executor(
        service.intake, _take, service, call, transaction_uid, name, data
    )
    if transaction.result is None:
        path = commitment_path(call.tenant_id, transaction_uid)
        version = service.archive.store.version(path)
        while time.monotonic() < deadline:
            if service.archive.store.version(path) != version:
                break
            await asyncio.sleep(_POLL_S)
        transaction = await loop.run_in_executor(
            service.intake, _find, service, call.tenant_id, transaction_uid
        )
    return _answer(transaction, media_type)


def result(service: Service, call: Call) -> Answer:
    """Check the result of a request."""
    media_type = _chosen(call)
    transaction_uid = validate_uid(call.params["transaction"])
    return _answer(_find(service, call.tenant_id, transaction_uid), media_type)


def _chosen(call: Call) -> str:
    offer = select(acceptable_to(call), _OFFERS)
    if offer is None:
        raise NotAcceptable(f"the result can be had as {DICOM_JSON} and as {DICOM_XML}")
    return offer.media_type


async def _whole(service: Service, body: AsyncIterable[bytes]) -> bytes:
    limit = service.settings.max_commitment_references * _BYTES_OF_REFERENCE + _BYTES_BESIDE
    data = bytearray()
    try:
        async with asyncio.timeout(service.settings.stall_timeout_s):
            async for piece in body:
                data += piece
                if len(data) > limit:
                    raise TooLarge(f"a storage commitment request has at most {limit} bytes")
    except TimeoutError as e:
        raise InvalidRequest("the body did not come in time") from e
    return bytes(data)


def _take(
    service: Service, call: Call, transaction_uid: str, media_type: str, data: bytes
) -> Transaction:
    wanted = _read(service, media_type, data)
    meta = CommitmentMeta(call.tenant_id, transaction_uid, os.urandom(16).hex())
    keep_s = service.archive.commitments_keep_s
    return request_commitment(service.archive, meta, wanted, keep_s=keep_s)


def _read(service: Service, media_type: str, data: bytes) -> list[Wanted]:
    payload: Any
    if media_type in (DICOM_XML, _XML):
        payload = from_xml(data)
    else:
        try:
            payload = orjson.loads(data)
        except ValueError as e:
            raise InvalidRequest(f"the body is not JSON: {e}") from e
    if isinstance(payload, list) and len(payload) == 1:
        payload = payload[0]
    if not isinstance(payload, Mapping):
        raise InvalidRequest("the body is not one data set in the DICOM JSON Model")
    return read_request(payload, max_references=service.settings.max_commitment_references)


def _find(service: Service, tenant_id: str, transaction_uid: str) -> Transaction:
    keep_s = service.archive.commitments_keep_s
    return find_transaction(service.archive, tenant_id, transaction_uid, keep_s=keep_s)


def _answer(transaction: Transaction, media_type: str) -> Answer:
    if transaction.result is None:
        return Answer(202, [_RETRY_AFTER, ("cache-control", "no-store"), *CROSS_ORIGIN])
    if media_type == DICOM_XML:
        headers = [("content-type", DICOM_XML), ("cache-control", "no-cache"), *CROSS_ORIGIN]
        return Answer(200, headers, (to_xml(transaction.result),))
    return dicom_json_answer(transaction.result, media_type=media_type)
