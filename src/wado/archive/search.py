"""Searches for studies, series and instances; the answers are DICOM JSON (PS3.18 §10.6, Annex F).

Studies and series are rows of the index; instances are in the journals of their series
(`wado.archive.instance_search`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from typing import Any

import orjson

from wado.archive.describe import available_transfer_syntaxes
from wado.archive.instance_search import Hit, instances
from wado.archive.journal import Journals
from wado.archive.json_documents import rebase_bulk_uris
from wado.archive.search_results import element, instance_result, series_result, study_result
from wado.dicom.matching import Level, Query
from wado.dicom.uids import InstanceRef
from wado.ports import Archive

_MAX_METADATA_BYTES = 16 << 20
"""Whole metadata in one answer; with more of it, there are fewer rows than were asked for."""


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
    make = study_result if query.level is Level.STUDY else series_result
    objects = [make(row, query, base_url) for row in rows[: query.limit]]
    return Found(objects, more=len(rows) > query.limit)


def _search_instances(archive: Archive, journals: Journals, query: Query, base_url: str) -> Found:
    hits = list(islice(instances(archive, journals, query), query.limit + 1))
    objects: list[dict[str, Any]] = []
    left = _MAX_METADATA_BYTES
    for hit, text in _with_metadata(journals, hits[: query.limit]):
        left -= len(text) if "all" in query.include else 0
        if left < 0 and objects:
            return Found(objects, more=True)
        objects.append(_instance(hit, text, query, base_url))
    return Found(objects, more=len(hits) > query.limit)


def _with_metadata(journals: Journals, hits: list[Hit]) -> Iterator[tuple[Hit, bytes]]:
    """Read the metadata of hits, each journal opened once for those that follow each other."""
    for _, group in groupby(hits, key=lambda hit: hit.view.ref):
        together = list(group)
        entries = [hit.entry for hit in together]
        yield from zip(together, journals.metadata(together[0].view, entries), strict=True)


def _instance(hit: Hit, text: bytes, query: Query, base_url: str) -> dict[str, Any]:
    at, entry = hit.view.ref, hit.entry
    prefix = f"{base_url}/{at.path}/instances/".encode()
    elements: dict[str, Any] = orjson.loads(rebase_bulk_uris(text, prefix))
    available = available_transfer_syntaxes(entry)
    elements["00083002"] = element("UI", "\\".join(available))
    elements.setdefault("00200013", element("IS", entry.instance_number))
    ref = InstanceRef(
        at.tenant_id, at.study_instance_uid, at.series_instance_uid, entry.sop_instance_uid
    )
    return instance_result(hit.row, ref, elements, query, base_url)
