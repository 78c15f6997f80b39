"""Files that the proxy sends in our place: only to one that may ask so, and only whole ones."""

from collections.abc import Iterator

import orjson
import pytest
from pydicom.dataset import Dataset

import synthetic
from service import wait_until
from steps import batches, catalogue_all, store
from wado.archive.paths import instance_path
from wado.dicom.uids import InstanceRef
from wado.ports import Archive
from wado.records import Topic
from wado.services.server.service import Service, open_service
from web import Response, fetch

WISH = {"accept": "application/dicom", "x-tenant": "clinic", "x-sendfile-type": "X-Accel-Redirect"}


@pytest.fixture
def service(archive: Archive, settings) -> Iterator[Service]:
    server = settings.server.model_copy(update={"x_accel_location": "/_files"})
    with open_service(archive, server, default_tenant="default") as service:
        yield service


@pytest.fixture
def ct(archive: Archive) -> Dataset:
    ds = synthetic.ct_series(1, 512, 512)[0]
    store(archive, ds)
    catalogue_all(archive)
    return ds


def path_of(ds: Dataset) -> str:
    return (
        f"/dicomweb/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
        f"/instances/{ds.SOPInstanceUID}"
    )


def get(service: Service, ds: Dataset, **headers: str) -> Response:
    return fetch(service, "GET", path_of(ds), **{**WISH, **headers})


def test_a_whole_file_is_named_and_logged_as_sent(service: Service, archive: Archive, ct: Dataset):
    ref = InstanceRef.of("clinic", ct.StudyInstanceUID, ct.SeriesInstanceUID, ct.SOPInstanceUID)
    size = len(synthetic.part10(ct))
    for _ in range(3):  # prepared answers, too
        answer = get(service, ct)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["x-accel-redirect"] == f"/_files/{instance_path(ref)}"
        assert answer.headers["content-type"].startswith("application/dicom")
        assert "immutable" in answer.headers["x-left-cache-control"]
        assert not {"cache-control", "accept-ranges", "content-range"} & set(answer.headers)
    part = get(service, ct, range="bytes=100-300099")
    assert (part.status, part.body) == (206, b"")
    assert part.headers["x-accel-redirect"] == f"/_files/{instance_path(ref)}"
    logged: list[int] = []

    def are_logged() -> bool:
        for batch in batches(archive, Topic.WEBAPI_ACCESS, "test"):
            lines = [line for message in batch.messages for line in message.body.splitlines()]
            logged.extend(orjson.loads(line)["bytes_sent"] for line in lines)
            batch.commit()
        return len(logged) >= 4

    wait_until(are_logged, timeout_s=60, reason="all are logged")
    assert logged == [size, size, size, 300_000]


@pytest.mark.parametrize(
    "headers",
    [
        {"x-sendfile-type": ""},
        {"x-sendfile-type": "X-Sendfile"},
        {"accept": 'multipart/related; type="application/dicom"'},
        {"range": "bytes=0-999"},
    ],
)
def test_all_else_is_sent_by_us(service: Service, ct: Dataset, headers: dict[str, str]):
    get(service, ct)
    answer = get(service, ct, **headers)
    assert answer.status in (200, 206)
    assert len(answer.body) >= 1000
    assert "x-accel-redirect" not in answer.headers


def test_a_file_that_is_gone_is_looked_for_again(service: Service, ct: Dataset, settings):
    (file,) = settings.storage.root.rglob(f"{ct.SOPInstanceUID}.dcm")
    file.unlink()
    assert get(service, ct).status == 404


def test_without_the_setting_nothing_is_left(archive: Archive, settings, ct: Dataset):
    with open_service(archive, settings.server, default_tenant="default") as service:
        assert get(service, ct).body == synthetic.part10(ct)
