"""Accept headers of real clients lead to the representation those clients can read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wado.dicom.media_types import (
    DICOM_JSON,
    OCTET_STREAM,
    MediaRange,
    Offer,
    acceptable,
    both_ways,
    is_native,
    media_type_of,
    parse_accept,
    parse_media_type,
    select,
)
from wado.errors import InvalidRequest

ELE = "1.2.840.10008.1.2.1"
JPEG_LS = "1.2.840.10008.1.2.4.80"

METADATA = (Offer(DICOM_JSON), Offer("application/json"))
NATIVE = both_ways((Offer(OCTET_STREAM, transfer_syntax=ELE),))
COMPRESSED = both_ways(
    (
        Offer("image/jls", transfer_syntax=JPEG_LS),
        Offer(OCTET_STREAM, transfer_syntax=JPEG_LS),
    )
)
BROWSER = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;"
    "q=0.8,application/signed-exchange;v=b3;q=0.7"
)


def chosen(accept, offers):
    offer = select(acceptable(accept), offers)
    return offer and (offer.multipart, offer.media_type)


@pytest.mark.parametrize(
    ("accept", "offers", "expected"),
    [
        ("application/dicom+json", METADATA, (False, DICOM_JSON)),
        (
            (
                "application/dicom+json, multipart/related; type=application/octet-stream;"
                " transfer-syntax=*"
            ),
            METADATA,
            (False, DICOM_JSON),
        ),
        ("application/json", METADATA, (False, "application/json")),
        (
            "multipart/related; type=application/octet-stream; transfer-syntax=*",
            COMPRESSED,
            (True, OCTET_STREAM),
        ),
        (
            'multipart/related; type="application/octet-stream"; transfer-syntax="*"',
            COMPRESSED,
            (True, OCTET_STREAM),
        ),
        (
            (
                f'multipart/related; type="image/jls"; transfer-syntax="{JPEG_LS}";'
                ' transfer-syntax="*"'
            ),
            COMPRESSED,
            (True, "image/jls"),
        ),
        (
            (
                "multipart/related; type=image/jls; transfer-syntax=1.2.840.10008.1.2.4.81,"
                " multipart/related; type=image/jls; transfer-syntax=*"
            ),
            COMPRESSED,
            (True, "image/jls"),
        ),
        ("image/jls", COMPRESSED, (False, "image/jls")),
        ("image/x-jls", COMPRESSED, (False, "image/jls")),
        ("image/*", COMPRESSED, (False, "image/jls")),
        ("*/*", NATIVE, (True, OCTET_STREAM)),
        (BROWSER, NATIVE, (True, OCTET_STREAM)),
        (None, NATIVE, (True, OCTET_STREAM)),
        ("", NATIVE, (True, OCTET_STREAM)),
        ("application/octet-stream", NATIVE, (False, OCTET_STREAM)),
        ("multipart/related", NATIVE, (True, OCTET_STREAM)),
        ("image/jpeg;q=0, application/octet-stream;q=0.1", NATIVE, (False, OCTET_STREAM)),
        ("image/jphc, image/jxl;q=0.5", NATIVE, None),
        ("video/mp4", NATIVE, None),
        ("application/octet-stream;q=0", NATIVE, None),
        ("nonsense", NATIVE, None),
    ],
)
def test_accept_of_real_clients(accept, offers, expected):
    assert chosen(accept, offers) == expected


def test_transfer_syntax_asked_for_is_the_one_given():
    wanted = f"multipart/related; type=application/octet-stream; transfer-syntax={ELE}"
    assert chosen(wanted, COMPRESSED) is None
    assert chosen(wanted, NATIVE) == (True, OCTET_STREAM)


def test_odd_names_of_media_types_are_understood():
    offers = both_ways((Offer("image/jpeg", transfer_syntax="1.2.840.10008.1.2.4.51"),))
    assert chosen("multipart/related; type=image/dicom+jpeg", offers) == (True, "image/jpeg")


def test_quality_decides_before_order():
    assert parse_accept("a/b;q=0.2, c/d;q=0.9, e/f") == (
        MediaRange("e/f"),
        MediaRange("c/d", q=0.9),
        MediaRange("a/b", q=0.2),
    )


def test_the_accept_parameter_stands_before_the_header():
    assert acceptable("*/*", "image/jpeg") == (MediaRange("image/jpeg"),)


def test_strict_servers_want_an_accept():
    assert acceptable(None, strict=True) == ()


def test_content_type_of_a_part_has_the_transfer_syntax_unquoted():
    offer = Offer("image/jls", transfer_syntax=JPEG_LS)
    assert offer.content_type == f"image/jls;transfer-syntax={JPEG_LS}"
    assert Offer(DICOM_JSON).content_type == DICOM_JSON


def test_media_types_of_frames():
    assert media_type_of(JPEG_LS) == "image/jls"
    assert media_type_of("1.2.840.10008.1.2.4.104.1") == "video/mp4"
    assert media_type_of(ELE) == OCTET_STREAM
    assert is_native(ELE)
    assert not is_native(JPEG_LS)


@pytest.mark.parametrize(
    ("text", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=abc', "abc"),
        ('multipart/related;boundary="a;b,c";type=application/dicom', "a;b,c"),
        ("Multipart/Related; BOUNDARY = 'x y'", "x y"),
    ],
)
def test_content_types_of_uploads(text, boundary):
    media_type = parse_media_type(text)
    assert media_type.name == "multipart/related"
    assert media_type.parameters["boundary"] == boundary


@pytest.mark.parametrize("text", ["", "multipart", "a/b/c", "/", ";boundary=x"])
def test_what_is_no_media_type(text):
    with pytest.raises(InvalidRequest, match="not a media type"):
        parse_media_type(text)


@given(st.text(max_size=300))
def test_any_text_is_an_accept_header(text):
    select(parse_accept(text), NATIVE)
