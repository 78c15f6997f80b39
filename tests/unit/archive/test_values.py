"""Values that are worked out in chunks give what one pass over all of them would."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

import synthetic
from wado.adapters.instance_store.filesystem import FilesystemInstanceStore
from wado.archive import values
from wado.archive.journal import Entry
from wado.archive.values import StoredValue, aligned, is_plain, swapped
from wado.dicom.describe import describe


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_chunks_of_a_value_are_the_value(tmp_path: Path, monkeypatch, syntax: str):
    monkeypatch.setattr(values, "_CHUNK_BYTES", 1000)
    ds = synthetic.ct(rows=60, columns=50)
    data = synthetic.part10(synthetic.with_transfer_syntax(ds, syntax))
    (tmp_path / "a.dcm").write_bytes(data)
    described = describe(lambda at, count: data[at : at + count], len(data))
    assert described.pixel is not None
    entry = Entry(
        "1.2", "1.2", syntax, len(data), "", "", 1, 1, described.pixel, described.bulk, 0, 0
    )
    assert not is_plain(entry)
    value = StoredValue(FilesystemInstanceStore(tmp_path), "a.dcm", entry, described.pixel.offset)
    chunks = value.chunks(described.pixel.offset, 0, described.pixel.length * 8)
    assert [chunk.length for chunk in chunks] == [1000] * 6
    assert b"".join(chunk.make() for chunk in chunks) == ds.PixelData
    assert chunks[2].make() == ds.PixelData[2000:3000]  # again, and out of order


def test_chunks_of_packed_bits_are_moved_to_byte_boundaries(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(values, "_CHUNK_BYTES", 16)
    bits = np.random.default_rng(3).integers(0, 2, 1003, dtype=np.uint8)
    stored = np.packbits(bits, bitorder="little").tobytes()
    value = StoredValue(FilesystemInstanceStore(tmp_path), "", None, 0)  # type: ignore[arg-type]  # unused
    monkeypatch.setattr(value, "_reader", lambda at, count: stored[at : at + count])
    chunks = value.chunks(1, 3, 900)
    expected = np.packbits(bits[11:911], bitorder="little").tobytes()
    assert b"".join(chunk.make() for chunk in chunks) == expected == aligned(stored[1:], 3, 900)


@pytest.mark.parametrize(("first", "length"), [(0, 27), (9, 9), (3, 2), (0, 28)])
def test_words_that_are_cut_are_turned_round_whole(
    first: int, length: int, monkeypatch, tmp_path: Path
):
    bytewise = bytes(range(28))
    stored = b"." + swapped(bytewise, 2)  # the value begins at an odd offset of the file
    value = StoredValue(FilesystemInstanceStore(tmp_path), "", None, 1)  # type: ignore[arg-type]  # unused
    monkeypatch.setattr(value, "_reader", lambda at, count: stored[at : at + count])
    monkeypatch.setattr(value, "_word_bytes", 2)
    (chunk,) = value.chunks(1 + first, 0, length * 8)
    assert chunk.make() == bytewise[first : first + length]
