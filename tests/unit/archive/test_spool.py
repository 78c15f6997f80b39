"""Parts that wait lie on the disk, are found by their location, and leave nothing behind."""

import errno
import os

import pytest

from wado.archive import spool as spool_module
from wado.archive.spool import Spool
from wado.dicom.media_types import MediaType
from wado.errors import OutOfResources, TooLarge
from wado.ports import Archive

OCTETS = MediaType("application/octet-stream")
BASE = "http://here/dicomweb/studies"


def add(spool: Spool, location: str, data: bytes):
    part = spool.begin(OCTETS, location, is_metadata=False)
    for byte in data:
        spool.write(part, bytes([byte]))
    return part


def test_parts_are_found_by_their_location(archive: Archive):
    spool = Spool(archive.store, BASE)
    add(spool, "a/1", b"one")
    add(spool, "http://here/dicomweb/studies/b", b"two")
    add(spool, "a/1", b"three")
    add(spool, "http://[", b"x")
    assert b"".join(spool.chunks(spool.parts(f"{BASE}/a/1"))) == b"onethree"
    assert b"".join(spool.chunks(spool.parts("b"))) == b"two"
    assert b"".join(spool.chunks(spool.parts(" <b> "))) == b"two"
    assert spool.parts("c") == []
    assert spool.unused() == ["http://["]
    (part,) = spool.parts("http://[")
    assert spool.read_at(part, 0, 99) == b"x"
    assert spool.read_at(part, 5, 99) == b""
    spool.close()


def test_a_part_that_is_used_again_and_again_does_not_fill_the_disk(archive: Archive):
    spool = Spool(archive.store, BASE)
    part = add(spool, "a", b"four")
    for _ in range(16):
        assert b"".join(spool.chunks([part])) == b"four"
    with pytest.raises(TooLarge):
        list(spool.chunks([part]))
    spool.close()


def test_the_file_has_no_name(archive: Archive):
    folder = archive.store.local_path("incoming")
    assert folder is not None
    spool = Spool(archive.store, BASE)
    add(spool, "a", b"x")
    assert list(folder.iterdir()) == []
    spool.close()


def test_a_full_disk_and_too_many_parts_are_told(archive: Archive, monkeypatch):
    spool = Spool(archive.store, BASE)
    part = add(spool, "a", b"")
    monkeypatch.setattr(spool_module, "_MAX_PARTS", 1)
    with pytest.raises(TooLarge):
        add(spool, "b", b"")

    def full(_fd: int, _data: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutOfResources, match="disk is full"):
        spool.write(part, b"x")
    spool.close()
