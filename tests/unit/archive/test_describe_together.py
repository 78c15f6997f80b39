"""Several webworkers describe one series: what is sent is never older than what was announced."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import orjson

import synthetic
from steps import catalogue_all, series_of, store
from wado.archive.describe import are_there, describe_series, describe_study
from wado.archive.journal import Journals
from wado.archive.metadata import (
    json_document,
    series_metadata,
    study_metadata,
)
from wado.archive.paths import series_document_path, study_document_path
from wado.ports import Archive, InstanceStore


def test_who_was_overtaken_leaves_no_older_documents_behind(archive: Archive) -> None:
    series = synthetic.ct_series(3)
    ref = series_of(series[0])
    store(archive, series[0])
    catalogue_all(archive)
    frozen, awake = Journals(archive.store), Journals(archive.store)
    put, stale = archive.store.put_document, list[list[bytes]]()

    def freeze_before_it_is_there(path: str, data: Iterable[bytes], **more: Any) -> bool:
        """Freeze who writes the first document while another describes a longer series."""
        whole = [b"".join(data)]
        if not stale:
            stale.append(whole)
            store(archive, *series[1:])
            catalogue_all(archive)
            assert describe_series(archive, awake, ref) is not None
        return put(path, whole, **more)

    class Slow:
        put_document = staticmethod(freeze_before_it_is_there)

        def __getattr__(self, name: str) -> Any:
            return getattr(archive.store, name)

    slow = replace(archive, store=cast("InstanceStore", Slow()))
    describe_series(slow, frozen, ref)
    assert orjson.loads(stale[0][0])[0]["00080018"]
    metadata = series_metadata(Journals(archive.store), ref)
    text = b"".join(json_document(archive, Journals(archive.store), metadata, ""))
    assert len(orjson.loads(text)) == 3
    # And who was overtaken made good what it had spoilt.
    assert metadata.document
    assert are_there(archive, metadata.document, metadata.lengths)


def test_an_older_document_in_its_place_is_not_sent(archive: Archive) -> None:
    series = synthetic.ct_series(2)
    ref = series_of(series[0])
    store(archive, *series)
    catalogue_all(archive)
    journals = Journals(archive.store)
    describe_series(archive, journals, ref)
    describe_study(archive, journals, ref.study)
    for path in (series_document_path(ref), study_document_path(ref.study)):
        for ending in (".json", ".json.gz"):
            archive.store.put_document(f"{path}{ending}", [b"[]"])
    for found in (
        series_metadata(journals, ref),
        study_metadata(archive, journals, ref.study),
    ):
        assert found.document
        assert not are_there(archive, found.document, found.lengths)
        text = b"".join(json_document(archive, journals, found, "http://h"))
        assert len(orjson.loads(text)) == 2
    # Who looks at them next makes them good.
    view = describe_series(archive, journals, ref)
    assert view is not None
    assert are_there(archive, series_document_path(ref), view.documents)
    assert describe_study(archive, journals, ref.study)
    found = study_metadata(archive, journals, ref.study)
    assert are_there(archive, found.document, found.lengths)
