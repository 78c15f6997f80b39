"""The files that other tests stand on are what they say."""

from io import BytesIO

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

import synthetic

ALL = [
    synthetic.ct(),
    synthetic.mr_series(1)[0],
    synthetic.colour(),
    synthetic.multi_frame(),
    synthetic.structured_report(),
]


def _read(data: bytes) -> Dataset:
    return pydicom.dcmread(BytesIO(data))


@pytest.mark.parametrize("ds", ALL, ids=lambda ds: ds.SOPClassUID.name)
@pytest.mark.parametrize(
    "transfer_syntax", synthetic.NATIVE_TRANSFER_SYNTAXES, ids=lambda u: u.name
)
def test_each_native_syntax_reads_back_with_the_same_values(ds: Dataset, transfer_syntax: str):
    read = _read(synthetic.part10(synthetic.with_transfer_syntax(ds, transfer_syntax)))
    assert read.file_meta.TransferSyntaxUID == transfer_syntax
    assert read.SOPInstanceUID == ds.SOPInstanceUID
    assert read.PatientName == ds.PatientName
    if "PixelData" in ds:
        expected = _read(synthetic.part10(ds)).pixel_array
        assert (read.pixel_array == expected).all()


def test_the_same_arguments_give_the_same_bytes_and_slices_differ():
    first, again = synthetic.ct_series(2), synthetic.ct_series(2)
    assert [synthetic.part10(ds) for ds in first] == [synthetic.part10(ds) for ds in again]
    assert first[0].PixelData != first[1].PixelData
    assert first[0].SeriesInstanceUID == first[1].SeriesInstanceUID
    assert first[0].SOPInstanceUID != first[1].SOPInstanceUID


def test_another_study_has_other_uids_and_given_uids_stay():
    other = synthetic.ct(study="another")
    assert other.StudyInstanceUID != synthetic.ct().StudyInstanceUID
    assert other.SOPInstanceUID != synthetic.ct().SOPInstanceUID
    assert synthetic.ct(study="1.2.3").StudyInstanceUID == "1.2.3"


@pytest.mark.parametrize("offset_table", ["basic", "extended", "none"])
def test_encapsulated_frames_come_back(offset_table: str):
    frames = [b"\x01\x02\x03\x04", b"\x05\x06", b"\x07\x08\x09\x0a"]
    ds = synthetic.encapsulated(
        synthetic.multi_frame(), "1.2.840.10008.1.2.4.50", frames, offset_table=offset_table
    )
    read = _read(synthetic.part10(ds))
    assert list(generate_frames(read.PixelData, number_of_frames=3)) == frames
    assert ("ExtendedOffsetTable" in read) == (offset_table == "extended")


def test_fragments_are_made():
    ds = synthetic.encapsulated(
        synthetic.multi_frame(), "1.2.840.10008.1.2.4.50", [bytes(64)] * 2, fragments_per_frame=4
    )
    # offset table, 2 x 4 fragments; the delimiter is written by the encoder
    assert _read(synthetic.part10(ds)).PixelData.count(b"\xfe\xff\x00\xe0") == 1 + 8


def test_run_length_encoding_decodes_to_the_same_pixels():
    ds = synthetic.ct()
    encoded = _read(synthetic.part10(synthetic.run_length_encoded(ds)))
    assert encoded.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.5"
    assert encoded.SOPInstanceUID == ds.SOPInstanceUID


@pytest.mark.parametrize("fragments", [False, True])
def test_a_large_instance_is_legal(fragments: bool):
    size = 3 * synthetic.MEGABYTE
    data = b"".join(synthetic.large_part10(size, piece=1 << 16, fragments=fragments))
    ds = _read(data)
    assert ds.NumberOfFrames == 3
    assert size <= len(data) < size + 4096
    assert data.endswith(b"".join(synthetic.large_data_set(size, fragments=fragments)))


def test_a_bare_data_set_is_the_end_of_the_file():
    ds = synthetic.ct()
    bare = synthetic.data_set(ds)
    assert synthetic.part10(ds).endswith(bare)
    assert bare[:4] == b"\x08\x00\x08\x00"  # Image Type (0008,0008)
