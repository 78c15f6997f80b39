"""Copies that are not what they should be are found, and made anew; good ones are left alone."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

import copies
import synthetic
from copies import DEFLATED_FRAMES, EXPLICIT_VR_LITTLE_ENDIAN, HTJ2K_RPCL, convert_all, deflated
from steps import ref_of, series_of
from wado.archive.conversion import announce, convert
from wado.archive.copies import Converter
from wado.archive.derived import Copy, copy_line
from wado.archive.journal import Journals, SeriesView
from wado.archive.paths import derived_path, instance_path, journal_path
from wado.archive.pixel_workers import PixelWorkers
from wado.archive.selection import Selection, views
from wado.archive.verification import (
    Checked,
    Chosen,
    Finding,
    Report,
    Verifier,
    everything,
    mend,
    sample_of,
)
from wado.archive.wanted_copies import Found as Walked
from wado.archive.wanted_copies import Wish, wanted_copies
from wado.dicom.uids import InstanceRef, SeriesRef
from wado.errors import Unreadable
from wado.ports import Archive
from wado.transcode_settings import TranscodeRule, TranscodeSettings

JPEG_2000_LOSSY = "1.2.840.10008.1.2.4.91"
ALL = Selection()


class Site:
    """An archive with images and copies, and what checks them."""

    def __init__(self, archive: Archive, pixels: PixelWorkers) -> None:
        self.archive = archive
        self.journals = Journals(archive.store)
        self.verifier = Verifier(archive, self.journals, pixels, 1 << 28)
        self._converter = Converter(archive, self.journals, pixels, archive.transcode)

    def make(self, *datasets: Dataset, target_uid: str = HTJ2K_RPCL, quality: int = 0) -> None:
        """Store images, and make a copy of each."""
        copies.store(self.archive, *datasets)
        wish = Wish(self.archive.transcode, target_uid, quality)
        series = views(self.archive, self.journals, ALL)
        wanted = wanted_copies(self.archive.store, self.journals, series, ALL, wish, Walked())
        made = [convert(self._converter, meta) for meta in wanted]
        results = [each for each in made if each is not None]
        assert len(announce(self.archive, self.journals, results)) == len(datasets)
        assert all(each.row.succeeded for each in results), results

    def check(self) -> Report:
        report = Report()
        found = views(self.archive, self.journals, ALL)
        for chosen in everything(found, ALL, originals=True):
            report.count(self.verifier.check(chosen))
        return report

    def file_of(self, ds: Dataset, target_uid: str = HTJ2K_RPCL) -> Path:
        path = self.archive.store.local_path(derived_path(ref_of(ds), target_uid))
        assert path is not None
        return path

    def announce(self, ds: Dataset, change: Callable[[Copy, bytes], bytes], uid: str) -> None:
        """Change the file of a copy, and announce it as if it had been made so."""
        path = self.file_of(ds, uid)
        copy = copies.derived_of(self.archive, ds).copies[uid]
        data = change(copy, path.read_bytes())
        assert len(data) == copy.file_size
        path.write_bytes(data)
        view = self.journals.view(series_of(ds))
        assert view is not None
        changed = replace(copy, digest=hashlib.sha256(data).hexdigest())
        digest = view.entries[ds.SOPInstanceUID].digest
        line = copy_line(ds.SOPInstanceUID, digest, changed)
        assert self.archive.store.append({journal_path(view.ref): line})


@pytest.fixture
def site(archive: Archive, pixels: PixelWorkers) -> Site:
    return Site(archive, pixels)


def only(report: Report) -> Checked:
    (wrong,) = report.wrong
    return wrong


def test_good_copies_and_originals_in_numbers(site: Site) -> None:
    site.make(synthetic.ct(), deflated(synthetic.multi_frame(5)))
    report = site.check()
    assert report.wrong == []
    assert (report.copies, report.lossy_copies, report.compared_frames) == (2, 0, 6)
    assert (report.originals, report.decoded_frames) == (2, 6)
    assert (report.gone, report.not_decoded) == (0, Counter())
    files = [*site.archive.store.instances()]
    derived = [site.file_of(synthetic.ct()).stat().st_size]
    assert report.read_bytes > sum(f.file_size for f in files) + sum(derived)


def test_a_few_frames_of_many(site: Site, pixels: PixelWorkers) -> None:
    ds = deflated(synthetic.multi_frame(9))
    site.make(ds)
    some = replace(site.verifier, frames=2, seed=7)
    for uid in ("", HTJ2K_RPCL):
        checked = some.check(Chosen(ref_of(ds), uid))
        assert (checked.finding, checked.frames) == (None, 2)


def test_a_file_that_changed(site: Site) -> None:
    ds = synthetic.ct()
    site.make(ds)
    path = site.file_of(ds)
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    wrong = only(site.check())
    assert wrong.finding is Finding.COPY_CHANGED
    assert wrong.chosen == (ref_of(ds), HTJ2K_RPCL)


def test_a_file_that_is_missing(site: Site) -> None:
    ds = synthetic.ct()
    site.make(ds)
    site.file_of(ds).unlink()
    assert only(site.check()).finding is Finding.COPY_MISSING


def test_a_pixel_that_differs(site: Site) -> None:
    """Its digest is right: only a comparison with the original tells."""
    ds = deflated(synthetic.ct())
    site.make(ds, target_uid=EXPLICIT_VR_LITTLE_ENDIAN)

    def change(copy: Copy, data: bytes) -> bytes:
        ((offset, _),) = copy.pixel.frame(1)
        return data[:offset] + bytes([data[offset] ^ 4]) + data[offset + 1 :]

    site.announce(ds, change, EXPLICIT_VR_LITTLE_ENDIAN)
    wrong = only(site.check())
    assert wrong.finding is Finding.PIXELS_DIFFER
    assert wrong.detail.startswith("frame 1: 1 of ")
    assert wrong.detail.endswith("by up to 4")


def test_a_stream_that_is_none(site: Site) -> None:
    ds = synthetic.ct()
    site.make(ds)

    def change(copy: Copy, data: bytes) -> bytes:
        ((offset, length),) = copy.pixel.frame(1)
        return data[:offset] + b"\x55" * length + data[offset + length :]

    site.announce(ds, change, HTJ2K_RPCL)
    wrong = only(site.check())
    assert wrong.finding is Finding.COPY_UNREADABLE
    assert wrong.detail.startswith("frame 1: ")


def test_a_lossy_copy_is_bounded_and_says_that_it_is_lossy(site: Site) -> None:
    ds = synthetic.ct()
    site.make(ds, target_uid=JPEG_2000_LOSSY, quality=70)
    report = site.check()
    assert (report.wrong, report.copies, report.lossy_copies) == ([], 1, 1)

    def unmark(_copy: Copy, data: bytes) -> bytes:
        mark = b"\x28\x00\x10\x21CS\x02\x0001"
        assert data.count(mark) == 1
        return data.replace(mark, mark[:-2] + b"00")

    site.announce(ds, unmark, JPEG_2000_LOSSY)
    wrong = only(site.check())
    assert (wrong.finding, wrong.detail) == (Finding.NOT_MARKED, "it lacks Lossy Image Compression")


def test_a_lossy_copy_of_other_pixels(site: Site) -> None:
    """Another image, as lossy as it should be."""
    one, other = synthetic.ct(), synthetic.ct(series="other")
    noise = np.random.default_rng(1).integers(0, 4096, (16, 24), dtype=np.int16)
    for ds, pixels in ((one, noise), (other, noise[::-1])):
        ds.Rows, ds.Columns, ds.BitsStored, ds.HighBit = 16, 24, 12, 11
        ds.PixelRepresentation = 0
        ds.PixelData = pixels.tobytes()
    site.make(one, other, target_uid=JPEG_2000_LOSSY, quality=90)
    assert site.check().wrong == []
    first = copies.derived_of(site.archive, one).copies[JPEG_2000_LOSSY]
    second = copies.derived_of(site.archive, other).copies[JPEG_2000_LOSSY]
    swapped = site.file_of(other, JPEG_2000_LOSSY).read_bytes()
    site.file_of(one, JPEG_2000_LOSSY).write_bytes(swapped)
    view = site.journals.view(series_of(one))
    assert view is not None
    assert first.digest != second.digest
    line = copy_line(one.SOPInstanceUID, view.entries[one.SOPInstanceUID].digest, second)
    assert site.archive.store.append({journal_path(view.ref): line})
    wrong = only(site.check())
    assert wrong.finding is Finding.PIXELS_DIFFER
    assert "no loss, but damage" in wrong.detail


def test_originals_that_changed_or_are_missing(site: Site) -> None:
    datasets = synthetic.ct_series(3)
    copies.store(site.archive, *datasets)
    paths = [site.archive.store.local_path(instance_path(ref_of(ds))) for ds in datasets]
    assert all(paths)
    paths[0].write_bytes(paths[0].read_bytes()[:-2] + b"\7\7")  # type: ignore[union-attr]
    paths[1].unlink()  # type: ignore[union-attr]
    report = site.check()
    assert [c.finding for c in sorted(report.wrong, key=lambda c: str(c.finding))] == [
        Finding.ORIGINAL_MISSING,
        Finding.ORIGINAL_CHANGED,
    ]
    assert mend(site.archive, site.journals, site.archive.transcode, report.wrong) == (0, 0)


def test_an_original_that_was_damaged_when_it_came_is_told_apart(site: Site) -> None:
    copies.store(site.archive, copies.broken(synthetic.ct()))
    report = site.check()
    assert (report.wrong, report.originals, report.decoded_frames) == ([], 1, 0)
    assert report.not_decoded.total() == 1


def test_what_goes_meanwhile_is_not_wrong(site: Site) -> None:
    ds = synthetic.ct()
    site.make(ds)
    gone = ref_of(synthetic.ct(series="never"))
    for chosen in (Chosen(gone), Chosen(gone, HTJ2K_RPCL), Chosen(ref_of(ds), DEFLATED_FRAMES)):
        assert site.verifier.check(chosen).is_gone


def test_bad_copies_are_made_anew(site: Site) -> None:
    good, bad = deflated(synthetic.ct()), deflated(synthetic.ct(series="other"))
    site.make(good, bad)
    kept = site.file_of(good).stat()
    site.file_of(bad).write_bytes(b"what is this")
    report = site.check()
    assert only(report).chosen.ref == ref_of(bad)
    assert mend(site.archive, site.journals, site.archive.transcode, report.wrong) == (1, 1)
    assert not site.file_of(bad).exists()
    assert copies.derived_of(site.archive, bad).copies == {}
    convert_all(site.archive)
    assert set(copies.derived_of(site.archive, bad).copies) == {HTJ2K_RPCL}
    again = site.check()
    assert (again.wrong, again.copies) == ([], 2)
    assert site.file_of(good).stat().st_ino == kept.st_ino, "it was left alone"


def test_a_copy_that_was_made_anew_since_it_was_checked_stays(site: Site) -> None:
    ds = deflated(synthetic.ct())
    archive = replace(site.archive, replace_duplicates=True)
    site.make(ds)
    site.file_of(ds).write_bytes(b"what is this")
    wrong = site.check().wrong
    ds.PatientComments = "sent again"
    copies.store(archive, ds)
    convert_all(archive)
    again = site.file_of(ds).stat()
    assert mend(archive, site.journals, archive.transcode, wrong) == (0, 0)
    assert site.file_of(ds).stat().st_ino == again.st_ino
    assert site.check().wrong == []


def test_what_was_removed_is_ordered_though_the_next_can_not_be(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = deflated(synthetic.ct()), deflated(synthetic.ct(series="other"))
    site.make(one, other)
    for ds in (one, other):
        site.file_of(ds).unlink()
    wrong = site.check().wrong
    last, view = wrong[-1].chosen.ref.series, site.journals.view

    def unreadable(ref: SeriesRef) -> SeriesView | None:
        if ref == last:
            raise Unreadable("a bad disk")
        return view(ref)

    monkeypatch.setattr(site.journals, "view", unreadable)
    with pytest.raises(Unreadable):
        mend(site.archive, site.journals, site.archive.transcode, wrong)
    monkeypatch.undo()
    convert_all(site.archive)
    assert [w.chosen.ref.series for w in site.check().wrong] == [last], "the first is made anew"


@pytest.mark.parametrize("has_rule", [True, False])
def test_a_bad_lossy_copy_is_made_anew_if_a_rule_says_how(site: Site, has_rule: bool) -> None:
    ds = synthetic.ct()
    site.make(ds, target_uid=JPEG_2000_LOSSY, quality=70)
    site.file_of(ds, JPEG_2000_LOSSY).unlink()
    rule = TranscodeRule(target=JPEG_2000_LOSSY, modalities=("CT",), quality=70)
    settings = TranscodeSettings(rules=(rule,) if has_rule else ())
    wrong = site.check().wrong
    assert mend(site.archive, site.journals, settings, wrong) == (1, int(has_rule))


# ------------------------------------------------------------------ samples


def chosen_of(number: int, uid: str = "") -> Chosen:
    return Chosen(InstanceRef.of("t", "1.2", "1.3", f"1.{number}"), uid)


def test_a_sample_has_as_many_copies_as_originals_and_can_be_taken_again() -> None:
    def all_of() -> Iterator[Chosen]:
        for number in range(500):
            yield chosen_of(number)
            if number % 5 == 0:
                yield chosen_of(number, HTJ2K_RPCL)

    taken = sample_of(all_of(), 20, seed=3)
    assert len(set(taken)) == 40
    assert sum(1 for chosen in taken if chosen.transfer_syntax_uid) == 20
    assert taken == sorted(taken)
    assert sample_of(all_of(), 20, seed=3) == taken
    assert sample_of(all_of(), 20, seed=4) != taken
    assert set(sample_of(all_of(), 1000, seed=3)) == set(all_of())


def test_each_has_the_same_chance() -> None:
    counted: Counter[Chosen] = Counter()
    seeds = random.Random(5)
    for _ in range(2000):
        counted.update(sample_of(map(chosen_of, range(20)), 5, seeds.randrange(1 << 30)))
    # 500 of each are expected, with a standard deviation of 19.
    assert all(380 < counted[chosen_of(number)] < 620 for number in range(20))
