"""Searches for studies, series and instances; the answers are DICOM JSON (PS3.18 §10.6, Annex F).

Studies and series are rows of the index. Instances are in the journals of their series, so a
search for instances first finds the series, and reads no more of them than the answer needs.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from wado.archive.journal import Entry, Journals, SeriesView
from wado.dicom.matching import KEY_OF_KEYWORD, KEYS, Level, Match, Query
from wado.dicom.uids import InstanceRef, SeriesRef
from wado.errors import TooLarge
from wado.ports import Archive, Row

_SERIES_PAGE = 200
_MAX_SERIES = 2000
"""Series whose journals one search may read; a search that needs more is too broad."""
_MAX_METADATA_BYTES = 16 << 20
"""Whole metadata in one answer; with more of it, there are fewer rows than were asked for."""

_REQUIRED = {
    Level.STUDY: frozenset(
        {
            "00080020", "00080030", "00080050", "00080061", "00080090", "00100010", "00100020",
            "00100030", "00100040", "0020000D", "00200010", "00201206", "00201208", "00081030",
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

_IF_PRESENT = frozenset({"0008103E", "00081030", "00080021", "00080031", "00400244", "00400245"})
"""Of these, those that are left out when absent; the others are returned empty."""

_COLUMNS = tuple(key for key in KEYS if key.level is not Level.INSTANCE)
_REQUESTS = ("00400009", "00401001")


@dataclass(frozen=True, slots=True)
class Found:
    """The answer: one DICOM JSON object each, and whether more would match."""

    objects: list[dict[str, Any]] = field(default_factory=list)
    more: bool = False


def search(archive: Archive, journals: Journals, query: Query, *, base_url: str) -> Found:
    """Find studies, series or instances.

    Parameters
    ----------
    archive, journals
        Where to look.
    query
        What for.
    base_url
        Address of the DICOMweb service as the client sees it; RetrieveURL (0008,1190) begins so.

    Raises
    ------
    TooLarge
        The search would read too many series (PS3.18 §10.6.3.1: 413).
    """
    if query.limit == 0:
        return Found()
    if query.level is Level.INSTANCE:
        return _search_instances(archive, journals, query, base_url)
    rows = archive.index.search(replace(query, limit=query.limit + 1))
    make = _study if query.level is Level.STUDY else _series
    objects = [make(row, query, base_url) for row in rows[: query.limit]]
    return Found(objects, more=len(rows) > query.limit)


# ------------------------------------------------------------------ rows -> DICOM JSON


def _study(row: Row, query: Query, base_url: str) -> dict[str, Any]:
    item = _attributes(row, _wanted(query, Level.STUDY))
    return _finished(item, f"{base_url}/studies/{row['study_instance_uid']}")


def _series(row: Row, query: Query, base_url: str) -> dict[str, Any]:
    """Make a series; with its study's attributes where the path names none (§10.6.3.3)."""
    wanted = _wanted(query, Level.SERIES)
    if not any(match.keyword == "study_instance_uid" for match in query.matches):
        wanted |= _REQUIRED[Level.STUDY]
    item = _attributes(row, wanted)
    if "all" in query.include or wanted & {"00400275", *_REQUESTS}:
        item["00400275"] = _request(row)
    path = f"studies/{row['study_instance_uid']}/series/{row['series_instance_uid']}"
    return _finished(item, f"{base_url}/{path}")


def _wanted(query: Query, level: Level) -> frozenset[str]:
    wanted = _REQUIRED[level] | query.include
    if "all" in query.include:
        wanted |= frozenset(key.tag for key in _COLUMNS)
    if level is Level.SERIES:
        wanted |= frozenset({"00400275"})
    return wanted


def _attributes(row: Row, wanted: frozenset[str]) -> dict[str, Any]:
    item = {}
    for key in _COLUMNS:
        if key.tag in wanted and key.tag not in _REQUESTS and key.keyword in row:
            value = row[key.keyword]
            if value is not None or key.tag not in _IF_PRESENT:
                item[key.tag] = element(key.vr, value)
    return item


def _finished(item: dict[str, Any], retrieve_url: str) -> dict[str, Any]:
    item["00080056"] = {"vr": "CS", "Value": ["ONLINE"]}
    if "00080201" in item and "Value" not in item["00080201"]:
        del item["00080201"]
    item["00081190"] = {"vr": "UR", "Value": [retrieve_url]}
    return dict(sorted(item.items()))


def _request(row: Row) -> dict[str, Any]:
    values = {
        tag: element("SH", row.get(key.keyword))
        for key in _COLUMNS
        if (tag := key.tag) in _REQUESTS and row.get(key.keyword)
    }
    return {"vr": "SQ", "Value": [values]} if values else {"vr": "SQ"}


