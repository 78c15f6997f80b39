"""References to studies, series and instances, made only from validated values (PS3.5 §9)."""

import re
from dataclasses import dataclass

from wado.errors import InvalidRequest, InvalidUID

MAX_UID_LENGTH = 64
RESERVED_NAMES = frozenset(
    {
        "metadata", "derived", "quarantine", "deleted", "commitments", "incoming", "log", "index",
        "warehouse", "run", "trash",
    }
)  # fmt: skip
"""Folder names below the storage root that can't be tenant ids."""

_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*\Z")
_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def validate_uid(value: str | bytes) -> str:
    """Check a UID and cut its padding (trailing NUL and spaces).

    Leading zeros in a component are tolerated: real devices write them.

    Raises
    ------
    InvalidUID
        Not digits and single dots, empty, or longer than 64 characters.

    References
    ----------
    PS3.5 §9.1.
    """
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    text = text.rstrip("\0 ")
    if len(text) > MAX_UID_LENGTH or not _UID.match(text):
        raise InvalidUID(f"not a UID: {text[:80]!r}")
    return text


def validate_tenant_id(value: str) -> str:
    """Check a tenant id: 1 to 64 of ``A-Z a-z 0-9 _ -``, and not a reserved folder name.

    Raises
    ------
    InvalidRequest
        The value is not a tenant id.
    """
    if not _TENANT.match(value) or value.lower() in RESERVED_NAMES:
        raise InvalidRequest(f"not a tenant id: {value[:80]!r}")
    return value


@dataclass(frozen=True, slots=True, order=True)
class StudyRef:
    """A study of a tenant. Make it with `StudyRef.of`, which validates."""

    tenant_id: str
    study_instance_uid: str

    @classmethod
    def of(cls, tenant_id: str, study_instance_uid: str | bytes) -> "StudyRef":
        """Validate the values and make a reference."""
        return cls(validate_tenant_id(tenant_id), validate_uid(study_instance_uid))

    @property
    def study(self) -> "StudyRef":
        """The study itself."""
        return self

    @property
    def path(self) -> str:
        """``studies/…``, as in a DICOMweb URL."""
        return f"studies/{self.study_instance_uid}"


@dataclass(frozen=True, slots=True, order=True)
class SeriesRef:
    """A series of a tenant. Make it with `SeriesRef.of`, which validates."""

    tenant_id: str
    study_instance_uid: str
    series_instance_uid: str

    @classmethod
    def of(cls, tenant_id: str, study: str | bytes, series: str | bytes) -> "SeriesRef":
        """Validate the values and make a reference."""
        return cls(validate_tenant_id(tenant_id), validate_uid(study), validate_uid(series))

    @property
    def study(self) -> StudyRef:
        """The study that holds the series."""
        return StudyRef(self.tenant_id, self.study_instance_uid)

    @property
    def path(self) -> str:
        """``studies/…/series/…``, as in a DICOMweb URL."""
        return f"studies/{self.study_instance_uid}/series/{self.series_instance_uid}"


@dataclass(frozen=True, slots=True, order=True)
class InstanceRef:
    """An instance of a tenant. Make it with `InstanceRef.of`, which validates."""

    tenant_id: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str

    @classmethod
    def of(
        cls, tenant_id: str, study: str | bytes, series: str | bytes, sop: str | bytes
    ) -> "InstanceRef":
        """Validate the values and make a reference."""
        return cls(
            validate_tenant_id(tenant_id),
            validate_uid(study),
            validate_uid(series),
            validate_uid(sop),
        )

    @property
    def study(self) -> StudyRef:
        """The study that holds the instance."""
        return StudyRef(self.tenant_id, self.study_instance_uid)

    @property
    def series(self) -> SeriesRef:
        """The series that holds the instance."""
        return SeriesRef(self.tenant_id, self.study_instance_uid, self.series_instance_uid)

    @property
    def path(self) -> str:
        """``studies/…/series/…/instances/…``, as in a DICOMweb URL."""
        return (
            f"studies/{self.study_instance_uid}/series/{self.series_instance_uid}"
            f"/instances/{self.sop_instance_uid}"
        )
