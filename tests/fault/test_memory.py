"""Memory stays flat: an instance of any size passes every way in and out of a running archive.

Short in the suite; ``WADO_TEST_LARGE=1`` sends instances of 4 GB and a series of 5,000.
"""

import json
import os
import shutil
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

import synthetic
from connections import is_held_up
from dimse import RawPeer, pdata, store_request
from large import (
    SOP_CLASS,
    Form,
    Large,
    digest,
    everything_agrees,
    found,
    get,
    store_by_stow,
)
from memory import MEGABYTE, flat, wait_settled
from service import RunningArchive, wait_until
from wado.dicom.pdu import COMMAND, LAST
from wado.services.association import Peer
from wado.services.storescu import send

LARGE = os.environ.get("WADO_TEST_LARGE") == "1"
SIZE = (4095 if LARGE else 128) * MEGABYTE
FRAGMENTS_SIZE = (10_000 if LARGE else 100) * MEGABYTE
GROWTH = 60 * MEGABYTE
PDV_BYTES = 120_000
CONTEXT_ID = 1


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningArchive]:
    """An archive that has done everything once: what it needs is loaded."""
    root = tmp_path_factory.mktemp("memory") / "data"
    with RunningArchive(root) as archive:
        forms: tuple[Form, ...] = ("native", "fragments")
        for form in forms:
            warm = Large("warm", 8 * MEGABYTE, form)
            store_by_dimse(archive, warm)
            retrieve_every_way(archive, warm)
            warm = Large("warm-stow", 8 * MEGABYTE, form)
            store_by_stow(archive, warm, chunked=form == "fragments")
            retrieve_every_way(archive, warm)
        wait_settled(archive)
        yield archive
        everything_agrees(archive)
    shutil.rmtree(root)  # up to 32 GB


# ------------------------------------------------------------------ in


def store_by_dimse(archive: RunningArchive, large: Large) -> None:
    """C-STORE, in fragments of the usual size."""
    with RawPeer(Peer(archive.aet, archive.dimse_host, archive.dimse_port)) as peer:
        peer.socket.settimeout(250)
        peer.associate([(SOP_CLASS, large.transfer_syntax_uid)])
        peer.send(pdata((CONTEXT_ID, COMMAND | LAST, store_request(large.ds))))
        for piece in large.data_set():
            for start in range(0, len(piece), PDV_BYTES):
                peer.send(pdata((CONTEXT_ID, 0, piece[start : start + PDV_BYTES])))
        peer.send(pdata((CONTEXT_ID, LAST, b"")))
        response = peer.response()
        assert response.status == 0, response
        peer.release()


# ------------------------------------------------------------------ out


