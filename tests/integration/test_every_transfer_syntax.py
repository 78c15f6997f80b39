"""Every transfer syntax of PS3.6 through a running archive: kept, given back, shown, converted.

All examples go in by STOW-RS and by C-STORE, real files beside them; the queue works while the
first tests ask. No picture may ever be wrong: what can't be decoded is told, with a reason.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import requests
from PIL import Image
from pydicom._uid_dict import UID_dictionary

import coded_streams
import real
from every_syntax import BIG_ENDIAN, ELE, IMPLICIT, OLD_HTJ2K, Example, every_example, write_all
from example_pictures import YBR
from independent import JPEG_DCT, pixels_of
from service import PATIENT_ENV, RunningArchive, wait_until
from wado.archive.derived import Derived
from wado.archive.health import VIDEO_GROUP, waiting
from wado.archive.journal import Journals
from wado.archive.paths import derived_path
from wado.archive.retrieve import item
from wado.bootstrap import open_archive
from wado.dicom.codec_table import why_not_decoded
from wado.dicom.part10 import read_file_meta
from wado.dicom.sop_classes import TRANSFER_SYNTAXES
from wado.dicom.uids import InstanceRef
from wado.ports import Archive
from wado.records import Topic
from wado.services.association import Peer
from wado.services.storescu import send
from wado.settings import load_settings
from wado.transcode_settings import DISPLAYABLE, HTJ2K_RPCL, TranscodeSettings
from whole_corpus import Kept, store_all

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(1200)]

STOW, DIMSE = "stow", "default"
H264 = "1.2.840.10008.1.2.4.102"
VIDEO = "1.2.840.10008.1.2.4.10"
NEVER_SENT = {IMPLICIT, BIG_ENDIAN}
PIXELS = ("syntaxes", "color", "multiframe", "derived")
NO_REFERENCE = {"JLSL_08_07_0_1F", "badVR", "JPEG2000-embedded-sequence-delimiter",
                "SC_rgb_jpeg", "layer9"}  # fmt: skip
QUEUE_TIMEOUT_S = 600
ANSWER_TIMEOUT_S = 240
AT_A_TIME = 4


@dataclass(frozen=True)
class Shown:
    """The running archive, and what went in."""

    running: RunningArchive
    archive: Archive
    """The same, opened in this process, to look at what it keeps."""
    journals: Journals
    examples: list[Example]
    sent: frozenset[str]
    """Names of those that went in by C-STORE, too."""
    kept: list[Kept]

    def url(self, example: Example) -> str:
        study, series, instance = example.uids
        return f"{self.running.dicomweb}/studies/{study}/series/{series}/instances/{instance}"

    def get(
        self, example: Example, resource: str = "", accept: str = "*/*", tenant: str = STOW
    ) -> requests.Response:
        headers = {"accept": accept, "x-tenant": tenant}
        return requests.get(
            f"{self.url(example)}{resource}", headers=headers, timeout=ANSWER_TIMEOUT_S
        )

    def ref(self, example: Example, tenant: str = STOW) -> InstanceRef:
        return InstanceRef.of(tenant, *example.uids)

    def derived(self, ref: InstanceRef) -> Derived:
        return item(self.journals, ref).entry.derived

    def file(self, path: str) -> Path:
        return self.running.root / path

    def lag(self) -> int:
        log = self.archive.log
        groups = (
            (Topic.STORAGE, "wado-consumer"), (Topic.TRANSCODE, "wado-transcode"),
            (Topic.TRANSCODE, VIDEO_GROUP), (Topic.TRANSCODE_LOG, "wado-warehouse"),
        )  # fmt: skip
        return sum(log.lag(topic, group) for topic, group in groups)

    def rows(self) -> list[dict[str, Any]]:
        """All that the queue has recorded."""
        return self.archive.warehouse.query("SELECT * FROM dicom_transcode_log ORDER BY attempt")


@pytest.fixture(scope="module")
def shown(
    corpus: Path, manifest: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shown]:
    for program in ("dcmtk", "ffmpeg", "cjpeg"):
        real.require(program)
    folder = tmp_path_factory.mktemp("every")
    (folder / "files").mkdir()
    env = {
        **PATIENT_ENV,
        "WADO_CONSUMER__LOAD_INTERVAL_S": "0.2",
        "WADO_WEBWORKER__QUIET_S": "0.3",
        "WADO_SERVER__PIXEL_TIMEOUT_S": "120",  # the queue works on pixels at the same time
    }
    with ExitStack() as stack:
        running = stack.enter_context(RunningArchive(folder / "data", env=env))
        examples = every_example()
        paths = write_all(examples, folder / "files")
        stow_all(running, examples)
        refused = {failure.path for failure in send_all(running, paths)}
        sent = frozenset(
            example.name
            for example, path in zip(examples, paths, strict=True)
            if path not in refused
        )
        real_files = [corpus / r["path"] for r in manifest if r["path"].split("/")[0] in PIXELS]
        kept = store_all(running.dicomweb, real_files, folder)
        archive = stack.enter_context(open_archive(load_settings(storage={"root": running.root})))
        wait_until(
            lambda: waiting(archive, Topic.STORAGE) == 0,
            timeout_s=QUEUE_TIMEOUT_S,
            reason="all is catalogued, also what came by C-STORE",
        )
        yield Shown(running, archive, Journals(archive.store), examples, sent, kept)


def stow_all(running: RunningArchive, examples: list[Example]) -> None:
    def store(example: Example) -> None:
        answer = requests.post(
            f"{running.dicomweb}/studies",
            data=example.data,
            headers={"content-type": "application/dicom", "x-tenant": STOW},
            timeout=ANSWER_TIMEOUT_S,
        )
        assert answer.status_code == 200, (example.name, answer.text)

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(store, examples))


def send_all(running: RunningArchive, paths: list[Path]) -> list[Any]:
    return list(send(paths, Peer.parse(running.destination)).failures)


@pytest.fixture(scope="module")
def converted(shown: Shown) -> Shown:
    """The same, once the queue has done its work."""
    wait_until(
        lambda: shown.lag() == 0 and shown.running.ready(),
        timeout_s=QUEUE_TIMEOUT_S,
        reason="the queue is empty",
    )
    return shown


# ------------------------------------------------------------------ kept


def test_every_transfer_syntax_of_the_standard_is_there(shown: Shown):
    """By the dictionary of pydicom, and by ours, which is newer."""
    there = {example.transfer_syntax_uid for example in shown.examples}
    of_pydicom = {uid for uid, row in UID_dictionary.items() if row[1] == "Transfer Syntax"}
    assert not of_pydicom - there
    assert not set(TRANSFER_SYNTAXES) - there
    refused = {e.transfer_syntax_uid for e in shown.examples if e.name not in shown.sent}
    assert not refused - {OLD_HTJ2K}, "C-STORE takes every one, but for what nobody registered"


def test_what_came_by_stow_is_given_back_byte_for_byte(shown: Shown):
    for example in shown.examples:
        answer = shown.get(example, accept="application/dicom; transfer-syntax=*")
        assert answer.status_code == 200, (example.name, answer.text)
        uid = example.transfer_syntax_uid
        if uid in NEVER_SENT:
            assert answer.headers["content-type"].endswith(f"={ELE}"), example.name
        else:
            assert answer.headers["content-type"].endswith(f"={uid}"), example.name
            assert answer.content == example.data, example.name
        path = shown.file(item(shown.journals, shown.ref(example)).path)
        assert path.read_bytes() == example.data, example.name


def test_what_came_by_c_store_has_its_data_set_byte_for_byte(shown: Shown):
    assert len(shown.sent) > len(shown.examples) - 10
    for example in shown.examples:
        if example.name not in shown.sent:
            continue
        path = shown.file(item(shown.journals, shown.ref(example, DIMSE)).path)
        assert data_set(path.read_bytes()) == data_set(example.data), example.name
        assert read_file_meta(path.read_bytes()).transfer_syntax_uid == example.transfer_syntax_uid


def data_set(data: bytes) -> bytes:
    return data[read_file_meta(data).data_set_offset :]


# ------------------------------------------------------------------ shown


def test_native_frames_have_the_pixels_of_other_decoders(shown: Shown):
    seen: Counter[str] = Counter()
    for example in shown.examples:
        if example.kind != "image":
            continue
        for number, expected in enumerate(example.pixels, 1):
            answer = shown.get(example, f"/frames/{number}", "application/octet-stream")
            assert answer.status_code == 200, (example.name, answer.text)
            assert answer.headers["content-type"].endswith(ELE), example.name
            assert_close(native_frame(answer.content, example, expected), expected, example)
        seen[example.transfer_syntax_uid] += 1
    assert len(seen) == 29, seen
    assert seen.total() > 150


def native_frame(data: bytes, example: Example, like: np.ndarray) -> np.ndarray:
    flat = np.frombuffer(data, like.dtype.newbyteorder("<"))[: like.size]
    if like.ndim == 3 and example.ds.get("PlanarConfiguration") == 1:
        return flat.reshape(3, *like.shape[:2]).transpose(1, 2, 0)
    return flat.reshape(like.shape)


def assert_close(got: np.ndarray, expected: np.ndarray, example: Example) -> None:
    assert got.shape == expected.shape, example.name
    far = int(np.abs(got.astype(np.int64) - expected.astype(np.int64)).max())
    assert far <= example.bound, (example.name, far)


def test_rendered_is_a_picture(shown: Shown):
    for example in shown.examples:
        if example.kind != "image":
            continue
        answer = shown.get(example, "/rendered", "image/png")
        assert answer.status_code == 200, (example.name, answer.text)
        picture = Image.open(io.BytesIO(answer.content))
        assert picture.size == (example.ds.Columns, example.ds.Rows), example.name
        assert np.ptp(np.asarray(picture)) > 50, f"{example.name} is blank"


def test_what_no_decoder_knows_is_told_and_never_shown_wrong(shown: Shown):
    for example in shown.examples:
        if example.kind != "unreadable":
            continue
        native = f"application/octet-stream; transfer-syntax={ELE}"
        answer = shown.get(example, "/frames/1", native)
        if answer.status_code == 200:  # somebody taught it us: then it must be right
            got = native_frame(answer.content, example, example.pixels[0])
            assert_close(got, example.pixels[0], example)
            continue
        for refused in (answer, shown.get(example, "/rendered", "image/png")):
            assert refused.status_code == 406, (example.name, refused.text)
            assert is_explained(refused.json()["reason"]), (example.name, refused.text)
        plain = shown.get(example, "/frames/1", "application/octet-stream")
        if plain.status_code == 200:  # as stored, and called so
            assert plain.headers["content-type"].endswith(f"={example.transfer_syntax_uid}")


def is_explained(reason: str) -> bool:
    """Whether words say what is the matter: no name of an exception, no empty sentence."""
    return len(reason) > 20 and "Error(" not in reason and "Traceback" not in reason


def test_what_has_no_pixels_has_no_frames(shown: Shown):
    for example in shown.examples:
        if example.kind == "no pixels":
            for resource in ("/frames/1", "/rendered"):
                answer = shown.get(example, resource)
                assert answer.status_code in (404, 406), (example.name, answer.status_code)
                assert why_not_decoded(example.transfer_syntax_uid) in answer.json()["reason"]


# ------------------------------------------------------------------ converted


def test_what_viewers_show_is_left_alone(converted: Shown):
    for example in converted.examples:
        if example.kind == "image" and example.transfer_syntax_uid in DISPLAYABLE:
            derived = converted.derived(converted.ref(example))
            assert not derived.copies, example.name
            assert not derived.failures, example.name
    for kept in converted.kept:
        if kept.syntax in DISPLAYABLE and not kept.syntax.startswith(VIDEO):
            derived = converted.derived(ref_of(kept))
            assert not derived.copies, kept.path
            assert not derived.failures, kept.path


def ref_of(kept: Kept) -> InstanceRef:
    return InstanceRef.of(kept.headers["x-tenant"], *kept.uids)


def to_be_copied(shown: Shown, kind: str) -> Iterator[tuple[Example, str]]:
    """Examples that viewers can't show, by tenant: those that came by STOW-RS and by C-STORE."""
    for example in shown.examples:
        if example.kind == kind and example.transfer_syntax_uid not in DISPLAYABLE:
            yield example, STOW
            if example.name in shown.sent:
                yield example, DIMSE


