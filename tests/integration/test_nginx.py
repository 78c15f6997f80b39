"""Two servers and two receivers behind nginx: balanced, outlived, and told who asks."""

import io
import json
import os
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import orjson
import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

import real
import synthetic
from dimse import ANSWER_TIMEOUT_S, RawPeer
from large import Large
from nginx_site import Site
from service import wait_until
from steps import batches
from stow import BOUNDARY, content_type
from wado.bootstrap import open_archive
from wado.records import Topic
from wado.services.association import Peer

MEGABYTE = 1 << 20
DICOM = {"content-type": content_type("application/dicom")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("nginx")) as site:
        yield site


def part(data: bytes) -> bytes:
    return b"\r\n--%s\r\nContent-Type: application/dicom\r\n\r\n" % BOUNDARY.encode() + data


END = b"\r\n--%s--" % BOUNDARY.encode()


def post(site: Site, *datasets: Dataset, **headers: str) -> requests.Response:
    body = b"".join(part(synthetic.part10(ds)) for ds in datasets) + END
    url = f"{site.dicomweb}/studies"
    return requests.post(url, data=body, headers={**DICOM, **headers}, timeout=60)


def path_of(ds: Dataset) -> str:
    return (
        f"/dicomweb/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
        f"/instances/{ds.SOPInstanceUID}"
    )


def messages(site: Site, topic: Topic, group: str) -> list[dict[str, object]]:
    """All records of a topic that a group did not read yet, which are left for its readers."""
    found: list[dict[str, object]] = []
    with open_archive(site.settings) as archive:
        for batch in batches(archive, topic, group):
            for message in batch.messages:
                found += [orjson.loads(line) for line in message.body.splitlines()]
            batch.commit()
    return found


def used(log: Path, ports: list[int], naming: str = "") -> Counter[int]:
    """How often each of these ports was passed to, in lines that name something."""
    lines = log.read_text().splitlines() if log.exists() else []
    text = "\n".join(line for line in lines if naming in line)
    return Counter({port: text.count(f"127.0.0.1:{port}") for port in ports})


def through(site: Site, address: str = "127.0.0.1") -> RawPeer:
    """A DICOM peer that connects to nginx from this address."""
    raw = RawPeer(Peer("WADO", "127.0.0.1", site.dimse_port))
    raw.socket.close()
    target = ("127.0.0.1", site.dimse_port)
    raw.socket = socket.create_connection(target, ANSWER_TIMEOUT_S, source_address=(address, 0))
    return raw


# ------------------------------------------------------------------ balance


def test_requests_are_dealt_out(site: Site):
    log = site.nginx_log("access")
    with requests.Session() as session:

        def asked(study: str) -> Counter[int]:
            answer = session.get(f"{site.dicomweb}/studies/{study}/series", timeout=60)
            assert answer.status_code in (200, 204, 404)
            return used(log, site.server_ports, study)

        # One that died in another test is left alone for a while.
        first = synthetic.uid("dealt out", "before")
        wait_until(
            lambda: all(asked(first).values()), timeout_s=60, reason="nginx uses both servers"
        )
        then = synthetic.uid("dealt out")
        for _ in range(20):
            asked(then)

    def dealt() -> Counter[int]:
        return used(log, site.server_ports, then)

    wait_until(lambda: dealt().total() >= 20, timeout_s=60, reason="all are logged")
    assert min(dealt().values()) >= 5


def test_requests_go_on_when_a_server_dies(site: Site):
    site.kill("server-1")
    try:
        for number in range(12):
            answer = requests.get(f"{site.dicomweb}/studies", timeout=60)
            assert answer.status_code in (200, 204)
            ds = synthetic.ct(study=f"a server died {number}")
            assert post(site, ds).status_code == 200
            assert requests.get(f"{site.http}{path_of(ds)}/metadata", timeout=60).ok
    finally:
        site.start_again("server-1")


def test_a_begun_upload_is_answered_and_never_sent_twice(site: Site):
    large = Large("begun", 64 * MEGABYTE)
    pieces = large.part10()
    head = (
        f"POST {large.study} HTTP/1.1\r\nhost: pacs\r\ncontent-type: {DICOM['content-type']}"
        "\r\ncontent-length: 100000000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", site.http_port), 60) as client:
        client.sendall(head.encode() + part(b""))
        for _ in range(4):
            client.sendall(next(pieces))
        wait_until(lambda: bool(holders(site)), timeout_s=60, reason="a server has the upload")
        (name,) = holders(site)
        site.kill(name)
        try:
            answer = b""
            while b"}" not in answer and (piece := client.recv(65536)):
                answer += piece
        finally:
            site.start_again(name)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 5" in answer
    said = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert said["status"] == 503
    assert "try again" in said["reason"]
    log, study = site.nginx_log("access"), str(large.ds.StudyInstanceUID)
    wait_until(lambda: study in log.read_text(), timeout_s=60, reason="it is logged")
    assert used(log, site.server_ports, study).total() == 1
    assert not holders(site)


def holders(site: Site) -> list[str]:
    """Servers that hold the beginning of an instance: a file that is open and not whole."""
    found = []
    for name in ("server-1", "server-2"):
        files = Path(f"/proc/{site.services[name].pid}/fd")
        names = []
        for file in files.iterdir():
            with suppress(FileNotFoundError):  # it was closed a moment ago
                names.append(os.readlink(file))
        if any(".part" in open_file for open_file in names):
            found.append(name)
    return found