def retrieve_every_way(archive: RunningArchive, large: Large) -> None:
    """Whole instance, series, bulk data, first and last frames, metadata."""
    path = large.path
    wait_until(lambda: found(archive, path), timeout_s=120, reason="in the metadata")
    whole = "application/dicom; transfer-syntax=*"
    assert sum(map(len, get(archive, path, whole))) > large.size
    series = large.series
    assert sum(map(len, get(archive, series, f"multipart/related; type={whole}"))) > large.size
    assert sum(map(len, get(archive, f"{path}/bulkdata/7FE00010"))) >= large.size
    stored = "application/octet-stream; transfer-syntax=*"  # dummies can't be decoded
    for number in {1, large.frames}:
        frame = b"".join(get(archive, f"{path}/frames/{number}", stored))
        assert frame == (number - 1).to_bytes(8, "little") * (MEGABYTE // 8)
    many = ",".join(map(str, range(1, min(large.frames, 1000) + 1)))
    frames = get(archive, f"{path}/frames/{many}", "multipart/related; type=*/*")
    assert sum(map(len, frames)) > min(large.frames, 1000) * MEGABYTE
    (metadata,) = json.loads(b"".join(get(archive, f"{series}/metadata")))
    assert metadata["00280008"]["Value"] == [large.frames]


def report(what: str, growth: dict[str, int], started: float) -> None:
    """Print figures (``pytest -s``)."""
    told = ", ".join(f"{n} {s / MEGABYTE:.1f}" for n, s in sorted(growth.items()))
    print(f"\n{what}: {time.monotonic() - started:.1f} s; peaks grew by MB: {told}")  # noqa: T201


@pytest.mark.parametrize("way", ["dimse", "chunked", "content-length"])
def test_a_large_instance_goes_in_and_out_with_flat_memory(running: RunningArchive, way: str):
    large = Large(way, SIZE)
    started = time.monotonic()
    with flat(running, GROWTH) as growth:
        if way == "dimse":
            store_by_dimse(running, large)
        else:
            store_by_stow(running, large, chunked=way == "chunked")
        report(f"{way} in", {}, started)
        retrieve_every_way(running, large)
        if way != "dimse":
            whole = get(running, large.path, "application/dicom; transfer-syntax=*")
            assert digest(whole) == digest(large.part10())
    report(way, growth, started)


@pytest.mark.parametrize("way", ["dimse", "stow"])
def test_thousands_of_fragments_go_in_and_out_with_flat_memory(running: RunningArchive, way: str):
    large = Large(f"fragments-{way}", FRAGMENTS_SIZE, "fragments")
    started = time.monotonic()
    with flat(running, GROWTH) as growth:
        if way == "dimse":
            store_by_dimse(running, large)
        else:
            store_by_stow(running, large, chunked=True)
        retrieve_every_way(running, large)
    report(f"fragments by {way}", growth, started)


# ------------------------------------------------------------------ many, long, slow


def part10_files(folder: Path, sets: Iterable[Dataset]) -> list[Path]:
    """Write each as a file."""
    paths = []
    for ds in sets:
        paths.append(folder / f"{ds.SOPInstanceUID}.dcm")
        paths[-1].write_bytes(synthetic.part10(ds))
    return paths


def test_a_long_series_costs_the_same_at_its_end_as_at_its_beginning(
    running: RunningArchive, tmp_path: Path
):
    count, lots = (5000 if LARGE else 300), 10
    template = synthetic.ct(series="long", study="long", patient_id="long")
    path = f"/dicomweb/studies/{template.StudyInstanceUID}/series/{template.SeriesInstanceUID}"
    started = time.monotonic()
    with flat(running, GROWTH) as growth:
        for lot in range(lots):
            files = []
            for number in range(lot * count // lots, (lot + 1) * count // lots):
                template.InstanceNumber = number + 1
                template.SOPInstanceUID = synthetic.uid("long", number)
                template.file_meta.MediaStorageSOPInstanceUID = template.SOPInstanceUID
                files += part10_files(tmp_path, [template])
            begun = time.monotonic()
            summary = send(files, Peer.parse(running.destination), associations=2)
            sent = time.monotonic()
            assert not summary.failures
            last = f"{path}/instances/{files[-1].stem}"
            wait_until(lambda: found(running, last), timeout_s=120, reason="the last is visible")  # noqa: B023 - called at once
            seen = time.monotonic()
            first_byte, size = 0.0, 0
            for piece in get(running, f"{path}/metadata"):
                first_byte = first_byte or time.monotonic() - seen
                size += len(piece)
            print(  # noqa: T201 - figures
                f"{(lot + 1) * count // lots} instances: sent in "
                f"{(sent - begun) / len(files) * 1e3:.2f} ms each, visible after "
                f"{(seen - sent) * 1e3:.0f} ms; metadata of {size >> 10} KB: first byte after "
                f"{first_byte * 1e3:.1f} ms, all after {(time.monotonic() - seen) * 1e3:.1f} ms"
            )
    report("series", growth, started)
    assert len(json.loads(b"".join(get(running, f"{path}/metadata")))) == count


def get_json(archive: RunningArchive, path: str) -> dict[str, Any]:
    """DICOM JSON of instances by SOP Instance UID; empty if there are none."""
    try:
        with urllib.request.urlopen(f"{archive.http}{path}", timeout=60) as answer:
            rows = json.loads(answer.read() or b"[]")
    except urllib.error.HTTPError as e:
        assert e.code == 404, e.code  # noqa: PT017 - the series is not known yet
        return {}
    return {row["00080018"]["Value"][0]: row for row in rows}


def with_functional_groups(number: int, frames: int) -> Dataset:
    """An image with about 1 KB of metadata for each of many frames."""
    ds = synthetic.multi_frame(2, study="groups", series="groups", number=number)
    item = Dataset()
    for sequence in ("PlanePositionSequence", "PixelMeasuresSequence", "FrameContentSequence"):
        inner = Dataset()
        inner.ImagePositionPatient = ["-10.25", "20.5", "30"]
        inner.FrameComments = "x" * 250
        setattr(item, sequence, [inner])
    ds.PerFrameFunctionalGroupsSequence = [item] * frames
    return ds


def test_instances_of_long_metadata_are_not_held_together(running: RunningArchive, tmp_path: Path):
    ds = with_functional_groups(0, 1000)
    whole = synthetic.part10(ds)
    names = [synthetic.uid("groups", number) for number in range(40)]
    for name in names:
        old, new = (str(u).encode().ljust(44, b"\0") for u in (ds.SOPInstanceUID, name))
        (tmp_path / f"{name}.dcm").write_bytes(whole.replace(old, new))
    path = f"/dicomweb/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
    started = time.monotonic()
    with flat(running, 3 * GROWTH) as growth:
        consumer = running.pids()["consumer-1"]
        os.kill(consumer, signal.SIGSTOP)  # so that its next batch holds all of them
        try:
            summary = send([tmp_path], Peer.parse(running.destination), associations=4)
        finally:
            os.kill(consumer, signal.SIGCONT)
        assert not summary.failures, summary.failures
        search = f"{path}/instances?limit=1000"
        wait_until(
            lambda: get_json(running, search).keys() == set(names), timeout_s=120, reason="visible"
        )
        assert sum(map(len, get(running, f"{path}/metadata"))) > 40 * len(whole)
        rows: dict[str, Any] = {}
        while page := get_json(running, f"{search}&includefield=all&offset={len(rows)}"):
            rows |= page
        assert rows.keys() == set(names)
    report("long metadata", growth, started)


def test_readers_that_sleep_hold_little(running: RunningArchive):
    large = Large("slow", 64 * MEGABYTE)
    store_by_dimse(running, large)
    wait_until(lambda: found(running, large.path), timeout_s=120, reason="visible")
    started = time.monotonic()
    with flat(running, GROWTH) as growth, ExitStack() as stack:
        sleepers = []
        for _ in range(20):
            peer = socket.create_connection(("127.0.0.1", running.http_port), timeout=120)
            stack.enter_context(peer)
            peer.sendall(f"GET {large.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert peer.recv(15) == b"HTTP/1.1 200 OK"
            sleepers.append(peer)
        wait_until(lambda: all(map(is_held_up, sleepers)), timeout_s=60, reason="all hold it up")
        wait_until(running.ready, timeout_s=60, reason="it answers others")
    report("sleepers", growth, started)
