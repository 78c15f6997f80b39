"""DCMTK as an independent peer: its senders and our receiver, its receiver and our sender."""

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest

import real
import synthetic
from backing.program import free_port
from dimse import receiver
from service import wait_until
from wado.dicom.part10 import read_file_meta
from wado.errors import Unavailable
from wado.ports import Archive
from wado.services.association import Peer
from wado.services.storescu import DicomFile, echo, find_files, send
from wado.settings import Settings

HTJ2K = "1.2.840.10008.1.2.4.20"
DEFLATED = "1.2.840.10008.1.2.1.99"
_ANSWER = re.compile(r"Received Store Response \((.*)\)")


@pytest.fixture(autouse=True)
def _dcmtk() -> None:
    real.require("dcmtk")


@pytest.fixture
def scp(archive: Archive, settings: Settings) -> Iterator[Peer]:
    with receiver(archive, settings.storescp) as peer:
        yield peer


def _environment() -> dict[str, str]:
    # Without TCP_NODELAY DCMTK waits 40 ms for the acknowledgement of each command.
    return {**os.environ, "TCP_NODELAY": "1"}


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=240,
        check=False,
        env=_environment(),
    )


def _files(folder: Path) -> list[DicomFile]:
    return [file for file in find_files([folder]) if isinstance(file, DicomFile)]


def _profile(path: Path, files: list[DicomFile]) -> Path:
    """Write a profile for storescu that proposes each SOP class in each syntax that it needs."""
    pairs = sorted({file.pair for file in files})
    lines = ["[[TransferSyntaxes]]"]
    for syntax in sorted({syntax for _, syntax in pairs}):
        lines += [f"[TS{syntax.replace('.', '_')}]", f"TransferSyntax1 = {syntax}"]
    lines += ["[[PresentationContexts]]", "[Needed]"]
    for n, (sop_class, syntax) in enumerate(pairs, 1):
        lines.append(f"PresentationContext{n} = {sop_class}\\TS{syntax.replace('.', '_')}")
    lines += ["[[Profiles]]", "[Needed]", "PresentationContexts = Needed", ""]
    path.write_text("\n".join(lines))
    return path


def _storescu(scp: Peer, profile: Path, folder: Path) -> list[str]:
    """Send a folder, going on after failures; the answers in DCMTK's words."""
    done = _run(
        "storescu", "-v", "--no-halt", "+sd", "+r", "-xf", profile, "Needed",
        "-aec", scp.ae_title, scp.host, scp.port, folder,
    )  # fmt: skip
    return _ANSWER.findall(done.stdout + done.stderr)


def _stored(settings: Settings) -> dict[str, Path]:
    return {path.stem: path for path in settings.storage.root.glob("default/*/*/*.dcm")}


def test_echoscu(scp):
    done = _run("echoscu", "-v", "--repeat", 3, "-aec", "WADO", scp.host, scp.port)
    assert done.returncode == 0
    assert (done.stdout + done.stderr).count("Received Echo Response (Success)") == 3


def test_echoscu_that_proposes_all_it_can_and_one_that_aborts(scp):
    done = _run("echoscu", "-v", "-pts", 38, "-ppc", 128, scp.host, scp.port)
    assert done.returncode == 0
    assert _run("echoscu", "--abort", scp.host, scp.port).returncode == 0
    assert echo(scp) > 0


def test_every_file_of_the_corpus_is_stored_or_refused(scp, settings, corpus, tmp_path):
    files = _files(corpus)
    profile = _profile(tmp_path / "profile.cfg", files)
    answers = Counter(_storescu(scp, profile, corpus))
    # DCMTK 3.6.7 can't encode HTJ2K and deflated data sets, and leaves out what it can't read.
    unable = sum(f.pair[1] == DEFLATED or f.pair[1].startswith(HTJ2K) for f in files)
    assert sum(answers.values()) >= len(files) - unable - 20
    assert set(answers) <= {
        "Success",
        "Error: CannotUnderstand",
        "Unknown Status: 0x111",  # DCMTK has no name for it
        "Unknown Status: 0x115",
    }
    assert answers["Success"] >= 300
    stored = _stored(settings)
    assert 290 <= len(stored) <= answers["Success"]
    # DCMTK writes lengths anew, so data sets may differ in form; their pixels may not.
    for file in _files(corpus / "ct-volume"):
        sent = pydicom.dcmread(file.path)
        kept = pydicom.dcmread(stored[file.sop_instance_uid])
        assert kept.PixelData == sent.PixelData
        assert kept.file_meta.TransferSyntaxUID == file.pair[1]


