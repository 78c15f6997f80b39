"""`wado transcode`: copies of what is stored already, made here or ordered from the webworkers."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import groupby

from rich.console import Console

from wado.archive.copies import Converter
from wado.archive.health import GROUPS
from wado.archive.journal import Journals, SeriesView
from wado.archive.mass_conversion import Outcome, make_copies, queue_copies
from wado.archive.pixel_workers import PixelWorkers
from wado.archive.selection import JOURNAL_BYTES, Selection, ref_of, views
from wado.archive.transcode_rules import check_rules
from wado.archive.wanted_copies import Found, Wish, forget, wanted_copies
from wado.bootstrap import open_archive
from wado.cli_progress import progress_bar
from wado.dicom.sop_classes import transfer_syntax
from wado.dicom.uids import SeriesRef, validate_uid
from wado.errors import InvalidRequest, Unreadable
from wado.ports import Archive
from wado.records import Topic, TranscodeMeta
from wado.settings import Settings

_LOOK_S = 0.5
_STILL_S = 30.0
"""A queue that does not move for so long may have no reader."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for; see `wado transcode --help`."""

    uids: tuple[str, ...] = ()
    tenant_id: str | None = None
    target_uid: str = ""
    quality: int = 0
    failed: bool = False
    dry_run: bool = False
    queue: bool = False
    remove: bool = False
    workers: int = 0

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises
        ------
        InvalidRequest
            Names the options.
        """
        if self.quality and not self.target_uid:
            raise InvalidRequest("--quality goes with --target")
        if self.remove and (self.failed or self.queue or self.quality):
            raise InvalidRequest("--remove goes with --target, --tenant and --dry-run alone")
        if self.queue and self.workers:
            raise InvalidRequest("--workers is of this process, --queue leaves the work to others")

    def selection(self, settings: Settings) -> Selection:
        """Name what is chosen; a study is one of the default tenant, unless another is named."""
        refs = (
            [ref_of(self.tenant_id or settings.storage.default_tenant, self.uids)]
            if self.uids
            else []
        )
        return Selection.of(refs, self.tenant_id)


@dataclass(slots=True)
class _Work:
    """What the command works with."""

    archive: Archive
    settings: Settings
    asked: Asked
    chosen: Selection
    out: Console
    err: Console
    journals: Journals
    found: Found = field(default_factory=Found)
    passed_over: int = 0

    @property
    def wish(self) -> Wish:
        asked = self.asked
        return Wish(self.settings.transcode, asked.target_uid, asked.quality, asked.failed)

    def wanted(self) -> Iterator[TranscodeMeta]:
        """Walk the copies that are to be made."""
        return wanted_copies(
            self.archive.store, self.journals, self.views(), self.chosen, self.wish, self.found
        )

    def views(self) -> Iterator[SeriesView]:
        """Walk the chosen series; those whose journal can't be read are told."""
        return views(self.archive, self.journals, self.chosen, self._pass_over)

    def _pass_over(self, ref: SeriesRef, why: Unreadable) -> None:
        self.passed_over += 1
        self.err.print(f"passed over: {ref.tenant_id} {ref.path}: {why}", markup=False)


def transcode_stored(settings: Settings, asked: Asked, *, out: Console, err: Console) -> bool:
    """Do what is asked for; whether nothing failed, and no series was passed over.

    Raises
    ------
    InvalidRequest, NotFound
        It can't be done, or what is named is not there.
    Unavailable, OutOfResources
        A service does not answer, or the disk is full: what was done until then stays.
    """
    asked.check()
    check_rules(settings.transcode)
    with open_archive(settings) as archive:
        chosen = asked.selection(settings)
        work = _Work(
            archive,
            settings,
            asked,
            chosen,
            out,
            err,
            Journals(archive.store, max_bytes=JOURNAL_BYTES),
        )
        if asked.remove:
            _remove(work)
            return not work.passed_over
        work.wish.check()
        if asked.dry_run:
            _say_what_would_be(work)
            return not work.passed_over
        is_done = _order(work) if asked.queue else _make(work)
        return is_done and not work.passed_over


# ------------------------------------------------------------------ made here


def _make(work: _Work) -> bool:
    done, began_s = Outcome(), time.monotonic()
    workers = work.asked.workers or work.settings.transcode.images_at_a_time
    try:
        _make_all(work, done, workers, began_s)
    except KeyboardInterrupt:
        _summarise(work, done, began_s)
        work.out.print("broken off: what is made stays, and the same command goes on from there")
        raise
    except BaseException:
        _summarise(work, done, began_s)
        raise
    _summarise(work, done, began_s)
    return not done.failed


def _make_all(work: _Work, done: Outcome, workers: int, began_s: float) -> None:
    transcode = work.settings.transcode
    pixels = PixelWorkers(
        workers=workers,
        timeout_s=transcode.frame_timeout_s,
        max_memory_bytes=transcode.memory_bytes,
        wait_s=(workers + 2) * transcode.frame_timeout_s,  # frames of several images wait in turn
    )
    with closing(pixels), _bar(work, "looking") as update:
        converter = Converter(work.archive, work.journals, pixels, transcode)

        def show() -> None:
            seconds = time.monotonic() - began_s
            update(
                f"{done.made} made, {done.failed} failed, {done.frames / seconds:.1f} frames/s",
                work.found.instances,
            )

        make_copies(
            converter, work.wanted(), done, workers=workers, again=work.asked.failed, progress=show
        )