def test_associations_are_dealt_out_and_go_on_when_a_receiver_dies(site: Site):
    held = [through(site) for _ in range(4)]
    for raw in held:
        raw.associate()
    for raw in held:
        assert raw.echo().status == 0
        raw.release()
        raw.socket.close()
    log = site.nginx_log("dicom")
    wait_until(
        lambda: min(used(log, site.storescp_ports)[port] for port in site.storescp_ports) >= 2,
        timeout_s=60,
        reason="each receiver had two",
    )
    site.kill("storescp-2")
    try:
        for number in range(6):
            with through(site) as raw:
                raw.associate()
                assert raw.store(synthetic.ct(study=f"a receiver died {number}")).status == 0
                raw.release()
    finally:
        site.start_again("storescp-2")


# ------------------------------------------------------------------ who asks


def test_the_sender_of_images_is_known(site: Site):
    ds = synthetic.ct(study="from somewhere")
    with through(site, "127.0.0.7") as raw:
        raw.associate()
        assert raw.store(ds).status == 0
        raw.release()
    records = messages(site, Topic.STORAGE, f"test-{time.monotonic_ns()}")
    (record,) = [r for r in records if r["sop_instance_uid"] == ds.SOPInstanceUID]
    assert record["source_address"] == "127.0.0.7"


def test_the_client_is_known_and_cannot_say_otherwise(site: Site):
    agent = f"test-{time.monotonic_ns()}"
    forged = ["Forwarded: for=192.0.2.66;host=evil", "X-Forwarded-For: 192.0.2.66",
              "X-Forwarded-Host: evil", "X-Forwarded-Prefix: /evil"]  # fmt: skip
    ds = synthetic.ct(study="known")
    assert post(site, ds).status_code == 200
    command = ["curl", "-sS", "--interface", "127.0.0.9", "-A", agent]
    for header in forged:
        command += ["-H", header]
    command.append(f"{site.http}{path_of(ds)}/metadata")
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "evil" not in answer

    group = f"test-{time.monotonic_ns()}"
    seen: list[dict[str, object]] = []

    def recorded() -> bool:
        seen.extend(messages(site, Topic.WEBAPI_ACCESS, group))
        return any(r["user_agent"] == agent for r in seen)

    wait_until(recorded, timeout_s=60, reason="the request is in the access log")
    (record,) = [r for r in seen if r["user_agent"] == agent]
    assert record["remote_address"] == "127.0.0.9"


def test_addresses_in_answers_are_those_of_nginx(site: Site):
    ds = synthetic.ct(study="addresses")
    answer = post(site, ds).json()
    assert answer["00081190"]["Value"][0].startswith(f"{site.dicomweb}/studies/")


# ------------------------------------------------------------------ clients


def test_dicomweb_client_stores_finds_and_retrieves(site: Site):
    ds = synthetic.ct(study="by dicomweb-client", PatientID="NGINX-1")
    client = DICOMwebClient(site.dicomweb)
    client.store_instances([pydicom.dcmread(io.BytesIO(synthetic.part10(ds)))])
    (study,) = client.search_for_studies(search_filters={"PatientID": "NGINX-1"})
    assert study["0020000D"]["Value"] == [ds.StudyInstanceUID]
    found = client.retrieve_instance(ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
    assert found.PixelData == ds.PixelData


def test_an_upload_that_expects_100_goes_through(site: Site, tmp_path: Path):
    file = tmp_path / "body"
    file.write_bytes(part(synthetic.part10(synthetic.ct(study="expected"))) + END)
    done = subprocess.run(
        [
            *("curl", "-sS", "-v", "-H", "Expect: 100-continue", "--expect100-timeout", "60"),
            *("-H", f"Content-Type: {DICOM['content-type']}", "--data-binary", f"@{file}"),
            f"{site.dicomweb}/studies",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "HTTP/1.1 100 Continue" in done.stderr
    assert "HTTP/1.1 200 OK" in done.stderr


def test_a_large_upload_and_download_stay_out_of_nginx(site: Site):
    large = Large("through nginx", 300 * MEGABYTE)

    def body() -> Iterator[bytes]:
        yield part(b"")
        yield from large.part10()
        yield END

    before = site.nginx_memory()
    url = f"{site.dicomweb}/studies"
    stored = requests.post(url, data=body(), headers=DICOM, timeout=240)
    assert stored.status_code == 200, stored.text
    size = 0
    accept = {"accept": 'multipart/related; type="application/dicom"'}
    with requests.get(site.http + large.path, headers=accept, timeout=240, stream=True) as answer:
        for piece in answer.iter_content(MEGABYTE):
            size += len(piece)
            if size < 2 * MEGABYTE:
                time.sleep(0.2)  # who reads slowly is not read ahead of
    assert size > 300 * MEGABYTE
    assert site.nginx_memory() - before < 30 * MEGABYTE
    folder = site.folder / "nginx"
    temporary = [p for name in ("client_body", "proxy") for p in (folder / name).rglob("*")]
    assert not [p for p in temporary if p.is_file()]


def test_metrics_are_for_those_who_may_see_them(site: Site):
    assert "wado_http" in requests.get(f"{site.http}/metrics", timeout=60).text


def test_the_log_of_nginx_names_no_patient(site: Site):
    study = synthetic.uid("its name is a secret")
    requests.get(f"{site.dicomweb}/studies/{study}/series?PatientName=SECRET", timeout=60)
    log = site.nginx_log("access")  # written once the answer is sent
    wait_until(lambda: study in log.read_text(), timeout_s=60, reason="it is in the log")
    assert "SECRET" not in log.read_text()


def test_dcmtk_sends_through_nginx(site: Site, tmp_path: Path):
    storescu = real.require("dcmtk")
    file = tmp_path / "ct.dcm"
    file.write_bytes(synthetic.part10(synthetic.ct(study="by storescu")))
    host, port = "127.0.0.1", str(site.dimse_port)
    subprocess.run([storescu, "-aec", "WADO", host, port, file], check=True, timeout=120)
