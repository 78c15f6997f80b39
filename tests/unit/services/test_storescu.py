"""What `wado send` makes of files and answers, without a network."""

from pathlib import Path

import pytest

import synthetic
from wado.dicom.part10 import file_meta
from wado.errors import InvalidRequest
from wado.services.association import MAX_CONTEXTS, Peer
from wado.services.storescu import (
    DicomFile,
    SendSummary,
    Unsent,
    _by_contexts,
    _status_text,
    find_files,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("WADO@127.0.0.1:11112", Peer("WADO", "127.0.0.1", 11112)),
        ("A B@pacs.example:104", Peer("A B", "pacs.example", 104)),
        ("WADO@[::1]:11112", Peer("WADO", "::1", 11112)),
    ],
)
def test_a_peer_is_read_from_text_and_back(text, peer):
    assert Peer.parse(text) == peer
    assert str(peer) == text


@pytest.mark.parametrize(
    "text", ["", "WADO", "@h:1", "A@:1", "A@h", "A@h:x", "A@h:0", "A@h:70000", "A" * 17 + "@h:1"]
)
def test_what_is_no_peer_is_refused(text):
    with pytest.raises(InvalidRequest, match="AET@HOST:PORT"):
        Peer.parse(text)


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_files_are_recognised_by_their_content(tmp_path):
    ds = synthetic.ct()
    data = synthetic.part10(ds)
    _write(tmp_path / "b" / "no_ending", data)
    _write(tmp_path / "a.dcm", data)
    found = list(find_files([tmp_path]))
    assert [f.path.name for f in found] == ["a.dcm", "no_ending"]
    for file in found:
        assert isinstance(file, DicomFile)
        assert file.pair == (CT, EXPLICIT)
        assert file.sop_instance_uid == ds.SOPInstanceUID
        assert data[file.offset :] == synthetic.data_set(ds)
        assert file.size == len(data) - file.offset


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not DICOM Part 10"),
        (b"%PDF-1.7" + bytes(500), "not DICOM Part 10"),
        (synthetic.data_set(synthetic.ct()), "not DICOM Part 10"),
        (synthetic.part10(synthetic.ct())[:200], "not DICOM Part 10"),
        (file_meta("1.2.840.10008.1.3.10", "1.2.3", EXPLICIT), "DICOMDIR"),
        (file_meta("", "", EXPLICIT), "without SOP Class UID"),
    ],
    ids=["empty", "pdf", "bare data set", "cut", "DICOMDIR", "no UIDs"],
)
def test_what_is_not_sent_has_a_reason(tmp_path, data, reason):
    (found,) = find_files([_write(tmp_path / "file.dcm", data)])
    assert isinstance(found, Unsent)
    assert reason in found.reason


def test_a_path_that_is_not_there_has_a_reason(tmp_path):
    (found,) = find_files([tmp_path / "nothing"])
    assert isinstance(found, Unsent)
    assert "cannot be read" in found.reason


def test_where_file_meta_and_data_set_differ_the_data_set_counts(tmp_path):
    ds = synthetic.ct()
    data = file_meta(CT, "1.2.3.4", EXPLICIT) + synthetic.data_set(ds)
    (found,) = find_files([_write(tmp_path / "file.dcm", data)])
    assert isinstance(found, DicomFile)
    assert found.sop_instance_uid == ds.SOPInstanceUID


def _file(number: int, sop_class_uid: str) -> DicomFile:
    return DicomFile(Path(f"{number}"), (sop_class_uid, EXPLICIT), f"1.{number}", 0, 10)


def test_files_are_parted_when_they_need_more_contexts_than_there_are():
    files = [_file(n, f"1.2.{n % 300}") for n in range(900)]
    parts = list(_by_contexts(files))
    assert sorted(f.path for part in parts for f in part) == sorted(f.path for f in files)
    assert [len({f.pair for f in part}) for part in parts] == [MAX_CONTEXTS, MAX_CONTEXTS, 44]


@pytest.mark.parametrize(
    ("status", "comment", "text"),
    [
        (0x0111, "", "0111H duplicate SOP instance"),
        (0xA701, "disk full", "A701H out of resources: disk full"),
        (0xA900, "", "A900H data set does not match SOP class"),
        (0xC123, "", "C123H cannot understand"),
        (0x0777, "", "0777H status of the peer"),
    ],
)
def test_a_status_is_said_in_words(status, comment, text):
    assert _status_text(status, comment) == text


def test_reasons_that_differ_in_uids_are_one_group():
    items = [
        Unsent(Path("a"), "0111H duplicate: 1.2.840.1.1"),
        Unsent(Path("b"), "0111H duplicate: 1.2.840.10008.9..."),
        Unsent(Path("c"), "the peer does not take 1.2.840.10008.5"),
    ]
    assert SendSummary.grouped(items) == [
        ("0111H duplicate: …", [Path("a"), Path("b")]),
        ("the peer does not take 1.2.840.10008.5", [Path("c")]),
    ]