def element(vr: str, value: str | int | None) -> dict[str, Any]:
    """Make an element of the DICOM JSON Model (PS3.18 §F.2.2) from a column.

    Text with backslashes has several values; an empty one of them is null.
    """
    if value is None or value == "":
        return {"vr": vr}
    if isinstance(value, int):
        return {"vr": vr, "Value": [value if vr == "IS" else str(value)]}
    texts = value.split("\\")
    if vr == "PN":
        return {"vr": vr, "Value": [_person_name(text) if text else None for text in texts]}
    if vr == "IS":
        return {"vr": vr, "Value": [int(text) if _INTEGER.match(text) else text for text in texts]}
    return {"vr": vr, "Value": [text or None for text in texts]}


_INTEGER = re.compile(r"\s*[+-]?\d+\s*\Z")
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


def _person_name(text: str) -> dict[str, str]:
    groups = zip(_GROUPS, text.split("="), strict=False)
    return {group: value for group, value in groups if value}


# ------------------------------------------------------------------ instances


def _search_instances(archive: Archive, journals: Journals, query: Query, base_url: str) -> Found:
    own = [match for match in query.matches if _level(match) is Level.INSTANCE]
    upper = tuple(match for match in query.matches if _level(match) is not Level.INSTANCE)
    skip = query.offset
    objects: list[dict[str, Any]] = []
    left = _MAX_METADATA_BYTES
    for row, view in _series_of(archive, journals, replace(query, matches=upper), bool(own)):
        entries = [entry for entry in view.ordered() if all(_fits(entry, m) for m in own)]
        if skip >= len(entries):
            skip -= len(entries)
            continue
        room = query.limit + 1 - len(objects)
        chosen = entries[skip : skip + room]
        skip = 0
        texts = journals.metadata(view, chosen)
        for entry, text in zip(chosen, texts, strict=True):
            left -= len(text) if "all" in query.include else 0
            if left < 0 and objects:
                return Found(objects, more=True)
            objects.append(_instance(row, view.ref, entry, text, query, base_url))
        if len(objects) > query.limit:
            return Found(objects[: query.limit], more=True)
    return Found(objects)


def _level(match: Match) -> Level:
    return KEY_OF_KEYWORD[match.keyword].level


def _series_of(
    archive: Archive,
    journals: Journals,
    query: Query,
    narrow: bool,  # noqa: FBT001 - private
) -> Iterator[tuple[Row, SeriesView]]:
    """Rows and journals of the series that match, page by page; one series needs no search."""
    ref = _single_series(query)
    if ref is not None:
        row, view = archive.index.series(ref), journals.view(ref)
        if row is not None and view is not None:
            yield row, view
        return
    offset = 0
    while rows := archive.index.search(
        replace(query, level=Level.SERIES, limit=_SERIES_PAGE, offset=offset)
    ):
        for row in rows:
            view = journals.view(
                SeriesRef(query.tenant_id, row["study_instance_uid"], row["series_instance_uid"])
            )
            if view is not None:
                yield row, view
        offset += len(rows)
        if offset >= _MAX_SERIES and (narrow or query.offset):
            raise TooLarge(f"the search reads more than {_MAX_SERIES} series: name the study")


def _single_series(query: Query) -> SeriesRef | None:
    singles = {m.keyword: m.values[0] for m in query.matches if m.kind == "single"}
    keywords = {"study_instance_uid", "series_instance_uid"}
    if len(query.matches) == len(singles) == 2 and singles.keys() == keywords:
        study, series = singles["study_instance_uid"], singles["series_instance_uid"]
        return SeriesRef(query.tenant_id, study, series)
    return None


def _fits(entry: Entry, match: Match) -> bool:
    value = getattr(entry, match.keyword)
    if match.kind == "empty":
        return value is None
    return value is not None and str(value) in match.values


def _instance(
    row: Row, ref: SeriesRef, entry: Entry, text: bytes, query: Query, base_url: str
) -> dict[str, Any]:
    metadata: dict[str, Any] = orjson.loads(text)
    wanted = _wanted(query, Level.INSTANCE)
    if "all" in query.include:
        item = metadata
    else:
        item = {tag: metadata[tag] for tag in wanted if tag in metadata}
    upper = _upper_attributes(row, query)
    item = {**upper, **item, "00083002": element("UI", entry.transfer_syntax_uid)}
    item.setdefault("00200013", element("IS", entry.instance_number))
    at = InstanceRef(
        ref.tenant_id, ref.study_instance_uid, ref.series_instance_uid, entry.sop_instance_uid
    )
    return _finished(item, f"{base_url}/{at.path}")


def _upper_attributes(row: Row, query: Query) -> dict[str, Any]:
    """Attributes of study and series where the path names neither (§10.6.3.3.1)."""
    named = {match.keyword for match in query.matches}
    wanted: frozenset[str] = frozenset()
    if "study_instance_uid" not in named:
        wanted |= _REQUIRED[Level.STUDY]
    if "series_instance_uid" not in named:
        wanted |= _REQUIRED[Level.SERIES]
    return _attributes(row, wanted | query.include)
