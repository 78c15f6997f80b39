"""Memory stays flat whatever the web asks of long instances and studies, and whoever asks slowly.

Short in the suite; ``WADO_TEST_LARGE=1`` asks it of instances of 4 GB and a study of 5,000.
"""

import json
import os
import shutil
import socket
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID

import stow
import synthetic
from large import (
    BOUNDARY,
    EXPLICIT,
    IMPLICIT,
    RLE,
    TIMEOUT_S,
    Form,
    Large,
    digest,
    everything_agrees,
    found,
    get,
    store_by_stow,
)
from memory import MEGABYTE, PixelWatch, flat, wait_settled
from service import RunningArchive, wait_until

LARGE = os.environ.get("WADO_TEST_LARGE") == "1"
SIZE = (4095 if LARGE else 96) * MEGABYTE
SMALL = 8 * MEGABYTE
INSTANCES = 5000 if LARGE else 200
SIDE = 256 if LARGE else 64
GROWTH = 100 * MEGABYTE
"""The issue allows 200 MB."""
FAR_FROM_WHOLE = 60 * MEGABYTE
"""Who held an instance as a whole would take more; a little is measured."""
READERS = 50 if LARGE else 20
SOON_S = 45.0
"""Long before a server gives up those who stall."""
DICOM = "application/dicom"
JPEG_LS = "1.2.840.10008.1.2.4.80"
TINY = "viewport=16,16"


class Site(NamedTuple):
    """An archive, and who looks at its pixel workers."""

    archive: RunningArchive
    watch: PixelWatch

    @contextmanager
    def flat(self, what: str, limit: int = GROWTH) -> Iterator[None]:
        """As `memory.flat`; prints time and growth (``pytest -s``)."""
        started = time.monotonic()
        with flat(self.archive, limit, self.watch) as growth:
            yield
            took = time.monotonic() - started
        told = ", ".join(f"{n} {s / MEGABYTE:.0f}" for n, s in sorted(growth.items()) if s)
        print(f"{what}: {took:.1f} s; peaks grew by MB: {told or 0}")  # noqa: T201 - figures


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An archive that has done everything once: what it needs is loaded."""
    root = tmp_path_factory.mktemp("memory-web") / "data"
    quick = {"WADO_CONSUMER__LOAD_INTERVAL_S": "0.1"}  # storage commitment waits for that
    with RunningArchive(root, env=quick) as archive, PixelWatch(archive) as watch:
        warm = Site(archive, watch)
        forms: tuple[Form, ...] = ("native", "implicit", "rle", "rle")
        for turn, form in enumerate(forms):  # there are two serving processes
            ask_all(warm, Large(f"warm {turn}", SMALL, form))
        wait_settled(archive)
        watch.look()
        assert watch.peak, "pixel workers are seen"
        yield warm
        everything_agrees(archive)
    shutil.rmtree(root)


def size_of(pieces: Iterable[bytes]) -> int:
    return sum(map(len, pieces))


def related(media_type: str, syntax: str = "") -> str:
    """Accept header for multipart."""
    return f'multipart/related; type="{media_type}"' + (syntax and f"; transfer-syntax={syntax}")


def pixels(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    """Cut native Pixel Data of `count` bytes out of an instance, alone or in an envelope."""
    marker = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, count)
    head = b""
    while marker not in head:
        head += next(pieces)
    piece = head.partition(marker)[2]
    while count:
        yield piece[:count]
        count -= len(piece[:count])
        piece = next(pieces) if count else b""
    for _ in pieces:
        pass


# ------------------------------------------------------------------ one large instance


def ask_all(site: Site, large: Large, limit: int = GROWTH) -> None:
    """Store an instance, and ask of it whatever can be asked; delete it."""
    archive = site.archive
    with site.flat(f"{large.form} STOW", limit):
        store_by_stow(archive, large, chunked=large.form != "native")
        wait_until(lambda: found(archive, large.path), timeout_s=120, reason="visible")
    for what, ask in (
        ("metadata", ask_metadata),
        ("as stored", ask_stored),
        ("explicit", ask_explicit),
        ("frames", ask_frames),
        ("bulk data", ask_bulk_data),
        ("RLE", ask_run_length),
        ("rendered", ask_rendered),
        ("animated", ask_animation),
        ("rendered study", ask_rendered_study),
        ("commitment", commit),
        ("DELETE", delete),
    ):
        with site.flat(f"{large.form} {what}", limit):
            ask(archive, large)


def ask_metadata(archive: RunningArchive, large: Large) -> None:
    for level in (large.path, large.series, large.study):
        (metadata,) = json.loads(b"".join(get(archive, f"{level}/metadata")))
        assert metadata["00280008"]["Value"] == [large.frames]
        xml = b"".join(get(archive, f"{level}/metadata", related("application/dicom+xml")))
        assert b"NativeDicomModel" in xml


def ask_stored(archive: RunningArchive, large: Large) -> None:
    """Byte for byte, whole and a range; series and study."""
    stored = digest(large.part10())
    if large.form != "implicit":  # which is never sent
        whole = f"{DICOM}; transfer-syntax=*"
        assert digest(get(archive, large.path, whole)) == stored
        for level in (large.series, large.study):
            assert size_of(get(archive, level, related(DICOM, "*"))) > large.size
        middle = large.size // 2
        headers = {"Range": f"bytes={middle}-{middle + 999}"}
        assert size_of(get(archive, large.path, whole, headers=headers)) == 1000


def ask_explicit(archive: RunningArchive, large: Large) -> None:
    """Explicit VR Little Endian, the default: the instance's pixels are its last bytes."""
    native = digest(large.native())
    for level, accept in (
        (large.path, DICOM),
        (large.study, related(DICOM)),
        (large.series, related(DICOM, EXPLICIT)),
    ):
        assert digest(pixels(get(archive, level, accept), large.size)) == native


