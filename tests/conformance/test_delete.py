"""DELETE over HTTP: 204 means that nobody is given it any more, by whichever process."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import requests
from pydicom.dataset import Dataset

import synthetic
from dicomweb_site import parts_of
from service import RunningArchive, wait_until
from serving import serving

TENANT = {"x-tenant": "deletions"}
TIMEOUT_S = 60


class Web:
    """A tenant of a running archive."""

    def __init__(self, base: str) -> None:
        self.base = base

    def store(self, *datasets: Dataset) -> None:
        head = b"\r\n--guid\r\nContent-Type: application/dicom\r\n\r\n"
        body = b"".join(head + synthetic.part10(ds) for ds in datasets) + b"\r\n--guid--"
        kind = 'multipart/related; type="application/dicom"; boundary="guid"'
        answer = requests.post(
            f"{self.base}/studies", data=body, timeout=TIMEOUT_S,
            headers={"content-type": kind, **TENANT},
        )  # fmt: skip
        assert answer.status_code == 200, answer.text

    def get(self, path: str, **headers: str) -> requests.Response:
        """Ask on a connection of its own: any of the serving processes may answer."""
        return requests.get(f"{self.base}/{path}", headers={**headers, **TENANT}, timeout=TIMEOUT_S)

    def delete(self, path: str) -> int:
        answer = requests.delete(f"{self.base}/{path}", headers=TENANT, timeout=TIMEOUT_S)
        return answer.status_code

    def count(self, ds: Dataset) -> int:
        answer = self.get(f"studies?StudyInstanceUID={ds.StudyInstanceUID}")
        return int(answer.json()[0]["00201208"]["Value"][0]) if answer.content else 0


@pytest.fixture
def web(running: RunningArchive) -> Web:
    return Web(running.dicomweb)


def study_of(ds: Dataset) -> str:
    return f"studies/{ds.StudyInstanceUID}"


def series_of(ds: Dataset) -> str:
    return f"{study_of(ds)}/series/{ds.SeriesInstanceUID}"


def instance_of(ds: Dataset) -> str:
    return f"{series_of(ds)}/instances/{ds.SOPInstanceUID}"


@pytest.mark.ps318("gone", "delete")
def test_instance_is_gone_for_every_process(web: Web) -> None:
    one, two = synthetic.ct_series(2, study="delete", series="instance")
    web.store(one, two)
    for _ in range(20):  # now every process has it at hand
        assert web.get(instance_of(one), accept="application/dicom").status_code == 200
        assert web.get(f"{instance_of(one)}/frames/1").status_code == 200
    etag = web.get(instance_of(one), accept="application/dicom").headers["etag"]
    assert web.delete(instance_of(one)) == 204
    for below in ("", "/metadata", "/frames/1", "/rendered"):
        seen = {web.get(instance_of(one) + below).status_code for _ in range(12)}
        assert seen == {410}, below or "the instance"
    assert web.get(instance_of(one), **{"if-none-match": etag}).status_code == 410
    assert [i["00080018"]["Value"] for i in web.get(f"{series_of(one)}/metadata").json()] == [
        [str(two.SOPInstanceUID)]
    ]
    assert len(parts_of(web.get(series_of(one)))) == 1
    assert web.count(one) == 1
    (row,) = web.get(f"{series_of(one)}/instances").json()
    assert row["00080018"]["Value"] == [str(two.SOPInstanceUID)]


@pytest.mark.ps318("gone", "delete")
def test_series_and_study(web: Web) -> None:
    one = synthetic.ct(study="delete all", series="one")
    two = synthetic.ct(study="delete all", series="two")
    web.store(one, two)
    assert web.delete(series_of(one)) == 204
    for below in ("", "/metadata"):
        assert web.get(series_of(one) + below).status_code == 410
    assert web.get(study_of(one)).status_code == 200
    assert web.count(one) == 1
    assert web.delete(study_of(one)) == 204
    for path in (study_of(one), f"{study_of(one)}/metadata", series_of(two), instance_of(two)):
        assert web.get(path).status_code == 410, path
    assert web.get(f"studies?StudyInstanceUID={one.StudyInstanceUID}").status_code == 204
    for path in (study_of(one), series_of(one), instance_of(one)):
        assert web.delete(path) == 410


@pytest.mark.ps318("not-found")
def test_what_never_was_is_not_found(web: Web) -> None:
    ds = synthetic.ct(study="never stored")
    for path in (study_of(ds), series_of(ds), instance_of(ds)):
        assert web.delete(path) == 404
    assert web.delete("studies/no-uid") == 400
    other = synthetic.ct(study="of another tenant")
    web.store(other)
    answer = requests.delete(f"{web.base}/{study_of(other)}", timeout=TIMEOUT_S)
    assert answer.status_code == 404
    assert web.count(other) == 1


def test_stored_again_it_is_there_again(web: Web) -> None:
    ds = synthetic.ct(study="deleted and stored again")
    for name in ("First", "First", "Other"):
        ds.PatientName = name
        web.store(ds)
        answer = web.get(f"{instance_of(ds)}/metadata")
        assert answer.json()[0]["00100010"]["Value"] == [{"Alphabetic": name}]
        assert web.delete(instance_of(ds)) == 204
        assert web.get(instance_of(ds)).status_code == 410


def test_restore_beside_the_running_archive(web: Web, running: RunningArchive) -> None:
    series = synthetic.ct_series(3, study="restored")
    web.store(*series)
    assert web.delete(study_of(series[0])) == 204
    root = ("--root", str(running.root), "--tenant", "deletions")
    listed = running.wado("deleted", "list", *root)
    assert f"deletions {series_of(series[0])}: 3 instances" in listed.stdout
    done = running.wado("restore", str(series[0].StudyInstanceUID), *root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 instances restored\n")  # it says more if the archive is busy
    wait_until(lambda: web.count(series[0]) == 3, timeout_s=120, reason="they are visible again")
    assert web.get(instance_of(series[2]), accept="application/dicom").status_code == 200
    again = running.wado("restore", str(series[0].StudyInstanceUID), *root)
    assert again.returncode == 1
    assert "nothing of it is kept" in again.stderr


def test_options_tell_of_it(web: Web) -> None:
    answer = requests.options(f"{web.base}/studies/1.2.3", timeout=TIMEOUT_S)
    assert "DELETE" in answer.headers["allow"]


class Storing(threading.Thread):
    """Stores the same instances again and again; knows when each that was acknowledged began."""

    def __init__(self, web: Web, series: list[Dataset], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.web, self.series, self.stop = web, series, stop
        self.acknowledged: dict[str, float] = {}

    def run(self) -> None:
        """Store until stopped."""
        for ds in itertools.cycle(self.series):
            if self.stop.is_set():
                return
            began = time.monotonic()
            with suppress(AssertionError):  # refused, as its file was just moved: it comes again
                self.web.store(ds)
                self.acknowledged[str(ds.SOPInstanceUID)] = began

    def stored_after(self, moment: float) -> set[str]:
        """Instances whose storage began later, and was acknowledged."""
        return {uid for uid, began in list(self.acknowledged.items()) if began > moment}


def test_what_is_stored_after_a_deletion_stays(web: Web) -> None:
    """Deleted while two senders store into it: nothing is lost that came after that."""
    series = synthetic.ct_series(4, study="deleted while it comes")
    stop = threading.Event()
    web.store(*series)
    senders = [Storing(web, series, stop), Storing(web, series[::-1], stop)]
    for sender in senders:
        sender.start()
    deleted_at = 0.0
    for _ in range(8):
        status = web.delete(study_of(series[0]))
        assert status in (204, 410)
        deleted_at = time.monotonic() if status == 204 else deleted_at
    wait_until(
        lambda: all(len(sender.stored_after(deleted_at)) > 1 for sender in senders),
        timeout_s=120, reason="stored after the last deletion",
    )  # fmt: skip
    stop.set()
    for sender in senders:
        sender.join(120)
        assert not sender.is_alive()
    found = {i["00080018"]["Value"][0] for i in web.get(f"{series_of(series[0])}/metadata").json()}
    for sender in senders:
        assert found >= sender.stored_after(deleted_at)


@pytest.fixture(scope="module")
def forbidding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("forbidding") / "data", allow_delete=False) as url:
        yield f"{url}/dicomweb"


def test_deletion_can_be_forbidden(forbidding: str) -> None:
    answer = requests.delete(f"{forbidding}/studies/1.2.3", timeout=TIMEOUT_S)
    assert answer.status_code == 405
    assert "DELETE" not in answer.headers["allow"]


def test_deletion_that_takes_long_is_accepted(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("slow") / "data"
    with serving(root, delete_wait_s=0) as url:
        web = Web(f"{url}/dicomweb")
        ds = synthetic.ct(study="slow")
        web.store(ds)
        answer = requests.delete(f"{web.base}/{study_of(ds)}", headers=TENANT, timeout=TIMEOUT_S)
        assert answer.status_code in (202, 204)
        if answer.status_code == 202:
            assert answer.headers["retry-after"]
