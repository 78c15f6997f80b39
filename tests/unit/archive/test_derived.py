"""Derived copies in the journal of a series: what it says of them, and for how long."""

from dataclasses import replace
from typing import Any

import orjson
from pydicom.dataset import Dataset

import synthetic
from steps import catalogue_all, series_of, store
from wado.archive.delete import request_deletion
from wado.archive.derived import (
    NOTHING,
    Copy,
    Derived,
    copy_line,
    derived_lines,
    failure_line,
)
from wado.archive.grace import compact, is_sparse, restore
from wado.archive.journal import Entry, Journals, SeriesView
from wado.archive.paths import journal_path
from wado.dicom.frames import PixelData
from wado.dicom.uids import InstanceRef
from wado.ports import Archive

HTJ2K, NATIVE, LOSSY = "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"
FOREVER = 0.0


def a_copy(uid: str = HTJ2K, *, frames: int = 2, **changes: Any) -> Copy:
    fragments = [n for number in range(frames) for n in (900 + 108 * number, 100)]
    pixel = PixelData(900, frames * 108, encapsulated=True, number_of_frames=frames,
                      fragments=fragments)  # fmt: skip
    return replace(Copy(uid, 1200, "ab" * 32, pixel, "MONOCHROME2"), **changes)


def settled(archive: Archive, *datasets: Dataset) -> SeriesView:
    store(archive, *datasets)
    catalogue_all(archive)
    return view_of(archive, datasets[0])


def view_of(archive: Archive, ds: Dataset) -> SeriesView:
    view = Journals(archive.store).memory(series_of(ds))
    assert view is not None
    return view


def entry_of(archive: Archive, ds: Dataset) -> Entry:
    return view_of(archive, ds).entries[str(ds.SOPInstanceUID)]


def say(archive: Archive, ds: Dataset, *lines: bytes) -> Derived:
    archive.store.append({journal_path(series_of(ds)): b"".join(lines)})
    return entry_of(archive, ds).derived


def uid_and_digest(archive: Archive, ds: Dataset) -> tuple[str, str]:
    entry = entry_of(archive, ds)
    return entry.sop_instance_uid, entry.digest


def test_copies_and_failures_stand_behind_the_instance(archive: Archive) -> None:
    ds = synthetic.ct()
    settled(archive, ds)
    at = uid_and_digest(archive, ds)
    copy = a_copy(lossy=True)
    found = say(archive, ds, copy_line(*at, copy), failure_line(*at, LOSSY, "too dark"))
    assert found == Derived({HTJ2K: copy}, {LOSSY: "too dark"})


def test_the_last_word_counts(archive: Archive) -> None:
    ds = synthetic.ct()
    settled(archive, ds)
    at = uid_and_digest(archive, ds)
    first, second = a_copy(), a_copy(digest="cd" * 32)
    assert say(archive, ds, failure_line(*at, HTJ2K, "why")).failures == {HTJ2K: "why"}
    assert say(archive, ds, copy_line(*at, first)) == Derived({HTJ2K: first}, {})
    assert say(archive, ds, copy_line(*at, second)) == Derived({HTJ2K: second}, {})
    assert say(archive, ds, failure_line(*at, HTJ2K, "lost")) == Derived({}, {HTJ2K: "lost"})
    assert say(archive, ds, failure_line(*at, HTJ2K, "")) == NOTHING


def test_lines_of_another_original_say_nothing(archive: Archive) -> None:
    ds = synthetic.ct()
    settled(archive, ds)
    uid, _ = uid_and_digest(archive, ds)
    assert say(archive, ds, copy_line(uid, "0" * 64, a_copy())) == NOTHING
    assert say(archive, ds, copy_line("1.2.3", "0" * 64, a_copy())) == NOTHING


def test_replaced_original_has_no_copies(archive: Archive) -> None:
    archive = replace(archive, replace_duplicates=True)
    ds = synthetic.ct()
    settled(archive, ds)
    assert say(archive, ds, copy_line(*uid_and_digest(archive, ds), a_copy())).copies
    ds.PatientComments = "corrected"
    settled(archive, ds)
    assert entry_of(archive, ds).derived == NOTHING


