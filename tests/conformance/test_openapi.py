"""The OpenAPI document against the server: nothing undocumented, and never a 5xx."""

import warnings
from pathlib import Path
from typing import Any, cast

import pydicom
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from service import RunningArchive
from wado.services.server.openapi import document

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


@schemathesis.serializer("application/dicom", "multipart/related")
def as_bytes(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


SCHEMA = schemathesis.openapi.from_dict(document("http://127.0.0.1"))
OPERATIONS = {
    f"{operation.method.upper()} {operation.path}": operation
    for operation in (cast("Any", result).ok() for result in SCHEMA.get_all_operations())
}


FILES = (
    "multiframe/pydicom-data__emri_small_RLE.dcm",
    "nonimage/highdicom__sr_document.dcm",
    "derived/encapsulated_pdf.dcm",
)
TENANT = {"x-tenant": "openapi"}


@pytest.fixture(scope="session")
def known(running: RunningArchive, corpus: Path) -> list[dict[str, str]]:
    """Path parameters of what is stored: an image, a report, a document."""
    paths = []
    for name in FILES:
        data = (corpus / name).read_bytes()
        headers = {**TENANT, "content-type": "application/dicom"}
        answer = requests.post(
            f"{running.dicomweb}/studies", data=data, headers=headers, timeout=60
        )
        assert answer.status_code == 200, answer.text
        ds = pydicom.dcmread(corpus / name, stop_before_pixels=True)
        uids = (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
        paths.append(dict(zip(("study", "series", "instance"), map(str, uids), strict=True)))
    return paths


@pytest.mark.ps318("never-5xx")
@pytest.mark.parametrize("name", OPERATIONS)
def test_answers_are_as_documented(running: RunningArchive, known: list[dict[str, str]], name: str):
    paths: st.SearchStrategy[dict[str, str]] = st.just({})
    if not name.startswith("DELETE"):
        paths = st.sampled_from([{}, *known])

    @given(case=OPERATIONS[name].as_strategy(), path=paths)
    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    def check(case: Any, path: dict[str, str]) -> None:
        given_parameters = case.path_parameters or {}
        case.path_parameters = {
            **given_parameters,
            **{key: value for key, value in path.items() if key in given_parameters},
        }
        case.headers = {**(case.headers or {}), **TENANT}
        case.call_and_validate(base_url=running.http, checks=CHECKS, timeout=60)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check()
