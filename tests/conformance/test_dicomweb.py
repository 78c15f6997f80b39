"""Search and retrieve of PS3.18 by an independent client (dicomweb-client), on real files."""

import pytest
import requests

from dicomweb_site import FRAMES, NATIVE, Sent, Site, frames_of, parts_of

pytestmark = pytest.mark.filterwarnings("ignore")

# ------------------------------------------------------------------ retrieve


@pytest.mark.ps318("retrieve-instance", "instance-single-part", "instance-multipart")
def test_every_instance_comes_back_byte_for_byte(site: Site):
    for sent in site.sent:
        if sent.syntax in {"1.2.840.10008.1.2", "1.2.840.10008.1.2.2"}:
            continue  # never sent so: see test_transfer_syntaxes.py
        url = site.instance_url(sent)
        accept = "application/dicom; transfer-syntax=*"
        single = requests.get(url, headers={"accept": accept}, timeout=60)
        assert single.content == sent.data, sent.path
        assert single.headers["content-type"] == f"application/dicom;transfer-syntax={sent.syntax}"
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        several = requests.get(url, headers={"accept": accept}, timeout=60)
        assert sent.data in several.content
        assert len(several.content) < len(sent.data) + 500


@pytest.mark.ps318("frames", "frames-octet-stream", "frames-compressed")
def test_every_frame_is_the_one_of_the_file(site: Site):
    checked = 0
    for sent in site.sent:
        if "PixelData" not in sent.ds:
            continue
        expected = frames_of(sent)
        for number in sorted({1, len(expected)}):
            answer = requests.get(
                f"{site.instance_url(sent)}/frames/{number}",
                headers={"accept": FRAMES},
                timeout=60,
            )
            if answer.status_code == 404:
                continue  # its frames can't be told apart; the reason is in the answer
            assert answer.status_code == 200, (sent.path, answer.text)
            (part,) = parts_of(answer)
            assert part[1].startswith(expected[number - 1]), sent.path
            assert len(part[1]) - len(expected[number - 1]) <= 1, sent.path
            syntax = "1.2.840.10008.1.2.1" if sent.syntax in NATIVE else sent.syntax
            assert part[0].endswith(f";transfer-syntax={syntax}")
            checked += 1
    assert checked > 30


@pytest.mark.ps318(
    "retrieve-study",
    "retrieve-series",
    "retrieve-instance",
    "frames",
    "metadata-study",
    "metadata-series",
)
def test_the_client_retrieves_instances_frames_and_metadata(site: Site, ct: list[Sent]):
    study, series, instance = ct[0].uids
    assert site.client.retrieve_instance(study, series, instance).SOPInstanceUID == instance
    got = {ds.SOPInstanceUID for ds in site.client.retrieve_series(study, series)}
    assert got == {sent.uids[2] for sent in ct}
    of_study = [sent for sent in site.sent if sent.uids[0] == study]
    assert len(site.client.retrieve_study(study)) == len(of_study)
    (frame,) = site.client.retrieve_instance_frames(study, series, instance, [1])
    assert frame == frames_of(ct[0])[0]
    assert len(site.client.retrieve_series_metadata(study, series)) == len(ct)
    assert len(site.client.retrieve_study_metadata(study)) == len(of_study)
    (metadata,) = [site.client.retrieve_instance_metadata(study, series, instance)]
    assert metadata["00080018"]["Value"] == [instance]


def test_metadata_has_its_bulk_data_where_it_says(site: Site):
    checked = 0
    for sent in site.sent:
        url = f"{site.instance_url(sent)}/metadata"
        (metadata,) = requests.get(url, timeout=60).json()
        assert metadata["0020000D"]["Value"] == [sent.uids[0]]
        assert not [tag for tag in metadata if tag.startswith("0002")]
        for element in metadata.values():
            uri = element.get("BulkDataURI")
            if uri:
                assert uri.startswith(f"{site.base}/studies/"), uri
                answer = requests.get(uri, headers={"accept": "*/*"}, timeout=60)
                assert answer.status_code in (200, 404), (sent.path, uri)
                checked += answer.status_code == 200
    assert checked > 30


def test_series_metadata_lead_to_bulk_data(site: Site, ct: list[Sent]):
    study, series, _ = ct[0].uids
    url = f"{site.base}/studies/{study}/series/{series}/"
    metadata = requests.get(f"{url}metadata", timeout=60).json()
    for item in metadata:
        sop = item["00080018"]["Value"][0]
        assert item["7FE00010"]["BulkDataURI"] == f"{url}instances/{sop}/bulkdata/7FE00010"
    pixels = requests.get(metadata[0]["7FE00010"]["BulkDataURI"], timeout=60)
    assert pixels.status_code == 200
    assert pixels.headers["content-type"] == "application/octet-stream"


