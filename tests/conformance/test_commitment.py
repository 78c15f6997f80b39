"""Storage commitment over HTTP (PS3.18 ch. 13), answered from files that are read anew."""

import re
from typing import Any

import pytest
import requests
from pydicom.dataset import Dataset

import synthetic
from service import RunningArchive, wait_until
from wado.archive.paths import commitment_path

TENANT = {"x-tenant": "promises"}
JSON = "application/dicom+json"
XML = "application/dicom+xml"
TIMEOUT_S = 60


def element(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)}


def payload(*datasets: Dataset) -> dict[str, Any]:
    items = [
        {
            "00081150": element("UI", str(ds.SOPClassUID)),
            "00081155": element("UI", str(ds.SOPInstanceUID)),
        }
        for ds in datasets
    ]
    return {"00081199": element("SQ", *items)}


class Web:
    """A tenant of a running archive."""

    def __init__(self, archive: RunningArchive) -> None:
        self.archive = archive
        self.base = archive.dicomweb

    def store(self, *datasets: Dataset) -> None:
        for ds in datasets:
            answer = requests.post(
                f"{self.base}/studies", data=synthetic.part10(ds), timeout=TIMEOUT_S,
                headers={"content-type": "application/dicom", **TENANT},
            )  # fmt: skip
            assert answer.status_code == 200, answer.text

    def url(self, uid: str) -> str:
        return f"{self.base}/commitment-requests/{uid}"

    def post(self, uid: str, body: Any, **headers: str) -> requests.Response:
        given = {"content-type": JSON, **TENANT, **headers}
        if isinstance(body, dict):
            return requests.post(self.url(uid), json=body, headers=given, timeout=TIMEOUT_S)
        return requests.post(self.url(uid), data=body, headers=given, timeout=TIMEOUT_S)

    def get(self, uid: str, **headers: str) -> requests.Response:
        return requests.get(self.url(uid), headers={**TENANT, **headers}, timeout=TIMEOUT_S)

    def result(self, uid: str, body: Any, **headers: str) -> requests.Response:
        """Request, and check until the result is there."""
        answer = self.post(uid, body, **headers)
        if answer.status_code == 202:
            assert answer.content == b"", "a payload is for the result"
            assert int(answer.headers["retry-after"]) > 0
            wait_until(lambda: self.get(uid).status_code == 200, timeout_s=120, reason="the result")
            answer = self.get(uid, **headers)
        assert answer.status_code == 200, answer.text
        return answer


@pytest.fixture
def web(running: RunningArchive) -> Web:
    return Web(running)


@pytest.mark.ps318("commitment-request", "commitment-result")
def test_stored_instances_are_committed(web: Web) -> None:
    series = synthetic.ct_series(3, study="committed")
    web.store(*series)
    answer = web.result("2.25.1001", payload(*series))
    assert answer.headers["content-type"] == JSON
    assert answer.json() == payload(*series)
    again = web.get("2.25.1001")
    assert (again.status_code, again.json()) == (200, payload(*series))
    assert web.post("2.25.1001", payload(*series)).json() == payload(*series)


@pytest.mark.ps318("commitment-digest", "commitment-result")
def test_damaged_file_is_reported(web: Web) -> None:
    good, damaged = synthetic.ct_series(2, study="one is damaged")
    web.store(good, damaged)
    (path,) = web.archive.root.glob(f"*/{damaged.StudyInstanceUID}/*/{damaged.SOPInstanceUID}.dcm")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 0x40]))
    result = web.result("2.25.1002", payload(good, damaged)).json()
    path.write_bytes(whole)
    assert result["00081199"] == payload(good)["00081199"]
    (failed,) = result["00081198"]["Value"]
    assert failed["00081155"]["Value"] == [str(damaged.SOPInstanceUID)]
    assert failed["00081197"] == element("US", 0x0110)


