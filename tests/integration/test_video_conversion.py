"""Video of every kind becomes what browsers play, or a failure on record; by the real program."""

import io
import selectors
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

import copies
import real
import synthetic
import videos
from steps import ref_of, series_of
from videos import HEVC_MAIN, HEVC_MAIN_10, MPEG_2_HIGH, MPEG_2_MAIN
from wado.archive.conversion import announce, convert
from wado.archive.copies import Converted, Converter
from wado.archive.journal import Journals
from wado.archive.pixel_workers import PixelWorkers
from wado.archive.retrieve import Item
from wado.archive.video_program import VideoProgram, video_program
from wado.archive.wanted_copies import order
from wado.dicom.coded_video import H264
from wado.errors import CutShort, OutOfResources, Unavailable
from wado.ports import Archive
from wado.transcode_settings import TranscodeSettings

pytestmark = pytest.mark.usefixtures("_programs")
MPEG_4 = videos.H264
VISUALLY_THE_SAME_DB = 35.0


@pytest.fixture(scope="module")
def _programs() -> None:
    real.require("ffmpeg")


class Videos:
    """An archive, and what converts videos in it."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.journals = Journals(archive.store)
        self.stop = Event()

    def item(self, ds: Dataset) -> Item:
        """Find an instance."""
        view = self.journals.view(series_of(ds))
        assert view is not None
        return Item(ref_of(ds), view.entries[str(ds.SOPInstanceUID)], view)

    def convert(self, ds: Dataset, *, attempt: int = 1, **settings: Any) -> Converted | None:
        """Store an instance and convert it; nothing is announced."""
        copies.store(self.archive, ds)
        return self.again(ds, attempt=attempt, **settings)

    def again(
        self, ds: Dataset, *, target_uid: str = "", attempt: int = 1, **settings: Any
    ) -> Converted | None:
        """Convert what is stored."""
        source = str(ds.file_meta.TransferSyntaxUID)
        target_uid = target_uid or (source if source in H264 else MPEG_4)
        found = self.item(ds)
        meta = replace(order(found.ref, found.entry, target_uid), attempt=attempt)
        given = TranscodeSettings.model_validate(settings)
        pixels = PixelWorkers(workers=1, timeout_s=120, max_memory_bytes=1 << 30)
        try:
            return convert(Converter(self.archive, self.journals, pixels, given, self.stop), meta)
        finally:
            pixels.close()

    def copied(self, ds: Dataset, **settings: Any) -> tuple[Converted, Dataset]:
        """Convert, announce and read the copy."""
        done = self.convert(ds, **settings)
        assert done is not None
        assert done.row.succeeded, done.row.reason
        assert announce(self.archive, self.journals, [done]) == [done]
        assert done.row.derived_path is not None
        with self.archive.store.open(done.row.derived_path) as file:
            return done, pydicom.dcmread(io.BytesIO(file.read()))

    def failure(self, ds: Dataset, **settings: Any) -> str:
        """Convert what can't be; the reason, and nothing is left of the attempt."""
        done = self.convert(ds, **settings)
        assert done is not None
        assert not done.row.succeeded
        assert done.row.reason
        root = self.archive.store.local_path("")
        assert root is not None
        assert not list((root / "derived").rglob("*.dcm"))
        assert not list((root / "incoming").iterdir())
        return done.row.reason


@pytest.fixture
def site(archive: Archive) -> Videos:
    """An archive for videos."""
    return Videos(archive)


# ------------------------------------------------------------------ what is made


@pytest.mark.parametrize(
    ("kind", "source", "fragments"),
    [
        ("mpeg2.m2v", MPEG_2_MAIN, 1),
        ("mpeg2.mpg", MPEG_2_MAIN, 1),
        ("mpeg2.ts", MPEG_2_HIGH, 1),
        ("mpeg2.ts", f"{MPEG_2_HIGH}.1", 3),
        ("mpeg2-interlaced.m2v", MPEG_2_MAIN, 1),
        ("hevc.hevc", HEVC_MAIN, 1),
        ("hevc.mp4", HEVC_MAIN, 1),
        ("hevc-10.mp4", HEVC_MAIN_10, 1),
    ],
)
def test_other_video_is_encoded_as_h264(site: Videos, kind: str, source: str, fragments: int):
    stream = videos.content(kind)
    ds = videos.instance(stream, source, fragments=fragments)
    done, copy = site.copied(ds)
    assert copy.file_meta.TransferSyntaxUID == done.row.target_transfer_syntax_uid == MPEG_4
    assert done.row.codec is not None
    assert done.row.codec.startswith("ffmpeg ")
    assert done.row.codec.endswith("(libx264)")
    made = videos.stream_of(copy)
    (video,) = videos.streams(made)
    assert (video["codec_name"], video["pix_fmt"], video["profile"]) == ("h264", "yuv420p", "High")
    assert (video["width"], video["height"]) == (videos.COLUMNS, videos.ROWS)
    assert int(str(video["nb_read_frames"])) == videos.FRAMES
    assert (video["field_order"] == "tt") == ("interlaced" in kind)
    assert made.index(b"moov") < made.index(b"mdat"), "a player must not read it to its end first"
    each = videos.psnr_db(stream, made)
    assert len(each) == videos.FRAMES
    assert min(each) > VISUALLY_THE_SAME_DB


