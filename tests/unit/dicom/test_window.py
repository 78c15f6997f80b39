"""Windows move over a file; deflated data sets can be read at any place."""

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wado.dicom.window import FIRST_WINDOW, InflatedReader, Window, data_set_reader
from wado.errors import CannotUnderstand

PLAIN = random.Random(1).randbytes(1000) * 300
PACKER = zlib.compressobj(6, zlib.DEFLATED, -15)
DEFLATED = b"meta" + PACKER.compress(PLAIN) + PACKER.flush() + b"\0"


def read(offset, length):
    return DEFLATED[offset : offset + length]


@given(st.lists(st.tuples(st.integers(0, len(PLAIN)), st.integers(0, 2000)), max_size=8))
def test_inflated_bytes_at_any_place(places):
    reader = data_set_reader(read, len(DEFLATED), "1.2.840.10008.1.2.1.99", 4)
    for offset, length in places:
        assert reader(offset, length) == PLAIN[offset : offset + length]


def test_other_syntaxes_are_read_as_they_are():
    assert data_set_reader(read, len(DEFLATED), "1.2.840.10008.1.2.1", 4) is read


def test_the_size_of_a_deflated_data_set():
    reader = InflatedReader(read, len(DEFLATED), 4)
    assert reader.size() == len(PLAIN)
    assert reader(10, 20) == PLAIN[10:30]


@pytest.mark.parametrize("cut", [5, 100, len(DEFLATED) - 10])
def test_an_incomplete_stream_is_refused(cut):
    reader = InflatedReader(lambda o, n: DEFLATED[:cut][o : o + n], cut, 4)
    with pytest.raises(CannotUnderstand, match="not complete"):
        reader.size()


def test_bytes_are_the_same_from_any_window():
    rng = random.Random(2)
    window = Window(lambda o, n: PLAIN[o : o + n], len(PLAIN))
    for _ in range(200):
        offset, length = rng.randrange(len(PLAIN)), rng.randrange(100_000)
        assert window.bytes_at(offset, length) == PLAIN[offset : offset + length]
        assert window.filled <= max(1 << 20, length)


def test_windows_grow_while_they_follow_each_other():
    sizes = []

    def zeros(_, length):
        sizes.append(length)
        return bytes(length)

    window = Window(zeros, 100 << 20)
    for position in range(0, 8 << 20, 1000):
        window.bytes_at(position, 1000)
    assert sizes[0] == FIRST_WINDOW
    assert max(sizes) == 1 << 20
    assert len(sizes) < 20


def test_a_file_that_is_shorter_than_announced_is_refused():
    window = Window(lambda o, n: PLAIN[o : o + n], len(PLAIN) + 1)
    with pytest.raises(CannotUnderstand, match="ends at"):
        window.bytes_at(len(PLAIN) - 5, 6)