def ask_frames(archive: RunningArchive, large: Large) -> None:
    """One in the middle, many, and the last, native."""
    octets = "application/octet-stream"
    syntax = f"; transfer-syntax={EXPLICIT}"
    for number in (large.frames // 2, large.frames):
        (frame,) = [b"".join(get(archive, f"{large.path}/frames/{number}", octets + syntax))]
        assert frame == large.frame(number)
    many = ",".join(map(str, range(1, min(large.frames, 1000) + 1)))
    frames = get(archive, f"{large.path}/frames/{many}", related(octets) + syntax)
    assert size_of(frames) > min(large.frames, 1000) * MEGABYTE
    frames = get(archive, f"{large.path}/frames/{many}", related("image/jls", JPEG_LS))
    assert size_of(frames) > large.frames


def ask_bulk_data(archive: RunningArchive, large: Large) -> None:
    """One value, and the collections of three levels."""
    octets = "application/octet-stream"
    assert size_of(get(archive, f"{large.path}/bulkdata/7FE00010", octets)) >= large.size
    for path in ("bulkdata", "pixeldata"):
        for level in (large.path, large.series, large.study):
            assert size_of(get(archive, f"{level}/{path}")) >= large.size


def ask_run_length(archive: RunningArchive, large: Large) -> None:
    """Encoded while it is sent, or as stored."""
    end = size_of(get(archive, large.path, f"{DICOM}; transfer-syntax={RLE}"))
    assert end > large.frames * 1000


def ask_rendered(archive: RunningArchive, large: Large) -> None:
    """Single pictures, from the middle."""
    for path in (
        f"{large.path}/frames/{large.frames // 2}/rendered",
        f"{large.path}/rendered",
        f"{large.path}/thumbnail",
        f"{large.series}/thumbnail",
        f"{large.study}/thumbnail",
    ):
        assert b"".join(get(archive, path, "image/jpeg")).startswith(b"\xff\xd8")
    png = get(archive, f"{large.path}/frames/{large.frames}/rendered", "image/png")
    assert b"".join(png).startswith(b"\x89PNG")


def ask_animation(archive: RunningArchive, large: Large) -> None:
    """All frames in one GIF."""
    gif = b"".join(get(archive, f"{large.path}/rendered?{TINY}", "image/gif"))
    assert gif.startswith(b"GIF89a")
    assert gif.endswith(b";")
    assert gif.count(b"\x21\xf9\x04") >= large.frames


def ask_rendered_study(archive: RunningArchive, large: Large) -> None:
    """All frames as parts."""
    parts = b"".join(get(archive, f"{large.study}/rendered?{TINY}", related("image/jpeg")))
    assert parts.count(b"\r\nContent-Type: image/jpeg") == large.frames


def send(
    archive: RunningArchive, method: str, path: str, body: Any = None
) -> tuple[int, dict[str, Any]]:
    """Send a request of DICOM JSON; status and document."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(
        f"{archive.http}{path}", data, {"Content-Type": "application/dicom+json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        text = answer.read()
        return answer.status, json.loads(text) if text else {}


def commit(archive: RunningArchive, *instances: Large | Dataset) -> None:
    """Storage commitment: the files are read again."""
    sets = [one.ds if isinstance(one, Large) else one for one in instances]
    path = f"/dicomweb/commitment-requests/{synthetic.uid('commit', sets[0].SOPInstanceUID)}"
    references = [
        {
            "00081150": {"vr": "UI", "Value": [ds.SOPClassUID]},
            "00081155": {"vr": "UI", "Value": [ds.SOPInstanceUID]},
        }
        for ds in sets
    ]
    body = {"00081199": {"vr": "SQ", "Value": references}}
    status, result = send(archive, "POST", path, body)
    deadline = time.monotonic() + TIMEOUT_S
    while status == 202 and time.monotonic() < deadline:
        time.sleep(0.1)
        status, result = send(archive, "GET", path)
    assert status == 200
    assert result["00081199"]["Value"] == references
    assert "00081198" not in result


def delete(archive: RunningArchive, large: Large) -> None:
    """Delete the study."""
    gone(archive, large.study)


def gone(archive: RunningArchive, study: str) -> None:
    assert send(archive, "DELETE", study)[0] in (200, 202, 204)

    def is_gone() -> bool:
        try:
            send(archive, "GET", f"{study}/metadata")
        except urllib.error.HTTPError as e:
            return e.code == 410
        return False

    wait_until(is_gone, timeout_s=120, reason="deleted")


@pytest.mark.parametrize("form", ["native", "implicit", "rle"])
def test_whatever_is_asked_of_a_large_instance_is_done_with_flat_memory(site: Site, form: Form):
    with site.flat(f"{form} {SIZE // MEGABYTE} MB", FAR_FROM_WHOLE):
        ask_all(site, Large("large", SIZE, form), FAR_FROM_WHOLE)


# ------------------------------------------------------------------ one long study


def long_study(count: int) -> Iterator[Dataset]:
    """Make slices, every other one in Implicit VR; the same data set, changed each time."""
    ds = synthetic.ct(rows=SIDE, columns=SIDE, study="long", series="long", patient_id="long web")
    for number in range(count):
        ds.InstanceNumber = number + 1
        ds.SOPInstanceUID = synthetic.uid("long web", number)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.file_meta.TransferSyntaxUID = UID(IMPLICIT if number % 2 else EXPLICIT)
        yield ds


def store_study(archive: RunningArchive, count: int) -> list[Dataset]:
    """Store it in one request; what names the instances."""
    names = []

    def body() -> Iterator[bytes]:
        for ds in long_study(count):
            name = Dataset()
            name.SOPClassUID, name.SOPInstanceUID = str(ds.SOPClassUID), str(ds.SOPInstanceUID)
            names.append(name)
            yield f"--{BOUNDARY}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
            yield synthetic.part10(ds) + b"\r\n"
        yield f"--{BOUNDARY}--\r\n".encode()

    content_type = f"{related(DICOM)}; boundary={BOUNDARY}"
    request = urllib.request.Request(
        f"{archive.dicomweb}/studies", body(), {"Content-Type": content_type}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        assert answer.status == 200, answer.read()
        assert len(answer.read()) > count * 100
    return names


def test_whatever_is_asked_of_a_long_study_is_done_with_flat_memory(site: Site):
    archive, count = site.archive, INSTANCES
    ds = next(long_study(1))
    study = f"/dicomweb/studies/{ds.StudyInstanceUID}"
    series = f"{study}/series/{ds.SeriesInstanceUID}"
    least = count * SIDE * SIDE * 2
    with site.flat(f"{count} instances STOW"):
        names = store_study(archive, count)
        last = f"{series}/instances/{names[-1].SOPInstanceUID}"
        wait_until(lambda: found(archive, last), timeout_s=120, reason="visible")
    with site.flat("study metadata"):
        for level in (study, series):
            assert len(json.loads(b"".join(get(archive, f"{level}/metadata")))) == count
            xml = get(archive, f"{level}/metadata", related("application/dicom+xml"))
            assert size_of(xml) > count * 1000
    with site.flat("study QIDO"):
        rows = b"".join(get(archive, f"{study}/instances?limit=1000&includefield=all"))
        assert len(json.loads(rows)) == min(count, 1000)
    for what, path, accept in (
        ("explicit", study, related(DICOM)),
        ("explicit", series, related(DICOM)),
        ("RLE", series, related(DICOM, RLE)),
        ("any", study, related(DICOM, "*")),
        ("bulk data", f"{study}/bulkdata", "*/*"),
        ("pixel data", f"{series}/pixeldata", "*/*"),
    ):
        with site.flat(f"study {what}"):
            size = size_of(get(archive, path, accept))
            assert size > (count * 1000 if what == "RLE" else least)
    with site.flat("study rendered"):
        parts = b"".join(get(archive, f"{study}/rendered?{TINY}", related("image/jpeg")))
        assert parts.count(b"\r\nContent-Type: image/jpeg") == count
        for level in (study, series):
            assert size_of(get(archive, f"{level}/thumbnail"))
    with site.flat("study commitment"):
        commit(archive, *names)
    with site.flat("study DELETE"):
        gone(archive, study)


# ------------------------------------------------------------------ slow, and gone


@pytest.fixture(scope="module")
def slow(site: Site) -> tuple[Large, Large]:
    """A native and a compressed instance that is read slowly."""
    size = 16 * MEGABYTE
    both = Large("slow", size, noisy=True), Large("slow", size, "rle", noisy=True)
    for large in both:
        store_by_stow(site.archive, large, chunked=True)
        wait_until(lambda: found(site.archive, large.path), timeout_s=120, reason="visible")  # noqa: B023 - called at once
    return both


def begin(archive: RunningArchive, path: str, accept: str) -> socket.socket:
    """Send a request; nothing of the answer is read, and little of it fits into the socket."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.settimeout(120)
    peer.connect(("127.0.0.1", archive.http_port))
    peer.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n".encode())
    return peer


def served(archive: RunningArchive, large: Large, within_s: float) -> None:
    """What costs nothing, a search and a new picture are there soon."""
    started = time.monotonic()
    wait_until(archive.ready, timeout_s=within_s, reason="it is ready")
    study = f"/dicomweb/studies?PatientID={large.ds.PatientID}"
    assert len(json.loads(b"".join(get(archive, study)))) == 1
    side = 20 + int(started * 1000) % 100  # not asked for before
    picture = f"{large.path}/frames/2/rendered?viewport={side},{side}"
    assert size_of(get(archive, picture, "image/jpeg"))
    assert time.monotonic() - started < within_s


@pytest.mark.parametrize("what", ["stored", "transcoded", "encoded", "rendered", "animated"])
def test_many_who_read_slowly_hold_little(site: Site, slow: tuple[Large, Large], what: str):
    archive, (native, rle) = site.archive, slow
    path, accept = {
        "stored": (native.path, DICOM),
        "transcoded": (rle.path, DICOM),
        "encoded": (native.series, related(DICOM, RLE)),
        "rendered": (f"{native.study}/rendered", related("image/png")),
        "animated": (f"{native.path}/rendered", "image/gif"),
    }[what]
    with site.flat(f"{READERS} slow readers, {what}"), ExitStack() as stack:
        peers = [stack.enter_context(begin(archive, path, accept)) for _ in range(READERS)]
        for peer in peers:
            assert peer.recv(15) == b"HTTP/1.1 200 OK"
        served(archive, native, SOON_S)
        for peer in peers[:5]:  # who reads on is served, whoever else does not
            size = 0
            while size <= 50_000:
                piece = peer.recv(MEGABYTE)
                assert piece, size
                size += len(piece)


def test_many_who_leave_in_the_middle_leave_nothing_running(site: Site, slow: tuple[Large, Large]):
    archive, (native, rle) = site.archive, slow
    for path, accept in (
        (rle.path, DICOM),
        (native.path, f"{DICOM}; transfer-syntax={RLE}"),
        (f"{native.study}/rendered", related("image/png")),
        (f"{native.path}/rendered", "image/gif"),
    ):
        with site.flat(f"{READERS} left {path[-20:]} {accept}"):
            for answered in (False, True):
                for peer in [begin(archive, path, accept) for _ in range(READERS)]:
                    if answered:
                        assert peer.recv(15) == b"HTTP/1.1 200 OK"
                    peer.close()
            served(archive, native, SOON_S)


def test_many_who_send_slowly_hold_little(site: Site):
    archive = site.archive
    large = Large("sent slowly", SMALL)
    half = b"".join(large.part10())[: SMALL // 2]
    head = (
        "POST /dicomweb/studies HTTP/1.1\r\nHost: x\r\n"
        f"Content-Type: {stow.content_type(DICOM)}\r\nContent-Length: {SMALL}\r\n\r\n"
        f"--{stow.BOUNDARY}\r\nContent-Type: {DICOM}\r\n\r\n"
    ).encode()
    with site.flat(f"{READERS} slow senders"):
        with ExitStack() as stack:
            for _ in range(READERS):
                peer = socket.create_connection(("127.0.0.1", archive.http_port), timeout=120)
                stack.enter_context(peer).sendall(head + half)
            wait_until(archive.ready, timeout_s=SOON_S, reason="it answers others")
        incoming = archive.root / "incoming"
        wait_until(lambda: not list(incoming.iterdir()), timeout_s=60, reason="nothing is left")
    wait_until(archive.ready, timeout_s=SOON_S, reason="it answers")
