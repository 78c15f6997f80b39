"""A consumer that was frozen wakes up where another has gone on: nothing goes back in time."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from threading import Event
from typing import Any, cast

import pytest
from pydicom.dataset import Dataset

import synthetic
from service import wait_until
from steps import GROUP, catalogue_all, load_all, series_of, store
from wado.archive import catalogue as catalogue_module
from wado.archive.catalogue import catalogue_batch
from wado.archive.delete import request_deletion
from wado.archive.describe import describe_series
from wado.archive.journal import Journals
from wado.dicom.uids import StudyRef
from wado.errors import CannotUnderstand, Unavailable
from wado.ports import Archive, Batch
from wado.records import Topic
from wado.services import webworker
from wado.services.webworker import Webworker
from wado.settings import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Nobody cuts the power here, and the later of two versions is kept."""
    changes = {"durability": "os", "duplicates": "replace"}
    storage = settings.storage.model_copy(update=changes)
    return settings.model_copy(update={"storage": storage})


class Freezing:
    """A port at which a process is frozen once, before a method: others go on meanwhile."""

    def __init__(self, port: Any, method: str, meanwhile: Callable[[], object]) -> None:
        self._port = port
        self._method = method
        self._meanwhile: list[Callable[[], object]] = [meanwhile]

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._port, name)
        if name != self._method:
            return value

        def freeze(*args: Any, **kwargs: Any) -> Any:
            if self._meanwhile:
                self._meanwhile.pop()()
            return value(*args, **kwargs)

        return freeze


BEFORE_INDEX, BEFORE_JOURNAL = ("index", "put"), ("store", "append")


def frozen(archive: Archive, where: tuple[str, str], meanwhile: Callable[[], object]) -> Archive:
    port, method = where
    late = Freezing(getattr(archive, port), method, meanwhile)
    return replace(archive, **cast("Any", {port: late}))


def next_batch(archive: Archive) -> Batch:
    reading = archive.log.read(Topic.STORAGE, GROUP, Event())
    try:
        return next(reading)
    finally:
        reading.close()  # type: ignore[attr-defined]  # it is a generator


def delete_study(archive: Archive, ds: Dataset) -> None:
    request_deletion(archive, StudyRef("clinic", str(ds.StudyInstanceUID)))
    catalogue_all(archive)


def images(archive: Archive) -> list[dict[str, Any]]:
    load_all(archive)
    return archive.warehouse.query("select sop_instance_uid, digest from dicom_image_meta")


