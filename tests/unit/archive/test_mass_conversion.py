"""Many copies at a time: announced together, tried again, broken off; and forgotten."""

from collections.abc import Iterator
from contextlib import closing

import pytest

import copies
import synthetic
from copies import HTJ2K_RPCL, deflated, derived_of
from steps import load_all, series_of
from wado.archive.copies import Converter
from wado.archive.journal import Journals
from wado.archive.mass_conversion import Outcome, make_copies, queue_copies
from wado.archive.pixel_workers import PixelWorkers
from wado.archive.selection import Selection, ref_of, views
from wado.archive.statistics import without_numbers
from wado.archive.wanted_copies import Found, Wish, forget, wanted_copies
from wado.errors import NotFound
from wado.ports import Archive
from wado.records import Topic, TranscodeMeta
from wado.transcode_settings import TranscodeRule, TranscodeSettings

ALL = Selection()


def wanted(
    archive: Archive, wish: Wish | None = None, found: Found | None = None, chosen: Selection = ALL
) -> Iterator[TranscodeMeta]:
    journals = Journals(archive.store)
    series = views(archive, journals, chosen)
    by_rule = Wish(archive.transcode)
    return wanted_copies(archive.store, journals, series, chosen, wish or by_rule, found or Found())


def made(archive: Archive, *, timeout_s: float = 60.0) -> Outcome:
    """Make all copies that are wanted."""
    done = Outcome()
    with closing(PixelWorkers(workers=2, timeout_s=timeout_s, max_memory_bytes=4 << 30)) as pixels:
        converter = Converter(archive, Journals(archive.store), pixels, archive.transcode)
        make_copies(converter, wanted(archive), done, workers=2)
    return done


def test_work_that_is_cut_short_is_tried_as_often_as_set(archive: Archive) -> None:
    copies.store(archive, deflated(synthetic.ct()))
    done = made(archive, timeout_s=1e-3)
    assert (done.made, done.failed) == (0, 1)
    load_all(archive)
    rows = archive.warehouse.query(
        "SELECT attempt, request_id, reason FROM dicom_transcode_log ORDER BY attempt"
    )
    assert [row["attempt"] for row in rows] == [*range(1, archive.transcode.attempts + 1)]
    assert len({row["request_id"] for row in rows}) == 1
    assert all(row["reason"] for row in rows)
    (reason,) = done.reasons.values()
    assert (reason.text, reason.count) == (rows[-1]["reason"], 1)


def test_reasons_are_counted_without_their_numbers(archive: Archive) -> None:
    copies.store(archive, *(copies.broken(ds) for ds in synthetic.ct_series(3)))
    done = made(archive)
    assert (done.made, done.failed) == (0, 3)
    assert sum(reason.count for reason in done.reasons.values()) == 3
    found = Found()
    assert list(wanted(archive, found=found)) == []
    assert (found.instances, found.failed) == (3, 3)
    again = list(wanted(archive, Wish(archive.transcode, failed=True)))
    assert {meta.target_transfer_syntax_uid for meta in again} == {HTJ2K_RPCL}


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("frame 17 of 200: 3.5 MB", "frame N of N: N MB"),
        ("JPEG 2000 can't be had in 1.2.840.10008.1.2.4.80", "=="),
        ("it took over 120 s.", "it took over N s."),
    ],
)
def test_numbers_are_left_out_and_names_stay(reason: str, text: str) -> None:
    assert without_numbers(reason) == (reason if text == "==" else text)


def test_what_is_forgotten_is_wanted_again(archive: Archive) -> None:
    ds, other = synthetic.ct_series(2)
    copies.store(archive, deflated(ds), copies.broken(other))
    assert made(archive).made == 1
    journals, series = Journals(archive.store), series_of(ds)
    both = [(str(each.SOPInstanceUID), HTJ2K_RPCL) for each in (ds, other)]
    assert list(wanted(archive)) == []
    archive.index.mark_described(archive.index.awaiting_description(9))
    assert sorted(forget(archive, journals, series, both)) == sorted(both)
    assert not derived_of(archive, ds).copies
    assert not derived_of(archive, other).failures
    assert [ref for ref, _ in archive.index.awaiting_description(9)] == [series]
    assert forget(archive, journals, series, both) == [], "there is nothing left"
    assert len(list(wanted(archive))) == 2
    assert made(archive).made == 1


def test_rules_with_attributes_are_followed(archive: Archive) -> None:
    small, large = deflated(synthetic.ct()), deflated(synthetic.multi_frame(4, study="other"))
    copies.store(archive, small, large)
    rule = TranscodeRule(target="1.2.840.10008.1.2.4.80", min_frames=4)
    shown = (*archive.transcode.displayable, copies.DEFLATED_FRAMES)
    settings = TranscodeSettings(enabled=False, rules=(rule,), displayable=shown)
    (meta,) = wanted(archive, Wish(settings))
    assert meta.sop_instance_uid == large.SOPInstanceUID
    assert meta.target_transfer_syntax_uid == rule.target


def test_what_is_queued_is_on_the_log(archive: Archive) -> None:
    copies.store(archive, *(deflated(ds) for ds in synthetic.ct_series(3)))
    before = archive.log.lag(Topic.TRANSCODE, "wado-transcode")
    counted: list[int] = []
    assert queue_copies(archive, wanted(archive), counted.append) == 3
    assert counted == [3]
    assert archive.log.lag(Topic.TRANSCODE, "wado-transcode") == before + 3


def test_what_is_named_must_be_there(archive: Archive) -> None:
    ds = deflated(synthetic.ct())
    copies.store(archive, ds)
    at = series_of(ds)
    uids = [at.study_instance_uid, at.series_instance_uid, str(ds.SOPInstanceUID)]
    for count in (1, 2, 3):
        chosen = Selection.of([ref_of("clinic", uids[:count])], None)
        assert len(list(wanted(archive, chosen=chosen))) == 1
        assert chosen.instances(archive) == 1
    for missing in ([*uids[:2], "1.9"], [uids[0], "1.9"], ["1.9"]):
        with pytest.raises(NotFound):
            list(wanted(archive, chosen=Selection.of([ref_of("clinic", missing)], None)))
    with pytest.raises(NotFound):
        list(wanted(archive, chosen=Selection.of([ref_of("other", uids)], None)))
