"""Pieces are cut and read exactly; open files are shared and let go."""

import os
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wado.adapters.instance_store.filesystem import FilesystemInstanceStore
from wado.archive.pieces import Computed, FileSlice, OpenFiles, cut, piece_length
from wado.archive.search_results import element
from wado.archive.values import aligned, swapped
from wado.errors import NotFound


@pytest.fixture
def store(tmp_path: Path) -> FilesystemInstanceStore:
    store = FilesystemInstanceStore(tmp_path)
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * 10 + b"0123456789")
    return store


@given(st.lists(st.binary(max_size=9), max_size=5), st.integers(0, 50), st.integers(0, 50))
def test_a_cut_is_a_slice(pieces: list[bytes], start: int, end: int):
    computed = [Computed(len(p), partial(bytes, p)) for p in pieces]
    whole = b"".join(pieces)
    assert b"".join(cut(pieces, start, end)) == whole[start:end]  # type: ignore[arg-type]
    made = [p.make() for p in cut(computed, start, end) if isinstance(p, Computed)]
    assert b"".join(made) == whole[start:end]


def test_slices_of_files_are_cut_by_offset():
    (piece,) = cut([FileSlice("a", 5, 10, "x")], 2, 6)
    assert piece == FileSlice("a", 7, 4, "x")
    assert piece_length(piece) == 4


def test_files_are_read_and_stay_open_within_the_limit(store: FilesystemInstanceStore):
    def are_open() -> int:
        """Count those of the store: others of this process come and go."""
        count = 0
        for number in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):  # it was of the look into the folder
                count += os.readlink(f"/proc/self/fd/{number}") in names
        return count

    files = OpenFiles(store, max_open=2)
    names = {str(store.local_path(name)) for name in "abc"}
    for _ in range(3):
        for name in "abc":
            assert files.read(FileSlice(name, 8, 4)) == name.encode() * 2 + b"01"
    assert are_open() == 2
    files.close()
    assert are_open() == 0


def test_only_what_is_open_and_in_memory_is_read_at_once(store: FilesystemInstanceStore):
    files, piece, target = OpenFiles(store), FileSlice("a", 10, 3), bytearray(3)
    assert not files.read_at_once(piece, memoryview(target))
    files.read_into(piece, memoryview(target))
    assert target == b"012"
    assert files.read_at_once(FileSlice("a", 12, 3), memoryview(target))
    assert target == b"234"
    assert not files.read_at_once(Computed(3, lambda: b"abc"), memoryview(target))
    files.close()


def test_a_file_that_is_shorter_than_was_said(store: FilesystemInstanceStore):
    files = OpenFiles(store)
    with pytest.raises(NotFound):
        files.read(FileSlice("a", 15, 10))
    with pytest.raises(NotFound):
        files.read_into(FileSlice("a", 15, 10), memoryview(bytearray(10)))
    with pytest.raises(NotFound):
        files.read(FileSlice("gone", 0, 1))
    files.close()


def test_a_file_that_was_cut_off_and_put_back_is_read_again(store: FilesystemInstanceStore):
    files, piece, path = OpenFiles(store), FileSlice("a", 8, 4), store.local_path("a")
    assert path is not None
    whole = files.read(piece)
    kept = path.read_bytes()

    def lend() -> None:
        with files.lent(piece):
            raise EOFError

    for notice in (lambda: files.read(piece), lend):
        os.truncate(path, 5)
        with pytest.raises((NotFound, EOFError)):
            notice()
        assert not files.is_open(piece)
        with pytest.raises(NotFound):  # before anything of it is sent
            files.open(piece)
        path.unlink()
        path.write_bytes(kept)
        assert files.read(piece) == whole
    files.close()


def test_a_copy_that_is_gone_is_known_when_it_is_opened(
    store: FilesystemInstanceStore, monkeypatch: pytest.MonkeyPatch
):
    """As objects over a network are asked for only when they are read."""
    store.put_document(path := "derived/t/1.2/1.3/1.4.1.2.840.10008.1.2.1.dcm", [b"0123456789"])
    files, piece = OpenFiles(store), FileSlice(path, 0, 4)
    open_it = store.open
    monkeypatch.setattr(store, "local_path", lambda _path: None)
    monkeypatch.setattr(store, "open", lambda _path, ahead: open_it("a", ahead=ahead))
    files.open(piece)
    files.close()
    store.delete([path])
    with pytest.raises(NotFound, match="is gone"):
        files.open(piece)
    files.close()


def test_words_are_turned_round():
    assert swapped(b"\x01\x02\x03\x04\x05", 2) == b"\x02\x01\x04\x03\x05"
    assert swapped(b"\x01\x02\x03\x04", 4) == b"\x04\x03\x02\x01"
    assert swapped(b"\x01\x02", 1) == b"\x01\x02"


def test_packed_bits_are_moved_to_a_byte_boundary():
    # 0b1_011 packed from the second bit on
    assert aligned(bytes([0b0001_0110]), 1, 4) == bytes([0b1011])
    assert aligned(bytes([0xFF, 0xFF]), 7, 9) == bytes([0xFF, 0x01])


@pytest.mark.parametrize(
    ("vr", "value", "expected"),
    [
        ("LO", None, {"vr": "LO"}),
        ("LO", "", {"vr": "LO"}),
        ("CS", "CT\\MR", {"vr": "CS", "Value": ["CT", "MR"]}),
        ("CS", "A\\\\B", {"vr": "CS", "Value": ["A", None, "B"]}),
        ("IS", 5, {"vr": "IS", "Value": [5]}),
        ("PN", "A^B=C=D", {"vr": "PN", "Value": [
            {"Alphabetic": "A^B", "Ideographic": "C", "Phonetic": "D"}]}),
        ("PN", "=C", {"vr": "PN", "Value": [{"Ideographic": "C"}]}),
    ],
)  # fmt: skip
def test_columns_become_elements(vr: str, value: str | int | None, expected: dict[str, object]):
    assert element(vr, value) == expected