@pytest.mark.ps318("conditional", "caching")
def test_answers_are_cached_and_asked_for_again_with_304(site: Site, ct: list[Sent]):
    url = site.instance_url(ct[0])
    study, series, _ = ct[0].uids
    metadata = f"{site.base}/studies/{study}/series/{series}/metadata"
    whole = f"{site.base}/studies/{study}"  # which grows
    for address, caching in ((f"{url}/frames/1", "immutable"), (url, "immutable"),
                             (whole, "no-cache"), (f"{whole}/series/{series}", "no-cache"),
                             (f"{whole}/pixeldata", "no-cache"),
                             (metadata, "no-cache")):  # fmt: skip
        answer = requests.get(address, timeout=60)
        assert caching in answer.headers["cache-control"]
        again = requests.get(address, headers={"if-none-match": answer.headers["etag"]}, timeout=60)
        assert again.status_code == 304
        assert not again.content


@pytest.mark.ps318("range-single", "range-multipart")
@pytest.mark.parametrize("accept", [FRAMES, "application/octet-stream"])
def test_ranges_of_an_answer_add_up_to_it(site: Site, ct: list[Sent], accept: str):
    url = f"{site.instance_url(ct[0])}/frames/1"
    whole = requests.get(url, headers={"accept": accept}, timeout=60).content
    parts = []
    for start, end in ((0, 99), (100, 70000), (70001, "")):
        answer = requests.get(
            url, headers={"accept": accept, "range": f"bytes={start}-{end}"}, timeout=60
        )
        assert answer.status_code == 206
        assert answer.headers["content-range"].endswith(f"/{len(whole)}")
        parts.append(answer.content)
    assert b"".join(parts) == whole
    beyond = requests.get(
        url, headers={"accept": accept, "range": f"bytes={len(whole) + 9}-"}, timeout=60
    )
    assert beyond.status_code == 416
    assert "max-age" not in beyond.headers.get("cache-control", "")
    # A range is for GET alone (RFC 9110 §14.2).
    head = requests.head(url, headers={"accept": accept, "range": "bytes=0-99"}, timeout=60)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(whole)))


@pytest.mark.parametrize(
    ("path", "accept", "status"),
    [
        ("/frames/1", "image/png", 406),
        ("/frames/1", "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.80", 406),
        ("/frames/2", FRAMES, 404),
        ("/frames/0", FRAMES, 404),
        ("/frames/x", FRAMES, 400),
        ("/frames/1", "*/*", 200),
        ("/frames/1?accept=application/octet-stream", "image/png", 200),
        ("/bulkdata/00000000", "*/*", 404),
        ("/nothing", "*/*", 404),
        ("/metadata", "text/html", 406),
        ("/metadata", f"application/dicom+json, {FRAMES}", 200),
        ("/metadata", "*/*", 200),
    ],
)  # fmt: skip
def test_statuses(site: Site, ct: list[Sent], path: str, accept: str, status: int):
    answer = requests.get(site.instance_url(ct[0]) + path, headers={"accept": accept}, timeout=60)
    assert answer.status_code == status
    if status >= 400:
        assert answer.json()["status"] == status
        assert answer.json()["reason"]


@pytest.mark.ps318("not-found", "no-uid")
def test_what_is_not_there_is_404_and_what_is_no_uid_400(site: Site, ct: list[Sent]):
    study = f"{site.base}/studies"
    for path in ("/1.2.3", "/1.2.3/metadata", "/1.2.3/series/1.2/metadata",
                 "/1.2/series/1.2/instances/1.2/frames/1"):  # fmt: skip
        assert requests.get(study + path, timeout=60).status_code == 404
    for path in ("/1..2/metadata", "/abc/series/1.2/metadata"):
        assert requests.get(study + path, timeout=60).status_code == 400


@pytest.mark.ps318("head", "method-not-allowed")
def test_head_options_and_other_methods(site: Site, ct: list[Sent]):
    url = f"{site.instance_url(ct[0])}/frames/1"
    get, head = requests.get(url, timeout=60), requests.head(url, timeout=60)
    assert head.status_code == 200
    assert not head.content
    assert head.headers["content-length"] == get.headers["content-length"]
    assert head.headers["etag"] == get.headers["etag"]
    options = requests.options(
        url, headers={"origin": "http://a", "access-control-request-method": "GET"}, timeout=60
    )
    assert options.status_code == 204
    assert "GET" in options.headers["access-control-allow-methods"]
    assert "x-tenant" in options.headers["access-control-allow-headers"]
    other = requests.delete(url, timeout=60)
    assert other.status_code == 405
    assert other.headers["allow"] == "GET, HEAD, OPTIONS"
    assert requests.put(f"{site.base}/studies", timeout=60).headers["allow"] == (
        "GET, HEAD, OPTIONS, POST"
    )


# ------------------------------------------------------------------ search


