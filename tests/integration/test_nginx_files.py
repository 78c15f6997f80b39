"""What nginx sends itself: files that a server left to it, and the viewer; and what it encrypts."""

import gzip
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import requests
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage

import synthetic
from backing.program import free_port
from dimse import RawPeer
from nginx_site import Site, certificate, trusting
from service import Service, wait_until
from stow import BOUNDARY, content_type
from wado.services.association import Peer

DICOM = {"accept": "application/dicom"}
OF_THE_CONNECTION = {"date", "server", "connection", "keep-alive", "transfer-encoding"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("files")) as site:
        yield site


@pytest.fixture(scope="module")
def large(site: Site) -> Dataset:
    """An image of half a megabyte: long enough to be left to nginx."""
    return stored(site, synthetic.ct_series(1, 512, 512, study="large")[0])


def stored(site: Site, *datasets: Dataset) -> Dataset:
    head = b"\r\n--%s\r\nContent-Type: application/dicom\r\n\r\n" % BOUNDARY.encode()
    body = b"".join(head + synthetic.part10(ds) for ds in datasets)
    url = f"{site.dicomweb}/studies"
    headers = {"content-type": content_type("application/dicom")}
    body += b"\r\n--%s--" % BOUNDARY.encode()
    assert requests.post(url, data=body, headers=headers, timeout=120).status_code == 200
    return datasets[0]


def in_metadata(site: Site, ds: Dataset) -> int:
    """How many instances the metadata of the series tell of."""
    url = f"{site.http}{series_of(ds)}/metadata"
    answer = requests.get(url, headers={"accept": "application/dicom+json"}, timeout=60)
    return len(answer.json()) if answer.status_code == 200 else 0


def series_of(ds: Dataset) -> str:
    return f"/dicomweb/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"


def path_of(ds: Dataset) -> str:
    return f"{series_of(ds)}/instances/{ds.SOPInstanceUID}"


def both(
    site: Site, path: str, headers: Mapping[str, str] = DICOM, *, method: str = "GET", port: int = 0
) -> tuple[requests.Response, requests.Response]:
    """Ask a server itself and nginx, under the same address."""
    given = {"host": "pacs.example", "accept-encoding": "identity", **headers}
    urls = (site.direct(), f"http://127.0.0.1:{port or site.http_port}")
    one, two = (requests.request(method, url + path, headers=given, timeout=60) for url in urls)
    return one, two


def comparable(answer: requests.Response) -> Mapping[str, str]:
    found = {name.lower(): value for name, value in answer.headers.items()}
    return {name: value for name, value in found.items() if name not in OF_THE_CONNECTION}


def is_left(site: Site, path: str, **headers: str) -> bool:
    """Whether a server leaves the body of its answer to nginx."""
    wish = {"accept-encoding": "identity", **headers, "x-sendfile-type": "X-Accel-Redirect"}
    answer = requests.get(site.direct() + path, headers=wish, timeout=60)
    return "x-accel-redirect" in answer.headers and not answer.content


# ------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, 200),
        ({"range": "bytes=0-99"}, 206),
        ({"range": "bytes=1000-400000"}, 206),
        ({"range": "bytes=200000-"}, 206),
        ({"range": "bytes=-300000"}, 206),
        ({"range": "bytes=99999999-"}, 416),
        ({"range": "bytes=0-9,20-29"}, 200),
        ({"range": "lines=1-2"}, 200),
        ({"range": "bytes=0-400000", "if-range": '"another"'}, 200),
        ({"if-modified-since": "Fri, 01 Jan 2100 00:00:00 GMT"}, 200),
        ({"if-none-match": '"another"'}, 200),
        ({"origin": "https://viewer.example"}, 200),
    ],
)
def test_an_image_is_the_same_from_nginx(site: Site, large: Dataset, asked, status):
    for _ in range(2):  # a prepared answer is the same, too
        direct, proxied = both(site, path_of(large), {**DICOM, **asked})
        assert (direct.status_code, proxied.status_code) == (status, status)
        assert proxied.content == direct.content
        assert comparable(proxied) == comparable(direct)


