"""Small legal DICOM files, made and not downloaded; the same arguments give the same bytes.

Functions return a `Dataset` with File Meta whose Transfer Syntax UID says how `part10` and
`data_set` encode it. `large_part10` yields an instance of any size without holding it.
"""

import copy
import hashlib
import struct
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import dcmwrite, write_file_meta_info
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

NATIVE_TRANSFER_SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
"""Transfer syntaxes in which Pixel Data is not encapsulated."""

NOT_OF_PYDICOM = ("1.2.840.10008.1.2.8.1", "1.2.840.10008.1.2.4.110")
"""Transfer syntaxes that pydicom would not write: deflated frames, and JPEG XL without loss."""

MEGABYTE = 1 << 20
UNDEFINED_LENGTH = 0xFFFFFFFF


def uid(*parts: object) -> str:
    """Make a UID from anything; the same parts give the same UID (PS3.5 §B.2, 2.25.)."""
    digest = hashlib.sha256(repr(parts).encode()).digest()[:16]
    return f"2.25.{int.from_bytes(digest, 'big')}"


# ------------------------------------------------------------------ bytes


def part10(ds: Dataset) -> bytes:
    """Encode as a PS3.10 file: preamble, File Meta, data set."""
    out = BytesIO()
    if ds.file_meta.TransferSyntaxUID in NOT_OF_PYDICOM:
        known = copy.copy(ds)
        known.file_meta = copy.deepcopy(ds.file_meta)
        known.file_meta.TransferSyntaxUID = RLELossless  # as it is: encapsulated, Explicit VR
        write_file_meta_info(DicomFileLike(out), ds.file_meta)
        return b"\0" * 128 + b"DICM" + out.getvalue() + data_set(known)
    dcmwrite(out, ds, enforce_file_format=True)
    return out.getvalue()


def data_set(ds: Dataset) -> bytes:
    """Encode the bare data set, as C-STORE carries it."""
    whole = part10(ds)
    # File Meta Information Group Length (0002,0000): its value starts behind DICM, tag, VR, length.
    (length,) = struct.unpack_from("<I", whole, 128 + 4 + 8)
    return whole[128 + 4 + 12 + length :]


def with_transfer_syntax(ds: Dataset, transfer_syntax_uid: str) -> Dataset:
    """Copy with another native transfer syntax; Pixel Data of 16 bits is swapped as needed."""
    result = copy.deepcopy(ds)
    old, new = ds.file_meta.TransferSyntaxUID, UID(transfer_syntax_uid)
    words = getattr(ds, "BitsAllocated", 8) == 16 and "PixelData" in ds
    if words and old.is_little_endian != new.is_little_endian:
        result.PixelData = np.frombuffer(ds.PixelData, "<u2").byteswap().tobytes()
    result.file_meta.TransferSyntaxUID = new
    return result


def encapsulated(
    ds: Dataset,
    transfer_syntax_uid: str,
    frames: Sequence[bytes],
    *,
    fragments_per_frame: int = 1,
    offset_table: str = "basic",
) -> Dataset:
    """Copy with encapsulated Pixel Data of the given frames (PS3.5 §A.4).

    Parameters
    ----------
    ds
        Number of Frames is set from `frames`; other image attributes stay.
    transfer_syntax_uid
        Not checked against the frames, so that they can be dummies.
    frames
        Compressed bytes of each frame.
    fragments_per_frame
        Into how many items each frame is cut.
    offset_table
        ``basic``, ``extended`` or ``none`` (the item is there and empty).
    """
    result = copy.deepcopy(ds)
    result.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    if len(frames) > 1 or "NumberOfFrames" in ds:
        result.NumberOfFrames = len(frames)
    if offset_table == "extended":
        encoded = encapsulate_extended(list(frames))
        result.PixelData, result.ExtendedOffsetTable, result.ExtendedOffsetTableLengths = encoded
    else:
        result.PixelData = encapsulate(
            list(frames), fragments_per_frame, has_bot=offset_table == "basic"
        )
    result["PixelData"].VR = "OB"
    result["PixelData"].is_undefined_length = True
    return result


def run_length_encoded(ds: Dataset) -> Dataset:
    """Copy with real RLE Lossless frames, decodable."""
    result = copy.deepcopy(ds)
    result.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    return result


# ------------------------------------------------------------------ data sets


