"""Prepared answers: given again as long as they hold, and to nobody else."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from pydicom.dataset import Dataset

import synthetic
from steps import catalogue_all, series_of, store
from wado.archive.describe import describe_series
from wado.archive.journal import RECENT_S, Journals, deleted_line
from wado.archive.paths import instance_path, journal_path
from wado.dicom.uids import InstanceRef
from wado.ports import Archive
from wado.records import WadoAccessLog
from wado.services.server import direct
from wado.services.server.access_log import Access, Target, line_of
from wado.services.server.prepared import PreparedAnswers
from wado.services.server.service import Service, open_service
from web import Response, fetch

FRAMES = {"accept": 'multipart/related; type="application/octet-stream"', "x-tenant": "clinic"}
WHOLE = {"accept": "application/dicom", "x-tenant": "clinic"}
JSON = {"accept": "application/dicom+json", "x-tenant": "clinic"}


@pytest.fixture
def replacing(archive: Archive) -> Archive:
    return replace(archive, replace_duplicates=True)


@pytest.fixture
def service(replacing: Archive, settings) -> Iterator[Service]:
    with open_service(replacing, settings.server, default_tenant="default") as service:
        yield service


@pytest.fixture
def ct(replacing: Archive) -> Dataset:
    ds = synthetic.ct()
    store(replacing, ds)
    catalogue_all(replacing)
    return ds


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the requests that a handler saw."""
    paths: list[str] = []
    whole_way: Any = direct.handle  # type: ignore[attr-defined]  # replaced on purpose

    async def handle(service: Service, call: Any, *rest: Any) -> Any:
        paths.append(call.path)
        return await whole_way(service, call, *rest)

    monkeypatch.setattr(direct, "handle", handle)
    return paths


def get(service: Service, path: str, method: str = "GET", **headers: str) -> Response:
    return fetch(service, method, path, **headers)


def path_of(ds: Dataset, below: str = "") -> str:
    return (
        f"/dicomweb/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
        f"/instances/{ds.SOPInstanceUID}{below}"
    )


def series_path(ds: Dataset, below: str) -> str:
    return f"/dicomweb/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}{below}"


def wait_out_the_window() -> None:
    time.sleep(RECENT_S * 1.2)


def test_what_is_asked_again_needs_no_handler(service: Service, ct: Dataset, handled: list[str]):
    frame = path_of(ct, "/frames/1")
    first, second = get(service, frame, **FRAMES), get(service, frame, **FRAMES)
    for answer in (first, second):
        del answer.headers["date"]  # the second may have begun in between
    assert (first.status, first.body, first.headers) == (
        second.status,
        second.body,
        second.headers,
    )
    assert bytes(ct.PixelData) in second.body
    assert handled == [frame]


