"""What is written to the message log and to the warehouse; names are DICOM keywords."""

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, Literal, Self

import orjson

from wado.dicom.uids import InstanceRef, SeriesRef, StudyRef
from wado.errors import InvalidMessage


class Topic(StrEnum):
    """A topic of the message log; its value is the name on the wire."""

    STORAGE = "storage_queue"
    LOG = "log_queue"
    DICOM_STATE = "dicom_state_queue"
    DICOM_IMAGE = "dicom_image_queue"
    TRANSCODE = "transcode_queue"
    TRANSCODE_LOG = "transcode_log_queue"
    COMMITMENT = "commitment_queue"
    WEBAPI_ACCESS = "webapi_access_queue"


Table = Literal[
    "dicom_object_meta",
    "dicom_state_meta",
    "dicom_image_meta",
    "wado_access_log",
    "dicom_transcode_log",
]
"""A table of the warehouse."""


@dataclass(frozen=True, slots=True)
class _Record:
    """A flat record that travels as one JSON object."""

    def to_json(self) -> bytes:
        """The record as UTF-8 JSON on one line."""
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Read a record; fields that are unknown are passed over, so that versions can mix.

        Raises
        ------
        InvalidMessage
            Not a JSON object, or a field without a default is missing.
        """
        try:
            value: dict[str, Any] = orjson.loads(body)
            return cls(**{f.name: value[f.name] for f in fields(cls) if f.name in value})
        except (ValueError, TypeError, AttributeError) as e:
            raise InvalidMessage(f"not a {cls.__name__}: {e}") from e


class _OfStudy(_Record):
    """A record whose place on the log is that of its study."""

    __slots__ = ()
    tenant_id: str
    study_instance_uid: str

    @property
    def key(self) -> str:
        """Key on the log: all messages of a study stay in order."""
        return f"{self.tenant_id}/{self.study_instance_uid}"


class _OfInstance(_OfStudy):
    """A record that names an instance."""

    __slots__ = ()
    series_instance_uid: str
    sop_instance_uid: str

    @property
    def ref(self) -> InstanceRef:
        """The instance, validated again: a message is input."""
        return InstanceRef.of(
            self.tenant_id,
            self.study_instance_uid,
            self.series_instance_uid,
            self.sop_instance_uid,
        )


@dataclass(frozen=True, slots=True)
class DicomStoreMeta(_OfInstance):
    """A file was received.

    `file_path` is relative to the storage root; `digest` is the SHA-256 of the whole file as hex
    digits; `received_at` is ISO 8601 in UTC with microseconds.
    """

    tenant_id: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    patient_id: str
    file_name: str
    file_path: str
    file_size: int
    digest: str
    received_at: str
    trace_id: str
    source_ae_title: str = ""
    source_address: str = ""
    source_protocol: str = ""


@dataclass(frozen=True, slots=True)
class DicomDeleteMeta(_OfStudy):
    """A study, a series or an instance is to be deleted; what is below it, is empty.

    It goes the way of the announcements of what it deletes, so that all agree what came before it.
    """

    tenant_id: str
    study_instance_uid: str
    delete_requested_at: str
    trace_id: str
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    user_name: str = ""
    source_address: str = ""

    @property
    def ref(self) -> StudyRef | SeriesRef | InstanceRef:
        """What is to be deleted, validated again: a message is input."""
        study = StudyRef.of(self.tenant_id, self.study_instance_uid)
        if not self.series_instance_uid:
            return study
        at = (study.tenant_id, study.study_instance_uid, self.series_instance_uid)
        if not self.sop_instance_uid:
            return SeriesRef.of(*at)
        return InstanceRef.of(*at, self.sop_instance_uid)

    def covers(self, ref: InstanceRef) -> bool:
        """Whether an instance is part of what is to be deleted."""
        return (
            (self.tenant_id, self.study_instance_uid) == (ref.tenant_id, ref.study_instance_uid)
            and self.series_instance_uid in ("", ref.series_instance_uid)
            and self.sop_instance_uid in ("", ref.sop_instance_uid)
        )


DicomObjectMeta = DicomStoreMeta
"""The same facts as a row of the warehouse: one per reception."""


@dataclass(frozen=True, slots=True)
class DicomStateMeta(_OfStudy):
    """Patient, study and series attributes; one per series.

    Attributes are text as in the data set (decoded to Unicode, padding cut), None if absent.
    A multi-valued attribute is joined by backslashes. Dates are ``YYYYMMDD``, times ``HHMMSS[.f]``.
    """

    tenant_id: str
    study_instance_uid: str
    series_instance_uid: str
    patient_id: str | None = None
    issuer_of_patient_id: str | None = None
    patient_name: str | None = None
    patient_birth_date: str | None = None
    patient_sex: str | None = None
    study_date: str | None = None
    study_time: str | None = None
    study_id: str | None = None
    study_description: str | None = None
    accession_number: str | None = None
    referring_physician_name: str | None = None
    timezone_offset_from_utc: str | None = None
    modality: str | None = None
    series_number: int | None = None
    series_description: str | None = None
    series_date: str | None = None
    series_time: str | None = None
    body_part_examined: str | None = None
    laterality: str | None = None
    protocol_name: str | None = None
    station_name: str | None = None
    institution_name: str | None = None
    manufacturer: str | None = None
    manufacturer_model_name: str | None = None
    performed_procedure_step_start_date: str | None = None
    performed_procedure_step_start_time: str | None = None
    scheduled_procedure_step_id: str | None = None
    requested_procedure_id: str | None = None
    number_of_series_related_instances: int = 0
    updated_at: str = ""

    @property
    def series(self) -> SeriesRef:
        """The series that this row describes."""
        return SeriesRef(self.tenant_id, self.study_instance_uid, self.series_instance_uid)


@dataclass(frozen=True, slots=True)
class DicomImageMeta(_OfStudy):
    """Image attributes; one per instance. Text and numbers as in `DicomStateMeta`."""

    tenant_id: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    file_path: str
    file_size: int
    digest: str
    received_at: str
    trace_id: str
    patient_id: str | None = None
    modality: str | None = None
    study_date: str | None = None
    instance_number: int | None = None
    image_type: str | None = None
    content_date: str | None = None
    content_time: str | None = None
    acquisition_date_time: str | None = None
    acquisition_number: int | None = None
    rows: int | None = None
    columns: int | None = None
    number_of_frames: int | None = None
    samples_per_pixel: int | None = None
    photometric_interpretation: str | None = None
    bits_allocated: int | None = None
    bits_stored: int | None = None
    pixel_representation: int | None = None
    slice_thickness: str | None = None
    pixel_spacing: str | None = None
    image_position_patient: str | None = None
    image_orientation_patient: str | None = None
    lossy_image_compression: str | None = None


@dataclass(frozen=True, slots=True)
class DicomImageRemoval(_OfStudy):
    """Instances of a series were deleted: among the records of images, in their order."""

    tenant_id: str
    study_instance_uid: str
    series_instance_uid: str
    removed_sop_instance_uids: list[str]

    @property
    def series(self) -> SeriesRef:
        """The series that the instances were in."""
        return SeriesRef(self.tenant_id, self.study_instance_uid, self.series_instance_uid)


@dataclass(frozen=True, slots=True)
class CommitmentMeta(_Record):
    """A request for storage commitment is to be worked on."""

    tenant_id: str
    transaction_uid: str
    trace_id: str

    @property
    def key(self) -> str:
        """Key on the log."""
        return f"{self.tenant_id}/{self.transaction_uid}"


@dataclass(frozen=True, slots=True)
class TranscodeMeta(_OfInstance):
    """A copy of an instance in another transfer syntax is to be made.

    It holds for the original with this `digest` alone. `quality` (1 to 100) is that of a lossy
    copy; 0: it must be lossless. `attempt` counts from 1. `requested_at` is ISO 8601 in UTC with
    microseconds, written once; a message of an earlier version has none.
    """

    tenant_id: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    target_transfer_syntax_uid: str
    file_path: str
    file_size: int
    digest: str
    trace_id: str
    quality: int = 0
    attempt: int = 1
    requested_at: str = ""

    @property
    def key(self) -> str:
        """Key on the log: their order does not matter, so the work is spread by instance."""
        return f"{self.tenant_id}/{self.sop_instance_uid}"

    @property
    def request_id(self) -> str:
        """Name of this request: the same in all its attempts, and when its message comes again."""
        told = (
            *(self.tenant_id, self.study_instance_uid, self.series_instance_uid),
            *(self.sop_instance_uid, self.digest, self.target_transfer_syntax_uid),
            *(self.trace_id, self.requested_at),
        )
        return sha256("\0".join(told).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class TranscodeLog(_OfStudy):
    """What came of an attempt to make a copy; `duration_ms` in milliseconds, sizes in bytes.

    `transcoded_at` is ISO 8601 in UTC with microseconds; `codec` names what did the work, and
    `reason` says why there is no copy. `request_id` and `attempt` (from 1) are the key: an attempt
    that is told of again is the same row. `requested_transfer_syntax_uid` may be another than that
    of the target, where it does not fit.
    """

    tenant_id: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    target_transfer_syntax_uid: str
    file_path: str
    file_size: int
    succeeded: bool
    duration_ms: float
    transcoded_at: str
    trace_id: str
    request_id: str
    requested_at: str
    requested_transfer_syntax_uid: str
    derived_path: str | None = None
    derived_size: int | None = None
    reason: str | None = None
    codec: str | None = None
    number_of_frames: int | None = None
    modality: str | None = None
    attempt: int = 1

    @classmethod
    def of(cls, meta: TranscodeMeta) -> Self:
        """Begin the row of an attempt: it has not succeeded yet, and no time has passed."""
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        return cls(
            tenant_id=meta.tenant_id,
            study_instance_uid=meta.study_instance_uid,
            series_instance_uid=meta.series_instance_uid,
            sop_instance_uid=meta.sop_instance_uid,
            transfer_syntax_uid=meta.transfer_syntax_uid,
            target_transfer_syntax_uid=meta.target_transfer_syntax_uid,
            file_path=meta.file_path,
            file_size=meta.file_size,
            succeeded=False,
            duration_ms=0.0,
            transcoded_at=now,
            trace_id=meta.trace_id,
            request_id=meta.request_id,
            requested_at=meta.requested_at or now,
            requested_transfer_syntax_uid=meta.target_transfer_syntax_uid,
            attempt=meta.attempt,
        )


@dataclass(frozen=True, slots=True)
class WadoAccessLog(_Record):
    """Who asked what of the web API, with which result; `duration_ms` in milliseconds."""

    tenant_id: str
    requested_at: str
    trace_id: str
    method: str
    path: str
    query: str
    status: int
    bytes_sent: int
    duration_ms: float
    user_name: str = ""
    remote_address: str = ""
    user_agent: str = ""