def instance(
    sop_class_uid: str,
    *,
    patient_id: str = "SYN-1",
    study: object = "study",
    series: object = "series",
    number: int = 1,
    **attributes: Any,
) -> Dataset:
    """Make an instance with patient, study and series attributes, without pixels.

    `study` and `series` are anything that names them: UIDs are made of them, unless they are
    UIDs already. `attributes` are DICOM keywords and values that come last and so win.
    """
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = sop_class_uid
    ds.StudyInstanceUID = _named(study, "study", patient_id)
    ds.SeriesInstanceUID = _named(series, ds.StudyInstanceUID, series)
    ds.SOPInstanceUID = uid(ds.SeriesInstanceUID, number)
    ds.PatientID = patient_id
    ds.PatientName = "Synthetic^Person"
    ds.PatientBirthDate = "19700101"
    ds.PatientSex = "O"
    ds.StudyID = "1"
    ds.StudyDate = "20240229"
    ds.StudyTime = "101112"
    ds.StudyDescription = "Synthetic study"
    ds.AccessionNumber = "A-1"
    ds.ReferringPhysicianName = "Refers^Often"
    ds.SeriesNumber = 1
    ds.InstanceNumber = number
    ds.Modality = "OT"
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


def _named(name: object, *parts: object) -> str:
    text = str(name)
    return text if text and set(text) <= set("0123456789.") else uid(*parts, text)


def _set_pixels(ds: Dataset, pixels: "np.ndarray[Any, Any]") -> Dataset:
    """Describe and set native Pixel Data: (rows, columns), frames first, or RGB samples last."""
    colour = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        ds.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        ds.NumberOfFrames = pixels.shape[0]
    ds.Rows, ds.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    ds.BitsAllocated = ds.BitsStored = pixels.dtype.itemsize * 8
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    body = pixels.tobytes()
    ds.PixelData = body + b"\0" * (len(body) % 2)
    ds["PixelData"].VR = "OW" if ds.BitsAllocated == 16 else "OB"
    return ds


def _ramp(rows: int, columns: int, number: int) -> "np.ndarray[Any, Any]":
    """Pixels that differ from slice to slice and in each direction: 0 to 4095."""
    y, x = np.mgrid[0:rows, 0:columns]
    values: np.ndarray[Any, Any] = ((x * 3 + y * 5 + number * 97) % 4096).astype("<i2")
    return values


def _slice(sop_class_uid: str, number: int, rows: int, columns: int, **common: Any) -> Dataset:
    ds = instance(
        sop_class_uid,
        number=number,
        **{
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "SliceThickness": "1.5",
            "ImagePositionPatient": ["-10", "-20", f"{(number - 1) * 1.5:.1f}"],
            "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
            "PixelSpacing": ["0.5", "0.75"],
            "PatientPosition": "HFS",
            **common,
        },
    )
    ds.FrameOfReferenceUID = uid("frame", ds.StudyInstanceUID)
    return _set_pixels(ds, _ramp(rows, columns, number))


def ct_series(slices: int = 3, rows: int = 16, columns: int = 12, **common: Any) -> list[Dataset]:
    """Make an axial CT series: right geometry, 1.5 mm apart, every slice with other pixels.

    `common` are `patient_id`, `study`, `series`, or DICOM keywords.
    """
    hounsfield = {
        "Modality": "CT",
        "SeriesDescription": "Synthetic CT",
        "BodyPartExamined": "HEAD",
        "RescaleIntercept": "-1024",
        "RescaleSlope": "1",
        "RescaleType": "HU",
        "WindowCenter": "40",
        "WindowWidth": "400",
        "KVP": "120",
    }
    return [
        _slice(CTImageStorage, number, rows, columns, **{**hounsfield, **common})
        for number in range(1, slices + 1)
    ]


def ct(**common: Any) -> Dataset:
    """Make one CT slice."""
    return ct_series(1, **common)[0]


def mr_series(slices: int = 3, rows: int = 16, columns: int = 12, **common: Any) -> list[Dataset]:
    """Make a sagittal MR series."""
    magnetic = {
        "Modality": "MR",
        "series": "mr",
        "SeriesDescription": "Synthetic MR",
        "ImageOrientationPatient": ["0", "1", "0", "0", "0", "-1"],
        "ScanningSequence": "SE",
        "RepetitionTime": "500",
        "EchoTime": "10",
    }
    result = []
    for number in range(1, slices + 1):
        position = [f"{(number - 1) * 1.5:.1f}", "-20", "10"]
        given = {**magnetic, "ImagePositionPatient": position, **common}
        result.append(_slice(MRImageStorage, number, rows, columns, **given))
    return result


