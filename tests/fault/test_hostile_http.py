"""Hostile HTTP: messages, addresses, headers, and clients that sleep."""

import gzip
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

import synthetic
from connections import is_given_up
from dimse import ANSWER_TIMEOUT_S
from hostile import BOUNDARY, END, HEAD, TYPE, dimse, files, http_request, stow, unharmed
from large import Large
from memory import MEGABYTE
from read_log import wait_read
from service import RunningArchive, files_below, wait_until
from serving import serving, serving_archive
from wado.archive.journal import Journals
from wado.archive.store import Reception, Source, Stored, store_group

SOON_S = 45.0
"""Long before the server gives up those who stall."""
SILENT_GROWTH = 90 * MEGABYTE
"""Each association has room for 512 KB. There are 100 in each process, and may be 128."""

# ------------------------------------------------------------------ hostile messages


def endless(piece: bytes, count: int = 400) -> Iterator[bytes]:
    """A body that repeats itself."""
    for _ in range(count):
        yield piece


def good_part10(name: str) -> bytes:
    return synthetic.part10(synthetic.ct(study=name, series=name))


MESSAGES: dict[str, tuple[Any, str, set[int]]] = {
    "cut within a part": (HEAD + good_part10("a")[:-100], TYPE, {400}),
    "cut within the headers": (HEAD[:-10], TYPE, {400}),
    "cut within the boundary": (HEAD + good_part10("b") + END[:-6], TYPE, {400}),
    "empty": (b"", TYPE, {400}),
    "no boundary named": (HEAD + END, "multipart/related; type=application/dicom", {400}),
    "another boundary": (HEAD + END, TYPE + "s", {400}),
    "a boundary of 10 KB": (HEAD + END, TYPE + "s" * 10_000, {400}),
    "no part": (END, TYPE, {400}),
    "no DICOM": (HEAD + b"hello" * 100 + END, TYPE, {409}),
    "a part that is empty": (HEAD + END, TYPE, {409}),
    "an endless header": (
        lambda: iter([HEAD[:-4], *endless(b"x" * 65536)]), TYPE, {400},
    ),
    "endless headers": (
        lambda: iter([HEAD[:-2], *endless(b"a: b\r\n" * 10_000)]), TYPE, {400},
    ),
    "an endless preamble": (lambda: endless(b"no boundary" * 6000), TYPE, {400}),
    "an endless File Meta": (
        lambda: iter([HEAD, bytes(128) + b"DICM", *endless(b"\2\0\2\1SH\0\x10" + bytes(4096))]),
        TYPE,
        {400, 409},
    ),
    "a part of another type": (
        HEAD.replace(b"application/dicom", b"text/plain") + good_part10("c") + END, TYPE, {415},
    ),
    "another Content-Type": (HEAD + END, "multipart/form-data; boundary=hostile", {415}),
    "a Content-Type that is none": (b"x", ';;;==="', {400}),
    "100,000 empty parts": (
        lambda: iter([*endless(HEAD + b"\r\n", 100_000), END]), TYPE, {413},
    ),
    "a part of nothing but beginnings of boundaries": (
        lambda: iter([HEAD, *endless(b"\r\n--hostil" * 50_000, 20), END]), TYPE, {409},
    ),
    "a part of line ends": (lambda: iter([HEAD, *endless(b"\r" * 500_000, 20), END]), TYPE, {409}),
}  # fmt: skip


@pytest.mark.parametrize("name", MESSAGES)
def test_hostile_messages_are_refused(unmoved: RunningArchive, name: str):
    body, media_type, statuses = MESSAGES[name]
    status, text = stow(unmoved, body() if callable(body) else body, media_type)
    assert status in statuses, text
    assert len(text) < 2 * MEGABYTE


def test_a_boundary_within_the_data_does_no_harm(attacked: RunningArchive):
    with unharmed(attacked):
        ds = synthetic.ct(study="within", series="within")
        ds.ImageComments = f"a\r\n-{BOUNDARY}\r\n--{BOUNDARY[:-1]}\r\n"
        data = synthetic.part10(ds)
        status, text = stow(attacked, HEAD + data + END)
        assert status == 200, text
        (path,) = (attacked.root / "default" / ds.StudyInstanceUID).rglob("*.dcm")
        assert path.read_bytes() == data


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br, gzip"])
def test_encoded_bodies_are_refused_unread(unmoved: RunningArchive, coding: str):
    bomb = gzip.compress(bytes(64 * MEGABYTE))
    status, text = stow(unmoved, bomb, Content_Encoding=coding)
    assert status == 415, text
    assert "Content-Encoding" in text


# ------------------------------------------------------------------ hostile requests

