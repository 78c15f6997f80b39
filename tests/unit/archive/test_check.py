"""What `wado check` finds and mends, also beside an archive at work; and the rebuild."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

import synthetic
from steps import catalogue_all, load_all, series_of, store
from wado.archive.check import Finding, Report, check
from wado.archive.journal import Journals
from wado.archive.paths import journal_path
from wado.archive.reindex import reindex
from wado.ports import Archive
from wado.records import Topic
from wado.settings import Settings


def settled(archive: Archive, *datasets: Dataset) -> None:
    if datasets:
        store(archive, *datasets)
    catalogue_all(archive)
    load_all(archive)


def findings(report: Report) -> list[Finding]:
    return [p.finding for p in report.problems]


def visible(archive: Archive, ds: Dataset) -> set[str]:
    view = Journals(archive.store).view(series_of(ds))
    return set(view.entries) if view else set()


def path_of(archive: Archive, ds: Dataset) -> Path:
    path = archive.store.local_path(
        f"clinic/{ds.StudyInstanceUID}/{ds.SeriesInstanceUID}/{ds.SOPInstanceUID}.dcm"
    )
    assert path is not None
    return path


def test_archive_in_order(archive: Archive) -> None:
    settled(archive, *synthetic.ct_series(3), synthetic.ct(series="other"))
    report = check(archive, deep=True)
    assert report.problems == []
    assert (report.studies, report.series, report.instances) == (1, 2, 4)


def lose_file(archive: Archive, ds: Dataset) -> None:
    path_of(archive, ds).unlink()


def lose_journal(archive: Archive, ds: Dataset) -> None:
    archive.store.delete([journal_path(series_of(ds))])


def lose_index_row(archive: Archive, ds: Dataset) -> None:
    (state,) = archive.index.all_series()
    archive.index.put([replace(state, number_of_series_related_instances=0)])


def wrong_count(archive: Archive, ds: Dataset) -> None:
    (state,) = archive.index.all_series()
    archive.index.put([replace(state, number_of_series_related_instances=9)])


def lose_rows(archive: Archive, ds: Dataset) -> None:
    archive.warehouse.delete(series_of(ds), [ds.SOPInstanceUID])


def lose_all(archive: Archive, ds: Dataset) -> None:
    for file in list(archive.store.instances()):
        archive.store.delete([file.file_path])


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        (lose_file, [Finding.FILE_MISSING, Finding.COUNT_WRONG, Finding.TOO_MANY_IN_WAREHOUSE]),
        (lose_journal, [Finding.NOT_ANNOUNCED] * 3 + [Finding.TOO_MANY_IN_WAREHOUSE]),
        (lose_index_row, [Finding.NOT_INDEXED]),
        (wrong_count, [Finding.COUNT_WRONG]),
        (lose_rows, [Finding.NOT_IN_WAREHOUSE]),
        (
            lose_all,
            [Finding.FILE_MISSING] * 3 + [Finding.STALE_INDEX, Finding.TOO_MANY_IN_WAREHOUSE],
        ),
    ],
)
def test_harm_is_found_and_mended(archive: Archive, harm: Any, found: list[Finding]) -> None:
    series = synthetic.ct_series(3)
    settled(archive, *series)
    harm(archive, series[1])
    assert findings(check(archive))
    report = check(archive, repair=True)
    assert findings(report) == found
    assert report.unrepaired == []
    settled(archive)
    assert check(archive).problems == []


def test_instance_that_comes_during_the_check_is_not_lost(archive: Archive) -> None:
    """It is in the journal, and the folder was read before it came."""
    one, two = synthetic.ct_series(2)
    settled(archive, one)

    class Store:
        def __getattr__(self, name: str) -> Any:
            return getattr(archive.store, name)

        def instances(self, under: Any = None, *, place: str = "") -> Any:
            files = list(archive.store.instances(under, place=place))
            store(archive, two)
            catalogue_all(archive)
            return iter(files)

    busy: Any = Store()
    report = check(replace(archive, store=busy), repair=True)
    assert Finding.FILE_MISSING not in findings(report)
    assert visible(archive, one) == {one.SOPInstanceUID, two.SOPInstanceUID}


def test_what_was_on_its_way_is_no_problem(archive: Archive) -> None:
    ds = synthetic.ct()
    store(archive, ds)
    assert findings(check(archive)) == [Finding.NOT_ANNOUNCED]
    assert check(archive, settle=lambda: settled(archive)).problems == []


def test_series_whose_journal_is_on_its_way_stays_in_the_index(archive: Archive) -> None:
    """The consumer writes to the index before it writes to the journal."""
    ds = synthetic.ct()
    settled(archive, ds)
    lose_journal(archive, ds)
    check(archive, repair=True)
    assert archive.index.series(series_of(ds)) is not None


def test_temporary_file_of_a_dead_process_is_removed(archive: Archive) -> None:
    ds = synthetic.ct()
    settled(archive, ds)
    left = [archive.store.receive(series_of_instance(archive)), archive.store.receive(None)]
    assert check(archive).problems == [], "it may be being written"
    root = path_of(archive, ds).parents[3]
    for part in root.rglob("*.part"):
        os.utime(part, (0, 0))
    assert findings(check(archive)) == [Finding.ABANDONED] * 2
    assert check(archive, repair=True).unrepaired == []
    assert list(root.rglob("*.part")) == []
    for incoming in left:
        incoming.abort()


def series_of_instance(archive: Archive) -> Any:
    return next(archive.store.instances()).ref


class Interrupted(Exception):
    """Stands for the end of the process."""


def test_rebuild_that_was_interrupted_is_run_again(archive: Archive, settings: Settings) -> None:
    datasets = [synthetic.ct(study=f"study {n}", series=f"series {n}") for n in range(4)]
    settled(archive, *datasets)
    gone = path_of(archive, datasets[3])
    gone.unlink()

    def stop_at_the_second(done: Any) -> None:
        if done.series == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        reindex(archive, stop_at_the_second)
    assert reindex(archive).instances == 3
    assert check(archive, deep=True).problems == []
    assert len(list(archive.index.all_series())) == 3
    assert visible(archive, datasets[3]) == set()
    assert archive.warehouse.count("dicom_image_meta") == 3
    assert list(archive.log.dead_letters(Topic.STORAGE)) == []
