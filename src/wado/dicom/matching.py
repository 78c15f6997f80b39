"""What is searched for (PS3.18 §8.3.4, PS3.4 §C.2.2.2): matching keys, order, and the query.

`wado.dicom.search_request` reads them from a query string.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Literal


class Level(StrEnum):
    """Level of a search (PS3.18 §10.6)."""

    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"

    def holds(self, other: "Level") -> bool:
        """Whether rows of this level show attributes of the other one: their own, or above."""
        return _DEPTH[other] <= _DEPTH[self]


_DEPTH = MappingProxyType({level: depth for depth, level in enumerate(Level)})


MatchKind = Literal[
    "single",
    "wildcard",
    "range",
    "date_time_range",
    "uid_list",
    "any_of",
    "any",
    "all",
    "universal",
    "empty",
]


@dataclass(frozen=True, slots=True)
class Match:
    """One matching key.

    `keyword` is the DICOM keyword in snake_case. `values` are as sent: one for single, wildcard
    (``*`` and ``?``) and universal; two for a range (an open end is ``""``); any number for
    uid_list and any_of (literal values, of which one must be equal).

    A date_time_range is a date and a time matched together (PS3.4 §C.2.2.2.5.4): `keyword` is the
    date's (``study_date``), the time's is the same with ``_time`` for ``_date``, and `values` are
    (low date, low time, high date, high time), inclusive; an open end has both its values ``""``,
    otherwise both are given. A row without a time matches if its date is within.

    Of `parts`, one must hold for "any" (a list of values of which some are patterns or ranges,
    or one range per time zone), each for "all"; `keyword` then only names what was asked for.
    Other kinds have no parts. Several matches may have the same keyword: all must hold.

    `path` is set for an attribute that only instances hold: tags (8 hex digits), a sequence's
    before its item's. Such a match is evaluated on the DICOM JSON of instances, never by the
    index. Its `vr` is that of the data dictionary, and `zone` (``+0100``) the time zone of a
    date or time, if the query names one.
    """

    keyword: str
    kind: MatchKind
    values: tuple[str, ...] = ()
    parts: tuple["Match", ...] = ()
    path: tuple[str, ...] = ()
    vr: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """Sort by a column: numbers as numbers, names folded, rows without a value last both ways."""

    keyword: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A search: all matches hold; rows come in a stable order; `limit` rows from `offset` on.

    `include` holds the tags (8 hex digits) of attributes asked for beyond the required ones, or
    ``all``. `order` comes before the order that rows have by themselves: newest study first, then
    by UID. `scope` are the keywords of the UIDs in the path: what stands above them need not be
    returned.
    """

    tenant_id: str
    level: Level
    matches: tuple[Match, ...] = ()
    include: frozenset[str] = frozenset()
    limit: int = 100
    offset: int = 0
    fuzzy: bool = False
    order: tuple[Order, ...] = ()
    scope: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Key:
    """An attribute by which searches are possible: where it stands and how it compares."""

    keyword: str
    tag: str
    vr: str
    level: Level


def _keys(level: Level, table: str) -> list[Key]:
    rows = (line.split() for line in table.strip().splitlines())
    return [Key(snake(keyword), tag, vr, level) for tag, keyword, vr in rows]


def snake(keyword: str) -> str:
    """Write a keyword in snake_case: ``StudyInstanceUID`` is ``study_instance_uid``."""
    return _HUMP.sub("_", keyword.replace("UID", "Uid").replace("ID", "Id")).lower()


_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

KEYS = (
    *_keys(
        Level.STUDY,
        """
        00080020 StudyDate DA
        00080030 StudyTime TM
        00080050 AccessionNumber SH
        00080061 ModalitiesInStudy CS
        00080090 ReferringPhysicianName PN
        00080201 TimezoneOffsetFromUTC SH
        00081030 StudyDescription LO
        00100010 PatientName PN
        00100020 PatientID LO
        00100021 IssuerOfPatientID LO
        00100030 PatientBirthDate DA
        00100040 PatientSex CS
        0020000D StudyInstanceUID UI
        00200010 StudyID SH
        00201206 NumberOfStudyRelatedSeries IS
        00201208 NumberOfStudyRelatedInstances IS
        """,
    ),
    *_keys(
        Level.SERIES,
        """
        00080021 SeriesDate DA
        00080031 SeriesTime TM
        00080060 Modality CS
        00080070 Manufacturer LO
        00080080 InstitutionName LO
        00081010 StationName SH
        0008103E SeriesDescription LO
        00081090 ManufacturerModelName LO
        00180015 BodyPartExamined CS
        00181030 ProtocolName LO
        0020000E SeriesInstanceUID UI
        00200011 SeriesNumber IS
        00200060 Laterality CS
        00201209 NumberOfSeriesRelatedInstances IS
        00400009 ScheduledProcedureStepID SH
        00400244 PerformedProcedureStepStartDate DA
        00400245 PerformedProcedureStepStartTime TM
        00401001 RequestedProcedureID SH
        """,
    ),
    *_keys(
        Level.INSTANCE,
        """
        00080016 SOPClassUID UI
        00080018 SOPInstanceUID UI
        00200013 InstanceNumber IS
        """,
    ),
)
"""The keys of PS3.18 Tables 10.6.1-5 and what else the index holds; `Level` is where they live."""

KEY_OF_KEYWORD = MappingProxyType({key.keyword: key for key in KEYS})
KEY_OF_TAG = MappingProxyType({key.tag: key for key in KEYS})
REQUEST_ATTRIBUTES = "00400275"
"""Request Attributes Sequence: of its first item the index holds `REQUEST_KEYS`."""
REQUEST_KEYS = frozenset({"00400009", "00401001"})
