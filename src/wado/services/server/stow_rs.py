"""STOW-RS (PS3.18 §10.5): parts go to `archive.store` as they come; nothing holds a whole one."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from wado.archive.store import Reception, Source, Stored
from wado.dicom.media_types import (
    DICOM,
    DICOM_JSON,
    JSON,
    OCTET_STREAM,
    Offer,
    acceptable,
    parse_media_type,
    select,
)
from wado.dicom.multipart import MultipartReader, PartBegin, PartData, PartEnd
from wado.dicom.uids import InstanceRef, StudyRef
from wado.errors import InvalidRequest, NotAcceptable, TooLarge, UnsupportedMediaType, WadoError
from wado.services.server.calls import Answer, Call, dicom_json_answer, warning
from wado.services.server.service import Service
from wado.telemetry import get_logger

_FEED_BYTES = 512 << 10
"""Bytes gathered before they go to a thread: the change of threads then costs nothing."""
_MAX_PENDING = 64
"""Parts that await their flush at a time; each is an open file."""
_POLL_S = 0.01
_MAX_WARNINGS = 10
_MAX_FAILURES = 10_000
"""Parts that fail before the request as a whole does: each is remembered and answered."""
_WHOLE_ANSWER = frozenset({413, 415, 503})
"""If nothing was stored and all failed so, the answer as a whole says so."""

_log = get_logger("wado-server")
_OFFERS = (Offer(DICOM_JSON), Offer(JSON))


async def store(service: Service, call: Call, body: AsyncIterable[bytes]) -> Answer:
    """Store instances; answers when they are safe and, for a while, until they are searchable."""
    offer = select(acceptable(call.headers.get("accept"), call.accept_parameter), _OFFERS)
    if offer is None:
        raise NotAcceptable(f"the answer can be had as {DICOM_JSON}")
    coding = (call.headers.get("content-encoding") or "identity").strip().lower()
    if coding != "identity":
        raise UnsupportedMediaType(f"bodies with Content-Encoding {coding[:40]} are not stored")
    study = call.study if "study" in call.params else None
    upload = Upload(service, call, study)
    loop = asyncio.get_running_loop()
    try:
        async for data in _gathered(body, service.settings.stall_timeout_s):
            await loop.run_in_executor(service.intake, upload.feed, data)
        await loop.run_in_executor(service.intake, upload.finish)
    except BaseException:
        upload.abort()
        raise
    await _until_visible(service, upload.stored)
    return _answer(call, upload, study, offer.media_type)


async def _gathered(body: AsyncIterable[bytes], stall_timeout_s: float) -> AsyncIterable[bytes]:
    held: list[bytes] = []
    size = 0
    async for data in _steady(body, stall_timeout_s):
        held.append(data)
        size += len(data)
        if size >= _FEED_BYTES:
            yield held[0] if len(held) == 1 else b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


async def _steady(body: AsyncIterable[bytes], stall_timeout_s: float) -> AsyncIterable[bytes]:
    """Pass a body on; a client that sends nothing for so long is not waited for."""
    pieces = aiter(body)
    while True:
        try:
            async with asyncio.timeout(stall_timeout_s):
                data = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError as e:
            raise InvalidRequest(f"no more of the body came for {stall_timeout_s:g} s") from e
        yield data


@dataclass(slots=True)
class _Failure:
    ref: InstanceRef | None
    sop_class_uid: str
    error: WadoError


@dataclass(slots=True)
class _Pending:
    reception: Reception
    future: Future[Stored]


@dataclass(slots=True)
class _Done:
    ref: InstanceRef
    sop_class_uid: str


@dataclass(slots=True)
class _Results:
    stored: list[_Done] = field(default_factory=list)
    failed: list[_Failure] = field(default_factory=list)


class Upload:
    """The parts of one request on their way in; fed from one thread at a time."""

    def __init__(self, service: Service, call: Call, study: StudyRef | None) -> None:
        self._service = service
        self._tenant_id = call.tenant_id
        self._source = Source(call.user_name, call.client, "stow")
        self._study = study
        self._reader = _reader(call.headers.get("content-type"))
        self._reception: Reception | None = None
        self._error: WadoError | None = None
        self._pending: deque[_Pending] = deque()
        self._results = _Results()
        if self._reader is None:
            self._begin({})

    @property
    def stored(self) -> Sequence[_Done]:
        """What is safe."""
        return self._results.stored

    @property
    def failed(self) -> Sequence[_Failure]:
        """What is not stored, and why."""
        return self._results.failed

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body.

        Raises
        ------
        InvalidRequest
            The body is not what its Content-Type says.
        """
        if self._reader is None:
            self._write(data)
            return
        for event in self._reader.feed(data):
            match event:
                case PartBegin(headers):
                    self._begin(headers)
                case PartData(piece):
                    self._write(piece)
                case PartEnd():
                    self._end()

    def finish(self) -> None:
        """Say that no more bytes come, and wait until what came is safe.

        Raises
        ------
        InvalidRequest
            The body was cut off, or holds no part.
        """
        if self._reader is None:
            self._end()
        else:
            self._reader.finish()
        while self._pending:
            self._settle(self._pending.popleft())
        if not self.stored and not self.failed:
            raise InvalidRequest("the message has no parts")

    def abort(self) -> None:
        """Throw away the part that was on its way; those that were whole stay stored."""
        if self._reception is not None:
            self._reception.abort()

    def _begin(self, headers: dict[str, str]) -> None:
        self._error = None
        self._reception = Reception(
            self._service.archive, self._tenant_id, self._source, study=self._study
        )
        name = parse_media_type(headers.get("content-type") or DICOM).name
        if name not in (DICOM, OCTET_STREAM):
            self._fail(UnsupportedMediaType(f"parts of type {name[:80]} are not stored"))

    def _write(self, data: bytes | memoryview) -> None:
        if self._error is None and self._reception is not None:
            try:
                self._reception.write(data)
            except WadoError as e:
                self._fail(e)

    def _end(self) -> None:
        reception = self._reception
        if reception is None or self._error is not None:
            return
        try:
            reception.finish()
        except WadoError as e:
            self._fail(e)
            return
        self._reception = None
        self._pending.append(_Pending(reception, self._service.committer.submit(reception)))
        if len(self._pending) > _MAX_PENDING:
            self._settle(self._pending.popleft())

    def _fail(self, error: WadoError) -> None:
        """Note why the part on its way is not stored; the rest of it is passed over."""
        assert self._reception is not None
        self._reception.abort()
        self._note(_Failure(self._reception.ref, self._reception.sop_class_uid, error))
        self._error = error

    def _settle(self, pending: _Pending) -> None:
        reception = pending.reception
        assert reception.ref is not None
        try:
            pending.future.result()
        except WadoError as e:
            self._note(_Failure(reception.ref, reception.sop_class_uid, e))
        else:
            self._results.stored.append(_Done(reception.ref, reception.sop_class_uid))

    def _note(self, failure: _Failure) -> None:
        if len(self._results.failed) >= _MAX_FAILURES:
            raise TooLarge(f"over {_MAX_FAILURES} parts of the request can't be stored")
        self._results.failed.append(failure)
        _log.warning(
            "instance not stored",
            tenant_id=self._tenant_id,
            sop_instance_uid=failure.ref.sop_instance_uid if failure.ref else None,
            reason=str(failure.error),
            source=self._source.address,
        )