def test_four_senders_of_the_same_files_at_once(scp, settings, corpus, tmp_path):
    folder = corpus / "mr-volume"
    files = _files(folder)
    profile = _profile(tmp_path / "profile.cfg", files)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: _storescu(scp, profile, folder), range(4)))
    assert answers == [["Success"] * len(files)] * 4
    assert set(_stored(settings)) == {file.sop_instance_uid for file in files}


@pytest.mark.parametrize(
    "options",
    [
        ("-xi",),
        ("--max-send-pdu", 4096),
        ("-pdu", 4096),
        ("-usr", "me", "-pwd", "secret", "-rsp"),
        ("-xs",),
    ],
    ids=str,
)
def test_storescu_with_options(scp, settings, tmp_path, options):
    path = tmp_path / "ct"
    path.write_bytes(synthetic.part10(synthetic.ct(rows=100, columns=100)))
    done = _run("storescu", *options, scp.host, scp.port, path)
    assert done.returncode == 0, done.stderr
    assert len(_stored(settings)) == 1


def test_dcmsend(scp, settings, corpus):
    done = _run(
        "dcmsend", "-v", "-dn", "-nh", "+sd", "+r", scp.host, scp.port, corpus / "mr-volume"
    )
    assert done.returncode == 0, done.stderr
    assert len(_stored(settings)) == len(_files(corpus / "mr-volume"))


@contextmanager
def _storescp(folder: Path, *options: object) -> Iterator[Peer]:
    """DCMTK's receiver, which keeps the bytes as they come."""
    folder.mkdir()
    peer = Peer("ANY-SCP", "127.0.0.1", free_port())
    arguments = ["storescp", "--fork", "+B", "-od", folder, *options, peer.port]
    process = subprocess.Popen(
        [str(argument) for argument in arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_environment(),
    )
    try:
        wait_until(lambda: _answers(peer), timeout_s=120, reason="storescp answers")
        yield peer
    finally:
        process.terminate()
        process.wait(60)


def _answers(peer: Peer) -> bool:
    try:
        return echo(peer) > 0
    except Unavailable:
        return False


def _data_set(path: Path) -> bytes:
    data = path.read_bytes()
    return data[read_file_meta(data).data_set_offset :]


def test_what_we_send_arrives_as_it_was(corpus, tmp_path):
    files = _files(corpus / "mr-volume") + _files(corpus / "syntaxes" / "wg04")
    folder = tmp_path / "received"
    with _storescp(folder, "+xa") as peer:
        summary = send([file.path for file in files], peer)
    assert summary.files_sent == len(files)
    sent = {_data_set(file.path) for file in files}
    received = {_data_set(path) for path in folder.iterdir()}
    assert received <= sent
    assert len(received) == len({file.sop_instance_uid for file in files})


def test_syntaxes_that_the_peer_does_not_take_are_failures(tmp_path):
    ds = synthetic.run_length_encoded(synthetic.ct())
    path = tmp_path / "rle"
    path.write_bytes(synthetic.part10(ds))
    with _storescp(tmp_path / "received") as peer:
        summary = send([path], peer)
    assert summary.files_sent == 0
    assert "CT Image Storage in RLE Lossless: " in summary.failures[0].reason


def test_our_receiver_and_our_sender_keep_every_byte(scp, settings, corpus):
    files = _files(corpus)
    summary = send([corpus], scp)
    stored = _stored(settings)
    assert summary.files_sent + len(summary.failures) == len(files)
    assert all(item.reason for item in (*summary.failures, *summary.skipped))
    failed = {failure.path for failure in summary.failures}
    for file in files:
        if file.path not in failed:
            assert _data_set(stored[file.sop_instance_uid]) == _data_set(file.path)
