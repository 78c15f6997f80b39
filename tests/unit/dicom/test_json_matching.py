"""Matching keys on data sets of the DICOM JSON Model."""

import pytest

from wado.dicom.json_matching import fits
from wado.dicom.matching import Level
from wado.dicom.search_request import parse_search

CODE = {"00080100": {"vr": "SH", "Value": ["T-D1100"]}, "00080102": {"vr": "SH", "Value": ["SRT"]}}
OTHER = {"00080100": {"vr": "SH", "Value": ["121071"]}, "00080102": {"vr": "SH", "Value": ["DCM"]}}
DATA_SET = {
    "00080008": {"vr": "CS", "Value": ["ORIGINAL", "PRIMARY", "AXIAL"]},
    "00080023": {"vr": "DA", "Value": ["20240131"]},
    "00080033": {"vr": "TM", "Value": ["233000.25"]},
    "0008002A": {"vr": "DT", "Value": ["20240131233000.25"]},
    "00080201": {"vr": "SH", "Value": ["-0500"]},
    "00081050": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jané"}, {"Alphabetic": "Roe^Rìchard"}]},
    "00082218": {"vr": "SQ", "Value": [CODE, OTHER]},
    "00081140": {"vr": "SQ"},
    "00180050": {"vr": "DS", "Value": [3.0]},
    "00181400": {"vr": "LO"},
    "00200012": {"vr": "IS", "Value": [7]},
    "00280009": {"vr": "AT", "Value": ["00181063"]},
    "00280010": {"vr": "US", "Value": [512]},
    "00280030": {"vr": "DS", "Value": [0.5, 0.25]},
    "00204000": {"vr": "LT", "Value": ["one, two\\three"]},
    "00091001": {"vr": "LO", "Value": ["private"]},
    "00091002": {"vr": "UN", "BulkDataURI": "instances/1/bulkdata/00091002"},
}


def found(query: str) -> bool:
    search = parse_search(query, Level.INSTANCE)
    assert search.matches, search.warnings
    return fits(DATA_SET, search.matches, fuzzy=search.fuzzy)


@pytest.mark.parametrize(
    "query",
    [
        "ImageType=PRIMARY", "ImageType=PRIM*", "ImageType=X,AXIAL",
        "ImageType=AXIAL%5CORIGINAL&multiplevaluematching=true",
        "ContentDate=20240131", "ContentDate=20240101-", "ContentDate=2024-01-31",
        "ContentTime=23", "ContentTime=2330-2331", "ContentDate=20231231,20240131",
        "AcquisitionDateTime=20240131", "AcquisitionDateTime=202401-202402",
        "AcquisitionDateTime=20240131233000.25", "AcquisitionDateTime=-2025",
        "AcquisitionDateTime=20240201043000.25%2B0000&TimezoneOffsetFromUTC=-0500",
        "AcquisitionDateTime=20240201&TimezoneOffsetFromUTC=%2B0000",
        "PerformingPhysicianName=doe^jane", "PerformingPhysicianName=roe*",
        "PerformingPhysicianName=richard&fuzzymatching=true",
        "SliceThickness=3", "SliceThickness=%2B3.00", "SliceThickness=1,3", "SliceThickness=30e-1",
        "AcquisitionNumber=007", "Rows=512", "PixelSpacing=.25",
        "FrameIncrementPointer=00181063",
        "ImageComments=one, two%5Cthree", "ImageComments=*two*",
        "AnatomicRegionSequence.CodeValue=T-D1100", "00082218.00080100=T-D1100",
        "AnatomicRegionSequence.CodeValue=T-*&AnatomicRegionSequence.CodingSchemeDesignator=SRT",
        "AcquisitionDeviceProcessingDescription=%22%22&emptyvaluematching=true",
        "ReferencedImageSequence.ReferencedSOPInstanceUID=&emptyvaluematching=true",
        "DerivationDescription=%22%22&emptyvaluematching=true", "00091001=private",
        "ContentDate=20240201-20240201&TimezoneOffsetFromUTC=+0000",
        "ContentDate=20240130-20240131&ContentTime=2340-2335",
    ],
)  # fmt: skip
def test_fits(query: str):
    assert found(query)


@pytest.mark.parametrize(
    "query",
    [
        "ImageType=primary", "ImageType=PRIM", "ImageType=?",
        "ImageType=AXIAL%5CDERIVED&multiplevaluematching=true",
        "ContentDate=20240201-", "ContentDate=20240130", "ContentTime=2331-", "ContentTime=-2329",
        "AcquisitionDateTime=20240201", "AcquisitionDateTime=202402-",
        "AcquisitionDateTime=20240131&TimezoneOffsetFromUTC=%2B0000",
        "PerformingPhysicianName=jane", "SliceThickness=3.1", "Rows=51", "AcquisitionNumber=70",
        "AnatomicRegionSequence.CodeValue=T-D1100&AnatomicRegionSequence.CodingSchemeDesignator=DCM",
        "SliceThickness=%22%22&emptyvaluematching=true", "StationAETitle=x",
        "ReferencedImageSequence.ReferencedSOPInstanceUID=1.2",
        "AnatomicRegionSequence=&emptyvaluematching=true", "00091001=public",
        "00091002=&emptyvaluematching=true", "00082218.00080100.00080100=T-D1100",
        "ContentDate=20240131-20240131&TimezoneOffsetFromUTC=+0000",
        "ContentDate=20240130-20240131&ContentTime=2340-2325",
    ],
)  # fmt: skip
def test_does_not_fit(query: str):
    assert not found(query)