def test_bodies_that_are_not_kept_are_read_each_time(
    service: Service, ct: Dataset, handled: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(direct, "_SMALL_BYTES", 0)
    answers = {get(service, path_of(ct), **WHOLE).body for _ in range(3)}
    assert answers == {synthetic.part10(ct)}
    assert len(handled) == 1


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_replaced_instance_is_never_served_stale(
    service: Service, ct: Dataset, monkeypatch: pytest.MonkeyPatch, *, in_memory: bool
):
    monkeypatch.setattr(direct, "_SMALL_BYTES", 1 << 20 if in_memory else 0)
    for name in ("Two", "Three^Longer", "Four"):
        before = get(service, path_of(ct), **WHOLE)
        ct.PatientName = name
        store(service.archive, ct)
        catalogue_all(service.archive)
        wait_out_the_window()
        after = get(service, path_of(ct), **WHOLE)
        assert after.body == synthetic.part10(ct) != before.body
        assert after.headers["etag"] != before.headers["etag"]


@pytest.mark.parametrize("below", ["", "/frames/1", "/metadata"])
def test_a_deleted_instance_is_never_served(service: Service, ct: Dataset, below: str):
    headers = {"": WHOLE, "/frames/1": FRAMES, "/metadata": JSON}[below]
    for _ in range(2):
        assert get(service, path_of(ct, below), **headers).status == 200
    uid = str(ct.SOPInstanceUID)
    service.archive.store.append({journal_path(series_of(ct)): deleted_line(uid, "test")})
    service.archive.store.delete([instance_path(InstanceRef.of(*ref_of(ct)))])
    wait_out_the_window()
    assert get(service, path_of(ct, below), **headers).status == 404


def ref_of(ds: Dataset) -> tuple[str, str, str, str]:
    return (
        "clinic",
        str(ds.StudyInstanceUID),
        str(ds.SeriesInstanceUID),
        str(ds.SOPInstanceUID),
    )


def test_series_metadata_show_an_appended_instance_at_once(
    service: Service, ct: Dataset, handled: list[str]
):
    describe_series(service.archive, Journals(service.archive.store), series_of(ct))
    at = series_path(ct, "/metadata")
    first = [get(service, at, **JSON).body for _ in range(3)]
    assert len(set(first)) == 1
    assert len(handled) == 1, "the ready document is kept"
    other = synthetic.ct_series(2)[1]
    store(service.archive, other)
    catalogue_all(service.archive)
    assert other.SOPInstanceUID.encode() in get(service, at, **JSON).body


def test_tenants_never_meet(service: Service, ct: Dataset):
    for below, headers in (("", WHOLE), ("/frames/1", FRAMES), ("/metadata", JSON)):
        at = path_of(ct, below)
        assert get(service, at, **headers).status == 200
        for tenant in ("another", "default"):
            assert get(service, at, **{**headers, "x-tenant": tenant}).status == 404
        assert get(service, at, accept=headers["accept"]).status == 404
        assert get(service, at, **headers).status == 200


def test_an_answer_depends_on_all_that_a_handler_is_shown(service: Service, ct: Dataset):
    at = path_of(ct)
    whole = get(service, at, **WHOLE)
    assert get(service, at, **WHOLE).status == 200
    part = get(service, at, **WHOLE, range="bytes=128-131")
    assert (part.status, part.body) == (206, b"DICM")
    assert get(service, at, **WHOLE, range="bytes=128-131").body == b"DICM"
    assert get(service, at, **WHOLE, **{"if-none-match": whole.headers["etag"]}).status == 304
    assert get(service, at, **{**WHOLE, "accept": "text/html"}).status == 406
    head = get(service, at, "HEAD", **WHOLE)
    assert (head.body, head.headers["content-length"]) == (b"", str(len(whole.body)))
    via = get(service, at, **WHOLE, **{"x-forwarded-host": "pacs.example"})
    assert via.headers["content-location"].startswith("http://pacs.example/")
    assert get(service, at, **WHOLE).body == whole.body


def test_what_is_kept_stays_within_its_memory(service: Service, ct: Dataset):
    kept = PreparedAnswers(service.journals, "x-tenant", max_bytes=50_000)
    object.__setattr__(service, "prepared", kept)
    for n in range(100):
        assert get(service, path_of(ct, "/frames/1"), **FRAMES, host=f"h{n}").status == 200
    assert 1 < len(kept) < 20
    get(service, path_of(ct, "/frames/1"), **FRAMES, host="h" * 40_000)
    assert len(kept) < 20


def test_a_line_of_the_access_log_is_its_record():
    target = Target("clinic", "GET", "/a/{b}", "/a/1", "q=1", "me")
    access = Access(target, 200, 512, 5.0, 5.25, "[::1]:5000", "agent")
    record = WadoAccessLog.from_json(line_of(access, 1_000_000.5, "t1"))
    assert record == WadoAccessLog(
        "clinic", "1970-01-12T13:46:45.500000+00:00", "t1", "GET", "/a/1", "q=1",
        200, 512, 250.0, "me", "[::1]", "agent",
    )  # fmt: skip
    assert set(orjson.loads(record.to_json())) == set(orjson.loads(line_of(access, 0.0, "t")))
