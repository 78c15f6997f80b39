"""The whole archive on real files: whichever way they come, all that is derived agrees."""

import json
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from read_log import wait_read
from service import PATIENT_ENV, RunningArchive
from wado.bootstrap import open_archive
from wado.dicom.part10 import read_file_meta
from wado.services.association import Peer
from wado.services.storescu import DicomFile, SendSummary, find_files, send
from wado.settings import load_settings

pytestmark = pytest.mark.timeout(1200)  # hundreds of files go in and are compared

BOUNDARY = "corpus-boundary-of-the-test"
NEVER_SENT = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.2"}
"""Implicit VR and big endian come back as Explicit VR Little Endian (PS3.18 §8.7.3.4)."""
Counts = dict[str, tuple[int, int]]
LIMIT_S = 300
ANSWER_TIMEOUT_S = 120


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningArchive]:
    """An empty archive of each test's own."""
    with RunningArchive(tmp_path / "data", env=PATIENT_ENV) as archive:
        yield archive


def data_set(path: Path) -> bytes:
    data = path.read_bytes()
    return data[read_file_meta(data).data_set_offset :]


def files_of(corpus: Path) -> list[DicomFile]:
    return [f for f in find_files([corpus]) if isinstance(f, DicomFile)]


def stored(archive: RunningArchive) -> dict[str, Path]:
    return {p.stem: p for p in (archive.root / "default").glob("*/*/*.dcm")}


def get_json(url: str) -> list[dict[str, Any]]:
    request = urllib.request.Request(url, headers={"Accept": "application/dicom+json"})
    with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:
        rows: list[dict[str, Any]] = json.loads(answer.read() or b"[]")
        return rows


def number(row: dict[str, Any], tag: str) -> int:
    return int(row[tag]["Value"][0])


def search_counts(archive: RunningArchive) -> dict[str, int]:
    """Instances of each series, by every way to ask for them; they must agree."""
    counts = {}
    for study in get_json(f"{archive.dicomweb}/studies?limit=1000"):
        url = f"{archive.dicomweb}/studies/{study['0020000D']['Value'][0]}"
        rows = get_json(f"{url}/series?limit=1000")
        assert number(study, "00201206") == len(rows)
        assert number(study, "00201208") == sum(number(r, "00201209") for r in rows)
        for row in rows:
            series = row["0020000E"]["Value"][0]
            metadata = get_json(f"{url}/series/{series}/metadata")
            instances = get_json(f"{url}/series/{series}/instances?limit=1000")
            assert len(metadata) == len(instances) == number(row, "00201209")
            uids = [m["00080018"]["Value"][0] for m in metadata]
            assert len(set(uids)) == len(uids)
            counts[series] = len(uids)
    return counts


def everything_agrees(archive: RunningArchive) -> int:
    """Disk, index, metadata and warehouse count the same; how many instances there are."""
    wait_read(archive, timeout_s=LIMIT_S)
    check = archive.wado("check", "--deep", "--root", str(archive.root), timeout_s=LIMIT_S)
    assert check.returncode == 0, check.stdout + check.stderr
    on_disk: dict[str, int] = {}
    for path in stored(archive).values():
        on_disk[path.parent.name] = on_disk.get(path.parent.name, 0) + 1
    assert search_counts(archive) == on_disk
    return sum(on_disk.values())


def is_explained(reason: str) -> bool:
    """A person can see why the file is not stored."""
    return any(
        word in reason
        for word in ("other bytes", "lacks", "ends early", "not a UID", "does not take", "differs")
    )


def test_every_file_by_wado_send_is_stored_or_refused_with_a_reason(
    running: RunningArchive, corpus: Path
) -> None:
    summary = send([corpus], Peer.parse(running.destination))
    assert all(is_explained(f.reason) for f in summary.failures), summary.failures
    assert all(s.reason for s in summary.skipped)
    kept = stored(running)
    assert summary.files_sent == len(kept)
    assert everything_agrees(running) == len(kept) > 300
    refused = {f.path for f in summary.failures}
    for file in files_of(corpus):
        if file.path not in refused:
            assert data_set(kept[file.sop_instance_uid]) == data_set(file.path)

    # The same by the command: exit code 1, since some are refused, and why in words.
    command = running.wado("send", str(corpus), "--to", running.destination, timeout_s=LIMIT_S)
    assert command.returncode == 1
    assert "other bytes" in command.stdout
    assert "Traceback" not in command.stderr


def multipart(paths: list[Path]) -> bytes:
    parts = [
        f"\r\n--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + p.read_bytes()
        for p in paths
    ]
    return b"".join(parts) + f"\r\n--{BOUNDARY}--\r\n".encode()


