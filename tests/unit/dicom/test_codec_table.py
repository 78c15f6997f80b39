"""Every transfer syntax of PS3.6: what is decoded, what is made, and why not."""

import pytest
from pydicom._uid_dict import UID_dictionary

from wado.dicom.codec_table import (
    FAMILY,
    LOSSY_TARGETS,
    MAX_BITS,
    can_decode,
    can_encode,
    codec_of,
    encoder_of,
    is_lossy,
    lossy_method,
    recompresses,
    why_not_decoded,
)

JPEG = "1.2.840.10008.1.2.4."
TRANSFER_SYNTAXES = [uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"]
PAPYRUS = "1.2.840.10008.1.20"
DECODED = {
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.8.1",
    *(JPEG + str(n) for n in (*range(50, 58), 70, 80, 81, *range(90, 94))),
    *(JPEG + str(n) for n in (110, 111, 112, 201, 202, 203)),
}  # fmt: skip


@pytest.mark.parametrize("uid", TRANSFER_SYNTAXES)
def test_each_transfer_syntax_is_decoded_or_has_a_reason(uid: str):
    assert can_decode(uid) is (uid in DECODED)
    assert bool(why_not_decoded(uid)) is (uid not in DECODED)


@pytest.mark.parametrize(
    ("uid", "words"),
    [
        ("58", "JPEG lossless with arithmetic coding"),
        ("61", "hierarchical JPEG, spectral selection"),
        ("100", "MPEG-2"),
        ("103.1", "H.264"),
        ("108", "HEVC"),
        ("94", "its pixels are kept elsewhere: JPIP"),
    ],
)
def test_reasons_name_what_it_is(uid: str, words: str):
    assert words in why_not_decoded(JPEG + uid)


def test_where_pixels_are_kept_is_named_without_what_lets_one_in():
    url = "https://reader:secret@images.example:8443/study?token=abc#x"
    for uid in ("94", "95", "204", "205"):
        reason = why_not_decoded(JPEG + uid, url)
        assert reason == "its pixels are kept elsewhere: JPIP at images.example"
    assert why_not_decoded(JPEG + "94", "http://[broken") == "its pixels are kept elsewhere: JPIP"
    assert "token" not in why_not_decoded(JPEG + "94", "jpip?token=abc")


def test_mime_xml_and_live_streams_say_so():
    assert "MIME" in why_not_decoded("1.2.840.10008.1.2.6.1")
    assert "XML" in why_not_decoded("1.2.840.10008.1.2.6.2")
    assert "ST 2110" in why_not_decoded("1.2.840.10008.1.2.7.1")
    assert "1.2.3" in why_not_decoded("1.2.3")


def test_lossy_ones_are_made_only_if_that_is_meant():
    for uid in LOSSY_TARGETS:
        assert is_lossy(uid)
        assert not can_encode(uid)
        assert can_encode(uid, lossy=True)
    for uid in MAX_BITS:
        assert not is_lossy(uid)
        assert can_encode(uid)
    assert not can_encode(JPEG + "111", lossy=True), "made of a JPEG stream, not of pixels"


def test_the_method_of_each_lossy_transfer_syntax_is_a_defined_term():
    """PS3.3 §C.7.6.1.1.5.1."""
    assert lossy_method(JPEG + "50") == lossy_method(JPEG + "55") == "ISO_10918_1"
    assert lossy_method(JPEG + "81") == "ISO_14495_1"
    assert lossy_method(JPEG + "91") == "ISO_15444_1"
    assert lossy_method(JPEG + "203") == "ISO_15444_15"
    assert lossy_method(JPEG + "112") == "ISO_18181_1"
    assert lossy_method(JPEG + "90") == lossy_method("1.2.840.10008.1.2.1") == ""
    assert all(lossy_method(uid) == method for uid, method in LOSSY_TARGETS.items())


def test_who_does_the_work_is_named():
    assert codec_of(JPEG + "50", JPEG + "202") == (
        "imagecodecs (libjpeg-turbo) to imagecodecs (OpenJPH)"
    )
    assert codec_of(JPEG + "91", JPEG + "90") == (
        "pylibjpeg-openjpeg (OpenJPEG) to imagecodecs (OpenJPEG)"
    )
    assert codec_of(JPEG + "80", JPEG + "81") == "imagecodecs (CharLS)"
    assert codec_of(JPEG + "50", JPEG + "111") == "imagecodecs (libjxl)"
    for uid in FAMILY:
        assert encoder_of(uid)


def test_which_streams_are_recompressed():
    assert recompresses(JPEG + "50", JPEG + "111")
    assert recompresses(JPEG + "111", JPEG + "50")
    assert not recompresses(JPEG + "70", JPEG + "111")
    assert not recompresses(JPEG + "111", JPEG + "202")
    assert not recompresses(JPEG + "50", JPEG + "202")
