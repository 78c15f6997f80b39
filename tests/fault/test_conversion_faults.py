"""Conversion at its worst: ended at any step, a full disk, S3 that fails, objects of any size.

Short in the suite; ``WADO_TEST_LARGE=1`` converts 4 GB, and ten thousand frames.
"""

import os
import resource
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array

import synthetic
from contract.child import Reached, complete, crash
from contract.stores import on_s3, s3_endpoint, s3_place
from conversions import asked
from copies import deflated, derived_of
from fault.s3_between import between
from large import Form, Large
from memory import MEGABYTE
from steps import batches, catalogue_all, series_of
from wado.archive.conversion import announce, convert
from wado.archive.copies import Converted, Converter
from wado.archive.journal import Journals
from wado.archive.paths import journal_path
from wado.archive.pixel_workers import PixelWorkers
from wado.archive.store import Reception, Source, Stored, store_group
from wado.bootstrap import open_archive
from wado.errors import OutOfResources, Unavailable
from wado.ports import Archive
from wado.records import DicomStoreMeta, Topic
from wado.settings import load_settings

LARGE = os.environ.get("WADO_TEST_LARGE") == "1"
SIZE = (4095 if LARGE else 96) * MEGABYTE
FRAMES = 10_000 if LARGE else 1000
GROWTH = 80 * MEGABYTE
TIMEOUT_S = 1800 if LARGE else 250
JPEG_LS, EXPLICIT = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.1"
BASELINE = "1.2.840.10008.1.2.4.50"
DISK_MB = 64


@contextmanager
def a_converter(archive: Archive) -> Iterator[Converter]:
    pixels = PixelWorkers(workers=2, timeout_s=100, max_memory_bytes=8 << 30)
    try:
        yield Converter(archive, Journals(archive.store), pixels, archive.transcode)
    finally:
        pixels.close()


def stored(archive: Archive, pieces: Iterable[bytes]) -> DicomStoreMeta:
    reception = Reception(archive, "clinic", Source())
    for piece in pieces:
        reception.write(piece)
    reception.finish()
    (result,) = store_group(archive, Journals(archive.store), [reception])
    assert isinstance(result, Stored), result
    catalogue_all(archive)
    return result.meta


def lines_of(archive: Archive, ds: Dataset) -> int:
    """How many lines of its journal tell of copies."""
    with archive.store.open(journal_path(series_of(ds))) as file:
        return sum(line.startswith(b'{"derived"') for line in file)


def rows_of(archive: Archive) -> int:
    """How many rows for the warehouse were published."""
    count = 0
    for batch in batches(archive, Topic.TRANSCODE_LOG, "test"):
        count += len(batch.messages)
        batch.commit()
    return count


# ------------------------------------------------------------------ crashes


class Ending:
    """A port in whose method the process comes to its end: before, after, or in the middle."""

    def __init__(self, port: Any, method: str, when: str, reached: Reached) -> None:
        self._port, self._method, self._when, self._reached = port, method, when, reached

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        return self._ending(method) if name == self._method else method

    def _ending(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **kwargs: Any) -> Any:
            if self._when == "before":
                self._reached()
            if self._when == "middle":
                path, data = args
                args = (path, self._broken_off(data))
            result = method(*args, **kwargs)
            self._reached()
            return result

        return act

    def _broken_off(self, data: Iterable[bytes]) -> Iterator[bytes]:
        for number, piece in enumerate(data):
            if number == 9:
                self._reached()
            yield piece


@pytest.mark.parametrize(
    ("port", "method", "when"),
    [
        ("store", "put_document", "before"),
        ("store", "put_document", "middle"),
        ("store", "put_document", "after"),
        ("log", "publish", "before"),
        ("log", "publish", "after"),
        ("store", "append", "before"),
        ("store", "append", "after"),
        ("index", "await_description", "before"),
        ("index", "await_description", "after"),
    ],
)
def test_crash_at_each_step_leaves_one_line_and_a_right_copy(
    tmp_path: Path, port: str, method: str, when: str
) -> None:
    settings = load_settings(storage={"root": tmp_path / "data"})
    ds = synthetic.multi_frame(6)
    expected = ds.pixel_array.copy()
    kept: list[DicomStoreMeta] = []

    def settle() -> None:
        with open_archive(settings) as archive:
            stored(archive, [synthetic.part10(deflated(ds))])

    complete(settle)  # no connection of this process is shared with the children
    with open_archive(settings) as archive:
        view = Journals(archive.store).view(series_of(ds))
        assert view is not None
        (entry,) = view.entries.values()
        file = next(archive.store.instances())
        kept.append(_meta_of(file.ref.tenant_id, ds, entry, file.file_path))

    def work(reached: Reached) -> None:
        with open_archive(settings) as archive:
            ending: Any = Ending(getattr(archive, port), method, when, reached)
            changed: Any = {port: ending}
            with a_converter(replace(archive, **changed)) as converter:
                converted = convert(converter, asked(kept[0], JPEG_LS))
                assert converted is not None
                announce(converter.archive, converter.journals, [converted])

    crash(work)
    with open_archive(settings) as archive, a_converter(archive) as converter:
        converted = convert(converter, asked(kept[0], JPEG_LS))
        if converted is not None:
            announce(archive, converter.journals, [converted])
        assert convert(converter, asked(kept[0], JPEG_LS)) is None
        assert lines_of(archive, ds) == 1
        copy = derived_of(archive, ds).copies[JPEG_LS]
        (file,) = archive.store.instances(place="derived")
        assert file.file_size == copy.file_size
        path = archive.store.local_path(file.file_path)
        assert path is not None
        np.testing.assert_array_equal(pixel_array(path), expected)
        assert 1 <= rows_of(archive) <= 2, "a row may come twice, a line may not"