def colour(rows: int = 8, columns: int = 10, **common: Any) -> Dataset:
    """Make an RGB Secondary Capture image."""
    y, x = np.mgrid[0:rows, 0:columns]
    pixels = np.stack([x * 20, y * 20, (x + y) * 10], axis=-1).astype(np.uint8)
    ds = instance(
        SecondaryCaptureImageStorage, **{"series": "colour", "ConversionType": "SYN", **common}
    )
    return _set_pixels(ds, pixels)


def multi_frame(frames: int = 3, rows: int = 8, columns: int = 10, **common: Any) -> Dataset:
    """Make a Multi-frame Grayscale Byte Secondary Capture image; every frame differs."""
    pixels = np.stack([_ramp(rows, columns, n) % 256 for n in range(frames)]).astype(np.uint8)
    ds = instance(
        MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        **{"series": "multi-frame", "ConversionType": "SYN", "FrameTime": "40", **common},
    )
    ds.FrameIncrementPointer = 0x00181063
    return _set_pixels(ds, pixels)


def structured_report(**common: Any) -> Dataset:
    """Make a Basic Text SR with nested content items."""
    ds = instance(BasicTextSRStorage, **{"series": "report", "Modality": "SR", **common})
    ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "UNVERIFIED"
    ds.ContentDate, ds.ContentTime = "20240229", "101112"
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = Items([_code("121111", "Summary")])
    finding = Dataset()
    finding.RelationshipType, finding.ValueType = "CONTAINS", "TEXT"
    finding.ConceptNameCodeSequence = Items([_code("121071", "Finding")])
    finding.TextValue = "No abnormality was made up."
    ds.ContentSequence = Items([finding])
    return ds


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


# ------------------------------------------------------------------ large instances


def large_data_set(
    size: int, *, piece: int = MEGABYTE, fragments: bool = False, **common: Any
) -> Iterator[bytes]:
    """Yield the bare data set of a multi-frame image of about `size` bytes, in pieces.

    Frames have 1 MB (1024 x 512 of 16 bits). Native Pixel Data ends below 4 GB (the length has
    32 bits); with `fragments` each frame is one encapsulated item and there is no such limit.
    The Transfer Syntax is Explicit VR Little Endian, or RLE Lossless (dummy bytes) with fragments.
    """
    frames = max(1, size // MEGABYTE)
    assert fragments or frames < 4096, "native Pixel Data has a length of 32 bits"
    ds = instance(
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        **{"series": "large", "NumberOfFrames": frames, **common},
    )
    ds.Rows, ds.Columns, ds.SamplesPerPixel = 1024, 512, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    yield data_set(ds)
    yield from _large_pixels(frames, piece, fragments=fragments)


def _large_pixels(frames: int, piece: int, *, fragments: bool) -> Iterator[bytes]:
    vr, length = (b"OB", UNDEFINED_LENGTH) if fragments else (b"OW", frames * MEGABYTE)
    yield struct.pack("<HH2sHI", 0x7FE0, 0x0010, vr, 0, length)
    if fragments:
        yield struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    for frame in range(frames):
        if fragments:
            yield struct.pack("<HHI", 0xFFFE, 0xE000, MEGABYTE)
        pixels = struct.pack("<Q", frame) * (MEGABYTE // 8)
        for start in range(0, MEGABYTE, piece):
            yield pixels[start : start + piece]
    if fragments:
        yield struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def large_part10(
    size: int, *, piece: int = MEGABYTE, fragments: bool = False, **common: Any
) -> Iterator[bytes]:
    """Yield the same instance as a PS3.10 file, in pieces."""
    pieces = large_data_set(size, piece=piece, fragments=fragments, **common)
    head = next(pieces)
    ds = instance(
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage, **{"series": "large", **common}
    )
    ds.file_meta.TransferSyntaxUID = RLELossless if fragments else ExplicitVRLittleEndian
    whole = part10(ds)
    yield whole[: len(whole) - len(data_set(ds))]
    yield head
    yield from pieces