STUDIES = "/dicomweb/studies"
GOOD = synthetic.ct(study="warm", series="warm", patient_id="warm")
INSTANCE = (
    f"{STUDIES}/{GOOD.StudyInstanceUID}/series/{GOOD.SeriesInstanceUID}"
    f"/instances/{GOOD.SOPInstanceUID}"
)

REQUESTS: dict[str, tuple[str, dict[str, str], set[int]]] = {
    "a path in a UID": (f"{STUDIES}/../../etc/passwd", {}, {400, 404}),
    "encoded dots": (f"{STUDIES}/%2e%2e/series/%2e%2e/metadata", {}, {400}),
    "encoded slashes": (f"{STUDIES}/..%2f..%2fetc%2fpasswd", {}, {400, 404}),
    "encoded twice": (f"{STUDIES}/%252e%252e/metadata", {}, {400}),
    "NUL": (f"{STUDIES}/1.2%00.3/metadata", {}, {400}),
    "no UTF-8": (f"{STUDIES}/%ff%fe/metadata", {}, {400}),
    "line ends": (f"{STUDIES}/1.2%0d%0aSet-Cookie:%20a/metadata", {}, {400}),
    "a long UID": (f"{STUDIES}/{'1.' * 5000}1/metadata", {}, {400}),
    "a path of 100 KB": (f"{STUDIES}/{'1' * 100_000}", {}, {0, 414, 431, 400}),
    "bulk data elsewhere": (f"{INSTANCE}/bulkdata/../../../../../etc/passwd", {}, {400}),
    "bulk data of a like name": (f"{INSTANCE}/bulkdata/7F%C3%890010", {}, {400}),
    "a viewer's file elsewhere": ("/..%2f..%2f..%2f..%2fetc/passwd", {}, {200, 404}),
    "a viewer's file with NUL": ("/assets/a%00.js", {}, {404}),
    "100,000 frames": (f"{INSTANCE}/frames/{',1' * 30_000}"[:-1], {}, {400}),
    "frames of 100 KB": (f"{INSTANCE}/frames/{'1,' * 50_000}1", {}, {0, 414, 431, 400}),
    "frame 0": (f"{INSTANCE}/frames/0", {}, {404}),
    "frames of other digits": (f"{INSTANCE}/frames/%D9%A1", {}, {400}),
    "a large frame number": (f"{INSTANCE}/frames/{'9' * 5000}", {}, {400}),
    "a query of 60 KB": (f"{STUDIES}?PatientName={'a' * 60_000}", {}, {200, 204, 400}),
    "a query of 100 KB": (f"{STUDIES}?PatientName={'a' * 100_000}", {}, {0, 414, 431, 400}),
    "wildcards": (f"{STUDIES}?PatientName={'*a' * 2000}b", {}, {200, 204, 400}),
    "20,000 keys": (f"{STUDIES}?{'a=b&' * 15_000}", {}, {200, 204, 400}),
    "many UIDs": (f"{STUDIES}?StudyInstanceUID={'1.2,' * 10_000}3", {}, {200, 204, 400}),
    "a large limit": (f"{STUDIES}?limit={'9' * 4000}", {}, {200, 400}),
    "a negative offset": (f"{STUDIES}?offset=-1", {}, {400}),
    "NUL in a key": (f"{STUDIES}?PatientName=%00%27%22--", {}, {200, 204, 400}),
    "ranges": (INSTANCE, {"Range": "bytes=" + "0-1," * 5000 + "1-2"}, {200}),
    "a range beyond": (INSTANCE, {"Range": f"bytes={'9' * 18}-"}, {416}),
    "a long range": (INSTANCE, {"Range": f"bytes={'9' * 4000}-"}, {200}),
    "a range of nothing": (INSTANCE, {"Range": "bytes=-0"}, {416}),
    "Accept of 60 KB": (INSTANCE, {"Accept": "a/b;q=0.1," * 6000}, {200, 400, 406}),
    "Accept of parameters": (INSTANCE, {"Accept": "a/b" + ';c="d"' * 5000}, {400, 406}),
    "quotes without end": (INSTANCE, {"Accept": 'a/b;c="' + '\\"' * 20_000}, {400, 406}),
    "another tenant": (STUDIES, {"X-Tenant": "../../etc"}, {400}),
    "a tenant that is a folder": (STUDIES, {"X-Tenant": "metadata"}, {400}),
    "a host that is none": (STUDIES, {"Host": "a b<c>"}, {200, 400}),
    "a large header": (STUDIES, {"X-Large": "x" * 300_000}, {200, 400, 431}),
    "a very large header": (STUDIES, {"X-Large": "x" * 3_000_000}, {0, 400, 431}),
    "many headers": (STUDIES, {f"X-{n}": "x" for n in range(5000)}, {0, 400, 431}),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_hostile_requests_are_answered(unmoved: RunningArchive, name: str):
    path, headers, statuses = REQUESTS[name]
    status, text = http_request(unmoved, "GET", path, **headers)
    assert status in statuses, text[:1000]
    assert "root:" not in text


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "BREW" * 100, "get"])
def test_unknown_methods_are_refused(unmoved: RunningArchive, method: str):
    status, _ = http_request(unmoved, method, STUDIES)
    assert status in {0, 400, 405, 414, 501}


