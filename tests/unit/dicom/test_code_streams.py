"""Heads of code streams: what encoders wrote is read; what is hostile is refused."""

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wado.dicom.code_streams import read_jpeg
from wado.dicom.jpeg_2000_stream import read_jpeg_2000
from wado.dicom.jpeg_xl_stream import read_jpeg_xl
from wado.errors import CannotUnderstand

SIZES = [(8, 8), (13, 9), (1, 600), (300, 200), (512, 256), (40, 30), (24, 16)]


def pixels(rows: int, columns: int, samples: int = 1, kind: str = "u1") -> np.ndarray:
    return np.zeros((rows, columns, samples), kind)[..., 0 if samples == 1 else slice(None)]


@pytest.mark.parametrize("size", SIZES)
def test_sizes_of_what_was_encoded(size: tuple[int, int]):
    for data, read in (
        (imagecodecs.jpeg8_encode(pixels(*size)), read_jpeg),
        (imagecodecs.jpegls_encode(pixels(*size)), read_jpeg),
        (
            imagecodecs.jpeg2k_encode(pixels(*size), codecformat="j2k", resolutions=1),
            read_jpeg_2000,
        ),
        (
            imagecodecs.jpeg2k_encode(pixels(*size), codecformat="jp2", resolutions=1),
            read_jpeg_2000,
        ),
        (imagecodecs.jpegxl_encode(pixels(*size), usecontainer=False), read_jpeg_xl),
        (imagecodecs.jpegxl_encode(pixels(*size), usecontainer=True), read_jpeg_xl),
    ):
        found = read(bytes(data))
        assert (found.rows, found.columns) == size


def test_samples_precision_and_transforms():
    gray = read_jpeg(bytes(imagecodecs.jpegls_encode(pixels(4, 4, kind="u2"))))
    assert (gray.samples, gray.precision, gray.is_lossless_jpeg) == (1, 16, True)
    colour = read_jpeg(bytes(imagecodecs.jpeg8_encode(pixels(16, 16, 3))))
    assert (colour.samples, colour.precision, colour.is_lossless_jpeg) == (3, 8, False)
    assert colour.is_ycbcr
    reversible = imagecodecs.htj2k_encode(pixels(64, 64, 3), reversible=True, rgb=True)
    found = read_jpeg_2000(bytes(reversible))
    assert found.component_transform
    assert found.is_reversible
    signed = imagecodecs.jpeg2k_encode(
        pixels(64, 64, kind="i2"), codecformat="j2k", level=40, reversible=False
    )
    found = read_jpeg_2000(bytes(signed))
    assert found.is_signed
    assert not found.is_reversible


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xff\xff\xff", bytes(200)])
def test_what_is_no_code_stream(data: bytes):
    for read in (read_jpeg, read_jpeg_2000, read_jpeg_xl):
        with pytest.raises(CannotUnderstand):
            read(data)


@given(
    st.sampled_from([b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\xff\x0a", b"\0\0\0\x0cJXL ", b""]),
    st.binary(max_size=300),
)
def test_any_bytes_are_a_size_or_refused(start: bytes, rest: bytes):
    for read in (read_jpeg, read_jpeg_2000, read_jpeg_xl):
        try:
            found = read(start + rest)
        except CannotUnderstand:
            continue
        assert found.rows >= 0
