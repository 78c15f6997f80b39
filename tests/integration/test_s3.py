"""The whole archive on S3: in by every way, out by every way, deleted, restored, rebuilt."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import synthetic
from backing import s3 as s3_server
from contract.stores import s3_endpoint, s3_place
from integration.test_corpus import data_set, files_of, is_explained, search_counts, stow
from large import Large, digest, get, store_by_stow
from memory import MEGABYTE, flat, wait_described
from read_log import wait_read
from service import PATIENT_ENV, RunningArchive, wait_until
from wado.adapters.instance_store.s3_bucket import Bucket
from wado.services.association import Peer
from wado.services.storescu import send

SIZE = 320 * MEGABYTE
GROWTH = 60 * MEGABYTE
pytestmark = pytest.mark.timeout(600)  # a busy machine takes minutes for what is so long


@pytest.fixture(scope="module")
def bucket(run_folder: Path) -> Bucket:
    """Where the archive of these tests keeps everything."""
    return Bucket(s3_place(s3_endpoint(run_folder), f"archive/{uuid4().hex}", timeout_s=60))


@pytest.fixture(scope="module")
def archive(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningArchive]:
    """An archive that has nothing of an image on its disk."""
    place = bucket.place
    env = {
        **PATIENT_ENV,
        **s3_server.CREDENTIALS,
        "WADO_STORAGE__URL": place.shown,
        "WADO_STORAGE__S3_ENDPOINT": place.endpoint,
        "WADO_STORAGE__S3_ALLOW_HTTP": "true",
        "WADO_STORAGE__S3_TIMEOUT_S": "60",
    }
    with RunningArchive(tmp_path_factory.mktemp("on-s3") / "data", env=env) as running:
        yield running
        files = [p for p in running.root.rglob("*") if p.is_file()]
        assert not [p for p in files if p.suffix in (".dcm", ".journal", ".part")]


def originals(bucket: Bucket) -> dict[str, str]:
    """Path of each original by its SOP Instance UID."""
    found = (o.path for o in bucket.walk("default"))
    return {path.rpartition("/")[2].removesuffix(".dcm"): path for path in found}


def content(bucket: Bucket, path: str) -> bytes:
    found = bucket.get_changed(path, None)
    assert found
    return found[0]


def checked(archive: RunningArchive) -> None:
    wait_read(archive)
    check = archive.wado("check", "--deep", "--root", str(archive.root))
    assert check.returncode == 0, check.stdout + check.stderr


def fetched(url: str, accept: str = "*/*", method: str = "GET") -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers={"Accept": accept}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read()


def ct_study(archive: RunningArchive, tmp_path: Path, name: str) -> tuple[str, list[Any]]:
    """URL of the series of a new study of three images, and these."""
    images = synthetic.ct_series(3, study=name, series=name)
    paths = [tmp_path / f"{ds.SOPInstanceUID}.dcm" for ds in images]
    for path, ds in zip(paths, images, strict=True):
        path.write_bytes(synthetic.part10(ds))
    assert stow(archive, paths)[0] == 200
    first = images[0]
    return f"{archive.dicomweb}/studies/{first.StudyInstanceUID}/series/" + str(
        first.SeriesInstanceUID
    ), images


def test_prepared_by_wado_init(archive: RunningArchive) -> None:
    done = archive.wado("init", "--root", str(archive.root))
    assert done.returncode == 0, done.stderr
    assert "keeps conditions" in done.stdout


def test_real_files_come_back_as_they_were_sent(
    archive: RunningArchive, bucket: Bucket, corpus: Path
) -> None:
    before = originals(bucket)
    summary = send([corpus], Peer.parse(archive.destination))
    assert all(is_explained(f.reason) for f in summary.failures), summary.failures
    wait_read(archive)
    kept = originals(bucket)
    assert summary.files_sent == len(kept.keys() - before.keys()) > 300
    refused = {f.path for f in summary.failures}
    for file in files_of(corpus):
        if file.path in refused:
            continue
        path = kept[file.sop_instance_uid]
        _, study, series, name = path.split("/")
        url = f"{archive.dicomweb}/studies/{study}/series/{series}/instances/"
        whole = content(bucket, path)
        assert whole.endswith(data_set(file.path))
        status, body = fetched(
            url + name.removesuffix(".dcm"), "application/dicom; transfer-syntax=*"
        )
        assert status == 200, (path, body)
    again = send([corpus], Peer.parse(archive.destination))
    assert again.files_sent == summary.files_sent
    assert originals(bucket) == kept
    checked(archive)
    by_series: dict[str, int] = {}
    for path in kept.values():
        by_series[path.split("/")[2]] = by_series.get(path.split("/")[2], 0) + 1
    assert search_counts(archive) == by_series


def test_every_form_of_an_image(archive: RunningArchive, tmp_path: Path) -> None:
    url, images = ct_study(archive, tmp_path, "forms")
    sent = {str(ds.SOPInstanceUID): synthetic.part10(ds) for ds in images}
    instance = f"{url}/instances/{images[0].SOPInstanceUID}"
    status, body = fetched(instance, "application/dicom; transfer-syntax=*")
    assert (status, body) == (200, sent[str(images[0].SOPInstanceUID)])
    single = 'application/octet-stream; transfer-syntax="*"'
    assert fetched(f"{instance}/frames/1", single) == (200, images[0].PixelData)
    status, body = fetched(f"{instance}/bulkdata/7FE00010", "application/octet-stream")
    assert (status, body) == (200, images[0].PixelData)
    for path, accept, magic in (
        (f"{instance}/rendered", "image/jpeg", b"\xff\xd8"),
        (f"{instance}/frames/1/rendered", "image/png", b"\x89PNG"),
        (f"{url}/thumbnail", "image/jpeg", b"\xff\xd8"),
        (
            f"{instance}/frames/1",
            'image/jp2; transfer-syntax="1.2.840.10008.1.2.4.90"',
            b"\xff\x4f",
        ),
    ):
        status, body = fetched(path, accept)
        assert (status, body[:2]) == (200, magic[:2]), (path, body[:300])
    status, body = fetched(instance, "application/dicom; transfer-syntax=1.2.840.10008.1.2.5")
    assert (status, body[128:132]) == (200, b"DICM")
    assert len(json.loads(fetched(f"{url}/metadata", "application/dicom+json")[1])) == 3
    every = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    status, body = fetched(url, every)
    assert status == 200
    assert all(data in body for data in sent.values())


def test_deleted_restored_and_deleted_again(
    archive: RunningArchive, bucket: Bucket, tmp_path: Path
) -> None:
    url, images = ct_study(archive, tmp_path, "deleted")
    study = str(images[0].StudyInstanceUID)
    instance = f"{url}/instances/{images[0].SOPInstanceUID}"
    assert fetched(url, method="DELETE")[0] in (200, 202, 204)
    wait_until(lambda: fetched(instance)[0] == 410, timeout_s=120, reason="it is gone")
    wait_read(archive)  # the files go last
    assert [o.path for o in bucket.walk(f"default/{study}")] == []
    assert len(list(bucket.walk(f"deleted/default/{study}"))) == 3
    restored = archive.wado("restore", study, "--root", str(archive.root))
    # On a busy machine it says, too, that they become visible later.
    assert (restored.returncode, restored.stdout.splitlines()[0]) == (0, "3 instances restored")
    wait_until(lambda: fetched(instance)[0] == 200, timeout_s=120, reason="it is back")
    assert len(list(bucket.walk(f"deleted/default/{study}"))) == 0
    checked(archive)
    assert fetched(url, method="DELETE")[0] in (200, 202, 204)
    wait_until(lambda: fetched(instance)[0] == 410, timeout_s=120, reason="it is gone")
    checked(archive)


def test_rebuilt_from_the_originals_alone(
    archive: RunningArchive, bucket: Bucket, tmp_path: Path
) -> None:
    url, _ = ct_study(archive, tmp_path, "rebuilt")
    wait_read(archive)
    before = search_counts(archive)
    assert url.rpartition("/")[2] in before
    archive.stop()
    bucket.delete([o.path for o in bucket.walk("metadata")])
    done = archive.wado("reindex", "--root", str(archive.root))
    assert done.returncode == 0, done.stderr
    archive.start()
    assert search_counts(archive) == before
    checked(archive)


@pytest.fixture(scope="module")
def warm(archive: RunningArchive) -> RunningArchive:
    """The archive, which did all of it once: what it needs is loaded."""
    small = Large("warm-s3", 24 * MEGABYTE)
    store_by_stow(archive, small, chunked=True)
    out_by_every_way(archive, small)
    wait_described(archive)
    return archive


def out_by_every_way(archive: RunningArchive, large: Large) -> None:
    whole = digest(large.part10())
    assert digest(get(archive, large.path, "application/dicom; transfer-syntax=*")) == whole
    for _ in get(archive, f"{large.path}/frames/1,2,3,{large.frames}"):
        pass
    for _ in get(archive, large.path, headers={"Range": f"bytes={large.size // 2}-"}):
        pass


def test_memory_stays_flat_whatever_the_length(warm: RunningArchive) -> None:
    large = Large("s3", SIZE)
    with flat(warm, GROWTH):
        store_by_stow(warm, large, chunked=True)
        store_by_stow(warm, large, chunked=False)  # the same again: it is compared
        out_by_every_way(warm, large)