def test_other_images_have_a_copy_with_the_same_pixels(converted: Shown, tmp_path: Path):
    seen: Counter[str] = Counter()
    for example, tenant in to_be_copied(converted, "image"):
        ref = converted.ref(example, tenant)
        derived = converted.derived(ref)
        assert not derived.failures, (example.name, derived.failures)
        ((uid, copy),) = derived.copies.items()
        assert uid in (HTJ2K_RPCL, ELE), example.name
        assert not copy.lossy, example.name
        path = converted.file(derived_path(ref, uid))
        assert path.stat().st_size == copy.file_size
        pixels = pixels_of(path)
        assert len(pixels) == len(example.pixels), example.name
        for got, expected in zip(pixels, example.pixels, strict=True):
            assert_close(got, expected, example)
        assert_same_identity(path, example, uid)
        seen[example.transfer_syntax_uid] += 1
    assert len(seen) == 14, seen
    pixels_of.cache_clear()


def assert_same_identity(path: Path, example: Example, uid: str) -> None:
    copy = pydicom.dcmread(path, stop_before_pixels=True)
    assert copy.file_meta.TransferSyntaxUID == uid
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "PatientID", "Rows", "Columns",
                    "BitsStored", "BitsAllocated", "PixelRepresentation", "NumberOfFrames",
                    "LossyImageCompression"):  # fmt: skip
        assert copy.get(keyword) == example.ds.get(keyword), (example.name, keyword)
    colour = example.ds.PhotometricInterpretation
    if example.ds.SamplesPerPixel == 3 and not example.name.endswith(YBR.name):
        colour = "YBR_RCT" if uid == HTJ2K_RPCL else "RGB"  # PS3.5 §8.2.14, C.7.6.3.1.2
    assert copy.PhotometricInterpretation == colour, example.name
    assert copy.get("PlanarConfiguration") == (0 if copy.SamplesPerPixel == 3 else None)


