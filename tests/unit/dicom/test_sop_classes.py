"""The tables of SOP classes and transfer syntaxes agree with those of pydicom and pynetdicom."""

import pytest
from pydicom.uid import UID, AllTransferSyntaxes
from pynetdicom.sop_class import _STORAGE_CLASSES

from wado.dicom.sop_classes import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES, transfer_syntax


def test_all_storage_sop_classes_are_there():
    assert set(_STORAGE_CLASSES.values()) <= set(STORAGE_SOP_CLASSES)
    assert "1.2.840.10008.5.1.4.1.1.6" in STORAGE_SOP_CLASSES  # retired Ultrasound
    assert STORAGE_SOP_CLASSES["1.2.840.10008.5.1.4.1.1.2"] == "CT Image Storage"


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.1.3.10",  # Media Storage Directory: a DICOMDIR is no instance
        "1.2.840.10008.1.20.1",  # Storage Commitment
        "1.2.840.10008.1.1",  # Verification
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol: belongs to no study
    ],
)
def test_what_belongs_to_no_study_is_not_there(uid):
    assert uid not in STORAGE_SOP_CLASSES


NOT_PIXELS = ("1.2.840.10008.1.2.4.204", "1.2.840.10008.1.2.4.205", "1.2.840.10008.1.2.7.")
"""Pixel Data is elsewhere (JPIP) or a stream (SMPTE): for pydicom encapsulated, as all unknown."""


@pytest.mark.parametrize("uid", [u for u in AllTransferSyntaxes if not u.startswith(NOT_PIXELS)])
def test_transfer_syntaxes_have_the_properties_pydicom_gives_them(uid: UID):
    ours = TRANSFER_SYNTAXES[uid]
    assert ours.name == uid.name
    assert ours.implicit == uid.is_implicit_VR
    assert ours.big_endian == (not uid.is_little_endian)
    assert ours.deflated == uid.is_deflated
    assert ours.encapsulated == uid.is_encapsulated


def test_an_unknown_transfer_syntax_counts_as_explicit_little_endian():
    syntax = transfer_syntax("1.2.3")
    assert (syntax.implicit, syntax.big_endian, syntax.deflated) == (False, False, False)
    assert syntax.encapsulated is None
