"""The parts of one STOW-RS request on their way in: instances, or metadata with bulk data."""

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock

from wado.archive.compose import Workshop, compose, identity
from wado.archive.spool import Spool, SpooledPart
from wado.archive.store import Reception, Source, Stored
from wado.dicom.media_types import (
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    JSON,
    OCTET_STREAM,
    MediaType,
    canonical,
    parse_media_type,
)
from wado.dicom.multipart import MultipartReader, PartBegin, PartData, PartEnd
from wado.dicom.uids import StudyRef
from wado.errors import InvalidRequest, TooLarge, UnsupportedMediaType, WadoError
from wado.services.server.calls import Call
from wado.services.server.metadata_parts import instances_of
from wado.services.server.service import Service
from wado.services.server.store_response import COERCED, Done, Failure, Results
from wado.telemetry import get_logger

_MAX_PENDING = 64
"""Parts that await their flush at a time; each is an open file."""
_METADATA = frozenset({DICOM_JSON, JSON, DICOM_XML})
_INSTANCES = frozenset({DICOM, OCTET_STREAM})
_MULTIPART = "multipart/related"

_log = get_logger("wado-server")


@dataclass(slots=True)
class _Pending:
    reception: Reception
    future: Future[Stored]
    coerced: bool


class Upload:
    """The parts of one request; fed from one thread at a time, aborted from any.

    Raises
    ------
    UnsupportedMediaType
        The body is not one that is stored.
    """

    def __init__(self, service: Service, call: Call, study: StudyRef | None) -> None:
        self._service = service
        self._tenant_id = call.tenant_id
        self._base_url = call.base_url
        self._source = Source(call.user_name, call.client, "stow")
        self._study = study
        self._type, self._reader = _body_type(call.headers.get("content-type"))
        self._lock = Lock()
        self._reception: Reception | None = None
        self._part: SpooledPart | None = None
        self._limit: int | None = None
        self._spool: Spool | None = None
        self._pending: deque[_Pending] = deque()
        self.results = Results()
        if self._reader is None:
            self._begin({})

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body.

        Raises
        ------
        InvalidRequest
            The body is not what its Content-Type says.
        """
        with self._lock:
            if self._reader is None:
                self._write(data)
                return
            for event in self._reader.feed(data):
                match event:
                    case PartData(piece):
                        self._write(piece)
                    case PartBegin(headers):
                        self._begin(headers)
                    case PartEnd():
                        self._end()

    def finish(self) -> None:
        """Say that no more bytes come, and wait until what came is safe.

        Raises
        ------
        InvalidRequest
            The body was cut off, or holds no part.
        """
        with self._lock:
            if self._reader is None:
                self._end()
            else:
                self._reader.finish()
            if self._spool is not None:
                self._compose_all(self._spool)
                self._spool.close()
            while self._pending:
                self._settle(self._pending.popleft())
        if not self.results.stored and not self.results.failed:
            raise InvalidRequest("the message has no instances")

    def abort(self) -> None:
        """Throw away the part that was on its way; those that were whole stay stored."""
        with self._lock:  # a thread may still be writing to what is closed here
            if self._reception is not None:
                self._reception.abort()
            if self._spool is not None:
                self._spool.close()

    # -------------------------------------------------------------- parts

    def _begin(self, headers: dict[str, str]) -> None:
        self._reception = self._part = self._limit = None
        location = headers.get("content-location", "")
        try:
            media_type = self._part_type(headers)
            name = media_type.name
            if name in _METADATA and not (location and name == JSON):
                self._part = self._spooled().begin(media_type, location, is_metadata=True)
                self._limit = self._service.settings.stow_metadata_bytes
            elif self._is_bulk(name, location):
                self._part = self._spooled().begin(media_type, location, is_metadata=False)
            elif name in _INSTANCES:
                self._reception = Reception(
                    self._service.archive, self._tenant_id, self._source, study=self._study
                )
            else:
                self._fail("", "", UnsupportedMediaType(_how_to_send(name)))
        except InvalidRequest as e:
            self._fail("", "", e)

    def _part_type(self, headers: dict[str, str]) -> MediaType:
        """Type of a part; that of the message if it names none and can't be bulk data."""
        text = headers.get("content-type")
        if not text:
            is_bulk = self._type in _METADATA and "content-location" in headers
            return MediaType(OCTET_STREAM if is_bulk else self._type)
        found = parse_media_type(text)
        return MediaType(canonical(found.name), found.parameters)

    def _is_bulk(self, name: str, location: str) -> bool:
        """Whether a part is bulk data: of what the metadata names by its Content-Location."""
        beside_metadata = self._type in _METADATA or self._spool is not None
        return beside_metadata and (name != DICOM or bool(location))

    def _spooled(self) -> Spool:
        if self._spool is None:
            self._spool = Spool(self._service.archive.store, f"{self._base_url}/studies")
        return self._spool

    def _write(self, data: bytes | memoryview) -> None:
        if self._reception is not None:
            try:
                self._reception.write(data)
            except WadoError as e:
                self._give_up(e)
        elif self._part is not None:
            self._spooled().write(self._part, data)
            if self._limit is not None and self._part.length > self._limit:
                raise TooLarge(f"a part of metadata is over {self._limit} bytes")

    def _end(self) -> None:
        reception, self._reception, self._part = self._reception, None, None
        if reception is None:
            return
        try:
            reception.finish()
        except WadoError as e:
            self._reception = reception
            self._give_up(e)
        else:
            self._commit(reception)

    def _give_up(self, error: WadoError) -> None:
        """Note why the instance on its way is not stored; the rest of it is passed over."""
        reception, self._reception = self._reception, None
        assert reception is not None
        reception.abort()
        self._fail(reception.sop_class_uid, reception.sop_instance_uid, error)

    # -------------------------------------------------------------- metadata with bulk data

    def _compose_all(self, spool: Spool) -> None:
        """Make instances of the metadata, now that all bulk data is here."""
        service = self._service
        shop = Workshop(
            service.archive, service.journals, service.pixels, spool, self._tenant_id,
            self._source, self._study, service.settings.max_pixels,
        )  # fmt: skip
        for part in spool.metadata:
            try:
                instances = instances_of(spool, part)
            except WadoError as e:
                self._fail("", "", e)
                continue
            for metadata in instances:
                self._compose(shop, metadata)
        # An instance that failed may not have come to ask for its own.
        for location in () if self.results.failed else spool.unused():
            self.results.warn(f"bulk data that no instance names is not stored: {location}")

    def _compose(self, shop: Workshop, metadata: object) -> None:
        try:
            composed = compose(shop, metadata)
        except WadoError as e:
            self._fail(*identity(metadata), e)
            return
        for note in composed.notes:
            self.results.warn(note)
        self._commit(composed.reception, coerced=composed.is_coerced)

    # -------------------------------------------------------------- results

    def _commit(self, reception: Reception, *, coerced: bool = False) -> None:
        future = self._service.committer.submit(reception)
        self._pending.append(_Pending(reception, future, coerced))
        if len(self._pending) > _MAX_PENDING:
            self._settle(self._pending.popleft())

    def _settle(self, pending: _Pending) -> None:
        reception = pending.reception
        assert reception.ref is not None
        try:
            stored = pending.future.result()
        except WadoError as e:
            self._fail(reception.sop_class_uid, reception.sop_instance_uid, e)
        else:
            reason = COERCED if pending.coerced else 0
            received_at = stored.meta.received_at if stored.is_news else ""
            self.results.stored.append(
                Done(reception.ref, reception.sop_class_uid, reason, received_at)
            )

    def _fail(self, sop_class_uid: str, sop_instance_uid: str, error: WadoError) -> None:
        self.results.fail(Failure(sop_class_uid, sop_instance_uid, error))
        _log.warning(
            "instance not stored",
            tenant_id=self._tenant_id,
            sop_instance_uid=sop_instance_uid or None,
            reason=str(error),
            source=self._source.address,
        )