def test_copies_are_named_and_given_to_who_asks(converted: Shown):
    for example, tenant in to_be_copied(converted, "image"):
        ref = converted.ref(example, tenant)
        (uid,) = converted.derived(ref).copies
        answer = converted.get(example, "/metadata", "application/dicom+json", tenant)
        (metadata,) = answer.json()
        named = metadata["00083002"]["Value"]
        assert named[0] == example.transfer_syntax_uid, example.name
        assert sorted(named[1:]) == [uid], (example.name, named)
        accept = f"application/dicom; transfer-syntax={uid}"
        whole = converted.get(example, "", accept, tenant)
        assert whole.status_code == 200, (example.name, whole.text)
        made = pydicom.dcmread(io.BytesIO(whole.content))
        assert made.file_meta.TransferSyntaxUID == uid, example.name
        data = converted.file(derived_path(ref, uid)).read_bytes()
        assert whole.content == data, f"{example.name} was made once more"
        if uid == HTJ2K_RPCL:
            frame = converted.get(
                example, "/frames/1", f"image/jphc; transfer-syntax={uid}", tenant
            )
            assert frame.status_code == 200, (example.name, frame.text)
            assert frame.content in data, f"the frame of {example.name} was made once more"


def test_originals_are_given_as_before(converted: Shown):
    for example in converted.examples:
        if example.transfer_syntax_uid in NEVER_SENT:
            continue
        answer = converted.get(example, accept="application/dicom; transfer-syntax=*")
        assert answer.content == example.data, example.name