def _meta_of(tenant_id: str, ds: Dataset, entry: Any, path: str) -> DicomStoreMeta:
    ref = series_of(ds)
    return DicomStoreMeta(
        tenant_id,
        ref.study_instance_uid,
        ref.series_instance_uid,
        entry.sop_instance_uid,
        entry.sop_class_uid,
        entry.transfer_syntax_uid,
        "",
        Path(path).name,
        path,
        entry.file_size,
        entry.digest,
        entry.received_at,
        "0" * 32,
    )


# ------------------------------------------------------------------ a full disk


@pytest.mark.parametrize(("target", "quality"), [(EXPLICIT, 0), (BASELINE, 100)])
def test_full_disk_fails_whole_and_it_is_made_once_there_is_space(
    small_disk: Path, target: str, quality: int
) -> None:
    """Also where the frames of a lossy copy are kept until their number of bytes is known."""
    noise = np.random.default_rng(1).integers(0, 256, (40, 512, 512), np.uint8)
    ds = synthetic.multi_frame(40, rows=512, columns=512)
    ds.PixelData = noise.tobytes()
    with open_archive(load_settings(storage={"root": small_disk / "data"})) as archive:
        meta = stored(archive, [synthetic.part10(deflated(ds))])
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes((DISK_MB - 20) << 20))
        with a_converter(archive) as converter:
            with pytest.raises(OutOfResources):
                convert(converter, asked(meta, target, quality))
            assert not [p for p in (small_disk / "data" / "derived").rglob("*") if p.is_file()]
            assert derived_of(archive, ds).failures == {}
            ballast.unlink()
            converted = convert(converter, asked(meta, target, quality))
            assert converted is not None
            assert announce(archive, converter.journals, [converted]) == [converted]


# ------------------------------------------------------------------ S3


@pytest.mark.parametrize("fate", ["answer lost", "refused"])
def test_copy_in_s3_is_whole_or_absent(
    run_folder: Path, tmp_path: Path, archive: Archive, fate: Any
) -> None:
    with between(s3_endpoint(run_folder)) as network:
        place = s3_place(network.endpoint, f"fault/{uuid4().hex}", timeout_s=30.0)
        archive = replace(archive, store=on_s3(place, tmp_path / "root").store)
        ds = synthetic.multi_frame(5)
        expected = ds.pixel_array.copy()
        meta = stored(archive, [synthetic.part10(deflated(ds))])
        with a_converter(archive) as converter:

            def until_done() -> Converted:
                """As who reads the queue does: what is not now, is asked again."""
                for _ in range(9):
                    try:
                        converted = convert(converter, asked(meta, JPEG_LS))
                        assert converted is not None
                        announce(archive, converter.journals, [converted])
                    except Unavailable:
                        continue
                    return converted
                raise AssertionError("never done")

            network.lose_once("PUT", "derived", fate)
            converted = until_done()
            assert network.lost
            assert lines_of(archive, ds) == 1
            with archive.store.open(converted.row.derived_path or "") as file:
                data = file.read()
            path = tmp_path / "copy.dcm"
            path.write_bytes(data)
            np.testing.assert_array_equal(pixel_array(path), expected)
            (file_,) = archive.store.instances(place="derived")
            assert file_.file_size == len(data)


# ------------------------------------------------------------------ any size


def _grown(work: Callable[[], None]) -> int:
    """Bytes by which the peak of resident memory of this process grows."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10


def _many_frames() -> Iterator[bytes]:
    ds = synthetic.multi_frame(FRAMES, rows=64, columns=64)
    yield synthetic.part10(deflated(ds))


def _large(form: Form) -> Callable[[], Iterator[bytes]]:
    return Large("conversion", SIZE, form).part10


@pytest.mark.parametrize(
    ("pieces", "target", "quality"),
    [
        (_large("native"), JPEG_LS, 0),
        (_large("rle"), EXPLICIT, 0),
        (_many_frames, JPEG_LS, 0),
        (_many_frames, BASELINE, 90),
    ],
    ids=["native", "to native", "frames", "lossy"],
)
@pytest.mark.timeout(2 * TIMEOUT_S)
def test_any_size_passes_with_flat_memory(
    tmp_path: Path, pieces: Callable[[], Iterator[bytes]], target: str, quality: int
) -> None:
    settings = load_settings(storage={"root": tmp_path / "data", "durability": "os"})

    def settle() -> None:
        with open_archive(settings) as archive, a_converter(archive) as converter:
            meta = stored(archive, pieces())
            (tmp_path / "meta").write_bytes(meta.to_json())
            _all_once(converter)

    def work() -> None:
        meta = DicomStoreMeta.from_json((tmp_path / "meta").read_bytes())
        with open_archive(settings) as archive, a_converter(archive) as converter:
            _all_once(converter)

            def large() -> None:
                converted = convert(converter, asked(meta, target, quality))
                assert converted is not None
                assert converted.row.reason is None
                announce(archive, converter.journals, [converted])

            grown = _grown(large)
            print(f"peak grew by {grown / MEGABYTE:.1f} MB")  # noqa: T201 - figures
            assert grown <= GROWTH, f"grown by {grown >> 20} MB"

    complete(settle, timeout_s=TIMEOUT_S)
    complete(work, timeout_s=TIMEOUT_S)


def _all_once(converter: Converter) -> None:
    """Do everything once with little: what it needs is loaded."""
    small = synthetic.multi_frame(4, study=uuid4().hex)
    meta = stored(converter.archive, [synthetic.part10(small)])
    for target, quality in ((JPEG_LS, 0), (BASELINE, 90)):
        converted = convert(converter, asked(meta, target, quality))
        assert converted is not None
        announce(converter.archive, converter.journals, [converted])