def test_it_is_nginx_that_sends_it(site: Site, large: Dataset):
    assert is_left(site, path_of(large), **DICOM)
    assert is_left(site, path_of(large), **DICOM, range="bytes=0-299999")
    assert not is_left(site, path_of(large), **DICOM, range="bytes=0-99")
    assert not is_left(site, f"{path_of(large)}/frames/1")
    assert not is_left(site, path_of(large))  # in an envelope
    plain = requests.get(site.direct() + path_of(large), headers=DICOM, timeout=60)
    assert plain.content == synthetic.part10(large)
    assert "x-accel-redirect" not in plain.headers


@pytest.mark.parametrize("name", ["if-none-match", "if-range"])
def test_the_entity_tag_holds_on_both_ways(site: Site, large: Dataset, name: str):
    etag = requests.get(site.http + path_of(large), headers=DICOM, timeout=60).headers["etag"]
    asked = {name: etag, **({"range": "bytes=0-300000"} if name == "if-range" else {})}
    direct, proxied = both(site, path_of(large), {**DICOM, **asked})
    assert direct.status_code == proxied.status_code == (206 if name == "if-range" else 304)
    assert proxied.content == direct.content
    assert comparable(proxied) == comparable(direct)


def test_head_is_the_same_from_nginx(site: Site, large: Dataset):
    direct, proxied = both(site, path_of(large), method="HEAD")
    assert comparable(proxied) == comparable(direct)
    assert proxied.headers["content-length"] == str(len(synthetic.part10(large)))


def test_wado_uri_is_the_same_from_nginx(site: Site, large: Dataset):
    path = (
        f"/wado?requestType=WADO&studyUID={large.StudyInstanceUID}&contentType=application/dicom"
        f"&seriesUID={large.SeriesInstanceUID}&objectUID={large.SOPInstanceUID}"
    )
    assert is_left(site, path)
    direct, proxied = both(site, path, {})
    assert proxied.content == direct.content == synthetic.part10(large)
    assert comparable(proxied) == comparable(direct)


def test_metadata_documents_are_the_same_from_nginx(site: Site):
    """Those of images name addresses of bulk data, so each is written for who asks."""
    series = [
        synthetic.instance(BasicTextSRStorage, study="documents", number=n) for n in range(1, 1201)
    ]
    for ds in series:  # hard to compress, so that the document is long
        ds.ImageComments = " ".join(synthetic.uid(ds.SOPInstanceUID, n) for n in range(16))
    ds = stored(site, *series)
    path = f"{series_of(ds)}/metadata"
    json = {"accept": "application/dicom+json"}
    # A document of the first of them is not the one that is waited for.
    count = len(series)
    wait_until(lambda: in_metadata(site, ds) == count, timeout_s=60, reason="all are catalogued")
    wait_until(lambda: is_left(site, path, **json), timeout_s=60, reason="the document is written")
    for coding in ("identity", "gzip"):
        direct, proxied = both(site, path, {**json, "accept-encoding": coding})
        assert proxied.content == direct.content
        assert len(proxied.json()) == len(series)
        ranges = {"accept-ranges": "bytes"}  # which nginx gives of all files
        assert comparable(proxied) == {**comparable(direct), **ranges}
        assert proxied.headers.get("content-encoding", "identity") == coding


@pytest.mark.parametrize(
    "way", ["/_files", "//_files", "/dicomweb/../_files", "/%5ffiles", "/x/..//_files", "/_files/."]
)
def test_nobody_reaches_the_files_from_outside(site: Site, large: Dataset, way: str):
    file = f"default/{large.StudyInstanceUID}/{large.SeriesInstanceUID}/{large.SOPInstanceUID}.dcm"
    assert (site.root / file).is_file()
    with socket.create_connection(("127.0.0.1", site.http_port), 60) as client:
        client.sendall(f"GET {way}/{file} HTTP/1.0\r\nhost: pacs\r\n\r\n".encode())
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.split()[1] in {b"400", b"404"}
    assert b"DICM" not in answer


def test_what_nginx_cannot_read_the_server_sends(site: Site, large: Dataset, tmp_path: Path):
    port = free_port()
    with site.another(
        "blind", storage={"root": tmp_path}, nginx={"http_listen": f"127.0.0.1:{port}"}
    ):
        direct, proxied = both(site, path_of(large), port=port)
        assert proxied.content == direct.content == synthetic.part10(large)
        assert comparable(proxied) == comparable(direct)
        direct, proxied = both(
            site, path_of(large), {**DICOM, "range": "bytes=9-300008"}, port=port
        )
        assert (proxied.status_code, proxied.content) == (206, direct.content)