def test_video_that_browsers_do_not_play_has_a_copy_in_h264(converted: Shown):
    seen = set()
    for example, tenant in to_be_copied(converted, "video"):
        ref = converted.ref(example, tenant)
        derived = converted.derived(ref)
        assert not derived.failures, (example.name, derived.failures)
        assert list(derived.copies) == [H264], example.name
        path = converted.file(derived_path(ref, H264))
        if tenant == STOW:
            assert_same_film(path.read_bytes(), example)
        seen.add(example.transfer_syntax_uid)
    assert len(seen) == 6


def test_h264_that_no_browser_plays_as_it_is_has_the_same_film_as_mp4(converted: Shown):
    """In a transport stream, say; what is MP4 needs no copy."""
    seen = set()
    for example in converted.examples:
        uid = example.transfer_syntax_uid
        if example.kind != "video" or uid not in DISPLAYABLE:
            continue
        derived = converted.derived(converted.ref(example))
        assert not derived.failures, (example.name, derived.failures)
        assert set(derived.copies) <= {uid}, example.name
        film = b"".join(fragments(example.ds))
        if film[4:8] == b"ftyp":
            assert not derived.copies, example.name
            continue
        assert not derived.copies[uid].lossy, example.name
        path = converted.file(derived_path(converted.ref(example), uid))
        copy = b"".join(fragments(pydicom.dcmread(path)))
        assert copy[4:8] == b"ftyp", example.name
        was, now = coded_streams.pictures_of(film), coded_streams.pictures_of(copy)
        assert np.array_equal(was, now), example.name
        seen.add(uid)
    assert len(seen) == 4