def _summarise(work: _Work, done: Outcome, began_s: float) -> None:
    seconds = max(time.monotonic() - began_s, 1e-9)
    found, out = work.found, work.out
    there = found.there + done.nothing
    out.print(
        f"{done.made} copies made, {done.failed} failed, {there} needed none; "
        f"{found.instances} instances looked at in {seconds:.1f} s"
    )
    if done.made:
        out.print(
            f"  {done.frames} frames ({done.frames / seconds:.1f} frames/s), "
            f"{done.bytes_before / 1e6:.1f} MB became {done.bytes_after / 1e6:.1f} MB"
        )
    for reason in sorted(done.reasons.values(), key=lambda r: r.count, reverse=True):
        out.print(f"  failed: {reason.count} x {reason.text} (e.g. {reason.example})", markup=False)
    if found.failed:
        out.print(f"  {found.failed} could not be made before: --failed tries them again")


# ------------------------------------------------------------------ left to the webworkers


def _order(work: _Work) -> bool:
    with _bar(work, "ordering") as update:
        count = queue_copies(
            work.archive,
            _forgotten_first(work) if work.asked.failed else work.wanted(),
            lambda count: update(f"{count} ordered", work.found.instances),
        )
    found = work.found
    work.out.print(f"{count} copies ordered, {found.there} are there")
    if found.failed:
        work.out.print(f"  {found.failed} could not be made before: --failed tries them again")
    if count:
        _watch(work)
    return True


def _forgotten_first(work: _Work) -> Iterator[TranscodeMeta]:
    """Walk what failed, forgetting that it did: webworkers pass over what is known to fail."""
    for series, group in groupby(work.wanted(), key=lambda meta: meta.ref.series):
        metas = list(group)
        which = [(m.sop_instance_uid, m.target_transfer_syntax_uid) for m in metas]
        forget(work.archive, work.journals, series, which)
        yield from metas


def _watch(work: _Work) -> None:
    """Show on a terminal how the queue drains, until it is empty or Ctrl-C."""
    log, err = work.archive.log, work.err
    group = GROUPS[Topic.TRANSCODE]
    lag = most = log.lag(Topic.TRANSCODE, group)
    if not err.is_terminal:
        work.out.print(f"{lag} wait in the queue: webworkers make them; `wado status` shows it")
        return
    moved_s = time.monotonic()
    with progress_bar(err) as bar:
        task = bar.add_task("waiting", total=most)
        while lag:
            time.sleep(_LOOK_S)
            was, lag = lag, log.lag(Topic.TRANSCODE, group)
            most = max(most, lag)
            moved_s = moved_s if lag == was else time.monotonic()
            still = time.monotonic() - moved_s > _STILL_S
            text = "the queue stands still: do webworkers run?" if still else f"{lag} wait"
            bar.update(task, description=text, completed=most - lag, total=most)
    work.out.print("the queue is empty")


# ------------------------------------------------------------------ not made


def _say_what_would_be(work: _Work) -> None:
    frames = sum(1 for _ in work.wanted())
    found, out = work.found, work.out
    out.print(
        f"{frames} copies would be made of {found.instances} instances, {found.there} are there"
    )
    for (source, target), count in found.wanted.most_common():
        names = f"{transfer_syntax(source).name} to {transfer_syntax(target).name}"
        out.print(f"  {count} x {names} ({source} to {target})", markup=False)
    if found.failed:
        out.print(f"  {found.failed} could not be made before: --failed tries them again")


def _remove(work: _Work) -> None:
    target = validate_uid(work.asked.target_uid) if work.asked.target_uid else ""
    removed: Counter[str] = Counter()
    size = 0
    with _bar(work, "removing") as update:
        for view in work.views():
            unwanted = {
                (item.ref.sop_instance_uid, uid): copy.file_size
                for item in work.chosen.items(view)
                for uid, copy in item.entry.derived.copies.items()
                if target in ("", uid)
            }
            gone = list(unwanted)
            if not work.asked.dry_run:
                gone = forget(work.archive, work.journals, view.ref, unwanted)
            removed.update(uid for _, uid in gone)
            size += sum(unwanted[which] for which in gone)
            work.found.instances += len(view.entries)
            update(f"{removed.total()} copies", work.found.instances)
    would_be = "would be " if work.asked.dry_run else ""
    work.out.print(f"{removed.total()} copies {would_be}removed, {size / 1e6:.1f} MB")
    for uid, count in removed.most_common():
        work.out.print(f"  {count} x {transfer_syntax(uid).name} ({uid})", markup=False)


# ------------------------------------------------------------------ progress


@contextmanager
def _bar(work: _Work, what: str) -> Iterator[Callable[[str, int], None]]:
    """Draw how many of the chosen instances were looked at."""
    with progress_bar(work.err) as bar:
        total = work.chosen.instances(work.archive) if work.err.is_terminal else None
        task = bar.add_task(what, total=total)

        def update(text: str, looked_at: int) -> None:
            bar.update(task, description=text, completed=looked_at)

        yield update
