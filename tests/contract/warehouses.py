"""What the tests of `Warehouse` have in common."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from wado.ports import Warehouse
from wado.records import (
    DicomImageMeta,
    DicomObjectMeta,
    DicomStateMeta,
    TranscodeLog,
    WadoAccessLog,
)

Open = Callable[..., Warehouse]

STORE = DicomObjectMeta(
    tenant_id="t",
    study_instance_uid="1.2",
    series_instance_uid="1.2.3",
    sop_instance_uid="1.2.3.4",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    patient_id="P'1\n\u5c71",
    file_name="1.2.3.4.dcm",
    file_path="t/1.2/1.2.3/1.2.3.4.dcm",
    file_size=1 << 40,
    digest="ab" * 32,
    received_at="2026-11-01T10:00:00.000000+00:00",
    trace_id="0",
)
STATE = DicomStateMeta(
    "t",
    "1.2",
    "1.2.3",
    series_number=7,
    number_of_series_related_instances=1,
    updated_at="2026-11-01T10:00:00.000001+00:00",
)
IMAGE = DicomImageMeta(
    **{f.name: getattr(STORE, f.name) for f in fields(DicomImageMeta) if hasattr(STORE, f.name)},
    rows=512,
)
ACCESS = WadoAccessLog("t", "2026-11-01T10:00:02.500000+00:00", "0", "GET", "/", "", 200, 12, 1.5)
TRANSCODE = TranscodeLog(
    **{f.name: getattr(STORE, f.name) for f in fields(TranscodeLog) if hasattr(STORE, f.name)},
    target_transfer_syntax_uid="1.2.840.10008.1.2.4.202",
    requested_transfer_syntax_uid="1.2.840.10008.1.2.4.202",
    request_id="ab" * 16,
    requested_at="2026-11-01T10:00:00.500000+00:00",
    succeeded=True,
    duration_ms=12.5,
    transcoded_at="2026-11-01T10:00:01.000000+00:00",
    derived_path="derived/t/1.2/1.2.3/1.2.3.4.1.2.840.10008.1.2.4.202.dcm",
    derived_size=(1 << 40) + 1,
    codec="openjpeg → openjph",
    number_of_frames=10_000,
    modality="XA",
    attempt=2,
)
"""A copy that was made."""
FAILED = replace(
    TRANSCODE,
    succeeded=False,
    derived_path=None,
    derived_size=None,
    codec=None,
    number_of_frames=None,
    modality=None,
    reason="frame 3: the stream ends early",
    attempt=3,
)
"""One that could not be."""


def stores(*numbers: int, **attributes: Any) -> list[bytes]:
    return [replace(STORE, trace_id=str(n), **attributes).to_json() for n in numbers]