def test_the_copy_tells_what_it_is_and_what_was_lost(site: Videos):
    ds = videos.instance(videos.content("hevc-10.mp4"), HEVC_MAIN_10)
    done, copy = site.copied(ds)
    assert (copy.BitsAllocated, copy.BitsStored, copy.HighBit) == (8, 8, 7)
    assert copy.PhotometricInterpretation == "YBR_PARTIAL_420"
    assert (copy.Rows, copy.Columns, copy.NumberOfFrames) == (ds.Rows, ds.Columns, 12)
    assert copy.LossyImageCompression == "01"
    assert list(copy.LossyImageCompressionMethod) == ["ISO_23008_2", "ISO_14496_10"]
    first, second = map(float, copy.LossyImageCompressionRatio)
    native = 3 * videos.ROWS * videos.COLUMNS * videos.FRAMES
    assert first == 20
    assert second == pytest.approx(native / len(videos.stream_of(copy)), rel=0.01)
    changed = {"PixelData", "BitsAllocated", "BitsStored", "HighBit", "LossyImageCompressionRatio",
               "LossyImageCompressionMethod"}  # fmt: skip
    assert {e.keyword for e in copy if e != ds.get(e.tag)} == changed
    known = site.item(ds).entry.derived.copies[MPEG_4]
    assert known.lossy
    assert known.photometric_interpretation == "YBR_PARTIAL_420"
    assert known.file_size == done.row.derived_size


@pytest.mark.parametrize(
    ("kind", "source"),
    [("h264.ts", MPEG_4), ("h264.ts", f"{videos.H264_42}.1"), ("h264.264", MPEG_4)],
)
def test_h264_in_another_container_keeps_its_frames(site: Videos, kind: str, source: str):
    stream = videos.content(kind)
    ds = videos.instance(stream, source)
    done, copy = site.copied(ds)
    assert copy.file_meta.TransferSyntaxUID == source
    assert done.row.codec is not None
    assert done.row.codec.endswith("(remux)")
    made = videos.stream_of(copy)
    assert made[4:8] == b"ftyp"
    assert videos.frame_hashes(made) == videos.frame_hashes(stream)
    assert len(videos.frame_hashes(made)) == videos.FRAMES
    assert {e.keyword for e in copy if e != ds.get(e.tag)} == {"PixelData"}
    assert not site.item(ds).entry.derived.copies[source].lossy


@pytest.mark.parametrize("kind", ["h264-reordered.264", "h264-422.ts"])
def test_h264_that_browsers_do_not_play_is_encoded_anew(site: Videos, kind: str):
    """A byte stream whose frames are in another order has no times; nobody plays 4:2:2."""
    stream = videos.content(kind)
    ds = videos.instance(stream, MPEG_4, LossyImageCompressionMethod="ISO_14496_10")
    done, copy = site.copied(ds)
    assert done.row.codec is not None
    assert done.row.codec.endswith("(libx264)")
    assert min(videos.psnr_db(stream, videos.stream_of(copy))) > VISUALLY_THE_SAME_DB
    assert list(copy.LossyImageCompressionMethod) == ["ISO_14496_10"] * 2


def test_h264_in_an_mp4_file_is_left_alone(site: Videos):
    assert site.convert(videos.instance(videos.content("h264.mp4"), MPEG_4)) is None


def test_a_copy_that_is_there_is_not_made_again(site: Videos):
    ds = videos.instance(videos.content("hevc.mp4", rate=120, size=(1280, 720)), HEVC_MAIN)
    done, _ = site.copied(ds)
    assert done.row.target_transfer_syntax_uid == videos.H264_42
    assert site.again(ds) is None


