"""Searches (PS3.18 §8.3.4, PS3.4 §C.2.2.2): the query string of QIDO-RS read into matching keys.

Unknown parameters, and attributes by which this archive does not search, are passed over (the
latter with a warning for the client); a wrong value of a known parameter is refused.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Literal
from urllib.parse import unquote_plus

from wado.dicom.uids import validate_uid
from wado.errors import InvalidRequest, InvalidUID


class Level(StrEnum):
    """Level of a search (PS3.18 §10.6)."""

    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


MatchKind = Literal["single", "wildcard", "range", "uid_list", "any_of", "universal", "empty"]


@dataclass(frozen=True, slots=True)
class Match:
    """One matching key.

    `keyword` is the DICOM keyword in snake_case. `values` are as sent: one for single, wildcard
    (``*`` and ``?``) and universal; two for a range (an open end is ``""``); any number for
    uid_list and any_of.
    """

    keyword: str
    kind: MatchKind
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """A search: all matches hold; rows come in a stable order; `limit` rows from `offset` on.

    `include` holds the tags (8 hex digits) of attributes asked for beyond the required ones, or
    ``all``.
    """

    tenant_id: str
    level: Level
    matches: tuple[Match, ...] = ()
    include: frozenset[str] = frozenset()
    limit: int = 100
    offset: int = 0
    fuzzy: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """An attribute by which searches are possible: where it stands and how it compares."""

    keyword: str
    tag: str
    vr: str
    level: Level


def _keys(level: Level, table: str) -> list[Key]:
    rows = (line.split() for line in table.strip().splitlines())
    return [Key(_snake(keyword), tag, vr, level) for tag, keyword, vr in rows]


def _snake(keyword: str) -> str:
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
_COUNTS = frozenset({"00201206", "00201208", "00201209"})
_LEVELS = (Level.STUDY, Level.SERIES, Level.INSTANCE)

_TAG = re.compile(r"[0-9A-Fa-f]{8}\Z")
_KEYWORD = re.compile(r"[A-Z][A-Za-z0-9]+\Z")
_DATE = re.compile(r"\d{8}\Z|\d{4}[-.]\d\d[-.]\d\d\Z")
_TIME = re.compile(r"\d\d(\d\d(\d\d(\.\d{1,6})?)?)?\Z|\d\d:\d\d(:\d\d(\.\d{1,6})?)?\Z")
_INTEGER = re.compile(r"[+-]?\d{1,12}\Z")
_WILDCARDS = frozenset("*?")
_SEPARATORS = re.compile(r"[,\\]")
_MAX_LIST = 4096


@dataclass(frozen=True, slots=True)
class Search:
    """A query string that was read: matches, options, and warnings to give back."""

    matches: tuple[Match, ...] = ()
    include: frozenset[str] = frozenset()
    limit: int | None = None
    offset: int = 0
    fuzzy: bool = False
    warnings: tuple[str, ...] = ()

    def query(
        self, tenant_id: str, level: Level, scope: Mapping[str, str], *, limits: tuple[int, int]
    ) -> Query:
        """Make the query: `scope` are the UIDs of the path, `limits` the default and greatest."""
        default, greatest = limits
        within = tuple(Match(keyword, "single", (uid,)) for keyword, uid in scope.items())
        limit = default if self.limit is None else min(self.limit, greatest)
        return Query(
            tenant_id, level, within + self.matches, self.include, limit, self.offset, self.fuzzy
        )


def parse_search(query_string: str, level: Level) -> Search:
    """Read the query string of a search at `level`.

    Raises
    ------
    InvalidRequest
        A known parameter or matching key has a value that is none.
    """
    options = _Options()
    for name, value in _pairs(query_string):
        option = _PARAMETERS.get(name.lower())
        if option is not None:
            option(options, value)
        else:
            _add_match(options, name, value, level)
    matches = dict(options.matches)
    if not options.empty_values:
        matches = {k: m for k, m in matches.items() if m.kind != "empty"}
    return replace(
        options.search,
        matches=tuple(matches.values()),
        include=frozenset(options.include),
        warnings=tuple(options.warnings),
    )


class _Options:
    """What is gathered while a query string is read."""

    __slots__ = ("empty_values", "include", "matches", "search", "warnings")

    def __init__(self) -> None:
        self.search = Search()
        self.matches: dict[str, Match] = {}
        self.include: set[str] = set()
        self.warnings: list[str] = []
        self.empty_values = False


def _pairs(query_string: str) -> list[tuple[str, str]]:
    """Split into names and values, decoded after the split."""
    pairs = []
    for text in query_string.split("&"):
        name, _, value = text.partition("=")
        if name:
            try:
                pairs.append((unquote_plus(name), unquote_plus(value, errors="strict").strip()))
            except UnicodeDecodeError as e:
                raise InvalidRequest(f"{name[:80]}: not UTF-8") from e
    return pairs


def _natural(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 12:
        raise InvalidRequest(f"{name}: not a natural number: {value[:80]!r}")
    return int(value)


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise InvalidRequest(f"{name}: neither true nor false: {value[:80]!r}")
    return value.lower() == "true"


def _limit(options: _Options, value: str) -> None:
    options.search = replace(options.search, limit=_natural("limit", value))


def _offset(options: _Options, value: str) -> None:
    options.search = replace(options.search, offset=_natural("offset", value))


def _fuzzy(options: _Options, value: str) -> None:
    options.search = replace(options.search, fuzzy=_boolean("fuzzymatching", value))


def _empty_values(options: _Options, value: str) -> None:
    options.empty_values = _boolean("emptyvaluematching", value)


def _multiple_values(options: _Options, value: str) -> None:
    if _boolean("multiplevaluematching", value):
        options.warnings.append("multiple values are matched for UIDs and code strings only")


def _include(options: _Options, value: str) -> None:
    for text in value.split(","):
        name = text.strip()
        if name.lower() == "all":
            options.include.add("all")
        elif name:
            tag = tag_of(name.split(".")[0])
            if tag is None:
                options.warnings.append(f"includefield {name[:80]} is not known")
            else:
                options.include.add(tag)


_PARAMETERS: Mapping[str, Callable[[_Options, str], None]] = MappingProxyType(
    {
        "limit": _limit,
        "offset": _offset,
        "fuzzymatching": _fuzzy,
        "emptyvaluematching": _empty_values,
        "multiplevaluematching": _multiple_values,
        "includefield": _include,
    }
)


def tag_of(name: str) -> str | None:
    """Tag (8 hex digits, upper case) of a keyword or tag as written by a client; None if none."""
    if _TAG.match(name):
        return name.upper()
    key = KEY_OF_KEYWORD.get(_snake(name))
    if key is not None and _KEYWORD.match(name):
        return key.tag
    if not _KEYWORD.match(name):
        return None
    # Rare: a keyword outside the table. The dictionary is large, so it is loaded only now.
    from pydicom.datadict import tag_for_keyword  # noqa: PLC0415

    tag = tag_for_keyword(name)
    return None if tag is None else f"{tag:08X}"


def _key_of(name: str) -> Key | None:
    """Key by keyword, tag, or path: the last step of a path decides, sequences hold it once."""
    leaf = name.rsplit(".", 1)[-1]
    if _TAG.match(leaf):
        return KEY_OF_TAG.get(leaf.upper())
    return KEY_OF_KEYWORD.get(_snake(leaf)) if _KEYWORD.match(leaf) else None


def _add_match(options: _Options, name: str, value: str, level: Level) -> None:
    if not all(_TAG.match(step) or _KEYWORD.match(step) for step in name.split(".")):
        return  # not an attribute: an unknown parameter is ignored (PS3.18 §8.3.1)
    key = _at_level(_key_of(name), level)
    if key is None or key.tag in _COUNTS:
        options.warnings.append(f"matching by {name[:80]} is not supported")
        return
    match = read_match(key, value)
    if match.kind != "universal":
        options.matches[key.keyword] = match
    options.include.add(key.tag)


def _at_level(key: Key | None, level: Level) -> Key | None:
    """Keys of lower levels don't select at this one; Modality of studies means any of theirs."""
    if key is None or _LEVELS.index(key.level) <= _LEVELS.index(level):
        return key
    if key.keyword == "modality":
        return KEY_OF_KEYWORD["modalities_in_study"]
    return None


