"""The journal of a series, read as it grows."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from wado.adapters.instance_store.filesystem import FilesystemInstanceStore
from wado.archive import journal
from wado.archive.journal import (
    ON_REQUEST,
    RECENT_S,
    Journals,
    SeriesView,
    deleted_line,
    described_line,
    journal_line,
)
from wado.archive.paths import journal_path
from wado.dicom.uids import SeriesRef

REF = SeriesRef("clinic", "1.2", "1.2.3")
PATH = journal_path(REF)


def line(number: int, *, uid: str | None = None, digest: str = "d", note: str = "") -> bytes:
    uid = uid or f"1.2.3.{number}"
    entry: dict[str, Any] = {
        "sop_instance_uid": uid,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "file_size": 100,
        "digest": digest,
        "received_at": "2026-01-01T00:00:00",
        "instance_number": number,
        "number_of_frames": 1,
        "pixel": None,
        "bulk": {"7FE00010": [10, 20]},
    }
    return journal_line(
        entry, {"00080018": {"vr": "UI", "Value": [uid]}, "note": note + "\ttab\nline"}
    )


@pytest.fixture
def store(tmp_path: Path) -> FilesystemInstanceStore:
    return FilesystemInstanceStore(tmp_path)


def test_unknown_series_has_no_view(store: FilesystemInstanceStore) -> None:
    assert Journals(store).view(REF) is None


def test_view_follows_appends(store: FilesystemInstanceStore) -> None:
    journals = Journals(store)
    store.append({PATH: line(2)})
    first = journals.view(REF)
    assert first is not None
    assert journals.view(REF) is first
    store.append({PATH: line(1) + line(3)})
    second = journals.view(REF)
    assert second is not None
    assert [e.instance_number for e in second.ordered()] == [1, 2, 3]
    assert list(first.entries) == ["1.2.3.2"]
    assert second.etag != first.etag


def test_metadata_comes_in_order_of_instance_number(store: FilesystemInstanceStore) -> None:
    journals = Journals(store)
    store.append({PATH: line(2) + line(1)})
    view = journals.view(REF)
    assert view is not None
    texts = [orjson.loads(t) for t in journals.metadata(view)]
    assert [t["00080018"]["Value"][0] for t in texts] == ["1.2.3.1", "1.2.3.2"]
    assert texts[0]["note"] == "\ttab\nline"


def test_later_line_wins(store: FilesystemInstanceStore) -> None:
    journals = Journals(store)
    store.append({PATH: line(1, note="old")})
    store.append({PATH: line(1, digest="new", note="new")})
    view = journals.view(REF)
    assert view is not None
    assert [e.digest for e in view.entries.values()] == ["new"]
    assert b"new" in next(journals.metadata(view))


def test_deleted_instance_is_gone_and_may_come_back(store: FilesystemInstanceStore) -> None:
    journals = Journals(store)
    store.append({PATH: line(1) + deleted_line("1.2.3.1", "test")})
    assert journals.view(REF) is None
    store.append({PATH: line(1)})
    assert journals.view(REF) is not None


def test_described_until_the_next_append(store: FilesystemInstanceStore) -> None:
    journals = Journals(store)
    for data, described in [(line(1), False), (described_line(), True), (line(2), False)]:
        store.append({PATH: data})
        view = journals.view(REF)
        assert view is not None
        assert view.described is described


def test_torn_line_is_not_read(store: FilesystemInstanceStore, tmp_path: Path) -> None:
    journals = Journals(store)
    whole, torn = line(1), line(2)
    store.append({PATH: whole})
    with (tmp_path / PATH).open("ab") as file:
        file.write(torn[:-20])
    view = journals.view(REF)
    assert view is not None
    assert list(view.entries) == ["1.2.3.1"]
    store.append({PATH: torn})  # cuts the torn line off, and comes whole
    view = journals.view(REF)
    assert view is not None
    assert list(view.entries) == ["1.2.3.1", "1.2.3.2"]
    assert all(orjson.loads(t) for t in journals.metadata(view))


def test_forgets_series_beyond_its_limit(store: FilesystemInstanceStore) -> None:
    journals = Journals(store, max_bytes=600)
    refs = [SeriesRef("clinic", "1.2", f"1.2.{n}") for n in range(5)]
    for ref in refs:
        store.append({journal_path(ref): line(1) + line(2)})
    assert all(journals.view(ref) for ref in refs)
    assert len(journals._views) == 1
    assert journals.view(refs[0]) is not None


def test_who_comes_while_another_looks_is_not_given_what_is_old(
    store: FilesystemInstanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter((10.0, 10 + 2 * RECENT_S, 10 + 2 * RECENT_S))
    monkeypatch.setattr(journal, "monotonic", lambda: next(moments))
    journals, version = Journals(store), store.version
    meanwhile: list[SeriesView | None] = []

    def slow_version(path: str) -> tuple[int, int] | None:
        monkeypatch.setattr(store, "version", version)
        meanwhile.append(journals.recent(REF))
        return version(path)

    store.append({PATH: line(1)})
    assert journals.recent(REF) is not None
    store.append({PATH: deleted_line("1.2.3.1", ON_REQUEST)})
    monkeypatch.setattr(store, "version", slow_version)
    assert journals.recent(REF) is None
    assert meanwhile == [None]