def test_a_file_that_is_gone_is_not_there_through_nginx(site: Site):
    ds = stored(site, synthetic.ct_series(1, 512, 512, study="gone")[0])
    for _ in range(4):  # both servers have the answer prepared
        assert requests.get(site.http + path_of(ds), headers=DICOM, timeout=60).ok
    (file,) = site.root.rglob(f"{ds.SOPInstanceUID}.dcm")
    file.unlink()
    answer = requests.get(site.http + path_of(ds), headers=DICOM, timeout=60)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


def test_what_is_not_there_is_not_there_through_nginx(site: Site, large: Dataset):
    direct, proxied = both(site, path_of(large) + "9")
    assert direct.status_code == proxied.status_code == 404
    assert comparable(proxied)["content-type"] == comparable(direct)["content-type"]


# ------------------------------------------------------------------ the viewer


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A viewer as Vite builds it."""
    folder = tmp_path / "viewer"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>the viewer")
    (folder / "assets" / "main-AbCd1234.js").write_text("plain()")
    (folder / "assets" / "main-AbCd1234.js.gz").write_bytes(gzip.compress(b"packed()"))
    return folder


@pytest.mark.parametrize("prefix", ["", "/pacs"])
def test_the_viewer_comes_from_nginx(site: Site, built: Path, prefix: str):
    port = free_port()
    http = f"http://127.0.0.1:{port}{prefix}"
    settings = {"http_listen": f"127.0.0.1:{port}", "static_folder": str(built)}
    with site.another("static", server={"root_path": prefix}, nginx=settings):
        for page in ("/", "/index.html", "/studies/1.2.840", "/deep/er/page"):
            answer = requests.get(http + page, timeout=60)
            assert answer.text.endswith("the viewer")
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert answer.headers["cache-control"] == "no-cache"
            assert answer.headers["x-content-type-options"] == "nosniff"
        script = f"{http}/assets/main-AbCd1234.js"
        packed = requests.get(script, headers={"accept-encoding": "gzip"}, timeout=60)
        assert packed.text == "packed()"
        assert packed.headers["content-type"] == "text/javascript; charset=utf-8"
        assert packed.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert packed.headers["vary"].lower() == "accept-encoding"
        plain = requests.get(script, headers={"accept-encoding": "identity"}, timeout=60)
        assert plain.text == "plain()"
        again = {"accept-encoding": "identity", "if-none-match": plain.headers["etag"]}
        assert requests.get(script, headers=again, timeout=60).status_code == 304
        for absent in ("/assets/other-AbCd1234.js", "/nothing.css", "/..%2fdata/x.json"):
            assert requests.get(http + absent, timeout=60).status_code in (400, 404)
        if prefix:
            answer = requests.get(http, timeout=60, allow_redirects=False)
            assert (answer.status_code, answer.headers["location"]) == (308, f"{http}/")
        else:
            assert requests.get(f"{http}/readyz", timeout=60).status_code == 200
            assert requests.get(f"{http}/dicomweb", timeout=60).json()["title"]


def test_metrics_are_for_those_only_who_are_named(site: Site):
    port = free_port()
    settings = {"http_listen": f"127.0.0.1:{port}", "metrics_from": []}
    with site.another("metrics", nginx=settings):
        assert requests.get(f"http://127.0.0.1:{port}/metrics", timeout=60).status_code == 403
        assert requests.get(f"http://127.0.0.1:{port}/livez", timeout=60).status_code == 200


# ------------------------------------------------------------------ TLS


def test_https_speaks_http_2_and_says_so_in_addresses(site: Site, large: Dataset, tmp_path: Path):
    plain, tls = free_port(), free_port()
    made = certificate(tmp_path, "localhost")
    settings = {
        "http_listen": f"127.0.0.1:{plain}",
        "https_listen": f"127.0.0.1:{tls}",
        "hsts_s": 3600,
        **made,
    }
    file = tmp_path / "image.dcm"
    with site.another("https", nginx=settings):
        url = f"https://localhost:{tls}{path_of(large)}"
        command = ["curl", "-sS", "--http2", "--cacert", made["certificate"], "-D", "-"]
        command += ["-H", "Accept: application/dicom", "-o", str(file), url]
        head = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert head.startswith("HTTP/2 200")
        assert file.read_bytes() == synthetic.part10(large)
        assert f"content-location: https://localhost:{tls}/dicomweb/studies/" in head.lower()
        assert "strict-transport-security: max-age=3600" in head.lower()
        old = ["curl", "-sS", "--tls-max", "1.1", "--cacert", made["certificate"], url]
        assert subprocess.run(old, capture_output=True, check=False).returncode == 35
        away = requests.get(f"http://localhost:{plain}/x?y=1", timeout=60, allow_redirects=False)
        assert away.status_code == 308
        assert away.headers["location"] == f"https://localhost:{tls}/x?y=1"
        body = tmp_path / "body"
        new = synthetic.ct_series(1, 512, 512, study="by HTTP/2")[0]
        head_of_part = f"\r\n--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body.write_bytes(head_of_part + synthetic.part10(new) + f"\r\n--{BOUNDARY}--".encode())
        upload = ["curl", "-sS", "--http2", "--cacert", made["certificate"], "-D", "-", "-H"]
        upload += [f"Content-Type: {content_type('application/dicom')}", "--data-binary"]
        upload += [f"@{body}", f"https://localhost:{tls}/dicomweb/studies"]
        answer = subprocess.run(upload, capture_output=True, text=True, check=True).stdout
        assert answer.startswith("HTTP/2 200")
        assert f"https://localhost:{tls}/dicomweb/studies/{new.StudyInstanceUID}" in answer


def encrypted(port: int, name: str, trusted: str) -> RawPeer:
    """Connect by TLS to a port of this machine, from 127.0.0.6, and ask for a name."""
    raw = RawPeer(Peer("WADO", "127.0.0.1", port))
    raw.socket.close()
    plain = socket.create_connection(("127.0.0.1", port), 60, source_address=("127.0.0.6", 0))
    raw.socket = trusting(trusted).wrap_socket(plain, server_hostname=name)
    return raw


def test_nginx_ends_tls_of_dicom(site: Site, tmp_path: Path):
    port = free_port()
    made = certificate(tmp_path, "dicom.example.org")
    ds = synthetic.ct(study="by TLS")
    with (
        site.another("dicom-tls", nginx={"dimse_tls_listen": f"127.0.0.1:{port}", **made}),
        encrypted(port, "dicom.example.org", made["certificate"]) as raw,
    ):
        raw.associate()
        assert raw.store(ds).status == 0
        raw.release()
    assert sender_is_logged(site, "127.0.0.6")


def sender_is_logged(site: Site, address: str) -> bool:
    def logged() -> bool:
        logs = [service.log for name, service in site.services.items() if "storescp" in name]
        return any(
            f"address={address}" in "".join(log.split("\x1b[0m")) or address in log for log in logs
        )

    wait_until(logged, timeout_s=60, reason=f"{address} is in a log")
    return True


def test_tls_goes_through_to_the_receiver_that_is_named(site: Site, tmp_path: Path):
    """Two receivers that end TLS themselves; nginx looks at the name only."""
    port = free_port()
    receivers: dict[str, tuple[int, dict[str, str]]] = {}
    names = ("a.example.org", "b.example.org")
    for name in names:
        receivers[name] = (free_port(), certificate(tmp_path, name))
    settings = {
        "dimse_tls_listen": f"127.0.0.1:{port}",
        "dimse_tls_names": {n: [f"127.0.0.1:{at}"] for n, (at, _) in receivers.items()},
    }
    services: list[Service] = []
    try:
        for number, (at, made) in enumerate(receivers.values()):
            services.append(site.encrypting_receiver(f"tls-{number}", at, made))
        with site.another("sni", nginx=settings):
            for number, (name, (_, made)) in enumerate(receivers.items()):
                with encrypted(port, name, made["certificate"]) as raw:
                    raw.associate()
                    assert raw.store(synthetic.ct(study=f"to {name}")).status == 0
                    raw.release()
                wait_until(
                    lambda log=services[number]: "127.0.0.6" in log.log,  # type: ignore[misc]
                    timeout_s=60,
                    reason="the sender is known behind nginx",
                )
            with pytest.raises(OSError, match=r"EOF|reset|closed|unexpected|Broken pipe"):
                encrypted(port, "c.example.org", receivers[names[0]][1]["certificate"])
    finally:
        for service in services:
            service.stop()