def test_sound_is_kept(site: Videos):
    for kind, source in (("h264.ts", MPEG_4), ("mpeg2.ts", MPEG_2_HIGH)):
        stream = videos.content(kind, sound=True)
        done, copy = site.copied(videos.instance(stream, source))
        _, sound = videos.streams(videos.stream_of(copy))
        assert sound["codec_name"] == "aac"
        assert done.row.codec is not None
        assert "without sound" not in done.row.codec


def test_sound_that_nobody_can_decode_does_not_keep_the_pictures(site: Videos):
    stream = videos.content("h264-422.ts", sound=True)  # a few frames of sound, none of them whole
    done, copy = site.copied(videos.instance(stream, MPEG_4))
    assert [s["codec_name"] for s in videos.streams(videos.stream_of(copy))] == ["h264"]
    assert done.row.codec is not None
    assert done.row.codec.endswith("(libx264, without sound)")


def test_what_no_level_holds_becomes_smaller_and_says_so(site: Videos):
    size = (3840, 2160)
    stream = videos.content("hevc.mp4", size=size, frames=2)
    done, copy = site.copied(videos.instance(stream, HEVC_MAIN, frames=2, size=size))
    assert done.row.target_transfer_syntax_uid == videos.H264_42
    assert copy.Columns / copy.Rows == pytest.approx(16 / 9, rel=0.01)
    assert 1900 < copy.Columns <= 1990
    (video,) = videos.streams(videos.stream_of(copy))
    assert (video["width"], video["height"]) == (copy.Columns, copy.Rows)


def test_odd_sides_become_even(site: Videos):
    size = (97, 65)
    stream = videos.content("mpeg2.m2v", size=size)
    _, copy = site.copied(videos.instance(stream, MPEG_2_MAIN, size=size))
    assert (copy.Columns, copy.Rows) == (98, 66)


def test_a_stream_that_tells_no_times_takes_those_of_the_instance(site: Videos):
    told: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("hevc-untimed.hevc", {"CineRate": "10"}, "10/1"),
        ("hevc-untimed.hevc", {"FrameTime": "50"}, "20/1"),
        ("hevc.hevc", {"CineRate": "10"}, "25/1"),
    )
    for kind, attributes, rate in told:
        _, copy = site.copied(videos.instance(videos.content(kind), HEVC_MAIN, **attributes))
        (video,) = videos.streams(videos.stream_of(copy))
        assert video["avg_frame_rate"] == rate, (kind, attributes)


def test_a_real_video_that_is_mp4_is_left_alone(site: Videos, corpus: Path):
    ds = pydicom.dcmread(corpus / "derived" / "video_h264.dcm")
    assert site.convert(ds) is None


# ------------------------------------------------------------------ what can't be made


def cut(kind: str, part: float) -> bytes:
    """The beginning of a video."""
    stream = videos.content(kind)
    return stream[: int(len(stream) * part)]


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("mpeg2.m2v", MPEG_2_MAIN), ("mpeg2.mpg", MPEG_2_MAIN), ("mpeg2.ts", MPEG_2_HIGH),
        ("hevc.hevc", HEVC_MAIN), ("hevc.mp4", HEVC_MAIN), ("h264.ts", MPEG_4),
    ],
)  # fmt: skip
@pytest.mark.parametrize("part", [0.02, 0.5, 0.8])
def test_what_is_cut_off_is_a_failure(site: Videos, kind: str, source: str, part: float):
    reason = site.failure(videos.instance(cut(kind, part), source))
    assert reason.startswith(("ffmpeg", "ffprobe", "the video", "its stream", "the MP", "the HEVC"))


def test_fewer_frames_than_there_should_be_are_a_failure(site: Videos):
    ds = videos.instance(videos.content("mpeg2.m2v"), MPEG_2_MAIN, frames=30)
    assert "it has 12 of 30 frames" in site.failure(ds)


SECRET = "/etc/passwd"
PLAYLIST = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{SECRET}\n#EXT-X-ENDLIST\n"


