"""Addresses in answers: through proxies, below prefixes, as configured; and who may read them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import synthetic
from service import RunningArchive
from serving import serving

TENANT = {"x-tenant": "urls"}


@pytest.fixture(scope="module")
def ds(running: RunningArchive) -> Any:
    made = synthetic.ct(study="urls")
    store(running.dicomweb, synthetic.part10(made), **TENANT)
    return made


def store(root: str, data: bytes, **headers: str) -> requests.Response:
    answer = requests.post(
        f"{root}/studies", data=data, timeout=60,
        headers={"content-type": "application/dicom", **headers},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    return answer


def get(url: str, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.get(url, headers={**TENANT, **named}, timeout=60)


@pytest.mark.ps318("client-urls")
@pytest.mark.parametrize(
    ("headers", "root"),
    [
        ({"host": "pacs.example:8443"}, "http://pacs.example:8443"),
        ({"host": "[2001:db8::1]:80"}, "http://[2001:db8::1]:80"),
        ({"x_forwarded_proto": "https", "x_forwarded_host": "pacs.example"},
         "https://pacs.example"),
        ({"x_forwarded_proto": "https", "x_forwarded_host": "pacs.example",
          "x_forwarded_port": "8443", "x_forwarded_prefix": "/pacs"},
         "https://pacs.example:8443/pacs"),
        ({"forwarded": 'for="[::1]";host=pacs.example;proto=https'}, "https://pacs.example"),
        ({"host": "pacs.example", "x_forwarded_host": "<script>"}, "http://pacs.example"),
    ],
)  # fmt: skip
def test_all_addresses_are_those_of_the_client(
    running: RunningArchive, ds: Any, headers: dict[str, str], root: str
):
    study = f"/studies/{ds.StudyInstanceUID}"
    instance = f"{study}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    (row,) = get(f"{running.dicomweb}/studies", **headers).json()
    assert row["00081190"]["Value"] == [f"{root}/dicomweb{study}"]
    (metadata,) = get(f"{running.dicomweb}{instance}/metadata", **headers).json()
    pixels = f"{root}/dicomweb{instance}/bulkdata/7FE00010"
    assert metadata["7FE00010"]["BulkDataURI"] == pixels
    whole = get(running.dicomweb + instance, accept="application/dicom", **headers)
    assert whole.headers["content-location"] == f"{root}/dicomweb{instance}"
    assert get(running.dicomweb, **headers).json()["links"]["studies"] == f"{root}/dicomweb/studies"


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root: Path = tmp_path_factory.mktemp("configured")
    with serving(
        root / "data",
        public_url="https://pacs.example/pacs/",
        cors_origins=("https://viewer.example", "http://other.example:81"),
    ) as url:
        yield url


@pytest.mark.ps318("client-urls")
def test_the_configured_address_counts_before_all(configured: str):
    made = synthetic.ct(study="urls-configured")
    answer = store(f"{configured}/pacs/dicomweb", synthetic.part10(made))
    root = f"https://pacs.example/pacs/dicomweb/studies/{made.StudyInstanceUID}"
    assert answer.json()["00081190"]["Value"] == [root]
    for prefix in ("", "/pacs"):
        rows = requests.get(
            f"{configured}{prefix}/dicomweb/studies", timeout=60,
            headers={"x-forwarded-host": "elsewhere", "host": "another"},
        )  # fmt: skip
        assert rows.json()[0]["00081190"]["Value"] == [root]
    for path in ("/pacs/livez", "/pacs/docs", "/livez"):
        assert requests.get(configured + path, timeout=60).status_code == 200
    bare = requests.get(f"{configured}/pacs", allow_redirects=False, timeout=60)
    assert (bare.status_code, bare.headers["location"]) == (308, "/pacs/")
    other = requests.get(f"{configured}/pacsx/dicomweb/studies", timeout=60)
    assert other.headers["content-type"].startswith("text/")  # a page of the viewer, if it is built


@pytest.mark.ps318("cors")
def test_only_configured_origins_may_read(configured: str):
    url = f"{configured}/dicomweb/studies"
    for origin, allowed in (
        ("https://viewer.example", "https://viewer.example"),
        ("http://other.example:81", "http://other.example:81"),
        ("https://viewer.example.evil", None), ("null", None), (None, None),
    ):  # fmt: skip
        headers = {"origin": origin} if origin else {}
        for answer in (
            requests.get(url, headers=headers, timeout=60),
            requests.get(f"{configured}/dicomweb/nothing", headers=headers, timeout=60),
            requests.options(
                url, headers={**headers, "access-control-request-method": "GET"}, timeout=60
            ),
        ):
            assert answer.headers.get("access-control-allow-origin") == allowed
            assert "origin" in answer.headers["vary"]


@pytest.mark.ps318("client-urls")
def test_a_prefix_that_the_proxy_leaves_on_is_accepted(tmp_path: Path):
    with serving(tmp_path / "data", root_path="/images/pacs") as url:
        made = synthetic.ct(study="urls-prefix")
        root = f"{url}/images/pacs/dicomweb"
        answer = store(root, synthetic.part10(made)).json()
        retrieve = answer["00081199"]["Value"][0]["00081190"]["Value"][0]
        assert retrieve.startswith(f"{root}/studies/")
        again = [requests.get(retrieve, timeout=60) for _ in range(2)]
        assert [a.status_code for a in again] == [200, 200]
        assert requests.get(retrieve.replace("/images/pacs", ""), timeout=60).ok
        wado = {
            "requestType": "WADO", "studyUID": made.StudyInstanceUID,
            "seriesUID": made.SeriesInstanceUID, "objectUID": made.SOPInstanceUID,
        }  # fmt: skip
        assert requests.get(f"{url}/images/pacs/wado", params=wado, timeout=60).ok


def test_an_absurd_address_is_414(running: RunningArchive):
    answer = requests.get(f"{running.dicomweb}/studies?x={'a' * 70_000}", timeout=60)
    assert answer.status_code == 414
