"""Attributes of patients, studies, series and images for the records, out of DICOM JSON."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wado.dicom.describe import Description
from wado.records import DicomImageMeta, DicomStateMeta, DicomStoreMeta


def _text(element: Mapping[str, Any] | None) -> str | None:
    """All values joined by backslash; person names with their component groups joined by ``=``."""
    values = element.get("Value") if element else None
    if not values:
        return None
    if len(values) == 1 and isinstance(values[0], str):
        return values[0] or None
    return "\\".join(map(_one_text, values)) or None


def _one_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        groups = (value.get(g, "") for g in ("Alphabetic", "Ideographic", "Phonetic"))
        return "=".join(groups).rstrip("=")
    return str(value)


_TOO_LARGE = 1 << 63
"""What an index or a warehouse can't hold as a number."""


def _number(element: Mapping[str, Any] | None) -> int | None:
    values = element.get("Value") if element else None
    if not values or values[0] is None:
        return None
    try:
        number = int(values[0])
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < _TOO_LARGE else None


_Read = Callable[[Mapping[str, Any] | None], str | int | None]

_STATE: Sequence[tuple[str, str, _Read]] = (
    ("patient_id", "00100020", _text),
    ("issuer_of_patient_id", "00100021", _text),
    ("patient_name", "00100010", _text),
    ("patient_birth_date", "00100030", _text),
    ("patient_sex", "00100040", _text),
    ("study_date", "00080020", _text),
    ("study_time", "00080030", _text),
    ("study_id", "00200010", _text),
    ("study_description", "00081030", _text),
    ("accession_number", "00080050", _text),
    ("referring_physician_name", "00080090", _text),
    ("timezone_offset_from_utc", "00080201", _text),
    ("modality", "00080060", _text),
    ("series_number", "00200011", _number),
    ("series_description", "0008103E", _text),
    ("series_date", "00080021", _text),
    ("series_time", "00080031", _text),
    ("body_part_examined", "00180015", _text),
    ("laterality", "00200060", _text),
    ("protocol_name", "00181030", _text),
    ("station_name", "00081010", _text),
    ("institution_name", "00080080", _text),
    ("manufacturer", "00080070", _text),
    ("manufacturer_model_name", "00081090", _text),
    ("performed_procedure_step_start_date", "00400244", _text),
    ("performed_procedure_step_start_time", "00400245", _text),
)

_IMAGE: Sequence[tuple[str, str, _Read]] = (
    ("patient_id", "00100020", _text),
    ("modality", "00080060", _text),
    ("study_date", "00080020", _text),
    ("instance_number", "00200013", _number),
    ("image_type", "00080008", _text),
    ("content_date", "00080023", _text),
    ("content_time", "00080033", _text),
    ("acquisition_date_time", "0008002A", _text),
    ("acquisition_number", "00200012", _number),
    ("rows", "00280010", _number),
    ("columns", "00280011", _number),
    ("number_of_frames", "00280008", _number),
    ("samples_per_pixel", "00280002", _number),
    ("photometric_interpretation", "00280004", _text),
    ("bits_allocated", "00280100", _number),
    ("bits_stored", "00280101", _number),
    ("pixel_representation", "00280103", _number),
    ("slice_thickness", "00180050", _text),
    ("pixel_spacing", "00280030", _text),
    ("image_position_patient", "00200032", _text),
    ("image_orientation_patient", "00200037", _text),
    ("lossy_image_compression", "00282110", _text),
)

_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})\Z")


def state_of(meta: DicomStoreMeta, metadata: Mapping[str, Any], count: int) -> DicomStateMeta:
    """Take patient, study and series attributes from DICOM JSON; the series has `count` images."""
    values: dict[str, Any] = {
        name: read(metadata[tag]) for name, tag, read in _STATE if tag in metadata
    }
    for name in ("study_date", "series_date", "patient_birth_date"):
        if values.get(name):
            values[name] = _normal_date(values[name])
    # Request Attributes Sequence: of several requests the first is searchable.
    requests = metadata.get("00400275", {}).get("Value") or [{}]
    request = requests[0] if isinstance(requests[0], dict) else {}  # hostile data: not a sequence
    values["scheduled_procedure_step_id"] = _text(request.get("00400009"))
    values["requested_procedure_id"] = _text(request.get("00401001"))
    return DicomStateMeta(
        tenant_id=meta.tenant_id,
        study_instance_uid=meta.study_instance_uid,
        series_instance_uid=meta.series_instance_uid,
        number_of_series_related_instances=count,
        updated_at=meta.received_at,  # not now: a replay must change nothing
        **values,
    )


def _normal_date(value: str) -> str:
    """``2004.01.19`` of ACR-NEMA (PS3.5 §6.2) as ``20040119``, so that ranges work."""
    match = _DATE.match(value.strip())
    return "".join(match.groups()) if match else value


def image_of(meta: DicomStoreMeta, description: Description) -> DicomImageMeta:
    """Take image attributes from DICOM JSON."""
    metadata = description.metadata
    values: dict[str, Any] = {
        name: read(metadata[tag]) for name, tag, read in _IMAGE if tag in metadata
    }
    return DicomImageMeta(
        tenant_id=meta.tenant_id,
        study_instance_uid=meta.study_instance_uid,
        series_instance_uid=meta.series_instance_uid,
        sop_instance_uid=meta.sop_instance_uid,
        sop_class_uid=meta.sop_class_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        file_path=meta.file_path,
        file_size=meta.file_size,
        digest=meta.digest,
        received_at=meta.received_at,
        trace_id=meta.trace_id,
        **values,
    )