def data_elsewhere(stream: bytes) -> bytes:
    """An MP4 file whose samples are said to be in another file (ISO/IEC 14496-12 §8.7.2)."""
    at = stream.index(b"url \0\0\0\1")
    url = b"file://" + SECRET.encode() + b"\0"
    entry = struct.pack(">I", 12 + len(url)) + b"url " + bytes(4) + url
    grown = stream[: at - 4] + entry + stream[at + 8 :]
    for box in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        place = grown.rindex(box, 0, at)
        (length,) = struct.unpack_from(">I", grown, place - 4)
        length += len(url)
        grown = grown[: place - 4] + struct.pack(">I", length) + grown[place:]
    return grown


HOSTILE = {
    "empty": b"",
    "zeros": bytes(5000),
    "noise": bytes(i * i * 7919 % 251 for i in range(20_000)),
    "start codes": b"\0\0\1\xb3" * 2000,
    "program stream of nothing": b"\0\0\1\xba" + bytes(4000),
    "HEVC of nothing": b"\0\0\0\1\x40\1" + bytes(4000),
    "packets of nothing": (b"\x47" + bytes(187)) * 30,
    "playlist": PLAYLIST.encode(),
    "playlist as MP4": b"\0\0\0\x14ftypisom\0\0\0\0" + PLAYLIST.encode(),
    "script": f"ffconcat version 1.0\nfile {SECRET}\n".encode(),
    "SMIL": f'<?xml version="1.0"?><MPD><BaseURL>file://{SECRET}</BaseURL></MPD>'.encode(),
    "address": b"http://127.0.0.1:9/video.mp4",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("source", [MPEG_2_MAIN, HEVC_MAIN])
def test_what_is_no_video_is_a_failure(site: Videos, name: str, source: str):
    reason = site.failure(videos.instance(HOSTILE[name], source))
    assert "root:" not in reason


def test_no_other_file_is_read(site: Videos):
    stream = videos.content("hevc.mp4")
    _, copy = site.copied(videos.instance(data_elsewhere(stream), HEVC_MAIN))
    assert min(videos.psnr_db(stream, videos.stream_of(copy))) > VISUALLY_THE_SAME_DB


def test_large_frames_are_refused(site: Videos):
    ds = videos.instance(videos.content("hevc.mp4"), HEVC_MAIN)
    assert "96 x 64 pixels" in site.failure(ds, max_pixels=96 * 64 - 1)


def test_a_still_of_huge_dimensions_takes_what_it_may_at_most(site: Videos):
    stream = bytearray(videos.content("mpeg2.m2v"))
    at = stream.index(b"\0\0\1\xb3") + 4
    stream[at : at + 3] = b"\xff\xff\xff"  # 4095 x 4095
    ds = videos.instance(bytes(stream), MPEG_2_MAIN)
    assert site.failure(ds, max_pixels=1 << 20)
    done = site.again(ds, memory_bytes=1 << 29, attempt=3)
    assert done is not None
    assert not done.row.succeeded


def test_video_does_not_become_images(site: Videos):
    ds = videos.instance(videos.content("hevc.mp4"), HEVC_MAIN)
    copies.store(site.archive, ds)
    done = site.again(ds, target_uid=copies.HTJ2K_RPCL)
    assert done is not None
    assert done.row.reason == f"video can't become {copies.HTJ2K_RPCL}, only H.264"


# ------------------------------------------------------------------ the program


def test_a_program_that_hangs_is_tried_again_and_then_a_failure(site: Videos, tmp_path: Path):
    ds = videos.instance(videos.content("hevc.mp4"), HEVC_MAIN)
    settings: dict[str, Any] = {
        "ffmpeg": str(videos.hanging(tmp_path)),
        "video_timeout_s": 3,
        "attempts": 2,
    }
    with pytest.raises(CutShort, match="took over 3 s"):
        site.convert(ds, **settings)
    done = site.again(ds, attempt=2, **settings)
    assert done is not None
    assert done.row.reason == "the conversion of the video took over 3 s"


def test_what_it_says_last_is_heard_however_slow_we_are(monkeypatch: pytest.MonkeyPatch):
    """It speaks and ends just when we have stopped waiting for a word of it."""
    started: list[subprocess.Popen[bytes]] = []
    start = VideoProgram._started

    class Late(selectors.DefaultSelector):
        has_waited = False

        def select(self, timeout: float | None = None) -> list[Any]:
            if self.has_waited:
                return super().select(timeout)
            self.has_waited = True
            started[0].wait(60)
            return []

    def noted(program: VideoProgram, *given: Any) -> subprocess.Popen[bytes]:
        started.append(start(program, *given))
        return started[-1]

    monkeypatch.setattr(VideoProgram, "_started", noted)
    monkeypatch.setattr("selectors.DefaultSelector", Late)
    lines: list[str] = []
    program = video_program(TranscodeSettings(), Event())
    program.run(("/bin/echo", "the last word"), each_line=lines.append)
    assert lines == ["the last word"]


def test_it_is_given_up_when_the_service_stops(site: Videos, tmp_path: Path):
    site.stop.set()
    ds = videos.instance(videos.content("hevc.mp4"), HEVC_MAIN)
    with pytest.raises(Unavailable, match="stopping"):
        site.convert(ds, ffmpeg=str(videos.hanging(tmp_path)))


def test_without_the_program_the_failure_says_what_to_install(site: Videos, tmp_path: Path):
    ds = videos.instance(videos.content("hevc.mp4"), HEVC_MAIN)
    reason = site.failure(ds, ffmpeg=str(tmp_path / "nothing"))
    assert "nothing is not installed" in reason
    assert "apt-get install ffmpeg" in reason


def test_what_another_program_makes_is_not_believed(site: Videos, tmp_path: Path):
    """It says that all went well, and wrote another video."""
    other = tmp_path / "other.mp4"
    other.write_bytes(videos.content("h264.mp4", frames=3))
    ffmpeg = real.require("ffmpeg")
    liar = tmp_path / "ffmpeg"
    liar.write_text(
        '#!/bin/sh\nfor last in "$@"; do :; done\ncase "$*" in\n'
        f'*libx264*) cat {other} > "${{last#file:}}"; echo frame=12;;\n'
        f'*) exec {ffmpeg} "$@";;\nesac\n'
    )
    liar.chmod(0o755)
    ds = videos.instance(videos.content("mpeg2.m2v"), MPEG_2_MAIN)
    assert "3 of 12 frames" in site.failure(ds, ffmpeg=str(liar))


def test_a_full_disk_is_no_failure_of_the_video(site: Videos, tmp_path: Path):
    full = tmp_path / "ffmpeg"
    full.write_text('#!/bin/sh\necho "av_interleaved_write_frame(): No space left on device" >&2\n'
                    "exit 1\n")  # fmt: skip
    full.chmod(0o755)
    ds = videos.instance(videos.content("mpeg2.m2v"), MPEG_2_MAIN)
    with pytest.raises(OutOfResources):
        site.convert(ds, ffmpeg=str(full))
    assert site.item(ds).entry.derived.failures == {}


def test_a_long_video_is_written_in_fragments(site: Videos, monkeypatch: pytest.MonkeyPatch):
    """As if a fragment could hold 5,000 bytes at most, instead of 4 GB."""
    monkeypatch.setattr("wado.dicom.pixel_elements.MAX_VALUE_BYTES", 5000)
    ds = videos.instance(videos.content("mpeg2.m2v"), MPEG_2_MAIN)
    done, copy = site.copied(ds)
    assert done.row.target_transfer_syntax_uid == copy.file_meta.TransferSyntaxUID == f"{MPEG_4}.1"
    known = site.item(ds).entry.derived.copies[f"{MPEG_4}.1"]
    assert len(known.pixel.fragments) // 2 == 2
    assert videos.streams(videos.stream_of(copy))[0]["nb_read_frames"] == str(videos.FRAMES)


def test_attributes_that_are_missing_do_not_matter(site: Videos):
    ds = videos.instance(videos.content("mpeg2.m2v"), MPEG_2_MAIN)
    for keyword in ("Rows", "BitsStored", "PhotometricInterpretation", "LossyImageCompressionRatio",
                    "LossyImageCompression", "PlanarConfiguration"):  # fmt: skip
        delattr(ds, keyword)
    _, copy = site.copied(ds)
    assert (copy.Rows, copy.BitsStored, copy.LossyImageCompression) == (videos.ROWS, 8, "01")
    assert list(copy.LossyImageCompressionMethod) == ["ISO_13818_2", "ISO_14496_10"]
    assert len(copy.LossyImageCompressionRatio) == 2


def test_the_file_is_one_that_others_read(site: Videos):
    """Its stream follows one other by itself; whoever reads DICOM finds it."""
    _, copy = site.copied(videos.instance(videos.content("mpeg2.ts"), MPEG_2_HIGH))
    again = pydicom.dcmread(io.BytesIO(synthetic.part10(copy)))
    assert videos.stream_of(again) == videos.stream_of(copy)