def stow(archive: RunningArchive, paths: list[Path]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        f"{archive.dicomweb}/studies",
        data=multipart(paths),
        headers={
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}',
            "Accept": "application/dicom+json",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as e:
        with e:
            return e.code, json.loads(e.read())


def retrieved(archive: RunningArchive, path: Path) -> bytes:
    """The instance as WADO-RS gives it, in its stored syntax, as a single part."""
    study, series = path.parent.parent.name, path.parent.name
    request = urllib.request.Request(
        f"{archive.dicomweb}/studies/{study}/series/{series}/instances/{path.stem}",
        headers={"Accept": "application/dicom; transfer-syntax=*"},
    )
    with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:
        data: bytes = answer.read()
        return data


def test_every_file_by_stow_is_stored_byte_for_byte_or_refused_with_a_reason(
    running: RunningArchive, corpus: Path
) -> None:
    folder_paths = sorted(p for p in corpus.rglob("*") if p.is_file())
    accepted: dict[str, Path] = {}
    for path in folder_paths:
        status, answer = stow(running, [path])
        assert status in (200, 409, 400), (path, status, answer)
        if status == 200:
            (item,) = answer["00081199"]["Value"]
            accepted.setdefault(item["00081155"]["Value"][0], path)
        else:
            failures = answer.get("00081198") or answer.get("0008119A")
            assert failures, (path, answer)
    kept = stored(running)
    assert set(kept) == set(accepted)
    for uid, path in accepted.items():
        assert kept[uid].read_bytes() == path.read_bytes()
        if read_file_meta(path.read_bytes()).transfer_syntax_uid not in NEVER_SENT:
            assert retrieved(running, kept[uid]) == path.read_bytes()
    assert everything_agrees(running) == len(kept) > 300


def warehouse_counts(root: Path) -> Counts:
    """Rows and distinct instances of the tables."""
    with open_archive(load_settings(storage={"root": root})) as archive:
        rows = archive.warehouse.query(
            "select count(*) as n, count(distinct sop_instance_uid) as u from dicom_image_meta"
        )
        states = archive.warehouse.query(
            "select count(*) as n, count(distinct series_instance_uid) as u from dicom_state_meta"
        )
    return {"images": (rows[0]["n"], rows[0]["u"]), "states": (states[0]["n"], states[0]["u"])}


def journals(root: Path) -> dict[str, bytes]:
    """Journals without the marks of the webworker."""
    return {
        str(p): b"".join(
            line
            for line in p.read_bytes().splitlines(keepends=True)
            if not line.startswith(b'{"described"')
        )
        for p in (root / "metadata").rglob("*.journal")
    }


def test_again_and_by_eight_senders_at_once_changes_nothing(
    running: RunningArchive, corpus: Path
) -> None:
    folder = corpus / "ct-volume"
    peer = Peer.parse(running.destination)
    assert not send([folder], peer).failures
    total = everything_agrees(running)
    before = journals(running.root), warehouse_counts(running.root)
    summaries: list[SendSummary] = []

    def again() -> None:
        summaries.append(send([folder], peer, associations=2))

    senders = [threading.Thread(target=again) for _ in range(8)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert [s.files_sent for s in summaries] == [total] * 8
    assert not any(s.failures for s in summaries)
    assert everything_agrees(running) == total
    assert (journals(running.root), warehouse_counts(running.root)) == before


def test_eight_senders_of_the_same_new_files_store_each_once(
    running: RunningArchive, corpus: Path
) -> None:
    folder = corpus / "mr-volume"
    peer = Peer.parse(running.destination)
    summaries: list[SendSummary] = []
    senders = [
        threading.Thread(target=lambda: summaries.append(send([folder], peer, associations=1)))
        for _ in range(8)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert not [f for s in summaries for f in s.failures]
    total = everything_agrees(running)
    assert total == len(files_of(folder))
    assert warehouse_counts(running.root)["images"] == (total, total)


def test_reindex_rebuilds_all_from_the_files_alone(running: RunningArchive, corpus: Path) -> None:
    for name in ("mr-volume", "charset", "multiframe"):
        send([corpus / name], Peer.parse(running.destination))
    everything_agrees(running)
    before = search_counts(running)
    refused = running.wado("reindex", "--root", str(running.root))
    assert refused.returncode == 1
    assert "in use by" in refused.stderr
    running.stop()
    for name in ("index", "metadata", "warehouse", "log"):
        subprocess.run(["rm", "-rf", str(running.root / name)], check=True)
    done = running.wado("reindex", "--root", str(running.root), timeout_s=LIMIT_S)
    assert done.returncode == 0, done.stderr
    again = RunningArchive(running.root, env=PATIENT_ENV)
    with again:
        assert search_counts(again) == before
        everything_agrees(again)


def test_check_finds_and_repairs(running: RunningArchive, corpus: Path) -> None:
    send([corpus / "mr-volume"], Peer.parse(running.destination))
    everything_agrees(running)
    one, two, *_ = sorted(stored(running).values())
    copy = one.read_bytes()
    one.unlink()  # a file lost
    stray = two.with_name("1.2.3.4.5.dcm")  # garbage under a good name
    stray.write_bytes(b"no DICOM")
    found = running.wado("check", "--root", str(running.root))
    assert found.returncode == 1
    assert "instance whose file is missing" in found.stdout
    assert "can't be read as DICOM" in found.stdout
    assert "--repair" in found.stdout
    repaired = running.wado("check", "--repair", "--root", str(running.root))
    assert repaired.returncode == 0, repaired.stdout
    assert list((running.root / "quarantine").rglob("1.2.3.4.5.dcm"))

    one.write_bytes(copy)  # a file that nobody announced
    found = running.wado("check", "--root", str(running.root))
    assert "file that is not in the metadata" in found.stdout
    assert running.wado("check", "--repair", "--root", str(running.root)).returncode == 0
    everything_agrees(running)
