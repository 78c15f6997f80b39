"""Images that senders make up: small, legal, each with pixels of its own, the same for a name."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from random import Random

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

SOP_CLASS = str(CTImageStorage)
TRANSFER_SYNTAX = str(ExplicitVRLittleEndian)
_META_LENGTH_AT = 128 + 4 + 8


def uid(name: str) -> str:
    """Make a UID of a name (PS3.5 §B.2, 2.25.)."""
    return f"2.25.{int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], 'big')}"


@dataclass(frozen=True)
class Image:
    """One instance to send, known by its names; its bytes are made when they are asked for.

    Parameters
    ----------
    study, series, number
        What it is called; its UIDs are made of them.
    side
        Rows and columns; a pixel has two bytes.
    """

    study: str
    series: str
    number: int
    side: int

    @property
    def study_instance_uid(self) -> str:
        """Study Instance UID."""
        return uid(self.study)

    @property
    def series_instance_uid(self) -> str:
        """Series Instance UID."""
        return uid(f"{self.study}/{self.series}")

    @cached_property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID."""
        return uid(f"{self.study}/{self.series}/{self.number}")

    def part10(self) -> bytes:
        """Encode it as a PS3.10 file."""
        out = BytesIO()
        dcmwrite(out, self._data_set(), enforce_file_format=True)
        return out.getvalue()

    def data_set(self) -> bytes:
        """Encode the bare data set, as C-STORE carries it."""
        return data_set_of(self.part10())

    def _data_set(self) -> Dataset:
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = UID(SOP_CLASS)
        ds.file_meta.MediaStorageSOPInstanceUID = UID(self.sop_instance_uid)
        ds.SOPClassUID = UID(SOP_CLASS)
        ds.SOPInstanceUID = UID(self.sop_instance_uid)
        ds.StudyInstanceUID = UID(self.study_instance_uid)
        ds.SeriesInstanceUID = UID(self.series_instance_uid)
        ds.PatientID = f"CHAOS-{self.study}"[:64]
        ds.PatientName = "Chaos^Made up"
        ds.StudyDate, ds.StudyTime = "20240229", "101112"
        ds.StudyDescription = self.study
        ds.SeriesDescription = self.series
        ds.Modality = "CT"
        ds.SeriesNumber, ds.InstanceNumber = 1, self.number
        ds.Rows = ds.Columns = self.side
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation = 15, 0
        noise = Random(self.sop_instance_uid)  # noqa: S311 - the same each time
        ds.PixelData = noise.randbytes(self.side * self.side * 2)
        ds["PixelData"].VR = "OW"
        return ds


def data_set_of(part10: bytes) -> bytes:
    """What follows the File Meta Information of a PS3.10 file."""
    length = int.from_bytes(part10[_META_LENGTH_AT : _META_LENGTH_AT + 4], "little")
    return part10[_META_LENGTH_AT + 4 + length :]