@pytest.mark.parametrize("where", [BEFORE_INDEX, BEFORE_JOURNAL])
def test_deleted_instances_do_not_come_back(
    archive: Archive, where: tuple[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = synthetic.ct_series(3)
    ref = series_of(datasets[0])
    store(archive, *datasets)
    batch = next_batch(archive)
    late = frozen(archive, where, lambda: delete_study(archive, datasets[0]))
    with pytest.raises(Unavailable):
        catalogue_batch(late, Journals(archive.store), batch)
    assert Journals(archive.store).view(ref) is None
    assert images(archive) == []
    # The index has it still, or again: as if it were on its way; then the webworker takes it out.
    monkeypatch.setattr(webworker, "_LONGEST_WAIT_S", 0.0)
    worker = Webworker(archive, settings.webworker)
    worker.look(Event())
    worker.look(Event())
    assert archive.index.series(ref) is None


@pytest.mark.parametrize("where", [BEFORE_INDEX, BEFORE_JOURNAL])
def test_replaced_instances_stay_replaced(archive: Archive, where: tuple[str, str]) -> None:
    datasets = synthetic.ct_series(2)
    ref = series_of(datasets[0])
    later = deepcopy(datasets)
    for ds in later:
        ds.PatientName = "Corrected^Name"
    store(archive, *datasets)
    batch = next_batch(archive)

    def others() -> None:
        catalogue_all(archive)
        digests.update(s.meta.digest for s in store(archive, *later))
        catalogue_all(archive)

    digests: set[str] = set()
    with pytest.raises(Unavailable):
        catalogue_batch(frozen(archive, where, others), Journals(archive.store), batch)
    view = Journals(archive.store).view(ref)
    assert view is not None
    assert {entry.digest for entry in view.entries.values()} == digests
    row = archive.index.series(ref)
    assert row is not None
    assert row["patient_name"] == "Corrected^Name"
    assert row["number_of_series_related_instances"] == 2
    assert {row["digest"] for row in images(archive)} == digests


def test_a_count_does_not_go_back(archive: Archive) -> None:
    datasets = synthetic.ct_series(4)
    store(archive, *datasets[:2])
    batch = next_batch(archive)

    def others() -> None:
        catalogue_all(archive)
        store(archive, *datasets[2:])
        catalogue_all(archive)

    with pytest.raises(Unavailable):
        catalogue_batch(frozen(archive, BEFORE_INDEX, others), Journals(archive.store), batch)
    row = archive.index.series(series_of(datasets[0]))
    assert row is not None
    assert row["number_of_series_related_instances"] == 4


def test_what_was_stored_after_a_deletion_is_not_deleted_again(archive: Archive) -> None:
    datasets = synthetic.ct_series(2)
    store(archive, *datasets)
    catalogue_all(archive)
    request_deletion(archive, StudyRef("clinic", str(datasets[0].StudyInstanceUID)))
    batch = next_batch(archive)

    def others() -> None:
        catalogue_all(archive)
        store(archive, *datasets)
        catalogue_all(archive)

    late = frozen(archive, BEFORE_JOURNAL, others)
    with pytest.raises(Unavailable):
        catalogue_batch(late, Journals(archive.store), batch)
    view = Journals(archive.store).view(series_of(datasets[0]))
    assert view is not None
    assert len(view.entries) == 2
    assert len(list(archive.store.instances())) == 2


def test_a_series_that_is_described_meanwhile_keeps_nobody(archive: Archive) -> None:
    datasets = synthetic.ct_series(3)
    ref = series_of(datasets[0])
    store(archive, *datasets[:2])
    catalogue_all(archive)
    store(archive, datasets[2])
    batch = next_batch(archive)

    def others() -> None:
        assert describe_series(archive, Journals(archive.store), ref) is not None

    late = frozen(archive, BEFORE_INDEX, others)
    assert catalogue_batch(late, Journals(archive.store), batch) == 1
    view = Journals(archive.store).view(ref)
    assert view is not None
    assert len(view.entries) == 3


class Held:
    """A batch of a log on which others take over: then it is not ours any more."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def is_ours(self) -> bool:
        return not self.lost


def held(archive: Archive) -> Held:
    return Held(next_batch(archive))


@pytest.mark.parametrize("fails", [False, True])
def test_records_that_come_late_are_told_again(archive: Archive, *, fails: bool) -> None:
    """Also when the index, which was asked before, has not answered in time."""
    gone, grown = synthetic.ct_series(2), synthetic.ct_series(4, study="b", series="b")
    store(archive, *gone, *grown[:2])
    batch, refs = held(archive), [series_of(gone[0]), series_of(grown[0])]

    def others() -> None:
        """Go on once the journals are written; they are, while the records are published."""
        journals = Journals(archive.store)
        wait_until(
            lambda: all(journals.view(ref) for ref in refs), timeout_s=60, reason="they are there"
        )
        catalogue_all(archive)
        delete_study(archive, gone[0])
        store(archive, *grown[2:])
        catalogue_all(archive)
        batch.lost = True

    def no_answer() -> None:
        wait_until(lambda: batch.lost, timeout_s=60, reason="others have gone on")
        raise Unavailable("no answer in time")

    late = frozen(archive, ("log", "publish"), others)
    if fails:
        late = frozen(late, ("index", "flush"), no_answer)
    with pytest.raises(Unavailable):
        catalogue_batch(late, Journals(archive.store), cast("Batch", batch))
    assert {row["sop_instance_uid"] for row in images(archive)} == {
        str(ds.SOPInstanceUID) for ds in grown
    }
    (row,) = archive.warehouse.query(
        "SELECT number_of_series_related_instances AS n FROM dicom_state_meta"
        " WHERE series_instance_uid = ?",
        [str(grown[0].SeriesInstanceUID)],
    )
    assert row["n"] == 4


def test_what_others_deleted_is_not_brought_back(archive: Archive) -> None:
    datasets = synthetic.ct_series(2)
    store(archive, *datasets)
    batch = held(archive)
    catalogue_all(archive)
    delete_study(archive, datasets[0])
    batch.lost = True
    with pytest.raises(Unavailable):
        catalogue_batch(archive, Journals(archive.store), cast("Batch", batch))
    assert list(archive.store.instances()) == []
    assert Journals(archive.store).view(series_of(datasets[0])) is None
    assert list(archive.log.dead_letters(Topic.STORAGE)) == []


def test_what_was_stored_since_is_not_put_into_the_quarantine(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ds,) = synthetic.ct_series(1)
    (stored,) = store(archive, ds)
    path = archive.store.local_path(stored.meta.file_path)
    assert path is not None
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    batch = held(archive)

    def others(*_: object) -> None:
        monkeypatch.undo()
        catalogue_all(archive)
        assert not path.exists()
        store(archive, ds)
        catalogue_all(archive)
        batch.lost = True
        raise CannotUnderstand("it ends early")

    monkeypatch.setattr(catalogue_module, "read_instance", others)
    with pytest.raises(Unavailable):
        catalogue_batch(archive, Journals(archive.store), cast("Batch", batch))
    assert path.read_bytes() == whole
    (letter,) = archive.log.dead_letters(Topic.STORAGE)
    assert letter.message.offset == 0


def test_a_deletion_that_comes_late_takes_nothing_that_was_stored_since(archive: Archive) -> None:
    datasets = synthetic.ct_series(2)
    store(archive, *datasets)
    catalogue_all(archive)
    request_deletion(archive, StudyRef("clinic", str(datasets[0].StudyInstanceUID)))
    batch = held(archive)

    def others() -> None:
        catalogue_all(archive)
        store(archive, *datasets)
        catalogue_all(archive)
        batch.lost = True

    late = frozen(archive, ("log", "publish"), others)  # its tombstones are there already
    with pytest.raises(Unavailable):
        catalogue_batch(late, Journals(archive.store), cast("Batch", batch))
    assert len(list(archive.store.instances())) == 2
    row = archive.index.series(series_of(datasets[0]))
    assert row is not None
    assert row["number_of_series_related_instances"] == 2
    catalogue_all(archive)
    assert len(images(archive)) == 2