def _reader(header: str | None) -> MultipartReader | None:
    """Choose how the body is read: by parts, or (None) as one instance.

    Raises
    ------
    UnsupportedMediaType
        The body is neither of instances nor an instance.
    """
    if not header:
        raise UnsupportedMediaType("the request has no Content-Type")
    media_type = parse_media_type(header)
    if media_type.name == DICOM:
        return None
    kind = media_type.parameters.get("type", DICOM).lower()
    if media_type.name != "multipart/related" or kind not in (DICOM, OCTET_STREAM):
        raise UnsupportedMediaType(
            f'bodies of type {header[:120]} are not stored, multipart/related; type="{DICOM}" is'
        )
    return MultipartReader(media_type.parameters.get("boundary", ""))


async def _until_visible(service: Service, stored: Sequence[_Done]) -> None:
    """Wait until searches and metadata show what was stored, but no longer than the setting."""
    deadline = time.monotonic() + service.settings.stow_visible_wait_s
    waiting = {done.ref for done in stored}
    while waiting and time.monotonic() < deadline:
        views = {series: service.journals.view(series) for series in {r.series for r in waiting}}
        waiting = {
            ref
            for ref in waiting
            if (view := views[ref.series]) is None or ref.sop_instance_uid not in view.entries
        }
        if waiting:
            await asyncio.sleep(_POLL_S)


# ------------------------------------------------------------------ the answer


def _answer(call: Call, upload: Upload, study: StudyRef | None, media_type: str) -> Answer:
    """Make the Store Instances Response Module (PS3.18 Table 10.5.3-1, PS3.3 §C.12.1.1)."""
    module: dict[str, Any] = {}
    refs = {done.ref.study for done in upload.stored}
    at = study or (refs.pop() if len(refs) == 1 else None)
    if at is not None:
        module["00081190"] = _element("UR", f"{call.base_url}/{at.path}")
    known = [failure for failure in upload.failed if failure.ref is not None]
    other = [failure for failure in upload.failed if failure.ref is None]
    for tag, items in (
        ("00081198", [_failed_item(failure) for failure in known]),
        ("00081199", [_stored_item(call, done) for done in upload.stored]),
        # Other Failures: parts that could not even be identified.
        ("0008119A", [_reason_item(failure) for failure in other]),
    ):
        if items:
            module[tag] = {"vr": "SQ", "Value": items}
    answer = dicom_json_answer(module, status=_status(upload), media_type=media_type)
    reasons = dict.fromkeys(str(failure.error) for failure in upload.failed)
    answer.headers += [warning(reason) for reason in list(reasons)[:_MAX_WARNINGS]]
    if answer.status == 503:
        answer.headers.append(("retry-after", "10"))
    return answer


def _status(upload: Upload) -> int:
    """Count the status from the instances: all, some or none stored (PS3.18 §10.5.3.1)."""
    if not upload.failed:
        return 200
    if upload.stored:
        return 202
    statuses = {failure.error.http for failure in upload.failed}
    return statuses.pop() if len(statuses) == 1 and statuses <= _WHOLE_ANSWER else 409


def _element(vr: str, value: str | int) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]} if value != "" else {"vr": vr}


def _stored_item(call: Call, done: _Done) -> dict[str, Any]:
    return {
        "00081150": _element("UI", done.sop_class_uid),
        "00081155": _element("UI", done.ref.sop_instance_uid),
        "00081190": _element("UR", f"{call.base_url}/{done.ref.path}"),
    }


def _failed_item(failure: _Failure) -> dict[str, Any]:
    assert failure.ref is not None
    return {
        "00081150": _element("UI", failure.sop_class_uid),
        "00081155": _element("UI", failure.ref.sop_instance_uid),
        **_reason_item(failure),
    }


def _reason_item(failure: _Failure) -> dict[str, Any]:
    return {"00081197": _element("US", failure.error.dimse)}
