"""What the web server does when clients are slow, go away, or send more than memory holds."""

import io
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

import synthetic
from service import wait_until
from serving import serving

pytestmark = pytest.mark.filterwarnings("ignore")

_TYPE = "multipart/related; type=application/dicom; boundary=guid"
_HEAD = b"--guid\r\nContent-Type: application/dicom\r\n\r\n"
_END = b"\r\n--guid--\r\n"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("server") / "data") as url:
        yield url


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 80), timeout=10)


def _head(url: str, length: int, media_type: str = _TYPE) -> bytes:
    return (
        f"POST /dicomweb/studies HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n"
        f"Content-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def _studies(url: str) -> int:
    answer = requests.get(f"{url}/dicomweb/studies", timeout=10)
    return 0 if answer.status_code == 204 else len(answer.json())


@pytest.mark.parametrize("media_type", [_TYPE, "application/dicom"])
def test_an_upload_that_breaks_off_leaves_nothing(url: str, media_type: str):
    data = synthetic.part10(synthetic.ct(patient_id="broken"))
    body = data if media_type == "application/dicom" else _HEAD + data + _END
    before = _studies(url)
    with _connect(url) as connection:
        connection.sendall(_head(url, len(body), media_type) + body[: len(body) - 40])
        time.sleep(0.2)
    time.sleep(0.3)
    assert _studies(url) == before
    assert requests.get(f"{url}/livez", timeout=5).status_code == 200


def test_slow_clients_delay_nobody(url: str):
    slow = [_connect(url) for _ in range(20)]
    try:
        for connection in slow:
            connection.sendall(_head(url, 10_000) + _HEAD)
        started = time.monotonic()
        answer = requests.post(
            f"{url}/dicomweb/studies",
            data=_HEAD + synthetic.part10(synthetic.ct()) + _END,
            headers={"content-type": _TYPE},
            timeout=10,
        )
        assert answer.status_code == 200
        assert time.monotonic() - started < 15
    finally:
        for connection in slow:
            connection.close()


def test_a_large_instance_goes_in_and_out_piece_by_piece(url: str):
    size = 96 << 20
    pieces = list(synthetic.large_part10(size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = requests.post(
        f"{url}/dicomweb/studies",
        data=iter(pieces),
        headers={"content-type": "application/dicom"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    location = answer.json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    total = at = 0
    source = io.BytesIO(b"".join(pieces))
    got = requests.get(location, headers={"accept": "application/dicom"}, stream=True, timeout=60)
    for chunk in got.iter_content(1 << 20):
        assert chunk == source.read(len(chunk)), at
        total += len(chunk)
    assert total == sum(map(len, pieces))
    frame = requests.get(f"{location}/frames/{size >> 20}", headers={"accept": "*/*"}, timeout=10)
    assert frame.status_code == 200
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < size + (120 << 20)  # the test holds it once, to compare; the server does not


def test_a_reader_that_goes_away_is_no_error(url: str):
    body = _HEAD + synthetic.part10(synthetic.ct(study="read", patient_id="read")) + _END
    stored = requests.post(
        f"{url}/dicomweb/studies", body, headers={"Content-Type": _TYPE}, timeout=10
    )
    assert stored.status_code == 200
    large = requests.get(f"{url}/dicomweb/studies", timeout=10).json()
    for study in large:
        path = urlsplit(study["00081190"]["Value"][0]).path
        with _connect(url) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            connection.recv(1000)
    assert requests.get(f"{url}/livez", timeout=5).status_code == 200


def test_requests_are_written_to_the_access_log(tmp_path: Path):
    with serving(tmp_path / "data") as url:
        requests.get(f"{url}/dicomweb/studies?PatientID=nobody", timeout=5)

        def counted() -> bool:
            text = requests.get(f"{url}/metrics", timeout=5).text
            return 'route="/dicomweb/studies",status="204"' in text

        wait_until(counted, timeout_s=5, reason="the request is counted")
