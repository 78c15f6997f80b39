"""VRs are those of pydicom's dictionaries, without importing pydicom."""

import subprocess
import sys

import pytest
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR, private_dictionary_VR

from wado.dicom.dictionary import private_vr, public_vr


def test_public_tags():
    assert all(public_vr(tag) == entry[0] for tag, entry in DicomDictionary.items())


@pytest.mark.parametrize("tag", [0x60003000, 0x60220010, 0x50100005, 0x00203122, 0x10100014])
def test_repeating_groups(tag):
    assert public_vr(tag) == dictionary_VR(tag)


def test_tags_that_are_not_listed():
    assert public_vr(0x00080000) == "UL"
    assert public_vr(0x00080003) == "UN"
    assert private_vr("NOBODY", 0x00091001) == "UN"
    assert private_vr("SIEMENS CSA HEADER", 0x002910FE) == "UN"


@pytest.mark.parametrize("tag", [0x00291008, 0x00292010, 0x0029FF10])
def test_private_tags_in_any_block(tag):
    assert private_vr("SIEMENS CSA HEADER", tag) == private_dictionary_VR(tag, "SIEMENS CSA HEADER")


def test_pydicom_is_not_imported():
    code = (
        "import sys; from wado.dicom import describe, dictionary as d;"
        "d.public_vr(0x00100010); d.private_vr('x', 0x00091001);"
        "sys.exit('pydicom' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
