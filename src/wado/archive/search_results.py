"""Rows of a search as DICOM JSON: what PS3.18 §10.6.3.3 says each level returns."""

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from wado.dicom.matching import KEYS, REQUEST_ATTRIBUTES, REQUEST_KEYS, Level, Query
from wado.dicom.uids import InstanceRef
from wado.ports import Row

REQUIRED: Mapping[Level, frozenset[str]] = {
    Level.STUDY: frozenset(
        {
            "00080020", "00080030", "00080050", "00080061", "00080090", "00100010", "00100020",
            "00100030", "00100040", "0020000D", "00200010", "00201206", "00201208", "00081030",
            "00080201",
        }
    ),
    Level.SERIES: frozenset(
        {
            "00080060", "0008103E", "0020000D", "0020000E", "00200011", "00201209", "00400244",
            "00400245", "00080021", "00080031",
        }
    ),
    Level.INSTANCE: frozenset(
        {
            "00080016", "00080018", "0020000D", "0020000E", "00200013", "00280010", "00280011",
            "00280100", "00280008", "00083002", "00080060",
        }
    ),
}  # fmt: skip
"""Attributes that are always returned (PS3.18 Tables 10.6.3-3 to -5), and what viewers read."""

_IF_PRESENT = frozenset(
    {"00080021", "00080031", "00080201", "00081030", "0008103E", "00400244", "00400245"}
)
"""Of these, those that are left out when absent; the others are returned empty."""

_COUNTED = ("00080061", "00201206", "00201208", "00201209")
"""What the archive knows best; a data set may tell how it was elsewhere."""

_COLUMNS = tuple(key for key in KEYS if key.level is not Level.INSTANCE)
_ROW_LEVELS = (Level.STUDY, Level.SERIES)


def study_result(row: Row, query: Query, base_url: str) -> dict[str, Any]:
    """Make a study."""
    item = _columns(row, _wanted(query, Level.STUDY))
    return _finished(item, f"{base_url}/studies/{row['study_instance_uid']}")


def series_result(row: Row, query: Query, base_url: str) -> dict[str, Any]:
    """Make a series; with its study's attributes where the path names none (§10.6.3.3.2)."""
    wanted = _wanted(query, Level.SERIES)
    item = _columns(row, wanted)
    if request := _request_attributes(row, wanted):
        item[REQUEST_ATTRIBUTES] = request
    path = f"studies/{row['study_instance_uid']}/series/{row['series_instance_uid']}"
    return _finished(item, f"{base_url}/{path}")


def instance_result(
    row: Row, ref: InstanceRef, elements: Mapping[str, Any], query: Query, base_url: str
) -> dict[str, Any]:
    """Make an instance; with attributes of its series and study where the path names none.

    `elements` are those of its data set, and what the archive knows of it beside.
    """
    wanted = _wanted(query, Level.INSTANCE)
    if _UID_OF[Level.SERIES] not in query.scope:
        wanted |= {REQUEST_ATTRIBUTES}
    item = _columns(row, wanted)
    counted = {tag: item[tag] for tag in _COUNTED if tag in item}
    if "all" in query.include:
        item.update(elements)
    else:
        item.update((tag, elements[tag]) for tag in wanted if tag in elements)
    item |= counted
    return _finished(item, f"{base_url}/{ref.path}")


def _wanted(query: Query, level: Level) -> frozenset[str]:
    """Tags to return: required ones of the level and of those above that the path leaves open."""
    wanted = REQUIRED[level] | query.include
    for above in _ROW_LEVELS:
        if above is not level and level.holds(above) and _UID_OF[above] not in query.scope:
            wanted |= REQUIRED[above]
    if "all" in query.include:
        wanted |= frozenset(key.tag for key in _COLUMNS)
    return wanted


_UID_OF = MappingProxyType({Level.STUDY: "study_instance_uid", Level.SERIES: "series_instance_uid"})


def _columns(row: Row, wanted: frozenset[str]) -> dict[str, Any]:
    item = {}
    for keyword, tag, vr in _columns_of(wanted):
        if keyword in row:
            value = row[keyword]
            if value is not None or tag not in _IF_PRESENT:
                item[tag] = element(vr, value)
    return item


@lru_cache(maxsize=64)
def _columns_of(wanted: frozenset[str]) -> tuple[tuple[str, str, str], ...]:
    """Keyword, tag and VR of the columns that are wanted: the same for each row of an answer."""
    return tuple(
        (key.keyword, key.tag, key.vr)
        for key in _COLUMNS
        if key.tag in wanted and key.tag not in REQUEST_KEYS
    )


def _finished(item: dict[str, Any], retrieve_url: str) -> dict[str, Any]:
    item["00080056"] = {"vr": "CS", "Value": ["ONLINE"]}
    item["00081190"] = {"vr": "UR", "Value": [retrieve_url]}
    return dict(sorted(item.items()))


def _request_attributes(row: Row, wanted: frozenset[str]) -> dict[str, Any] | None:
    """Make Request Attributes Sequence, if there is one or it was asked for."""
    values = {
        key.tag: element(key.vr, row.get(key.keyword))
        for key in _COLUMNS
        if key.tag in REQUEST_KEYS and row.get(key.keyword)
    }
    if values:
        return {"vr": "SQ", "Value": [values]}
    return {"vr": "SQ"} if wanted & {REQUEST_ATTRIBUTES, *REQUEST_KEYS} else None


def element(vr: str, value: str | int | None) -> dict[str, Any]:
    """Make an element of the DICOM JSON Model (PS3.18 §F.2.2) from a column.

    Text with backslashes has several values; an empty one of them is null.
    """
    if value is None or value == "":
        return {"vr": vr}
    if isinstance(value, int):
        return {"vr": vr, "Value": [value if vr == "IS" else str(value)]}
    if vr not in _SPECIAL and "\\" not in value:  # nearly all of a study list
        return {"vr": vr, "Value": [value]}
    texts = value.split("\\")
    if vr == "PN":
        return {"vr": vr, "Value": [_person_name(text) if text else None for text in texts]}
    if vr == "IS":
        return {"vr": vr, "Value": [int(text) if _INTEGER.match(text) else text for text in texts]}
    return {"vr": vr, "Value": [text or None for text in texts]}


_SPECIAL = frozenset({"PN", "IS"})
_INTEGER = re.compile(r"\s*[+-]?\d+\s*\Z")
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


def _person_name(text: str) -> dict[str, str]:
    if "=" not in text:
        return {"Alphabetic": text}
    groups = zip(_GROUPS, text.split("="), strict=False)
    return {group: value for group, value in groups if value}