def _body_type(header: str | None) -> tuple[str, MultipartReader | None]:
    """Tell the type of the parts and how they are read: one after the other, or (None) just one.

    A client that leaves the ``type`` parameter out sends instances.
    """
    if not header:
        raise UnsupportedMediaType("the request has no Content-Type")
    media_type = parse_media_type(header)
    if media_type.name in _METADATA or media_type.name == DICOM:
        return media_type.name, None
    kind = media_type.parameters.get("type", DICOM).lower()
    if media_type.name == _MULTIPART and kind in _METADATA | _INSTANCES:
        return kind, MultipartReader(media_type.parameters.get("boundary", ""))
    raise UnsupportedMediaType(_how_to_send(kind if media_type.name == _MULTIPART else header))


def _how_to_send(kind: str) -> str:
    """Say what to do instead with a body or part of another type."""
    if kind.startswith(("image/", "video/", "text/", "model/", "application/pdf")):
        return (
            f'{kind[:80]} is stored beside metadata only: send {_MULTIPART}; type="{DICOM_JSON}", '
            "first the metadata, then this part with the BulkDataURI as its Content-Location"
        )
    return (
        f"{kind[:120]} is not stored: send {_MULTIPART} with parts of {DICOM}, or of {DICOM_JSON} "
        f"or {DICOM_XML} with bulk data"
    )
