"""Files of derived copies: gone with their originals, found by the check, made by a rebuild."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

import steps
import synthetic
from copies import HTJ2K_RPCL, convert_all, deflated, derived_of, store
from steps import catalogue_all, load_all, ref_of, series_of
from wado.archive.check import Finding, Report, check
from wado.archive.delete import Ref, request_deletion
from wado.archive.grace import restore
from wado.archive.journal import Journals
from wado.archive.paths import DERIVED, derived_path, instance_path
from wado.archive.reindex import reindex
from wado.archive.retrieve import Item, copy_of
from wado.dicom.uids import InstanceRef
from wado.ports import Archive

OLD = "1.2.840.10008.1.2.4.201"


def with_copies(archive: Archive, *datasets: Dataset) -> None:
    store(archive, *datasets)
    convert_all(archive)
    load_all(archive)
    for ds in datasets:
        assert is_there(archive, ds)


def is_there(archive: Archive, ds: Dataset) -> bool:
    """Whether an instance has its copy, and that is what the journal says."""
    view = Journals(archive.store).view(series_of(ds))
    entry = view.entries.get(str(ds.SOPInstanceUID)) if view else None
    if view is None or entry is None or HTJ2K_RPCL not in entry.derived.copies:
        return False
    copy = copy_of(Item(ref_of(ds), entry, view), HTJ2K_RPCL)
    assert copy is not None
    version = archive.store.version(copy.path)
    return version is not None and version[1] == copy.entry.file_size


def files(archive: Archive) -> set[InstanceRef]:
    return {file.ref for file in archive.store.instances(place=DERIVED)}


def file_of(archive: Archive, ds: Dataset, uid: str = HTJ2K_RPCL) -> Path:
    path = archive.store.local_path(derived_path(ref_of(ds), uid))
    assert path is not None
    return path


def findings(report: Report) -> list[Finding]:
    return [problem.finding for problem in report.problems]


def some() -> list[Dataset]:
    return [
        *[deflated(ds) for ds in synthetic.ct_series(2)],
        deflated(synthetic.ct(series="other")),
        deflated(synthetic.ct(study="another", series="third")),
    ]


# ------------------------------------------------------------------ deletion


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        (lambda ref: ref, [1, 2, 3]),
        (lambda ref: ref.series, [2, 3]),
        (lambda ref: ref.study, [3]),
    ],
)
def test_copies_go_with_their_originals(
    archive: Archive, chosen: Callable[[InstanceRef], Ref], left: list[int]
) -> None:
    datasets = some()
    with_copies(archive, *datasets)
    request_deletion(archive, chosen(ref_of(datasets[0])))
    catalogue_all(archive)
    assert files(archive) == {ref_of(datasets[number]) for number in left}
    assert [is_there(archive, ds) for ds in datasets] == [n in left for n in range(4)]
    load_all(archive)
    assert check(archive, deep=True).problems == []


def test_copies_of_restored_originals_are_made_again(archive: Archive) -> None:
    datasets = some()
    with_copies(archive, *datasets)
    study = ref_of(datasets[0]).study
    request_deletion(archive, study)
    catalogue_all(archive)
    restore(archive, study)
    catalogue_all(archive)
    assert not is_there(archive, datasets[0])
    convert_all(archive)
    assert all(is_there(archive, ds) for ds in datasets)


# ------------------------------------------------------------------ check


def test_check_finds_copies_in_order(archive: Archive) -> None:
    with_copies(archive, *some())
    assert check(archive, deep=True).problems == []


def lose(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "found"),
    [(lose, Finding.COPY_MISSING), (cut, Finding.COPY_CHANGED), (flip, Finding.COPY_CHANGED)],
)
def test_harm_to_a_copy_is_found_and_it_is_made_again(
    archive: Archive, harm: Callable[[Path], None], found: Finding
) -> None:
    datasets = some()
    with_copies(archive, *datasets)
    harm(file_of(archive, datasets[0]))
    assert findings(check(archive, deep=True)) == [found]
    report = check(archive, deep=True, repair=True)
    assert (findings(report), report.unrepaired) == ([found], [])
    assert derived_of(archive, datasets[0]).copies == {}
    catalogue_all(archive)
    convert_all(archive)
    load_all(archive)
    assert all(is_there(archive, ds) for ds in datasets)
    assert check(archive, deep=True).problems == []


def test_a_bit_that_flipped_is_found_by_a_deep_check_alone(archive: Archive) -> None:
    ds = some()[0]
    with_copies(archive, ds)
    flip(file_of(archive, ds))
    assert check(archive).problems == []


def unknown(archive: Archive, ds: Dataset, *, age_s: float) -> Path:
    """Put a file there that nobody announced."""
    archive.store.put_document(derived_path(ref_of(ds), OLD), [b"a copy"])
    path = file_of(archive, ds, OLD)
    changed = path.stat().st_mtime - age_s
    os.utime(path, (changed, changed))
    return path


def test_file_that_belongs_to_nothing_is_removed_when_it_is_old(archive: Archive) -> None:
    datasets = some()
    with_copies(archive, *datasets[:2])
    orphan = unknown(archive, datasets[3], age_s=7 * 3600)
    beside = unknown(archive, datasets[0], age_s=7 * 3600)
    young = unknown(archive, datasets[1], age_s=60)
    assert findings(check(archive)) == [Finding.COPY_UNKNOWN] * 2
    report = check(archive, repair=True)
    assert {problem.where for problem in report.problems} == {
        derived_path(ref_of(datasets[n]), OLD) for n in (0, 3)
    }
    assert (orphan.exists(), beside.exists(), young.exists()) == (False, False, True)
    assert is_there(archive, datasets[0])
    assert check(archive).problems == []


def test_copies_of_a_lost_original_are_no_concern_of_the_check(archive: Archive) -> None:
    """The original is; once it is out of the metadata, its copies belong to nothing."""
    datasets = some()
    with_copies(archive, *datasets)
    archive.store.delete([instance_path(ref_of(datasets[0]))])
    report = check(archive, repair=True)
    assert Finding.FILE_MISSING in findings(report)
    assert Finding.COPY_MISSING not in findings(report)
    path = file_of(archive, datasets[0])
    os.utime(path, (0, 0))
    assert findings(check(archive, repair=True)) == [Finding.COPY_UNKNOWN]
    assert not path.exists()


def test_copy_of_a_replaced_original_belongs_to_nothing(archive: Archive) -> None:
    """The new one is native, so no copy of it takes that place."""
    archive = replace(archive, replace_duplicates=True)
    ds = synthetic.ct()
    with_copies(archive, deflated(ds))
    path = file_of(archive, ds)
    steps.store(archive, ds)
    catalogue_all(archive)
    convert_all(archive)
    load_all(archive)
    assert check(archive).problems == [], "it may be about to be announced"
    os.utime(path, (0, 0))
    assert findings(check(archive, repair=True)) == [Finding.COPY_UNKNOWN]
    assert not path.exists()


def test_check_of_a_tenant_leaves_copies_of_others_alone(archive: Archive) -> None:
    ds = some()[0]
    with_copies(archive, ds)
    file_of(archive, ds).unlink()
    assert check(archive, tenant_id="nobody").problems == []


# ------------------------------------------------------------------ rebuild


def test_rebuild_makes_copies_anew(archive: Archive) -> None:
    datasets = some()
    with_copies(archive, *datasets)
    before = file_of(archive, datasets[0]).read_bytes()
    old = unknown(archive, datasets[0], age_s=0)
    reindex(archive)
    assert files(archive) == set()
    assert not old.exists()
    assert check(archive).problems == []
    convert_all(archive)
    assert all(is_there(archive, ds) for ds in datasets)
    assert file_of(archive, datasets[0]).read_bytes() == before
    path = archive.store.local_path(instance_path(ref_of(datasets[0])))
    assert path is not None
    assert path.read_bytes() == synthetic.part10(datasets[0])
