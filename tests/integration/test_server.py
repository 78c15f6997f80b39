"""What the web server does when clients are slow, go away, or send more than memory holds."""

import hashlib
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from pydicom.dataset import Dataset

import synthetic
from service import wait_until
from serving import serving

pytestmark = pytest.mark.filterwarnings("ignore")

_TYPE = "multipart/related; type=application/dicom; boundary=guid"
_HEAD = b"--guid\r\nContent-Type: application/dicom\r\n\r\n"
_END = b"\r\n--guid--\r\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "data"


@pytest.fixture(scope="module")
def url(root: Path) -> Iterator[str]:
    with serving(root) as url:
        yield url


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 80), timeout=60)


def _head(url: str, length: int, media_type: str = _TYPE) -> bytes:
    return (
        f"POST /dicomweb/studies HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n"
        f"Content-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def _post(url: str, ds: Dataset) -> requests.Response:
    body = _HEAD + synthetic.part10(ds) + _END
    headers = {"content-type": _TYPE}
    return requests.post(f"{url}/dicomweb/studies", body, headers=headers, timeout=60)


def _studies(url: str, patient_id: str) -> list[dict[str, Any]]:
    asked = {"PatientID": patient_id}
    answer = requests.get(f"{url}/dicomweb/studies", params=asked, timeout=60)
    return [] if answer.status_code == 204 else list(answer.json())


@pytest.mark.parametrize("media_type", [_TYPE, "application/dicom"])
def test_an_upload_that_breaks_off_leaves_nothing(url: str, root: Path, media_type: str):
    ds = synthetic.ct(study="broken", patient_id="broken")
    data = synthetic.part10(ds)
    body = data if media_type == "application/dicom" else _HEAD + data + _END
    with _connect(url) as connection:
        connection.sendall(_head(url, len(body), media_type) + body[: len(body) - 40])
        connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while connection.recv(1 << 16):  # to its end: then the server knows
                pass
    assert _post(url, synthetic.ct(study="whole", patient_id="whole")).status_code == 200
    assert len(_studies(url, "whole")) == 1
    wait_until(lambda: not list(root.rglob("*.part")), timeout_s=60, reason="nothing is left")
    assert not list(root.rglob(f"{ds.SOPInstanceUID}*"))
    assert _studies(url, "broken") == []
    assert requests.get(f"{url}/livez", timeout=60).status_code == 200


def test_slow_clients_delay_nobody(url: str):
    slow = [_connect(url) for _ in range(20)]
    try:
        for connection in slow:
            connection.sendall(_head(url, 10_000) + _HEAD)
        assert _post(url, synthetic.ct()).status_code == 200
        for connection in slow:  # each waits still: nothing came, not even the end
            connection.settimeout(0)
            with pytest.raises(BlockingIOError):
                connection.recv(1)
    finally:
        for connection in slow:
            connection.close()


def test_a_large_instance_goes_in_and_out_piece_by_piece(url: str):
    size = 96 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = requests.post(
        f"{url}/dicomweb/studies",
        data=synthetic.large_part10(size),
        headers={"content-type": "application/dicom"},
        timeout=120,
    )
    assert answer.status_code == 200, answer.text
    location = answer.json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    sent, got = hashlib.sha256(), hashlib.sha256()
    for piece in synthetic.large_part10(size):
        sent.update(piece)
    accept = {"accept": "application/dicom"}
    with requests.get(location, headers=accept, stream=True, timeout=120) as download:
        for chunk in download.iter_content(1 << 20):
            got.update(chunk)
    assert got.digest() == sent.digest()
    frame = requests.get(f"{location}/frames/{size >> 20}", headers={"accept": "*/*"}, timeout=60)
    assert frame.status_code == 200
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < size  # whoever held it once, the server or this test, would need more


def test_a_reader_that_goes_away_is_no_error(url: str):
    assert _post(url, synthetic.ct(study="read", patient_id="read")).status_code == 200
    (study,) = _studies(url, "read")
    path = urlsplit(study["00081190"]["Value"][0]).path
    for _ in range(5):
        with _connect(url) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            connection.recv(1000)
    assert requests.get(f"{url}/livez", timeout=60).status_code == 200


def test_requests_are_written_to_the_access_log(tmp_path: Path):
    with serving(tmp_path / "data") as url:
        requests.get(f"{url}/dicomweb/studies?PatientID=nobody", timeout=60)

        def counted() -> bool:
            text = requests.get(f"{url}/metrics", timeout=60).text
            return 'route="/dicomweb/studies",status="204"' in text

        wait_until(counted, timeout_s=60, reason="the request is counted")
