"""Whatever a client sends as a search, it gets an answer that the Standard knows."""

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import synthetic
from backing.program import free_port
from steps import catalogue_all, store
from wado.bootstrap import open_archive
from wado.dicom.matching import KEYS
from wado.services.server.calls import Answer, Call
from wado.services.server.dispatch import error_answer
from wado.services.server.routes import find
from wado.services.server.service import Service, open_service
from wado.settings import load_settings

RESOURCES = ("studies", "series", "instances")
_TAGS = [key.tag for key in KEYS]
_NAMES = st.one_of(
    st.sampled_from([
        *_TAGS, "PatientName", "SliceThickness", "ImageType", "ContentDate", "ContentTime", "Rows",
        "AcquisitionDateTime", "RequestAttributesSequence.RequestedProcedureID", "00091001",
        "0040A730.0040A160", "PixelData", "TimezoneOffsetFromUTC", "limit", "offset", "orderby",
        "includefield", "fuzzymatching", "emptyvaluematching", "multiplevaluematching", "accept",
    ]),
    st.text(max_size=20),
)  # fmt: skip
_VALUES = st.one_of(
    st.text("0123456789-+*?,\\.^:= \"'%_!aäß山", max_size=40),
    st.text(max_size=40),
    st.sampled_from([
        "true", "false", "20240101-20241231", "10-11", "1.2,1.3", "CT\\MR", "all", "-StudyDate",
        "*", '""', "9" * 18, "-" + "9" * 18, "+0100", "00010101", "99991231-", "=*=",
    ]),
)  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("searched") / "data"
    settings = load_settings(storage={"root": root}, server={"port": free_port()})
    with (
        open_archive(settings) as archive,
        open_service(archive, settings.server, default_tenant="clinic") as service,
    ):
        store(archive, *synthetic.ct_series(2), *synthetic.mr_series(2))
        catalogue_all(archive)
        yield service


def ask(service: Service, resource: str, query: str, **headers: str) -> Answer:
    path = f"/dicomweb/{resource}"
    route = find(path)[0].routes["GET"]
    assert route.handler is not None
    call = Call("GET", path, query, headers, "clinic", server="127.0.0.1:80", root="/dicomweb")
    try:
        return route.handler(service, call)
    except Exception as e:  # noqa: BLE001 - as the server does it
        return error_answer(e, "trace", path=path)


@settings(deadline=None)
@given(
    resource=st.sampled_from(RESOURCES),
    pairs=st.lists(st.tuples(_NAMES, _VALUES), min_size=1, max_size=4),
    is_quoted=st.booleans(),
)
def test_any_query_is_answered(
    service: Service, resource: str, pairs: list[tuple[str, str]], is_quoted: bool
):
    query = urlencode(pairs) if is_quoted else "&".join(f"{n}={v}" for n, v in pairs)
    assert ask(service, resource, query).status in (200, 204, 400, 406)


@settings(deadline=None)
@given(resource=st.sampled_from(RESOURCES), query=st.text(max_size=60))
def test_any_text_is_answered(service: Service, resource: str, query: str):
    assert ask(service, resource, query).status in (200, 204, 400, 406)


@settings(deadline=None)
@given(accept=st.text('abc/*;=,.+"q01 -', max_size=60))
def test_any_accept_is_answered(service: Service, accept: str):
    assert ask(service, "studies", "", accept=accept).status in (200, 406)