@pytest.mark.ps318("commitment-result")
def test_deleted_and_unknown_instances_are_not_committed(web: Web) -> None:
    deleted, unknown = synthetic.ct_series(2, study="one is deleted")
    web.store(deleted)
    answer = requests.delete(
        f"{web.base}/studies/{deleted.StudyInstanceUID}", headers=TENANT, timeout=TIMEOUT_S
    )
    assert answer.status_code == 204
    result = web.result("2.25.1003", payload(deleted, unknown)).json()
    reasons = [item["00081197"]["Value"] for item in result["00081198"]["Value"]]
    assert reasons == [[0x0112], [0x0112]]
    assert "00081199" not in result


@pytest.mark.ps318("commitment-xml")
def test_xml(web: Web) -> None:
    ds = synthetic.ct(study="committed by XML")
    web.store(ds)
    body = (
        '<?xml version="1.0" encoding="UTF-8"?><NativeDicomModel xml:space="preserve"'
        ' xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">'
        '<DicomAttribute tag="00081199" vr="SQ" keyword="ReferencedSOPSequence"><Item number="1">'
        '<DicomAttribute tag="00081150" vr="UI" keyword="ReferencedSOPClassUID">'
        f'<Value number="1">{ds.SOPClassUID}</Value></DicomAttribute>'
        '<DicomAttribute tag="00081155" vr="UI" keyword="ReferencedSOPInstanceUID">'
        f'<Value number="1">{ds.SOPInstanceUID}</Value></DicomAttribute>'
        "</Item></DicomAttribute></NativeDicomModel>"
    )
    answer = web.result("2.25.1004", body, **{"content-type": XML, "accept": XML})
    assert answer.headers["content-type"] == XML
    assert str(ds.SOPInstanceUID) in answer.text
    assert "ReferencedSOPSequence" in answer.text


@pytest.mark.ps318("commitment-404", "commitment-conflict", "unsupported-media-type")
def test_requests_that_are_refused(web: Web) -> None:
    ds = synthetic.ct(study="refused requests")
    assert web.post("no-uid", payload(ds)).status_code == 400
    assert web.post("2.25.1005", b"no JSON").status_code == 400
    assert web.post("2.25.1005", b"[]").status_code == 400
    assert web.post("2.25.1005", {}).status_code == 400
    assert web.post("2.25.1005", payload(ds), **{"content-type": "text/csv"}).status_code == 415
    assert web.post("2.25.1005", payload(ds), accept="text/html").status_code == 406
    assert web.get("2.25.1005").status_code == 404, "none of these was taken"
    assert web.get("no-uid").status_code == 400
    assert web.post("2.25.1006", payload(ds)).status_code in (200, 202)
    answer = web.post("2.25.1006", payload(synthetic.ct(study="another")))
    assert answer.status_code == 409
    assert requests.get(web.url("2.25.1006"), timeout=TIMEOUT_S).status_code == 404, "other tenant"


@pytest.mark.ps318("commitment-gone")
def test_results_are_not_kept_for_ever(web: Web) -> None:
    ds = synthetic.ct(study="promised long ago")
    web.store(ds)
    web.result("2.25.1008", payload(ds))
    path = web.archive.root / commitment_path(TENANT["x-tenant"], "2.25.1008")
    old, count = re.subn(r'"requested_at":"\d{4}-', '"requested_at":"2001-', path.read_text())
    assert count == 1
    path.write_text(old)
    assert web.get("2.25.1008").status_code == 410
    assert web.post("2.25.1008", payload(ds)).status_code == 410


def test_pending_request_survives_the_death_of_who_works_on_it(web: Web) -> None:
    ds = synthetic.ct(study="pending")
    web.store(ds)
    old = web.archive.kill_service("webworker-1")
    answer = web.post("2.25.1007", payload(ds))
    assert answer.status_code in (200, 202)
    web.archive.wait_restarted("webworker-1", old)
    assert web.result("2.25.1007", payload(ds)).json() == payload(ds)
