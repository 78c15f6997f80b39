"""Which form of an instance or of frames a client gets (PS3.18 §8.7.3, §8.7.8)."""

import pytest

from wado.archive.transcoded_instances import choose_instance
from wado.archive.transcoding import choose_frames
from wado.dicom.media_types import acceptable

IMPLICIT, ELE, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
JPEG = "1.2.840.10008.1.2.4."
LOSSY, JLS, LOSSLESS, VIDEO = f"{JPEG}50", f"{JPEG}80", f"{JPEG}70", f"{JPEG}102"
OCTETS = "application/octet-stream"
BROWSER = "image/avif,image/webp,image/apng,image/svg+xml,*/*;q=0.8"


def frames(accept: str | None, stored: str, *, several: bool = False) -> tuple[str, str] | None:
    offer = choose_frames(acceptable(accept), stored, several=several)
    return None if offer is None else (offer.media_type, offer.transfer_syntax or "")


def instance(accept: str | None, stored: str, *, has_pixels: bool = True) -> str | None:
    offer = choose_instance(acceptable(accept), stored, has_pixels=has_pixels, several=False)
    return None if offer is None else offer.transfer_syntax


@pytest.mark.parametrize(
    ("accept", "stored", "given"),
    [
        # Cornerstone3D, OHIF's dicomweb-client, with and without quotes
        (f"multipart/related; type={OCTETS}; transfer-syntax=*", JLS, (OCTETS, JLS)),
        (f'multipart/related; type="{OCTETS}"; transfer-syntax="*"', JLS, (OCTETS, JLS)),
        (f"multipart/related; type={OCTETS}; transfer-syntax=*", IMPLICIT, (OCTETS, ELE)),
        (
            f'multipart/related; type="image/jls"; transfer-syntax="{JLS}"; transfer-syntax="*"',
            ELE,
            ("image/jls", JLS),
        ),
        (
            f"application/dicom+json, multipart/related; type={OCTETS}; transfer-syntax=*",
            LOSSY,
            (OCTETS, LOSSY),
        ),
        ("multipart/related; type=image/dicom+jpeg", LOSSY, ("image/jpeg", LOSSY)),
        ("*/*", JLS, ("image/jls", JLS)),
        (None, JLS, ("image/jls", JLS)),
        (BROWSER, BIG, (OCTETS, ELE)),
        ("image/jphc", JLS, ("image/jphc", f"{JPEG}201")),
        # the Standard's defaults
        (OCTETS, JLS, (OCTETS, ELE)),
        (OCTETS, LOSSY, (OCTETS, ELE)),
        (OCTETS, DEFLATED, (OCTETS, ELE)),
        ("image/jpeg", ELE, ("image/jpeg", LOSSLESS)),
        ("image/jpeg", LOSSY, ("image/jpeg", LOSSY)),
        ("image/dicom-rle", LOSSY, ("image/dicom-rle", RLE)),
        (f"image/jpeg; transfer-syntax={LOSSY}", ELE, None),
        (f"image/jpeg; transfer-syntax={LOSSY}", JLS, None),
        ("image/jpx", ELE, None),
        ("image/*", JLS, ("image/jls", JLS)),
        ("image/jls;q=0.1, image/jpeg;q=0.9", JLS, ("image/jpeg", LOSSLESS)),
        ("video/mp4", VIDEO, ("video/mp4", VIDEO)),
        (OCTETS, VIDEO, (OCTETS, VIDEO)),
        (f"{OCTETS}; transfer-syntax={ELE}", VIDEO, None),
        (f"{OCTETS}; transfer-syntax={IMPLICIT}", IMPLICIT, None),
    ],
)
def test_form_of_frames(accept: str | None, stored: str, given: tuple[str, str] | None):
    assert frames(accept, stored) == given


def test_several_frames_need_an_envelope():
    assert frames("image/jls", JLS, several=True) is None
    assert frames("multipart/related; type=image/jls", JLS, several=True) == ("image/jls", JLS)


@pytest.mark.parametrize(
    ("accept", "stored", "given"),
    [
        ("application/dicom", IMPLICIT, ELE),
        ("application/dicom", BIG, ELE),
        ("application/dicom", DEFLATED, ELE),
        ("application/dicom", JLS, ELE),
        ("application/dicom", LOSSY, LOSSY),
        ("application/dicom", VIDEO, VIDEO),
        ("application/dicom; transfer-syntax=*", JLS, JLS),
        ("application/dicom; transfer-syntax=*", DEFLATED, DEFLATED),
        ("application/dicom; transfer-syntax=*", IMPLICIT, ELE),
        ("*/*", JLS, JLS),
        ("*/*", BIG, ELE),
        (None, JLS, JLS),
        (f"application/dicom; transfer-syntax={ELE}", LOSSY, ELE),
        (f"application/dicom; transfer-syntax={JLS}", ELE, JLS),
        (f"application/dicom; transfer-syntax={IMPLICIT}", IMPLICIT, None),
        (f"application/dicom; transfer-syntax={BIG}", BIG, None),
        (f"application/dicom; transfer-syntax={LOSSY}", ELE, None),
        (f"application/dicom; transfer-syntax={ELE}", VIDEO, None),
        (
            f"application/dicom; transfer-syntax={JLS};q=0.2,application/dicom;transfer-syntax="
            + LOSSLESS,
            ELE,
            LOSSLESS,
        ),
        ("image/jpeg", ELE, None),
    ],
)
def test_form_of_instances(accept: str | None, stored: str, given: str | None):
    assert instance(accept, stored) == given


def test_what_has_no_pixels_is_compressed_by_nobody():
    assert instance(f"application/dicom; transfer-syntax={JLS}", ELE, has_pixels=False) is None
    assert instance("application/dicom", "1.2.3.4", has_pixels=False) == ELE
    assert instance("application/dicom", "1.2.3.4") == "1.2.3.4", "nobody knows how to decode it"
