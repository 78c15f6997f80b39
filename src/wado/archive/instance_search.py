"""Which instances match: the index chooses series, their journals choose among their instances.

What an entry of a journal holds is compared without reading data sets; other attributes are
compared on the DICOM JSON of each instance. A search that names no study or series walks the
series, newest study first. Where that would be long, the warehouse, which has a row per instance,
says in which series the SOP Instance or SOP Class UIDs are; the journals of these still decide.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import orjson

from wado.archive.journal import Entry, Journals, SeriesView
from wado.dicom.json_matching import fits
from wado.dicom.matching import KEY_OF_KEYWORD, Level, Match, Order, Query
from wado.dicom.names import fold
from wado.dicom.uids import SeriesRef
from wado.errors import TooLarge
from wado.ports import Archive, Row

_SERIES_PAGE = 200
"""Series that are read before the warehouse is asked for the others."""
_MAX_SERIES = 2000
"""Series whose journals one search may read; a search that needs more is too broad."""
_MAX_SKIPPED = 20_000
"""Series that may be skipped by their counts."""
_MAX_READ_BYTES = 256 << 20
"""Metadata that one search may compare."""
_MAX_SORTED = 100_000
"""Instances of several series that may be sorted by their own attributes."""
_LOOKED_UP = frozenset({"sop_instance_uid", "sop_class_uid"})
_CHANGED = 1000
"""Series waiting to be described that are looked into: the warehouse may not have them yet."""
_COUNT = "number_of_series_related_instances"


@dataclass(frozen=True, slots=True)
class Hit:
    """An instance that matches: the row of its series, its journal, its entry there."""

    row: Row
    view: SeriesView
    entry: Entry


def instances(archive: Archive, journals: Journals, query: Query) -> Iterator[Hit]:
    """Find instances from `query.offset` on; the caller takes as many as it wants.

    The order is that of their series, then by Instance Number and UID, but for `query.order`.

    Raises
    ------
    TooLarge
        The search is too broad.
    """
    search = _Search(archive, journals, query)
    if search.sorts:
        return islice(search.sorted(), query.offset, None)
    if search.own or search.of_data_set:
        return islice(search.hits(), query.offset, None)
    return search.hits_from(query.offset)


class _Search:
    """A search for instances; its matches by where they are decided."""

    def __init__(self, archive: Archive, journals: Journals, query: Query) -> None:
        self._archive = archive
        self._journals = journals
        self.of_data_set = [m for m in query.matches if m.path]
        self.own = [m for m in query.matches if not m.path and _is_own(m.keyword)]
        upper = tuple(m for m in query.matches if not m.path and not _is_own(m.keyword))
        self._order = query.order
        self.sorts = any(_is_own(order.keyword) for order in query.order)
        self._fuzzy = query.fuzzy
        self._left = _MAX_READ_BYTES
        self._upper = replace(
            query,
            level=Level.SERIES,
            matches=upper,
            order=() if self.sorts else query.order,
            offset=0,
        )

    def hits(self) -> Iterator[Hit]:
        """Find instances, series by series."""
        for row in self._rows(_MAX_SERIES):
            view = self._view(row)
            if view is None:
                continue
            entries = [e for e in view.ordered() if all(_entry_fits(e, m) for m in self.own)]
            if self.of_data_set:
                yield from (Hit(row, view, entry) for entry in self._compared(view, entries))
            else:
                yield from (Hit(row, view, entry) for entry in entries)

    def hits_from(self, offset: int) -> Iterator[Hit]:
        """Find all instances but the first ones; whole series are skipped by their counts."""
        read = 0
        for row in self._rows(_MAX_SKIPPED):
            if offset >= row[_COUNT]:
                offset -= row[_COUNT]
                continue
            read += 1
            if read > _MAX_SERIES:
                raise _too_broad()
            view = self._view(row)
            for entry in view.ordered()[offset:] if view else ():
                assert view is not None
                yield Hit(row, view, entry)
            offset = 0

    def sorted(self) -> list[Hit]:
        """Sort all hits by the order that was asked for; equal ones stay as they are."""
        hits = list(islice(self.hits(), _MAX_SORTED + 1))
        if len(hits) > _MAX_SORTED:
            raise TooLarge(
                f"more than {_MAX_SORTED} instances would have to be sorted: name the study"
            )
        for order in reversed(self._order):
            hits = _sorted(hits, order)
        return hits

    def _view(self, row: Row) -> SeriesView | None:
        tenant_id = self._upper.tenant_id
        return self._journals.view(
            SeriesRef(tenant_id, row["study_instance_uid"], row["series_instance_uid"])
        )

    def _compared(self, view: SeriesView, entries: Sequence[Entry]) -> Iterator[Entry]:
        """Give those whose data sets match."""
        texts = self._journals.metadata(view, entries)
        for entry, text in zip(entries, texts, strict=True):
            self._left -= len(text)
            if self._left < 0:
                raise TooLarge(
                    f"the search compares more than {_MAX_READ_BYTES >> 20} MiB of metadata:"
                    " name the study or series"
                )
            elements: dict[str, Any] = orjson.loads(text)
            if fits(elements, self.of_data_set, fuzzy=self._fuzzy):
                yield entry

    def _rows(self, most: int) -> Iterator[Row]:
        """Rows of the series that may have hits, in order; one series needs no search."""
        ref = _single_series(self._upper)
        if ref is not None:
            row = self._archive.index.series(ref)
            yield from [row] if row is not None else []
            return
        names_instances = any(m.keyword == "sop_instance_uid" for m in self.own if _names_uids(m))
        walked = min(most, _SERIES_PAGE) if names_instances else most
        seen: set[str] = set()
        for offset in range(0, walked, _SERIES_PAGE):
            page = replace(self._upper, limit=_SERIES_PAGE, offset=offset)
            rows = self._archive.index.search(page)
            seen.update(row["series_instance_uid"] for row in rows)
            yield from rows
            if len(rows) < _SERIES_PAGE:
                return
        if not any(map(_names_uids, self.own)):
            raise _too_broad()
        yield from self._looked_up(seen)

    def _looked_up(self, seen: set[str]) -> Iterator[Row]:
        """Rows that have the UIDs, as far as the warehouse knows, but for those seen before."""
        known = self._series_of_uids()
        if len(known) > _MAX_SERIES:
            raise _too_broad()
        wanted = sorted((known | self._series_that_changed()) - seen)
        if wanted:
            match = Match("series_instance_uid", "uid_list", tuple(wanted))
            matches = (*self._upper.matches, match)
            yield from self._archive.index.search(
                replace(self._upper, matches=matches, limit=len(wanted))
            )

    def _series_of_uids(self) -> set[str]:
        where, values = ["tenant_id = ?"], [self._upper.tenant_id]
        for match in filter(_names_uids, self.own):
            where.append(f"{match.keyword} IN ({', '.join('?' * len(match.values))})")
            values += match.values
        rows = self._archive.warehouse.query(
            "SELECT DISTINCT series_instance_uid FROM dicom_image_meta"  # noqa: S608 - our names
            f" WHERE {' AND '.join(where)} LIMIT {_MAX_SERIES + 1}",
            values,
        )
        return {row["series_instance_uid"] for row in rows}

    def _series_that_changed(self) -> set[str]:
        """Series that came in seconds ago: the warehouse is loaded now and then."""
        return {
            ref.series_instance_uid
            for ref, _ in self._archive.index.awaiting_description(_CHANGED)
            if ref.tenant_id == self._upper.tenant_id
        }


def _too_broad() -> TooLarge:
    return TooLarge(f"the search reads more than {_MAX_SERIES} series: name the study")


def _is_own(keyword: str) -> bool:
    key = KEY_OF_KEYWORD.get(keyword)
    return key is not None and key.level is Level.INSTANCE


def _names_uids(match: Match) -> bool:
    return match.keyword in _LOOKED_UP and match.kind in ("single", "uid_list")


def _single_series(query: Query) -> SeriesRef | None:
    singles = {m.keyword: m.values[0] for m in query.matches if m.kind == "single"}
    keywords = {"study_instance_uid", "series_instance_uid"}
    if len(query.matches) == len(singles) == 2 and singles.keys() == keywords:
        study, series = singles["study_instance_uid"], singles["series_instance_uid"]
        return SeriesRef(query.tenant_id, study, series)
    return None


def _entry_fits(entry: Entry, match: Match) -> bool:
    if match.kind == "any":
        return any(_entry_fits(entry, part) for part in match.parts)
    value = getattr(entry, match.keyword)
    if match.kind in ("empty", "universal"):
        return match.kind == "universal" or value is None
    return value is not None and str(value) in match.values


def _sorted(hits: list[Hit], order: Order) -> list[Hit]:
    """Sort; hits without a value come last, whichever the direction."""
    with_value = [(value, hit) for hit in hits if (value := _value(hit, order.keyword)) is not None]
    with_value.sort(key=lambda pair: pair[0], reverse=order.descending)
    return [
        *(hit for _, hit in with_value),
        *(hit for hit in hits if _value(hit, order.keyword) is None),
    ]


def _value(hit: Hit, keyword: str) -> Any:
    if _is_own(keyword):
        return getattr(hit.entry, keyword)
    value = hit.row.get(keyword)
    if value is not None and KEY_OF_KEYWORD[keyword].vr == "PN":
        return fold(value)
    return value
