"""Copies of videos are read again beside their originals: what is not one is found, by ffmpeg."""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from pydicom.dataset import Dataset

import copies
import real
import videos
from steps import ref_of, series_of
from videos import HEVC_MAIN, HEVC_MAIN_10, MPEG_2_HIGH, MPEG_2_MAIN
from wado.archive.conversion import announce, convert
from wado.archive.copies import Converter
from wado.archive.derived import copy_line
from wado.archive.digests import digest_of
from wado.archive.journal import Journals
from wado.archive.paths import derived_path, instance_path, journal_path
from wado.archive.pixel_workers import PixelWorkers
from wado.archive.retrieve import Item, copy_of
from wado.archive.verification import Chosen, Finding, Verifier, mend
from wado.archive.video_verification import VideoCheck, check_video
from wado.archive.wanted_copies import order
from wado.errors import Unavailable
from wado.ports import Archive

MPEG_4 = videos.H264


class Site:
    """An archive with videos and their copies."""

    def __init__(self, archive: Archive, pixels: PixelWorkers) -> None:
        self.archive = archive
        self.journals = Journals(archive.store)
        self.pixels = pixels
        self.stop = Event()

    def item(self, ds: Dataset) -> Item:
        view = self.journals.view(series_of(ds))
        assert view is not None
        return Item(ref_of(ds), view.entries[str(ds.SOPInstanceUID)], view)

    def make(self, stream: bytes, source: str, **attributes: object) -> Dataset:
        """Store a video, and make its copy."""
        ds = videos.instance(stream, source, **attributes)  # type: ignore[arg-type]
        copies.store(self.archive, ds)
        found = self.item(ds)
        target = source if source == MPEG_4 else MPEG_4
        converter = Converter(self.archive, self.journals, self.pixels, self.archive.transcode)
        made = convert(converter, order(found.ref, found.entry, target))
        assert made is not None
        assert made.row.succeeded, made.row.reason
        assert announce(self.archive, self.journals, [made])
        return ds

    def check(
        self, ds: Dataset, copy_from: Dataset | None = None, *, every_frame: bool = True
    ) -> VideoCheck:
        """Compare a video with its copy, or with that of another one."""
        found = self.item(copy_from or ds)
        (uid,) = found.entry.derived.copies
        copied = copy_of(found, uid)
        assert copied is not None
        return check_video(
            self.archive,
            self.journals,
            self.item(ds),
            copied,
            every_frame=every_frame,
            stop=self.stop,
        )

    def damage(self, path: str, part: float) -> None:
        """Change much of a file, from this part of it on."""
        file = self.archive.store.local_path(path)
        assert file is not None
        data = bytearray(file.read_bytes())
        at = int(len(data) * part)
        end = at + len(data) // 4
        data[at:end] = bytes(0xFF ^ byte for byte in data[at:end])
        file.write_bytes(data)


@pytest.fixture
def site(archive: Archive) -> Iterator[Site]:
    real.require("ffmpeg")
    with closing(PixelWorkers(workers=1, timeout_s=120, max_memory_bytes=1 << 30)) as pixels:
        yield Site(archive, pixels)


def changed(stream: bytes, *how: str, container: str) -> bytes:
    """Make another video of one."""
    with tempfile.TemporaryDirectory() as folder:
        one, other = Path(folder) / "one", Path(folder) / "other"
        one.write_bytes(stream)
        videos.ffmpeg("-i", one, *how, "-f", container, other)
        return other.read_bytes()


@pytest.mark.parametrize("every_frame", [True, False])
@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("h264.ts", MPEG_4),
        ("h264.264", MPEG_4),
        ("h264-reordered.264", MPEG_4),
        ("h264-422.ts", MPEG_4),
        ("mpeg2.m2v", MPEG_2_MAIN),
        ("mpeg2.mpg", MPEG_2_MAIN),
        ("mpeg2.ts", MPEG_2_HIGH),
        ("mpeg2-interlaced.m2v", MPEG_2_MAIN),
        ("hevc.hevc", HEVC_MAIN),
        ("hevc.mp4", HEVC_MAIN),
        ("hevc-10.mp4", HEVC_MAIN_10),
    ],
)
def test_good_copies_are_good(site: Site, kind: str, source: str, every_frame: bool) -> None:
    stream = videos.content(kind, sound=kind in ("h264.ts", "mpeg2.ts", "mpeg2.mpg"))
    ds = site.make(stream, source)
    assert site.check(ds, every_frame=every_frame) == VideoCheck(videos.FRAMES)


@pytest.mark.parametrize("size", [(97, 65), (2000, 3000)])
def test_a_copy_of_another_size_is_good(site: Site, size: tuple[int, int]) -> None:
    stream = videos.content("mpeg2.m2v", size=size, frames=3)
    ds = site.make(stream, MPEG_2_HIGH, size=size, frames=3)
    assert site.check(ds) == VideoCheck(3)


