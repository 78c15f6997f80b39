"""What is left of an image that tells nobody who it is of: every attribute is tried."""

from base64 import b64encode
from typing import Any

import orjson
import pytest
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import keyword_dict

from wado.dicom.deidentification import deidentified, replaced_uid
from wado.errors import InvalidRequest

Json = dict[str, Any]
KEY = b"a secret of sixteen"
_SECRET = "Doe^Jane"
_TABLES = {0x00281201, 0x00281202, 0x00281203, 0x00283006}
_SECRET_UID = "1.3.6.1.4.1.99999.7"
_MUST_GO = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientAge", "PatientAddress",
    "AccessionNumber", "ReferringPhysicianName", "InstitutionName", "InstitutionAddress",
    "StationName", "StudyDate", "SeriesDate", "AcquisitionDateTime", "ContentTime",
    "StudyDescription", "SeriesDescription", "ProtocolName", "DeviceSerialNumber", "DeviceUID",
    "OperatorsName", "ImageComments", "RequestAttributesSequence", "StudyID", "DetectorID",
    "ContrastBolusAgent", "CassetteID", "AcquisitionComments", "DateOfLastCalibration",
    "FrameAcquisitionDateTime", "SynchronizationFrameOfReferenceUID", "ConcatenationUID",
    "ICCProfile", "GantryID", "PlateID", "AcquisitionDeviceProcessingDescription",
)  # fmt: skip


def value(vr: str, *values: Any) -> Json:
    return {"vr": vr, "Value": list(values)}


def image(**more: Json) -> Json:
    return {
        "00080008": value("CS", "ORIGINAL", "PRIMARY"),
        "00080016": value("UI", "1.2.840.10008.5.1.4.1.1.2"),
        "00080018": value("UI", _SECRET_UID), "0020000D": value("UI", f"{_SECRET_UID}.1"),
        "0020000E": value("UI", f"{_SECRET_UID}.2"), "00280010": value("US", 2),
        "7FE00010": {"vr": "OW", "BulkDataURI": "x"},
        **{keyword_dict[name].to_bytes(4, "big").hex().upper() if name in keyword_dict else name:
           element for name, element in more.items()},
    }  # fmt: skip


def telling(vr: str) -> Json:
    """An element of this VR that would tell who it is, as far as the VR can."""
    match vr:
        case "PN":
            return value(vr, {"Alphabetic": _SECRET})
        case "UI":
            return value(vr, _SECRET_UID)
        case "SQ":
            return value(vr, {"00100010": telling("PN"), "00081030": telling("LO")})
        case "OB" | "UN" | "OW" | "OF" | "OD" | "OL" | "OV":
            return {"vr": vr, "InlineBinary": b64encode(_SECRET.encode()).decode()}
        case _:
            return value(vr, _SECRET)


def test_no_attribute_of_the_dictionary_lets_a_name_through():
    everything: Json = {}
    for tag, (vr, *_) in DicomDictionary.items():
        if tag >> 16 > 8 and tag >> 16 not in (0x6000, 0x7FE0) and tag not in _TABLES:
            everything[f"{tag:08X}"] = telling(vr[-2:] if " or " in vr else vr)
    nested = {**image(), "52009230": value("SQ", {"00209111": value("SQ", everything)})}
    for metadata in ({**everything, **image()}, nested):
        text = orjson.dumps(deidentified(metadata, KEY)).decode()
        assert _SECRET not in text
        assert b64encode(_SECRET.encode()).decode() not in text
        assert _SECRET_UID not in text


@pytest.mark.parametrize("keyword", _MUST_GO)
def test_what_the_profile_removes_is_gone_or_empty(keyword: str):
    tag = f"{keyword_dict[keyword]:08X}"
    vr = DicomDictionary[keyword_dict[keyword]][0]
    kept = deidentified(image(**{tag: telling(vr)}), KEY)
    assert not kept.get(tag, {}).get("Value")


def test_private_elements_and_odd_values_go():
    kept = deidentified(
        image(**{"00190010": value("LO", "MAKER"), "00191001": value("US", 5),
                 "00185100": value("CS", "Doe^Jane"), "00180050": value("DS", "12 Doe"),
                 "00081140": value("SQ", {"00081155": value("UI", _SECRET_UID)})}), KEY,
    )  # fmt: skip
    assert not {"00190010", "00191001", "00185100", "00180050", "00081140"} & set(kept)


def test_numbers_and_codes_of_the_image_stay():
    kept = deidentified(
        image(PixelSpacing=value("DS", 0.5, 0.5), PatientPosition=value("CS", "HFS"),
              RescaleIntercept=value("DS", -1024.0), Rows=value("US", 2)), KEY,
    )  # fmt: skip
    assert kept["00280030"]["Value"] == [0.5, 0.5]
    assert kept["00185100"]["Value"] == ["HFS"]
    assert kept["00281052"]["Value"] == [-1024.0]
    assert kept["00080016"]["Value"] == ["1.2.840.10008.5.1.4.1.1.2"]
    assert kept["00120062"]["Value"] == ["YES"]
    assert list(kept) == sorted(kept)


def test_uids_are_replaced_by_ones_that_only_the_key_gives():
    first, second = deidentified(image(), KEY), deidentified(image(), KEY)
    assert first == second
    assert first["0020000D"]["Value"] == [replaced_uid(f"{_SECRET_UID}.1", KEY)]
    assert deidentified(image(), b"another key, as long")["0020000D"] != first["0020000D"]
    assert len(replaced_uid(_SECRET_UID, KEY)) <= 64


@pytest.mark.parametrize(
    "metadata",
    [
        image(BurnedInAnnotation=value("CS", "YES")),
        image(**{"00080008": value("CS", "DERIVED", "SECONDARY")}),
        image(**{"00080016": value("UI", "1.2.840.10008.5.1.4.1.1.7")}),
        image(**{"00080016": value("UI", "1.2.840.10008.5.1.4.1.1.6.1")}),
        image(**{"60003000": {"vr": "OW", "InlineBinary": ""}}),
        image(**{"60020102": value("US", 12)}),
        image(**{"00283006": {"vr": "OW", "BulkDataURI": "y"}}),
        {tag: e for tag, e in image().items() if tag != "7FE00010"},
    ],
)  # fmt: skip
def test_what_may_show_a_name_is_refused(metadata: Json):
    with pytest.raises(InvalidRequest):
        deidentified(metadata, KEY)


def test_burned_in_annotation_no_is_believed():
    capture = image(**{"00080016": value("UI", "1.2.840.10008.5.1.4.1.1.7"),
                       "00280301": value("CS", "NO")})  # fmt: skip
    assert deidentified(capture, KEY)["00280301"]["Value"] == ["NO"]