def test_deleted_and_restored_original_has_no_copies(archive: Archive) -> None:
    ds = synthetic.ct()
    settled(archive, ds)
    say(archive, ds, copy_line(*uid_and_digest(archive, ds), a_copy()))
    ref = series_of(ds)
    request_deletion(archive, InstanceRef.of(*_parts(ds)))
    catalogue_all(archive)
    restore(archive, ref.study)
    catalogue_all(archive)
    assert entry_of(archive, ds).derived == NOTHING


def _parts(ds: Dataset) -> tuple[str, str, str, str]:
    ref = series_of(ds)
    return ref.tenant_id, ref.study_instance_uid, ref.series_instance_uid, str(ds.SOPInstanceUID)


def test_copy_stays_where_the_same_original_is_announced_again(archive: Archive) -> None:
    ds = synthetic.ct()
    settled(archive, ds)
    before = say(archive, ds, copy_line(*uid_and_digest(archive, ds), a_copy()))
    settled(archive, ds)
    assert entry_of(archive, ds).derived == before


# ------------------------------------------------------------------ compaction


def test_compaction_keeps_what_counts(archive: Archive) -> None:
    one, two = synthetic.ct_series(2)
    settled(archive, one, two)
    at = uid_and_digest(archive, one)
    say(archive, one, *[copy_line(*at, a_copy(digest=f"{n:064}")) for n in range(9)])
    before = say(archive, one, failure_line(*at, LOSSY, "why"))
    view = view_of(archive, one)
    assert compact(archive, view, before=FOREVER)
    after = view_of(archive, one)
    assert after.size < view.size
    derived = after.entries[at[0]].derived
    assert derived == before
    assert derived.line_bytes == before.line_bytes
    assert after.entries[str(two.SOPInstanceUID)].derived == NOTHING
    assert derived_lines(*at, derived) in _text(archive, one)


def _text(archive: Archive, ds: Dataset) -> bytes:
    with archive.store.open(journal_path(series_of(ds))) as file:
        return file.read()


def test_lines_have_the_lengths_that_count(archive: Archive) -> None:
    ds = synthetic.ct()
    settled(archive, ds)
    at = uid_and_digest(archive, ds)
    lines = [copy_line(*at, a_copy()), failure_line(*at, LOSSY, "why")]
    found = say(archive, ds, *lines)
    assert sorted(found.line_bytes.values()) == sorted(map(len, lines))
    assert say(archive, ds, failure_line(*at, LOSSY, "")).line_bytes == {HTJ2K: len(lines[0])}


def test_journal_of_long_copies_is_compacted_once(archive: Archive) -> None:
    """Copies of many frames take more of it than the instances do, and all of that is live."""
    ds = synthetic.ct()
    settled(archive, ds)
    at = uid_and_digest(archive, ds)
    long = [a_copy(uid, frames=60_000) for uid in (HTJ2K, NATIVE)]
    say(archive, ds, *[copy_line(*at, copy) for copy in long])
    view = view_of(archive, ds)
    assert view.size > 1 << 20
    assert not is_sparse(view)
    for _ in range(4):
        say(archive, ds, copy_line(*at, long[0]))
    say(archive, ds, failure_line(*at, NATIVE, ""))
    assert is_sparse(view_of(archive, ds))
    assert compact(archive, view_of(archive, ds), before=FOREVER)
    assert not is_sparse(view_of(archive, ds))


def test_lines_are_one_json_object_each(archive: Archive) -> None:
    """So tools may read them, and an older version passes over them."""
    for line in (copy_line("1.2", "ab", a_copy()), failure_line("1.2", "ab", LOSSY, "a\nb\tc")):
        text, tab, rest = line.partition(b"\t")
        assert (tab, rest) == (b"\t", b"\n")
        value = orjson.loads(text)
        assert value["derived"] == "1.2"
        assert value["transfer_syntax_uid"] in (HTJ2K, LOSSY)