def test_the_client_finds_what_was_stored(site: Site, ct: list[Sent]):
    sent = ct[0]
    study, series, _ = sent.uids
    (row,) = site.client.search_for_studies(search_filters={"StudyInstanceUID": study})
    assert row["00100020"]["Value"] == [sent.ds.PatientID]
    of_study = [s for s in site.sent if s.uids[0] == study]
    assert row["00201208"]["Value"] == [len(of_study)]
    assert row["00081190"]["Value"] == [f"{site.base}/studies/{study}"]
    assert row["00080056"]["Value"] == ["ONLINE"]
    assert row["00080061"]["Value"] == [sent.ds.Modality]
    (row,) = site.client.search_for_series(study, search_filters={"SeriesInstanceUID": series})
    assert row["0020000D"]["Value"] == [study]
    assert row["0020000E"]["Value"] == [series]
    assert row["00201209"]["Value"] == [len(ct)]
    rows = site.client.search_for_instances(study, series, limit=1000)
    assert {r["00080018"]["Value"][0] for r in rows} == {s.uids[2] for s in ct}
    assert rows[0]["00280010"]["Value"] == [sent.ds.Rows]
    numbers = [r["00200013"]["Value"][0] for r in rows]
    assert numbers == sorted(numbers)


def test_counts_agree_at_all_levels(site: Site):
    studies = site.client.search_for_studies(limit=1000)
    assert {r["0020000D"]["Value"][0] for r in studies} == {s.uids[0] for s in site.sent}
    assert sum(r["00201208"]["Value"][0] for r in studies) == len(site.sent)
    series = site.client.search_for_series(limit=1000)
    assert {r["0020000E"]["Value"][0] for r in series} == {s.uids[1] for s in site.sent}
    instances = site.client.search_for_instances(limit=1000)
    assert {r["00080018"]["Value"][0] for r in instances} == {s.uids[2] for s in site.sent}
    assert "00100020" in instances[0]


@pytest.mark.ps318("paging", "search-more")
def test_pages_follow_each_other(site: Site):
    for level in ("studies", "series", "instances"):
        whole = _rows(site, f"{level}?limit=1000")
        pages, offset = [], 0
        while page := _rows(site, f"{level}?limit=7&offset={offset}"):
            pages += page
            offset += 7
        assert pages == whole
    answer = requests.get(f"{site.base}/studies?limit=3", timeout=60)
    assert "additional results" in answer.headers["warning"]


def _rows(site: Site, path: str) -> list[str]:
    answer = requests.get(f"{site.base}/{path}", timeout=60)
    if answer.status_code == 204:
        return []
    assert answer.status_code == 200
    return [row["00081190"]["Value"][0] for row in answer.json()]


def test_keys_of_the_viewer(site: Site, ct: list[Sent]):
    ds = ct[0].ds
    name = str(ds.PatientName)
    for query in (
        f"00100020={ds.PatientID}",
        f"PatientName=*{name[:3].lower()}*",
        f"StudyDate={ds.StudyDate}-{ds.StudyDate}",
        f"ModalitiesInStudy={ds.Modality}%2CXX",
        f"StudyInstanceUID={ct[0].uids[0]}%5C1.2.3",
        "limit=101&offset=0&fuzzymatching=false&includefield=00081030%2C00080060%2C00080090",
    ):
        assert f"{site.base}/studies/{ct[0].uids[0]}" in _rows(site, f"studies?limit=1000&{query}")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("studies?PatientID=nobody-has-this", 204),
        ("studies?StudyDate=yesterday", 400),
        ("studies?limit=-1", 400),
        ("studies?unknown=1&limit=1", 200),
        ("instances?SOPInstanceUID=1.2.3", 204),
        ("studies/1.2.3/series", 204),
        ("studies/1.2.3/series/1.2/instances", 204),
        ("studies?limit=0", 204),
    ],
)
def test_statuses_of_searches(site: Site, path: str, status: int):
    assert requests.get(f"{site.base}/{path}", timeout=60).status_code == status


def test_instances_by_uid_and_with_all_attributes(site: Site, ct: list[Sent]):
    uid = ct[0].uids[2]
    (row,) = site.client.search_for_instances(search_filters={"SOPInstanceUID": uid})
    assert row["00080018"]["Value"] == [uid]
    path = f"{site.base}/studies/{ct[0].uids[0]}/instances?SOPInstanceUID={uid}&includefield="
    assert "00280030" not in requests.get(path, timeout=60).json()[0]
    assert "00280030" in requests.get(path + "PixelSpacing", timeout=60).json()[0]
    assert len(requests.get(path + "all", timeout=60).json()[0]) > 40


@pytest.mark.ps318("client-urls")
def test_addresses_follow_the_host_that_the_client_used(site: Site, ct: list[Sent]):
    answer = requests.get(
        f"{site.base}/studies?StudyInstanceUID={ct[0].uids[0]}",
        headers={"x-forwarded-proto": "https", "x-forwarded-host": "pacs.example:8443"},
        timeout=60,
    )
    url = answer.json()[0]["00081190"]["Value"][0]
    assert url == f"https://pacs.example:8443/dicomweb/studies/{ct[0].uids[0]}"


def test_tenants_never_meet(site: Site, ct: list[Sent]):
    other = {"x-tenant": "another"}
    assert requests.get(f"{site.base}/studies", headers=other, timeout=60).status_code == 204
    assert requests.get(site.instance_url(ct[0]), headers=other, timeout=60).status_code == 404
    bad = requests.get(f"{site.base}/studies", headers={"x-tenant": "../x"}, timeout=60)
    assert bad.status_code == 400
