"""Copies announced, or not: originals come and go, series grow, and all may be said twice."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from pydicom.dataset import Dataset

import synthetic
from conversions import asked, item_of, made, no_copies, rows, stored
from copies import DEFLATED_FRAMES, HTJ2K_RPCL, broken, deflated, derived_of
from steps import catalogue_all
from wado.archive import image_conversion, transcoded_instances
from wado.archive.conversion import announce, convert
from wado.archive.copies import Converted, Converter
from wado.archive.delete import request_deletion
from wado.archive.derived import NOTHING
from wado.archive.grace import restore
from wado.archive.journal import Journals
from wado.archive.paths import derived_path, journal_path
from wado.errors import InvalidRequest, Unavailable
from wado.ports import Archive
from wado.records import DicomStoreMeta

# ------------------------------------------------------------------ originals come and go


def delete(archive: Archive, meta: DicomStoreMeta) -> None:
    request_deletion(archive, meta.ref)
    catalogue_all(archive)


def test_what_is_gone_or_replaced_or_there_is_nothing_to_do(converter: Converter) -> None:
    archive = converter.archive
    meta = stored(archive, deflated(synthetic.ct()))
    assert convert(converter, replace(asked(meta), digest="0" * 64)) is None
    assert convert(converter, asked(meta, DEFLATED_FRAMES)) is None
    made(converter, asked(meta))
    assert convert(converter, asked(meta)) is None
    delete(archive, meta)
    assert convert(converter, asked(meta)) is None
    assert no_copies(archive)


def test_a_message_that_names_no_syntax_is_refused(converter: Converter) -> None:
    meta = stored(converter.archive, deflated(synthetic.ct()))
    with pytest.raises(InvalidRequest):
        convert(converter, asked(meta, "../../x"))


def test_original_deleted_while_it_is_converted(
    converter: Converter, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = stored(converter.archive, deflated(synthetic.multi_frame(3)))
    located = transcoded_instances.around_pixels

    def after_deletion(*args: Any) -> Any:
        delete(converter.archive, meta)
        return located(*args)

    monkeypatch.setattr(image_conversion, "around_pixels", after_deletion)
    assert convert(converter, asked(meta)) is None
    assert no_copies(converter.archive)


def test_original_deleted_before_its_copy_is_announced(converter: Converter) -> None:
    archive = converter.archive
    keep = stored(archive, deflated(synthetic.ct()))
    meta = stored(archive, deflated(synthetic.ct(series="other")))
    results = [convert(converter, asked(each)) for each in (keep, meta)]
    converted = [each for each in results if each is not None]
    delete(archive, meta)
    path = derived_path(meta.ref, HTJ2K_RPCL)
    archive.store.put_document(path, [b"written after the deletion"])
    assert announce(archive, converter.journals, converted) == converted[:1]
    assert archive.store.version(path) is None
    assert [row.sop_instance_uid for row in rows(archive)] == [keep.sop_instance_uid]


def test_original_replaced_before_its_copy_is_announced(converter: Converter) -> None:
    archive = replace(converter.archive, replace_duplicates=True)
    old = stored(archive, deflated(synthetic.ct()))
    result = convert(converter, asked(old))
    new = stored(archive, deflated(synthetic.ct(PatientComments="corrected")))
    assert old.sop_instance_uid == new.sop_instance_uid
    assert result is not None
    assert announce(archive, converter.journals, [result]) == []
    assert no_copies(archive)
    made(converter, asked(new))
    path = derived_path(new.ref, HTJ2K_RPCL)
    assert announce(archive, converter.journals, [result]) == [], "late"
    assert archive.store.version(path) is not None


def test_a_late_copy_of_a_replaced_original_takes_no_place(
    converter: Converter, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = replace(converter.archive, replace_duplicates=True)
    old = stored(archive, deflated(synthetic.multi_frame(3)))
    late = converter.archive.store.local_path(derived_path(old.ref, HTJ2K_RPCL))
    assert late is not None
    around = image_conversion._around
    news: list[bytes] = []

    def replaced_at_the_end(*args: Any) -> Any:
        yield from around(*args)
        if not news:
            news.append(b"")
            other = stored(archive, deflated(synthetic.multi_frame(3, PatientComments="corrected")))
            news[0] = made(converter, asked(other)).read_bytes()

    monkeypatch.setattr(image_conversion, "_around", replaced_at_the_end)
    assert convert(converter, asked(old)) is None
    assert late.read_bytes() == news[0]


def test_pixels_of_a_replaced_original_are_not_served_as_those_of_the_new_one(
    converter: Converter,
) -> None:
    """A worker that was frozen between its last look and the end of the file."""
    archive = replace(converter.archive, replace_duplicates=True)
    old = stored(archive, deflated(synthetic.ct()))
    result = convert(converter, asked(old))
    assert result is not None
    new = stored(archive, deflated(synthetic.ct(PatientComments="corrected")))
    path = made(converter, asked(new))
    path.write_bytes(bytes(path.stat().st_size))
    assert announce(archive, converter.journals, [result]) == []
    assert item_of(converter, new.ref).entry.derived == NOTHING
    assert no_copies(archive)
    made(converter, asked(new))


def test_copy_of_a_restored_original_is_made_again(converter: Converter) -> None:
    archive = converter.archive
    meta = stored(archive, deflated(synthetic.ct()))
    made(converter, asked(meta))
    delete(archive, meta)
    restore(archive, meta.ref.study)
    catalogue_all(archive)
    assert item_of(converter, meta.ref).entry.derived == NOTHING
    made(converter, asked(meta))


# ------------------------------------------------------------------ announcing


def converted_ones(converter: Converter, *datasets: Dataset) -> list[Converted]:
    results = [convert(converter, asked(stored(converter.archive, ds))) for ds in datasets]
    return [result for result in results if result is not None]


def test_copies_of_a_series_are_announced_together(converter: Converter) -> None:
    archive = converter.archive
    datasets = [deflated(ds) for ds in synthetic.ct_series(3)]
    results = converted_ones(converter, *datasets)
    ref = results[0].series
    size = archive.store.version(journal_path(ref))
    assert announce(archive, converter.journals, results) == results
    with archive.store.open(journal_path(ref)) as file:
        assert size
        file.seek(size[1])
        lines = file.readlines()
    assert b"".join(lines) == b"".join(result.line for result in results)
    assert {orjson.loads(line.split(b"\t")[0])["derived"] for line in lines} == {
        str(ds.SOPInstanceUID) for ds in datasets
    }
    assert [series for series, _ in archive.index.awaiting_description(9)] == [ref]


def test_what_was_announced_is_not_said_twice(converter: Converter) -> None:
    archive = converter.archive
    results = converted_ones(converter, deflated(synthetic.ct()), broken(synthetic.ct(series="2")))
    announce(archive, converter.journals, results)
    sizes = [archive.store.version(journal_path(each.series)) for each in results]
    assert len(announce(archive, converter.journals, results)) == 2
    assert [archive.store.version(journal_path(each.series)) for each in results] == sizes


def test_series_that_grows_meanwhile(converter: Converter) -> None:
    """The line is appended behind what came, and the consumer is not in the way of it."""
    archive = converter.archive
    one, two, three = (deflated(ds) for ds in synthetic.ct_series(3))
    results = converted_ones(converter, one)

    class Growing:
        """A store to which an instance comes whenever something is to be appended."""

        def __init__(self) -> None:
            self.waiting = [two, three]

        def __getattr__(self, name: str) -> Any:
            return getattr(archive.store, name)

        def append(self, appends: Any, *, at: Any = None) -> bool:
            if self.waiting:
                stored(archive, self.waiting.pop())
            return archive.store.append(appends, at=at)

    busy: Any = Growing()
    assert announce(replace(archive, store=busy), converter.journals, results) == results
    view = Journals(archive.store).view(results[0].series)
    assert view is not None
    assert len(view.entries) == 3
    assert list(derived_of(archive, one).copies) == [HTJ2K_RPCL]


def test_copy_whose_file_went_is_not_announced(converter: Converter) -> None:
    archive = converter.archive
    results = converted_ones(converter, deflated(synthetic.ct()))
    archive.store.delete([results[0].row.derived_path or ""])
    with pytest.raises(Unavailable):
        announce(archive, converter.journals, results)
    assert rows(archive) == []
    assert item_of(converter, results[0].ref).entry.derived == NOTHING