def read_match(key: Key, value: str) -> Match:
    """Read the value of a matching key (PS3.4 §C.2.2.2.1 to .6).

    Raises
    ------
    InvalidRequest
        The value is none of this attribute's value representation.
    """
    if value in ("", "*"):
        return Match(key.keyword, "universal" if value else "empty", (value,))
    if value == '""':
        return Match(key.keyword, "empty")
    return _READERS.get(key.vr, _read_text)(key, value)


def _read_text(key: Key, value: str) -> Match:
    if _WILDCARDS.isdisjoint(value):
        return Match(key.keyword, "single", (value,))
    if set(value) == {"*"}:
        return Match(key.keyword, "universal", ("*",))
    return Match(key.keyword, "wildcard", (value,))


def _read_code(key: Key, value: str) -> Match:
    """Code strings hold no comma, so a list of them is plain: any of them matches."""
    values = _listed(key, value)
    return Match(key.keyword, "any_of", values) if len(values) > 1 else _read_text(key, values[0])


def _read_uids(key: Key, value: str) -> Match:
    try:
        values = tuple(validate_uid(uid) for uid in _listed(key, value))
    except InvalidUID as e:
        raise InvalidUID(f"{key.keyword}: {e}") from e
    return Match(key.keyword, "uid_list" if len(values) > 1 else "single", values)


