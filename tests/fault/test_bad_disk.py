"""Originals and journals that the disk does not give: all else goes on, and they are not lost."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

import pytest
from pydicom.dataset import Dataset

import synthetic
from bad_file import bad
from contract.stores import on_s3, s3_endpoint, s3_place
from fault.s3_between import between
from service import wait_until
from steps import GROUP, load_all, ref_of, series_of, store
from wado.archive import catalogue
from wado.archive.aside import deleted_files
from wado.archive.check import Finding, check
from wado.archive.commitment import Wanted, find_transaction, request_commitment
from wado.archive.delete import request_deletion
from wado.archive.describe import current_documents
from wado.archive.journal import Journals
from wado.archive.paths import commitment_path, instance_path, journal_path, study_document_path
from wado.archive.reading import must_give_others
from wado.archive.reindex import reindex
from wado.bootstrap import open_archive
from wado.errors import Unavailable
from wado.ports import Archive, DeadLetter
from wado.records import CommitmentMeta, Topic
from wado.services import webworker
from wado.services.consumer import catalogue_storage
from wado.services.patience import Patience
from wado.services.webworker import Webworker
from wado.settings import Settings, load_settings

WITHIN_S = 60.0
DISK_MB = 24
STOP = Event()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_PAUSE_S", 0.02)


@contextmanager
def consumer(archive: Archive, settings: Settings) -> Iterator[None]:
    stop = Event()
    thread = Thread(target=catalogue_storage, args=(archive, settings.consumer, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def image(name: str) -> Dataset:
    return synthetic.ct(study=name, series=name)


def file_of(archive: Archive, ds: Dataset) -> Path:
    path = archive.store.local_path(instance_path(ref_of(ds)))
    assert path is not None
    return path


def is_there(archive: Archive, ds: Dataset) -> bool:
    view = Journals(archive.store).view(series_of(ds))
    return view is not None and str(ds.SOPInstanceUID) in view.entries


def letters(archive: Archive) -> list[DeadLetter]:
    return list(archive.log.dead_letters(Topic.STORAGE))


def wait_for(archive: Archive, *datasets: Dataset) -> None:
    wait_until(
        lambda: all(is_there(archive, ds) for ds in datasets),
        timeout_s=WITHIN_S,
        reason="they are catalogued",
    )


def wait_for_letters(archive: Archive, number: int) -> None:
    wait_until(
        lambda: len(letters(archive)) == number and not archive.log.lag(Topic.STORAGE, GROUP),
        timeout_s=WITHIN_S,
        reason="what can't be read is a dead letter",
    )


def all_is_well(archive: Archive, datasets: Sequence[Dataset]) -> None:
    """Each can be retrieved bit for bit, and is in the index once."""
    for ds in datasets:
        with archive.store.open(instance_path(ref_of(ds))) as file:
            assert file.read().endswith(synthetic.data_set(ds))
        row = archive.index.series(series_of(ds))
        assert row is not None
        assert row["number_of_series_related_instances"] == 1
    assert not [p for p in check(archive).problems if p.finding is not Finding.NOT_IN_WAREHOUSE]


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE])
def test_one_original_stops_no_other_and_comes_back_when_it_can_be_read(
    archive: Archive, settings: Settings, error: int
) -> None:
    before, broken, after = (image(name) for name in ("before", "broken", "after"))
    store(archive, before, broken, after)
    with bad(file_of(archive, broken), error) as file, consumer(archive, settings):
        wait_for(archive, before, after)
        wait_for_letters(archive, 1)
        (letter,) = letters(archive)
        for said in (str(broken.SOPInstanceUID), "can't be read", "wado dlq replay"):
            assert said in letter.reason
        later = image("later")
        store(archive, later)
        wait_for(archive, later)
        assert not is_there(archive, broken)
        (found,) = [p for p in check(archive).problems if p.finding is Finding.UNREAD]
        assert found.where == instance_path(ref_of(broken))
        assert not any((settings.storage.root / "quarantine").rglob("*")), "it stays where it is"
        file.mend()
        assert archive.log.replay([letter]) == 1
        wait_for(archive, broken)
    assert letters(archive) == []
    all_is_well(archive, [before, broken, after, later])


def test_what_can_be_read_again_soon_is_no_dead_letter(
    archive: Archive, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "_PAUSE_S", WITHIN_S)
    ds = image("stale")
    store(archive, ds)
    waits: list[float] = []
    with bad(file_of(archive, ds), errno.ESTALE) as file:

        def pause(seconds: float) -> None:
            waits.append(seconds)
            file.mend()

        for batch in archive.log.read(Topic.STORAGE, GROUP, Event()):
            assert catalogue.catalogue_batch(archive, Journals(archive.store), batch, pause) == 1
            batch.commit()
            break
    assert waits == [WITHIN_S]
    assert letters(archive) == []
    all_is_well(archive, [ds])


def test_a_store_that_is_away_is_waited_for(
    archive: Archive, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, new = image("known"), image("new")
    waits: list[str] = []

    def wait(_patience: Patience, e: Exception) -> None:
        waits.append(str(e))
        STOP.wait(0.05)

    monkeypatch.setattr(Patience, "wait", wait)
    store(archive, known)
    with consumer(archive, settings):
        wait_for(archive, known)
    store(archive, new)
    # Of all there is, nothing can be read.
    with bad(file_of(archive, known)), bad(file_of(archive, new)), consumer(archive, settings):
        wait_until(lambda: len(waits) > 1, timeout_s=WITHIN_S, reason="it waits")
        assert letters(archive) == []
        assert archive.log.lag(Topic.STORAGE, GROUP) == 1
    with consumer(archive, settings):
        wait_for(archive, new)
    assert "0 of 1 originals of clinic can be read" in waits[0]
    all_is_well(archive, [known, new])


def test_a_store_that_gives_little_is_waited_for(archive: Archive) -> None:
    """As S3 that refuses most of what it is asked for a while."""
    datasets = [image(name) for name in ("a", "b", "c", "d")]
    store(archive, *datasets)
    with bad(file_of(archive, datasets[0])), bad(file_of(archive, datasets[1])):
        unread = {instance_path(ref_of(datasets[2]))}
        with pytest.raises(Unavailable, match="1 of 3 originals"):
            must_give_others(archive.store, "clinic", unread)
        bad_ones = {instance_path(ref_of(ds)) for ds in datasets[:2]}
        must_give_others(archive.store, "clinic", bad_ones)


def test_a_disk_that_takes_nothing_is_waited_for(
    archive: Archive, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds, waits = image("new"), Event()

    def wait(_patience: Patience, _error: Exception) -> None:
        waits.set()
        STOP.wait(0.05)

    monkeypatch.setattr(Patience, "wait", wait)
    store(archive, ds)
    probe = settings.storage.root / "run" / "probe.json"
    probe.parent.mkdir(exist_ok=True)
    probe.touch()
    with bad(probe), bad(file_of(archive, ds)), consumer(archive, settings):
        assert waits.wait(WITHIN_S)
        assert letters(archive) == []
    with consumer(archive, settings):
        wait_for(archive, ds)
    all_is_well(archive, [ds])


def test_what_is_deleted_before_it_can_be_read_does_not_come_back(
    archive: Archive, settings: Settings
) -> None:
    broken, other = image("broken"), image("other")
    store(archive, broken, other)
    deletion = request_deletion(archive, ref_of(broken).series.study)
    with bad(file_of(archive, broken)) as file, consumer(archive, settings):
        wait_for(archive, other)
        # The kernel renames nothing that something is mounted on: so it waits, and does it then.
        file.mend()
        wait_for_letters(archive, 0)
    assert deletion.covers(ref_of(broken))
    assert not is_there(archive, broken)
    assert [found.ref for found in deleted_files(archive.store)] == [ref_of(broken)]
    all_is_well(archive, [other])


def test_check_looks_at_all_of_a_disk_that_is_full_too(small_disk: Path, tmp_path: Path) -> None:
    broken, other = image("broken"), image("other")
    images = {"root": tmp_path / "data", "url": small_disk.as_uri()}
    with open_archive(load_settings(storage=images)) as archive:
        store(archive, broken, other)
        with consumer(archive, load_settings()):
            wait_for(archive, broken, other)
        with suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        with bad(file_of(archive, broken)):
            found = check(archive, deep=True)
        assert [p.where for p in found.problems if p.finding is Finding.UNREAD]
        assert found.instances == 2


def test_one_journal_stops_no_other_series(
    archive: Archive, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webworker, "_LONGEST_WAIT_S", 0.0)
    first = synthetic.ct_series(2, study="broken", series="broken")
    other = image("other")
    store(archive, first[0])
    with consumer(archive, settings):
        wait_for(archive, first[0])
    journal = archive.store.local_path(journal_path(series_of(first[0])))
    assert journal is not None
    store(archive, first[1], other)
    quiet = settings.webworker.model_copy(update={"quiet_s": 0.0})
    with bad(journal) as file, consumer(archive, settings):
        wait_for(archive, other)
        wait_for_letters(archive, 1)
        Webworker(archive, quiet).look(STOP)
        view = Journals(archive.store).view(series_of(other))
        assert view is not None
        assert view.described
        (found,) = [p for p in check(archive).problems if p.finding is Finding.UNREAD]
        assert found.where == series_of(first[0]).path
        file.mend()
        archive.log.replay(letters(archive))
        wait_for(archive, *first)
        wait_for_letters(archive, 0)
        assert Webworker(archive, quiet).look(STOP) == 1
    view = Journals(archive.store).view(series_of(first[0]))
    assert view is not None
    assert view.described
    all_is_well(archive, [other])


def test_a_deletion_that_meets_a_bad_journal_stops_no_other_and_takes_nothing_later(
    archive: Archive, settings: Settings
) -> None:
    broken, other, again = image("broken"), image("other"), image("again")
    again.StudyInstanceUID = broken.StudyInstanceUID
    store(archive, broken)
    with consumer(archive, settings):
        wait_for(archive, broken)
    journal = archive.store.local_path(journal_path(series_of(broken)))
    assert journal is not None
    request_deletion(archive, series_of(broken).study)
    store(archive, again, other)
    with bad(journal) as file:
        with consumer(archive, settings):
            wait_for(archive, again, other)
            wait_for_letters(archive, 1)
        (letter,) = letters(archive)
        assert "not all of it was deleted" in letter.reason
        file.mend()
        assert is_there(archive, broken)
    all_is_well(archive, [broken, again, other])


def test_a_deletion_waits_for_a_journal_that_can_be_read_soon(
    archive: Archive, settings: Settings
) -> None:
    ds, again = image("broken"), image("again")
    again.StudyInstanceUID = ds.StudyInstanceUID
    store(archive, ds)
    with consumer(archive, settings):
        wait_for(archive, ds)
    journal = archive.store.local_path(journal_path(series_of(ds)))
    assert journal is not None
    request_deletion(archive, series_of(ds).study)
    store(archive, again)
    with bad(journal) as file:
        for batch in archive.log.read(Topic.STORAGE, GROUP, Event()):
            catalogue.catalogue_batch(
                archive, Journals(archive.store), batch, lambda _seconds: file.mend()
            )
            batch.commit()
            break
    assert letters(archive) == []
    assert not is_there(archive, ds)
    all_is_well(archive, [again])


def test_commitments_go_past_a_journal_and_a_request_that_can_not_be_read(
    archive: Archive, settings: Settings
) -> None:
    broken, other = image("broken"), image("other")
    store(archive, broken, other)
    with consumer(archive, settings):
        wait_for(archive, broken, other)
    load_all(archive)
    wanted = {
        "1.1": [Wanted(study_instance_uid=str(broken.StudyInstanceUID))],
        "1.2": [Wanted(str(ds.SOPClassUID), str(ds.SOPInstanceUID)) for ds in (broken, other)],
        "1.3": [Wanted(str(other.SOPClassUID), str(other.SOPInstanceUID))],
    }
    for uid, items in wanted.items():
        request_commitment(archive, CommitmentMeta("clinic", uid, "trace"), items, keep_s=1e6)
    paths = [
        archive.store.local_path(path)
        for path in (journal_path(series_of(broken)), commitment_path("clinic", "1.3"))
    ]
    assert paths[0] is not None
    assert paths[1] is not None
    stop = Event()
    thread = Thread(target=webworker.work_on_commitments, args=(archive, stop))
    with bad(paths[0]), bad(paths[1]):
        thread.start()
        try:
            wait_until(
                lambda: archive.log.lag(Topic.COMMITMENT, "wado-commitment") == 0,
                timeout_s=WITHIN_S,
                reason="they are worked on",
            )
        finally:
            stop.set()
            thread.join()
    whole, both = (
        find_transaction(archive, "clinic", uid, keep_s=1e6).result for uid in ("1.1", "1.2")
    )
    assert whole is not None
    assert both is not None
    assert whole["0008119B"]["Value"]
    assert [len(both[tag]["Value"]) for tag in ("00081198", "00081199")] == [1, 1]
    (letter,) = archive.log.dead_letters(Topic.COMMITMENT)
    assert "can't be read" in letter.reason


def test_documents_that_can_not_be_read_are_made_anew(archive: Archive, settings: Settings) -> None:
    ds = image("study")
    store(archive, ds)
    quiet = settings.webworker.model_copy(update={"quiet_s": 0.0})
    with consumer(archive, settings):
        wait_for(archive, ds)
    assert Webworker(archive, quiet).look(STOP) == 1
    path = study_document_path(series_of(ds).study)
    parts = archive.store.local_path(f"{path}.parts")
    assert parts is not None
    announced = parts.read_bytes().partition(b"\n")[0]
    assert current_documents(archive, path, announced)
    with bad(parts) as file:
        assert current_documents(archive, path, announced) is None
        assert file.read.is_set()


def test_what_can_not_be_read_of_the_commitments_stops_no_purge(
    archive: Archive, settings: Settings
) -> None:
    items = [Wanted(synthetic.ct().SOPClassUID, "1.2")]
    request_commitment(archive, CommitmentMeta("clinic", "1.1", "trace"), items, keep_s=1e6)
    requested = archive.store.local_path("commitments/requested.journal")
    assert requested is not None
    with bad(requested) as file:
        assert not Webworker(archive, settings.webworker).purge(deleted_keep_s=0.0)
        assert file.read.is_set()


def test_a_rebuild_leaves_out_what_can_not_be_read(archive: Archive, settings: Settings) -> None:
    broken, other = image("broken"), image("other")
    store(archive, broken, other)
    with consumer(archive, settings):
        wait_for(archive, broken, other)
    with bad(file_of(archive, broken)):
        done = reindex(archive)
        assert (done.instances, done.unread, done.quarantined) == (1, 1, 0)
        assert is_there(archive, other)
    check(archive, repair=True)
    with consumer(archive, settings):
        wait_for(archive, broken)
    all_is_well(archive, [broken, other])


def test_a_rebuild_leaves_out_nothing_while_all_of_a_tenant_is_away(archive: Archive) -> None:
    first, second = image("first"), image("second")
    store(archive, first, second)
    with bad(file_of(archive, first)), bad(file_of(archive, second)), pytest.raises(Unavailable):
        reindex(archive)
    assert reindex(archive).instances == 2


def test_one_object_of_s3_stops_no_other(
    run_folder: Path, tmp_path: Path, archive: Archive, settings: Settings
) -> None:
    with between(s3_endpoint(run_folder)) as network:
        place = s3_place(network.endpoint, f"fault/{uuid4().hex}", timeout_s=30.0)
        archive = replace(archive, store=on_s3(place, tmp_path / "root").store)
        broken, other = image("broken"), image("other")
        store(archive, broken, other)
        name = str(broken.SOPInstanceUID)
        network.fate = lambda method, path: (
            "refused" if method == "GET" and f"{name}.dcm" in path else "passed on"
        )
        with consumer(archive, settings):
            wait_for(archive, other)
            wait_for_letters(archive, 1)
            network.fate = lambda _method, _path: "passed on"
            archive.log.replay(letters(archive))
            wait_for(archive, broken)
        all_is_well(archive, [broken, other])
