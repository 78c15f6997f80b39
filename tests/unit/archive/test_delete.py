"""Deletion through the log: what came before it is gone, what came after it stays, at any crash."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from pydicom.dataset import Dataset

import synthetic
from crashes import Crash, Crashing
from steps import batches, catalogue_all, load_all, ref_of, series_of, store
from wado.archive.aside import deleted_files
from wado.archive.check import Finding, check
from wado.archive.delete import Ref, is_done, must_exist, request_deletion
from wado.archive.describe import describe_series, describe_study
from wado.archive.gone import no_instance, no_series, no_study
from wado.archive.grace import compact, deleted_series, purge, restore
from wado.archive.journal import Journals
from wado.archive.paths import (
    deletion_path,
    instance_path,
    journal_path,
    series_document_path,
    study_document_path,
)
from wado.archive.reindex import reindex
from wado.archive.retrieve import item, series_items, study_items
from wado.dicom.uids import InstanceRef
from wado.errors import Gone, NotFound
from wado.ports import Archive, InstanceStore, Message
from wado.records import DicomDeleteMeta, Topic


def settled(archive: Archive, *datasets: Dataset) -> None:
    store(archive, *datasets)
    catalogue_all(archive)
    load_all(archive)


def delete(archive: Archive, ref: Ref) -> DicomDeleteMeta:
    meta = request_deletion(archive, ref)
    catalogue_all(archive)
    return meta


def visible(archive: Archive, *datasets: Dataset) -> list[bool]:
    journals = Journals(archive.store)
    found = []
    for ds in datasets:
        view = journals.view(series_of(ds))
        found.append(view is not None and ds.SOPInstanceUID in view.entries)
    return found


def kept(archive: Archive) -> list[str]:
    return [file.ref.sop_instance_uid for file in deleted_files(archive.store)]


def in_order(archive: Archive) -> None:
    load_all(archive)
    assert check(archive, deep=True).problems == []


def rows(archive: Archive) -> set[str]:
    return {
        row["sop_instance_uid"]
        for row in archive.warehouse.query("select sop_instance_uid from dicom_image_meta")
    }


def test_instance_goes_and_the_others_stay(archive: Archive) -> None:
    one, two, three = synthetic.ct_series(3)
    settled(archive, one, two, three)
    meta = delete(archive, ref_of(two))
    assert is_done(archive, meta)
    assert visible(archive, one, two, three) == [True, False, True]
    row = archive.index.series(series_of(one))
    assert row is not None
    assert row["number_of_series_related_instances"] == 2
    assert archive.store.version(instance_path(ref_of(two))) is None
    with archive.store.open(f"deleted/{instance_path(ref_of(two))}") as file:
        assert file.read() == synthetic.part10(two)
    in_order(archive)
    assert rows(archive) == {str(one.SOPInstanceUID), str(three.SOPInstanceUID)}


@pytest.mark.parametrize("level", ["series", "study"])
def test_series_and_studies_go_with_all_that_was_made_of_them(archive: Archive, level: str) -> None:
    series, other = synthetic.ct_series(3), synthetic.ct(series="other")
    settled(archive, *series, other)
    journals = Journals(archive.store)
    for ref in (series_of(series[0]), series_of(other)):
        describe_series(archive, journals, ref)
    describe_study(archive, journals, ref_of(other).study)
    delete(archive, getattr(ref_of(series[0]), level))
    gone = [*series, other] if level == "study" else series
    assert not any(visible(archive, *gone))
    assert archive.index.series(series_of(series[0])) is None
    assert (archive.index.series(series_of(other)) is None) == (level == "study")
    for path in (series_document_path(series_of(series[0])), study_document_path(ref_of(other))):  # type: ignore[arg-type]  # it has the fields of a study
        assert archive.store.version(f"{path}.json") is None
        assert archive.store.version(f"{path}.json.gz") is None
    assert sorted(kept(archive)) == sorted(str(ds.SOPInstanceUID) for ds in gone)
    in_order(archive)
    assert rows(archive) == set() if level == "study" else {str(other.SOPInstanceUID)}


def test_what_was_deleted_is_gone_and_what_never_was_is_not_found(archive: Archive) -> None:
    one, two = synthetic.ct_series(2)
    settled(archive, one, two)
    journals = Journals(archive.store)
    delete(archive, ref_of(one))
    with pytest.raises(Gone):
        item(journals, ref_of(one))
    assert item(journals, ref_of(two))
    delete(archive, ref_of(one).study)
    with pytest.raises(Gone):
        series_items(journals, series_of(one))
    with pytest.raises(Gone):
        study_items(archive, journals, ref_of(one).study)
    for ref in (ref_of(one), series_of(one), ref_of(one).study):
        with pytest.raises(Gone):
            must_exist(archive, journals, ref)
    stranger = synthetic.ct(study="never stored", series="neither")
    assert type(no_instance(journals, ref_of(stranger))) is NotFound
    assert type(no_series(journals, series_of(stranger))) is NotFound
    assert type(no_study(archive.store, ref_of(stranger).study)) is NotFound
    for ref in (ref_of(stranger), series_of(stranger), ref_of(stranger).study):
        with pytest.raises(NotFound, match="no such"):
            must_exist(archive, journals, ref)


def test_what_is_not_catalogued_yet_can_be_deleted(archive: Archive) -> None:
    ds = synthetic.ct()
    store(archive, ds)
    must_exist(archive, Journals(archive.store), ref_of(ds))
    delete(archive, ref_of(ds).study)
    assert visible(archive, ds) == [False]
    assert kept(archive) == [str(ds.SOPInstanceUID)]
    in_order(archive)


def test_lost_series_is_not_told_to_be_deleted(archive: Archive) -> None:
    """A file that is missing is a fault, not the wish of a user."""
    ds = synthetic.ct()
    settled(archive, ds)
    archive.store.delete([instance_path(ref_of(ds))])
    check(archive, repair=True)
    assert type(no_series(Journals(archive.store), series_of(ds))) is NotFound


# ------------------------------------------------------------------ order and crashes

STEPS = [
    (port, method, after)
    for port, method in (
        ("store", "append"), ("log", "publish"), ("index", "put"), ("store", "move"),
        ("store", "delete"), ("store", "put_document"),
    )
    for after in (False, True)
]  # fmt: skip


def crash(archive: Archive, port: str, method: str, *, after: bool) -> None:
    """Catalogue until the process ends, at one of the steps."""
    crashing = Crashing(getattr(archive, port), method, after=after)
    with pytest.raises(Crash):
        catalogue_all(replace(archive, **{port: crashing}))  # type: ignore[arg-type]


def test_crash_between_any_two_steps_is_made_good(archive: Archive) -> None:
    for port, method, after in STEPS:
        at = f"{port}.{method} {after}"
        series = synthetic.ct_series(3, study=at, series="one")
        other = synthetic.ct(study=at, series="other")
        settled(archive, *series, other)
        meta = request_deletion(archive, ref_of(other).study)
        crash(archive, port, method, after=after)
        catalogue_all(archive)
        assert is_done(archive, meta), at
        assert not any(visible(archive, *series, other)), at
        assert list(archive.index.all_series()) == [], at
        assert list(archive.store.instances()) == [], at
    assert len(kept(archive)) == 4 * len(STEPS)
    in_order(archive)
    assert rows(archive) == set()


def test_what_is_stored_after_a_deletion_stays(archive: Archive) -> None:
    """Stored again at any moment after the request: before, within and after its execution."""
    for port, method, after in STEPS:
        at = f"{port}.{method} {after}"
        one, two, three = synthetic.ct_series(3, study=at, series="one")
        settled(archive, one, two, three)
        request_deletion(archive, ref_of(one).study)
        announce_again(archive, one)  # as a sender who stored it after that, whatever was known
        crash(archive, port, method, after=after)
        # Where its tombstone is there, what is stored is news, and acknowledged.
        is_news = visible(archive, two) == [False]
        store(archive, two)
        catalogue_all(archive)
        assert visible(archive, one, two, three) == [True, is_news, False], at
    in_order(archive)


def announce_again(archive: Archive, ds: Dataset) -> None:
    path = instance_path(ref_of(ds))
    archive.store.move({path: f"{path}.away"})
    store(archive, ds)
    archive.store.delete([f"{path}.away"])


def test_all_that_came_comes_again_after_a_power_cut(archive: Archive) -> None:
    """Offsets may fall back: store, deletion and store are repeated in their order."""
    ds, other = synthetic.ct_series(2)
    settled(archive, ds, other)
    delete(archive, ref_of(ds).study)
    settled(archive, ds)
    again: list[Message] = []
    for batch in batches(archive, Topic.STORAGE, "another-group"):
        again += [Message(m.topic, m.key, m.body) for m in batch.messages]
        batch.commit()
    archive.log.publish(again)
    catalogue_all(archive)
    assert visible(archive, ds, other) == [True, False]
    in_order(archive)
    assert list(archive.log.dead_letters(Topic.STORAGE)) == []


def test_other_bytes_under_a_deleted_uid_are_stored(archive: Archive) -> None:
    ds = synthetic.ct()
    settled(archive, ds)
    delete(archive, ref_of(ds))
    ds.PatientName = "Another"
    settled(archive, ds)
    assert visible(archive, ds) == [True]
    delete(archive, ref_of(ds))
    assert kept(archive) == [str(ds.SOPInstanceUID)] * 2, "the older copy is kept, too"
    in_order(archive)


def test_message_that_names_nothing_goes_to_the_dead_letters(archive: Archive) -> None:
    body = (
        b'{"tenant_id":"clinic","study_instance_uid":"../x","delete_requested_at":"","trace_id":""}'
    )
    archive.log.publish([Message(Topic.STORAGE, "clinic/x", body)])
    catalogue_all(archive)
    (letter,) = archive.log.dead_letters(Topic.STORAGE)
    assert "not a UID" in letter.reason


# ------------------------------------------------------------------ care


def test_check_finishes_what_a_crash_and_a_lost_log_left(archive: Archive) -> None:
    one, two = synthetic.ct_series(2)
    settled(archive, one, two)
    request_deletion(archive, ref_of(one))
    crash(archive, "store", "move", after=False)
    for batch in batches(archive, Topic.STORAGE, "wado-consumer"):
        batch.commit()  # the log was lost
    load_all(archive)
    report = check(archive, repair=True)
    assert [p.finding for p in report.problems] == [Finding.NOT_MOVED]
    assert kept(archive) == [str(one.SOPInstanceUID)]
    assert visible(archive, one, two) == [False, True]
    in_order(archive)


def test_check_brings_back_a_file_that_is_among_the_deleted(archive: Archive) -> None:
    ds = synthetic.ct()
    settled(archive, ds)
    path = instance_path(ref_of(ds))
    archive.store.move({path: f"deleted/{path}"})
    report = check(archive, repair=True)
    assert [p.finding for p in report.problems] == [Finding.SET_ASIDE]
    in_order(archive)


def test_rebuild_remembers_what_was_deleted(archive: Archive) -> None:
    one, two, again = synthetic.ct_series(3)
    other = synthetic.ct(study="other study", series="gone")
    settled(archive, one, two, again, other)
    for ref in (ref_of(one), ref_of(again), ref_of(other).study):
        delete(archive, ref)
    settled(archive, again)
    for ds in (one, other):
        archive.store.delete([journal_path(series_of(ds)), deletion_path(ref_of(ds).study)])
    reindex(archive)
    assert visible(archive, one, two, again, other) == [False, True, True, False]
    journals = Journals(archive.store)
    for ds in (one, other):
        assert isinstance(no_instance(journals, ref_of(ds)), Gone)
    assert isinstance(no_study(archive.store, ref_of(other).study), Gone)
    in_order(archive)


# ------------------------------------------------------------------ grace


@pytest.mark.parametrize("pick", [lambda r: r, lambda r: r.series, lambda r: r.study])
def test_restored_instances_are_as_before(
    archive: Archive, pick: Callable[[InstanceRef], Ref]
) -> None:
    one, two = synthetic.ct_series(2)
    settled(archive, one, two)
    delete(archive, ref_of(one).study)
    done = restore(archive, pick(ref_of(one)))
    assert done.instances == (1 if pick(ref_of(one)) == ref_of(one) else 2)
    assert done.taken == []
    catalogue_all(archive)
    assert visible(archive, one, two) == [True, done.instances == 2]
    in_order(archive)
    with archive.store.open(instance_path(ref_of(one))) as file:
        assert file.read() == synthetic.part10(one)


def test_restore_that_dies_half_way_is_finished_by_the_consumer(archive: Archive) -> None:
    ds = synthetic.ct()
    settled(archive, ds)
    delete(archive, ref_of(ds))
    crashing = replace(archive, store=Crashing(archive.store, "move", after=False))
    with pytest.raises(Crash):
        restore(crashing, ref_of(ds))
    catalogue_all(archive)
    assert visible(archive, ds) == [True]
    assert kept(archive) == []
    in_order(archive)


def test_restore_that_the_consumer_finishes_at_the_same_time(archive: Archive) -> None:
    ds = synthetic.ct()
    settled(archive, ds)
    delete(archive, ref_of(ds))
    crashing = replace(archive, store=Crashing(archive.store, "move", after=False))
    with pytest.raises(Crash):
        restore(crashing, ref_of(ds))
    path = instance_path(ref_of(ds))
    catalogue_all(replace(archive, store=MovedFirst(archive.store, f"deleted/{path}", path)))  # type: ignore[arg-type]
    assert visible(archive, ds) == [True]
    assert kept(archive) == []
    in_order(archive)


class MovedFirst:
    """A store in which another moves a file just before it is opened."""

    def __init__(self, store: InstanceStore, old: str, new: str) -> None:
        self._store = store
        self._old = old
        self._new = new

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def open(self, path: str) -> BinaryIO:
        if path == self._old:
            assert self._store.move({self._old: self._new})
        return self._store.open(path)


def test_restore_leaves_what_was_stored_anew(archive: Archive) -> None:
    one, two = synthetic.ct_series(2)
    settled(archive, one, two)
    delete(archive, ref_of(one).study)
    settled(archive, one)
    done = restore(archive, ref_of(one).study)
    assert (done.instances, done.taken) == (1, [ref_of(one)])
    with pytest.raises(NotFound, match="nothing of it is kept"):
        restore(archive, ref_of(synthetic.ct(study="never")).study)


def test_copy_that_was_deleted_last_comes_back(archive: Archive) -> None:
    ds = synthetic.ct()
    for name in ("First", "Second"):
        ds.PatientName = name
        settled(archive, ds)
        delete(archive, ref_of(ds))
    restore(archive, ref_of(ds))
    catalogue_all(archive)
    row = archive.index.series(series_of(ds))
    assert row is not None
    assert row["patient_name"] == "Second"


def test_purge_forgets_all_of_a_study(archive: Archive, settings_root: Path) -> None:
    series = synthetic.ct_series(3, PatientName="Secret^Name")
    settled(archive, *series)
    delete(archive, ref_of(series[0]).study)
    journals = Journals(archive.store)
    assert [(d.ref, d.instances) for d in deleted_series(archive)] == [(series_of(series[0]), 3)]
    assert purge(archive, journals, keep_s=3600, limit=10) == 0
    assert purge(archive, journals, keep_s=-60, limit=2) == 2
    assert purge(archive, journals, keep_s=-60, limit=10) == 1
    assert type(no_study(archive.store, ref_of(series[0]).study)) is NotFound
    assert type(no_instance(journals, ref_of(series[0]))) is NotFound
    left = [p for top in ("metadata", "deleted") for p in (settings_root / top).rglob("*.*")]
    assert [p for p in left if p.is_file()] == []
    in_order(archive)


def test_purge_leaves_the_rest_of_a_series_as_it_was(archive: Archive, settings_root: Path) -> None:
    one, two = synthetic.ct_series(2)
    one.PatientComments = "a secret of the one that is deleted"
    settled(archive, one, two)
    delete(archive, ref_of(one))
    journals, others = Journals(archive.store), Journals(archive.store)
    assert describe_series(archive, journals, series_of(two)) is not None
    before = others.view(series_of(two))
    assert before is not None
    texts = list(journals.metadata(before))
    assert purge(archive, journals, keep_s=-60, limit=10) == 1
    assert b"secret" not in (settings_root / journal_path(series_of(two))).read_bytes()
    assert list(others.metadata(before)) == texts, "a view of before"
    after = others.view(series_of(two))
    assert after is not None
    assert after.etag != before.etag
    assert after.described
    assert list(others.metadata(after)) == texts
    settled(archive, one)
    assert visible(archive, one, two) == [True, True]
    in_order(archive)


def test_journal_that_grew_is_not_compacted(archive: Archive) -> None:
    one, two, three = synthetic.ct_series(3)
    settled(archive, one, two)
    delete(archive, ref_of(one))
    view = Journals(archive.store).memory(series_of(one))
    assert view is not None
    settled(archive, three)
    assert not compact(archive, view, before=2e9)
    assert visible(archive, one, two, three) == [False, True, True]


def test_journal_under_the_identity_of_another_is_read_anew(
    archive: Archive, settings_root: Path
) -> None:
    """File systems give the number of a removed file to a new one."""
    one, two = synthetic.ct_series(2)
    settled(archive, one)
    journals = Journals(archive.store)
    assert journals.view(series_of(one))
    path = settings_root / journal_path(series_of(one))
    first = path.read_bytes()
    settled(archive, two)
    second = path.read_bytes()[len(first) :]
    path.write_bytes(second + first + second)  # the same number, other content, and longer
    view = journals.view(series_of(one))
    assert view is not None
    assert set(view.entries) == {str(one.SOPInstanceUID), str(two.SOPInstanceUID)}
    assert len(list(journals.metadata(view))) == 2


@pytest.fixture
def settings_root(tmp_path: Path) -> Path:
    """The root of `archive`."""
    return tmp_path / "data"