def _listed(key: Key, value: str) -> tuple[str, ...]:
    values = tuple(v for v in (text.strip() for text in _SEPARATORS.split(value)) if v)
    if not 0 < len(values) <= _MAX_LIST:
        raise InvalidRequest(f"{key.keyword}: not a list of 1 to {_MAX_LIST} values")
    return values


def _read_integer(key: Key, value: str) -> Match:
    if not _INTEGER.match(value):
        raise InvalidRequest(f"{key.keyword}: not an integer: {value[:80]!r}")
    return Match(key.keyword, "single", (str(int(value)),))


def _read_range(key: Key, value: str) -> Match:
    pattern = _DATE if key.vr == "DA" else _TIME
    if pattern.match(value):
        return Match(key.keyword, "single", (_digits(value),))
    ends = _ends(value, pattern)
    if ends is None:
        raise InvalidRequest(f"{key.keyword}: neither a value nor a range: {value[:80]!r}")
    return Match(key.keyword, "range", ends)


def _ends(value: str, pattern: re.Pattern[str]) -> tuple[str, str] | None:
    """Split at the hyphen that leaves two values, of which one may be missing."""
    for at in (i for i, c in enumerate(value) if c == "-"):
        low, high = value[:at].strip(), value[at + 1 :].strip()
        if (low or high) and all(not end or pattern.match(end) for end in (low, high)):
            return _digits(low), _digits(high)
    return None


def _digits(value: str) -> str:
    """Cut the separators of ACR-NEMA and of people: ``2024-01-31`` is ``20240131``."""
    if value[4:5] in ("-", "."):
        return value[:4] + value[5:7] + value[8:]
    return value.replace(":", "")


_READERS: Mapping[str, Callable[[Key, str], Match]] = MappingProxyType(
    {
        "CS": _read_code,
        "UI": _read_uids,
        "IS": _read_integer,
        "DA": _read_range,
        "TM": _read_range,
    }
)