def test_a_long_one_is_decoded_in_part(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wado.archive.video_verification._SAMPLED_FRAMES", 5)
    for kind, source in (("h264.ts", MPEG_4), ("mpeg2.ts", MPEG_2_HIGH)):
        ds = site.make(videos.content(kind, frames=40), source, frames=40)
        assert site.check(ds, every_frame=False).frames == 5
        assert site.check(ds).frames == 40


@pytest.mark.parametrize(
    ("kind", "source", "how", "said"),
    [
        ("h264.ts", MPEG_4, ("-vf", "negate", "-c:v", "libx264"), "coded frames"),
        ("h264.ts", MPEG_4, ("-frames:v", "11", "-c:v", "copy"), "coded frames"),
        ("mpeg2.ts", MPEG_2_HIGH, ("-vf", "negate", "-c:v", "mpeg2video"), "dB on average"),
        ("mpeg2.ts", MPEG_2_HIGH, ("-frames:v", "3", "-c:v", "mpeg2video"), "it has 3 frames"),
        ("mpeg2.ts", MPEG_2_HIGH, ("-vf", "setpts=2*PTS", "-c:v", "mpeg2video"), "it lasts"),
    ],
    ids=["another", "cut", "another one anew", "cut anew", "slower"],
)
def test_what_is_no_copy_is_found(
    site: Site, kind: str, source: str, how: tuple[str, ...], said: str
) -> None:
    stream = videos.content(kind)
    one = site.make(stream, source)
    frames = 3 if "3" in how else 11 if "11" in how else videos.FRAMES
    fewer = changed(stream, "-fps_mode", "passthrough", *how, container="mpegts")
    other = site.make(fewer, source, frames=frames)
    for every_frame in (True, False):
        came = site.check(one, other, every_frame=every_frame)
        assert said in came.differs, came
        assert not came.not_decoded


def test_damage_is_told_from_damage_of_the_original(site: Site) -> None:
    ds = site.make(videos.content("mpeg2.mpg", frames=50), MPEG_2_MAIN, frames=50)
    kept = site.archive.store.local_path(derived_path(ref_of(ds), MPEG_4))
    assert kept is not None
    whole = kept.read_bytes()
    site.damage(derived_path(ref_of(ds), MPEG_4), 0.7)
    came = site.check(ds)
    assert came.unreadable or came.differs
    kept.write_bytes(whole)
    assert site.check(ds).frames == 50
    site.damage(instance_path(ref_of(ds)), 0.5)
    came = site.check(ds)
    assert not came.unreadable
    assert came.differs or came.not_decoded.startswith("of the original: ")


def test_limits_are_those_of_a_conversion(site: Site, tmp_path: Path) -> None:
    ds = site.make(videos.content("mpeg2.ts"), MPEG_2_HIGH)

    def checked(**limits: object) -> VideoCheck:
        settings = site.archive.transcode.model_copy(update=limits)
        given, site.archive = site.archive, replace(site.archive, transcode=settings)
        try:
            return site.check(ds)
        finally:
            site.archive = given

    assert "not installed" in checked(ffmpeg="no-such-program").not_decoded
    assert "over 1e-06 s" in checked(video_timeout_s=1e-6).not_decoded
    assert "aren't decoded" in checked(max_pixels=100).not_decoded
    assert checked() == VideoCheck(videos.FRAMES)
    site.stop.set()
    with pytest.raises(Unavailable):
        checked()
    assert not list((tmp_path / "data" / "incoming").glob("*"))


@pytest.mark.parametrize(("kind", "source"), [("h264.ts", MPEG_4), ("mpeg2.ts", MPEG_2_HIGH)])
def test_a_bad_one_is_reported_and_made_anew(site: Site, kind: str, source: str) -> None:
    ds = site.make(videos.content(kind, frames=50), source, frames=50)
    verifier = Verifier(site.archive, site.journals, site.pixels, 1 << 28)
    good = verifier.check(Chosen(ref_of(ds), MPEG_4))
    assert (good.finding, good.frames, good.not_decoded) == (None, 50, "")
    path = derived_path(ref_of(ds), MPEG_4)
    site.damage(path, 0.7)
    announced_as_it_is(site, ds, path)
    wrong = verifier.check(Chosen(ref_of(ds), MPEG_4))
    assert wrong.finding in (Finding.PIXELS_DIFFER, Finding.COPY_UNREADABLE)
    assert mend(site.archive, site.journals, site.archive.transcode, [wrong]) == (1, 1)
    copies.convert_all(site.archive)
    assert verifier.check(Chosen(ref_of(ds), MPEG_4)) == good


def announced_as_it_is(site: Site, ds: Dataset, path: str) -> None:
    """Announce a changed file as if it had been made so."""
    entry = site.item(ds).entry
    copy = replace(entry.derived.copies[MPEG_4], digest=digest_of(site.archive.store, path))
    line = copy_line(str(ds.SOPInstanceUID), entry.digest, copy)
    assert site.archive.store.append({journal_path(series_of(ds)): line})
