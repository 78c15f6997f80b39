"""Make a synthetic CT series with right geometry: a head of ellipsoids, in Hounsfield units.

``phantom.py FOLDER`` writes 60 slices of 256 x 256; the same series each time. It stands in where
no real series is at hand, so nobody's images are needed to see the archive work.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

SLICES, SIZE = 60, 256
SPACING_MM, THICKNESS_MM = 0.9, 3.0
AIR = -1000

# Semi-axes and centre in mm (left-right, front-back, up-down), and Hounsfield units.
# Later ones are drawn over earlier ones.
ELLIPSOIDS: tuple[tuple[tuple[float, float, float], tuple[float, float, float], int], ...] = (
    ((78, 98, 88), (0, 0, 0), 60),  # skin
    ((75, 95, 85), (0, 0, 0), 1100),  # skull
    ((68, 88, 78), (0, 0, 0), 35),  # brain
    ((9, 28, 18), (-12, -6, 8), 8),  # lateral ventricles
    ((9, 28, 18), (12, -6, 8), 8),
    ((3, 12, 9), (0, 4, -8), 8),  # third ventricle
    ((14, 11, 11), (-32, -84, -24), 15),  # eyes
    ((14, 11, 11), (32, -84, -24), 15),
    ((11, 13, 12), (34, 22, 12), 68),  # a fresh bleeding, so that there is something to find
    ((6, 6, 6), (-30, 34, 20), 140),  # a calcification
)


def uid(name: str) -> str:
    """Make a UID of a name (PS3.5 §B.2, 2.25.)."""
    return f"2.25.{int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], 'big')}"


def hounsfield(number: int) -> "np.ndarray[Any, Any]":
    """Draw slice `number` (from 0, feet first): (rows, columns), 16 bits signed."""
    middle = (SIZE - 1) / 2
    y, x = (np.mgrid[0:SIZE, 0:SIZE] - middle) * SPACING_MM
    z = (number - (SLICES - 1) / 2) * THICKNESS_MM
    values = np.full((SIZE, SIZE), AIR, dtype=np.int16)
    for (a, b, c), (x0, y0, z0), unit in ELLIPSOIDS:
        inside = ((x - x0) / a) ** 2 + ((y - y0) / b) ** 2 + ((z - z0) / c) ** 2 <= 1
        values[inside] = unit
    noise = np.random.default_rng(number).normal(0, 4, values.shape)
    return np.clip(values + noise, -1024, 3071).astype("<i2")


def slice_of_phantom(number: int) -> Dataset:
    """Make the data set of slice `number` (from 0)."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = uid(f"wado phantom slice {number}")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = (
        uid("wado phantom study"),
        uid("wado phantom series"),
    )
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid("wado phantom frame"), ""
    ds.PatientName, ds.PatientID = "Phantom^Head", "PHANTOM-1"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientPosition = "", "O", "HFS"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20260101", "120000", "1", ""
    ds.ReferringPhysicianName, ds.Manufacturer = "", "wado"
    ds.StudyDescription, ds.SeriesDescription = "Synthetic head", "Phantom 3 mm"
    ds.Modality, ds.BodyPartExamined, ds.ImageType = "CT", "HEAD", ["DERIVED", "PRIMARY", "AXIAL"]
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = 1, 1, number + 1
    _place(ds, number)
    ds.PixelData = hounsfield(number).tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def _place(ds: Dataset, number: int) -> None:
    """Set the attributes of the Image Plane, Image Pixel and CT Image modules."""
    edge = f"{-(SIZE - 1) / 2 * SPACING_MM:.2f}"
    height = f"{(number - (SLICES - 1) / 2) * THICKNESS_MM:.2f}"
    ds.ImagePositionPatient, ds.SliceLocation = [edge, edge, height], height
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness = [SPACING_MM, SPACING_MM], THICKNESS_MM
    ds.Rows, ds.Columns, ds.SamplesPerPixel = SIZE, SIZE, 1
    ds.PhotometricInterpretation, ds.PixelRepresentation = "MONOCHROME2", 1
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "HU"
    ds.WindowCenter, ds.WindowWidth, ds.KVP = 40, 80, 120


def write_phantom(folder: Path) -> None:
    """Write the series into `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(SLICES):
        path = folder / f"{number + 1:03}.dcm"
        slice_of_phantom(number).save_as(path, enforce_file_format=True)


if __name__ == "__main__":
    write_phantom(Path(sys.argv[1]))