def assert_same_film(data: bytes, example: Example) -> None:
    copy = pydicom.dcmread(io.BytesIO(data))
    assert copy.LossyImageCompression == "01"
    was, now = (
        coded_streams.pictures_of(b"".join(fragments(ds))).astype(int) for ds in (example.ds, copy)
    )
    assert was.shape == now.shape, example.name
    assert np.mean(np.abs(was - now)) < 8, example.name


def fragments(ds: pydicom.Dataset) -> list[bytes]:
    from pydicom.encaps import generate_fragments  # noqa: PLC0415

    return list(generate_fragments(ds.PixelData))[1:]


def test_what_can_not_be_converted_is_recorded_with_the_reason(converted: Shown):
    rows = {(r["tenant_id"], r["sop_instance_uid"]): r for r in converted.rows()}
    for kind in ("unreadable", "no pixels"):
        for example, tenant in to_be_copied(converted, kind):
            ref = converted.ref(example, tenant)
            derived = converted.derived(ref)
            if derived.copies:
                assert_right_copy(converted, ref, example)
                continue
            row = rows.get((tenant, ref.sop_instance_uid))
            assert row is not None, f"{example.name}: no row tells why viewers can't show it"
            assert not row["succeeded"], example.name
            assert is_explained(row["reason"]), (example.name, row["reason"])
            assert row["reason"] in derived.failures.values(), example.name
            assert row["transfer_syntax_uid"] == example.transfer_syntax_uid


def assert_right_copy(converted: Shown, ref: InstanceRef, example: Example) -> None:
    (uid,) = converted.derived(ref).copies
    got = pixels_of(converted.file(derived_path(ref, uid)))
    assert example.pixels, f"{example.name} can't be decoded, but has a copy"
    for one, expected in zip(got, example.pixels, strict=True):
        assert_close(one, expected, example)


def test_real_files_have_copies_with_the_same_pixels(converted: Shown):
    seen = set()
    for kept in converted.kept:
        if kept.syntax in DISPLAYABLE or "PixelData" not in kept.ds:
            continue
        derived = converted.derived(ref_of(kept))
        assert derived.copies or derived.failures, kept.path
        assert all(is_explained(reason) for reason in derived.failures.values())
        if any(name in kept.path.name for name in NO_REFERENCE):
            continue
        assert derived.copies, (kept.path, derived.failures)
        for uid in derived.copies:
            got = pixels_of(converted.file(derived_path(ref_of(kept), uid)))
            for one, expected in zip(got, pixels_of(kept.path), strict=True):
                far = np.abs(one.astype(np.int64) - expected.astype(np.int64))
                most = 1e-5 if kept.syntax in JPEG_DCT else 0
                assert np.mean(far > 2 * bool(most)) <= most, kept.path
        seen.add(kept.syntax)
    assert len(seen) >= 3, seen


def test_nothing_loops(converted: Shown):
    """Each work has at most as many rows as attempts, and one that tells the end."""
    works: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in converted.rows():
        key = (row["tenant_id"], row["sop_instance_uid"], row["target_transfer_syntax_uid"])
        works.setdefault(key, []).append(row)
    attempts = TranscodeSettings().attempts
    for key, rows in works.items():
        assert len(rows) <= attempts, (key, json.dumps(rows, default=str))
        assert len([row for row in rows if row["succeeded"]]) <= 1, key
    assert converted.lag() == 0
    alive = converted.running.pids()
    assert any(name.startswith("webworker") for name in alive)
    assert "Traceback" not in converted.running.log
