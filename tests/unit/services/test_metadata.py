"""Metadata of long series: sent piece by piece, from documents or journals, the same bytes."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps import catalogue_all, series_of, store
from synthetic import ct
from wado.archive.describe import describe_series
from wado.archive.journal import Journals, described_line, journal_line
from wado.archive.paths import journal_path, series_document_path
from wado.dicom.uids import SeriesRef
from wado.ports import Archive
from wado.services.server.calls import Answer, Call
from wado.services.server.compression import prefers_gzip
from wado.services.server.metadata import series_metadata
from wado.services.server.service import Service, open_service
from wado.settings import Settings

REF = SeriesRef("default", "1.2", "1.2.3")
XML = 'multipart/related; type="application/dicom+xml"'
INSTANCES = 900
"""Of 4 kB each: more than is kept of an answer."""


@pytest.fixture
def service(archive: Archive, settings: Settings) -> Iterator[Service]:
    with open_service(archive, settings.server, default_tenant="default") as service:
        yield service


def line(number: int, *, bulk: bool = True) -> bytes:
    uid = f"1.2.3.{number}"
    entry: dict[str, Any] = {
        "sop_instance_uid": uid, "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1", "file_size": 100, "digest": f"d{number}",
        "received_at": "2026-01-01T00:00:00", "instance_number": number, "number_of_frames": 1,
        "pixel": None, "bulk": {"00091001": [10, 20]} if bulk else {},
    }  # fmt: skip
    metadata: dict[str, Any] = {
        "00080018": {"vr": "UI", "Value": [uid]},
        "00104000": {"vr": "LT", "Value": ["x" * 4000]},
    }
    if bulk:
        metadata["00091001"] = {"vr": "OB", "BulkDataURI": f"instances/{uid}/bulkdata/00091001"}
    return journal_line(entry, metadata)


def ask(service: Service, method: str = "GET", **headers: str) -> Answer:
    call = Call(
        method, f"/dicomweb/{REF.path}/metadata", "", {"host": "pacs:80", **headers}, "default",
        root="/dicomweb", params={"study": "1.2", "series": "1.2.3"},
    )  # fmt: skip
    return series_metadata(service, call)


def body_of(service: Service, answer: Answer) -> bytes:
    pieces = answer.pieces if answer.stream is None else answer.stream
    return b"".join(map(service.files.bytes_of, pieces))


def test_long_series_pass_with_flat_memory(service: Service, archive: Archive):
    lines = b"".join(line(number) for number in range(1, INSTANCES + 1))
    archive.store.append({journal_path(REF): lines})
    for accept in ("application/dicom+json", XML):
        answer = ask(service, accept=accept)
        assert answer.stream is not None
        assert answer.basis is None, "too long to be kept"
        sizes = [len(service.files.bytes_of(piece)) for piece in answer.stream]
        assert sum(sizes) > INSTANCES * 4000
        assert max(sizes) < 100_000
    packed = ask(service, **{"accept-encoding": "gzip"})
    assert packed.stream is None, "short again, so it is kept"
    assert packed.basis is not None
    assert ask(service, "HEAD").body_length is None


def test_documents_are_sent_as_they_are_if_nothing_in_them_is_an_address(
    service: Service, archive: Archive
):
    archive.store.append({journal_path(REF): line(1, bulk=False)})
    journaled = body_of(service, ask(service))
    path = series_document_path(REF)
    archive.store.put_document(f"{path}.json", [journaled])
    archive.store.put_document(f"{path}.json.gz", [b"packed"])
    archive.store.append({journal_path(REF): described_line()})
    (piece,) = ask(service).pieces
    assert getattr(piece, "path", "") == f"{path}.json"
    assert body_of(service, ask(service, **{"accept-encoding": "gzip"})) == b"packed"


def test_documents_that_were_taken_away_are_made_up_for(service: Service, archive: Archive):
    ds = ct(study="1.2", series="1.2.3")
    store(archive, ds)
    catalogue_all(archive)
    ref = series_of(ds)
    call = Call("GET", "/x", "", {"host": "pacs"}, ref.tenant_id, params={
        "study": ref.study_instance_uid, "series": ref.series_instance_uid})  # fmt: skip
    journaled = body_of(service, series_metadata(service, call))
    assert describe_series(archive, Journals(archive.store), ref) is not None
    ready = body_of(service, series_metadata(service, call))
    path = series_document_path(ref)
    archive.store.delete([f"{path}.json", f"{path}.json.gz"])
    assert body_of(service, series_metadata(service, call)) == ready == journaled
    assert orjson.loads(ready)[0]["7FE00010"]["BulkDataURI"].startswith("http://pacs/studies/")


@given(st.text(max_size=40))
def test_any_text_is_an_accept_encoding(header: str):
    assert prefers_gzip(header) in {True, False}
