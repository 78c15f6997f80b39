"""Where things lie below the storage root (DESIGN §3): paths made only from validated values."""

from wado.dicom.uids import InstanceRef, SeriesRef, StudyRef

DERIVED = "derived"
"""Folder of the derived copies."""


def instance_path(ref: InstanceRef) -> str:
    """Path of the original file of an instance."""
    return (
        f"{ref.tenant_id}/{ref.study_instance_uid}/{ref.series_instance_uid}"
        f"/{ref.sop_instance_uid}.dcm"
    )


def derived_path(ref: InstanceRef, transfer_syntax_uid: str) -> str:
    """Path of the derived copy of an instance in a transfer syntax."""
    return f"{DERIVED}/{instance_path(ref)[: -len('.dcm')]}.{transfer_syntax_uid}.dcm"


def journal_path(ref: SeriesRef) -> str:
    """Path of the journal of a series: what retrieval needs, appended as instances come."""
    return f"{series_document_path(ref)}.journal"


def series_document_path(ref: SeriesRef) -> str:
    """Path of the metadata of a series, without ``.json`` or ``.json.gz``."""
    return f"metadata/{ref.tenant_id}/{ref.study_instance_uid}/{ref.series_instance_uid}"


def study_document_path(ref: StudyRef) -> str:
    """Path of the metadata of a study, without ``.json`` or ``.json.gz``."""
    return f"metadata/{ref.tenant_id}/{ref.study_instance_uid}"


def deletion_path(ref: StudyRef) -> str:
    """Path of the document that remembers that something of a study was deleted."""
    return f"{study_document_path(ref)}.deleted"


def commitment_path(tenant_id: str, transaction_uid: str) -> str:
    """Path of the journal of a storage commitment: the request, then the result."""
    return f"commitments/{tenant_id}/{transaction_uid}.journal"


def unfinished_path(label: str) -> str:
    """Path of the document that says that work on a batch was begun; gone when it is ended."""
    return f"run/transcode/{label}.json"