def test_what_floods_the_access_log_is_cut(unmoved: RunningArchive):
    started = time.monotonic()
    for _ in range(1500):
        http_request(unmoved, "GET", f"{STUDIES}/1/{'x' * 30_000}", User_Agent="y" * 30_000)
        if time.monotonic() - started > 60:
            break
    wait_read(unmoved)
    journal = sum(p.stat().st_size for p in files_below(unmoved.root / "log"))
    assert journal < 30 * MEGABYTE


def connections(archive: RunningArchive, count: int, port: int, stack: ExitStack) -> list[Any]:
    """Open many connections, and keep them."""
    return [
        stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=ANSWER_TIMEOUT_S))
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"GET /dicomweb/studies HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"POST /dicomweb/studies HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\nContent-Type: "
        + TYPE.encode()
        + b"\r\n\r\n"
        + HEAD,
        b"GET /dicomweb/studies HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["nothing", "half a header", "half a body", "idle after a request"],
)
def test_clients_that_sleep_delay_nobody(unmoved: RunningArchive, begin: bytes):
    with ExitStack() as stack:
        for client in connections(unmoved, 1200, unmoved.http_port, stack):
            client.sendall(begin)
        started = time.monotonic()
        assert http_request(unmoved, "GET", STUDIES)[0] == 200
        assert time.monotonic() - started < SOON_S


def test_silent_dimse_peers_delay_nobody(attacked: RunningArchive):
    before = files(attacked)
    with unharmed(attacked, SILENT_GROWTH), ExitStack() as stack:
        connections(attacked, 200, attacked.dimse_port, stack)
        started = time.monotonic()
        assert dimse(attacked, synthetic.data_set(GOOD), GOOD.SOPInstanceUID).status == 0
        assert time.monotonic() - started < SOON_S
    assert files(attacked) == before


# ------------------------------------------------------------------ transfers that stall


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[str]:
    """Address of a server that waits half a second for the next byte."""
    with serving(tmp_path / "data", stall_timeout_s=0.5) as url:
        yield url


def connected(url: str, *lines: str) -> socket.socket:
    """Connect and send the head of a request."""
    parts = urlsplit(url)
    client = socket.create_connection(
        (parts.hostname or "", parts.port or 80), timeout=ANSWER_TIMEOUT_S
    )
    client.sendall("".join(f"{line}\r\n" for line in (*lines, "Host: x", "")).encode())
    return client


def test_an_upload_that_stalls_is_given_up(impatient: str, tmp_path: Path):
    head = ("POST /dicomweb/studies HTTP/1.1", f"Content-Type: {TYPE}", "Content-Length: 999999")
    with connected(impatient, *head) as client:
        client.sendall(HEAD + synthetic.part10(GOOD))
        answer = client.recv(1000)
        assert answer.startswith(b"HTTP/1.1 400"), answer
    wait_until(lambda: not files_below(tmp_path, "*.part"), timeout_s=60, reason="nothing is left")


def test_a_download_that_stalls_is_given_up(tmp_path: Path):
    large = Large("stalls", 64 * MEGABYTE)
    with serving_archive(tmp_path / "data", stall_timeout_s=0.5) as (url, archive):
        # Not by STOW-RS: a busy machine stalls for half a second by itself.
        reception = Reception(archive, "default", Source())
        for piece in large.part10():
            reception.write(piece)
        reception.finish()
        (stored,) = store_group(archive, Journals(archive.store), [reception])
        assert isinstance(stored, Stored), stored
        wait_until(
            lambda: requests.get(f"{url}{large.path}/metadata", timeout=60).status_code == 200,
            timeout_s=60,
            reason="it is visible",
        )
        size = 0
        with connected(url, f"GET {large.path} HTTP/1.1") as client:
            assert client.recv(15) == b"HTTP/1.1 200 OK"
            wait_until(lambda: is_given_up(client), timeout_s=60, reason="it is given up")
            while piece := client.recv(MEGABYTE):
                size += len(piece)
    assert size < 32 * MEGABYTE, "what lay in buffers, and then the end"
