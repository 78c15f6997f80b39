"""Which form goes out when there are derived copies, and what is decoded (PS3.18 §8.7.3)."""

from dataclasses import replace

import pytest

from wado.archive import forms, retrieve, transcoding
from wado.archive.derived import Copy, Derived
from wado.archive.describe import available_transfer_syntaxes, with_copies_named
from wado.archive.journal import Entry, SeriesView
from wado.archive.kept_frames import FrameKey, KeptFrames
from wado.archive.retrieve import Item
from wado.dicom.frames import PixelData
from wado.dicom.image import ImagePixel
from wado.dicom.media_types import acceptable
from wado.dicom.uids import InstanceRef, SeriesRef
from wado.errors import NotAcceptable

JPEG = "1.2.840.10008.1.2.4."
ELE, RLE, JLS, J2K, JXL = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5", *(
    f"{JPEG}{n}" for n in (80, 90, 110)
)  # fmt: skip
BASELINE, HTJ2K, RPCL, NEAR = (f"{JPEG}{n}" for n in (50, 201, 202, 81))
MPEG2, H264 = f"{JPEG}100", f"{JPEG}102"
OCTETS = "application/octet-stream"
LOSSY = frozenset({BASELINE, NEAR, H264})


def item(stored: str, *copies: str, frames: int = 1, **failures: str) -> Item:
    pixel = PixelData(100, 80, encapsulated=True, number_of_frames=frames)
    made = {uid: Copy(uid, 500, f"of {uid}", pixel, "RGB", uid in LOSSY) for uid in copies}
    known = {ELE if name == "ele" else RPCL: reason for name, reason in failures.items()}
    entry = Entry(
        "1.2.3", "1.2.840.10008.5.1.4.1.1.7", stored, 900, "of the original", "", 1, frames, pixel,
        {}, 0, 0, 0, Derived(made, known),
    )  # fmt: skip
    view = SeriesView(SeriesRef("t", "1", "2"), 1, 1, {"1.2.3": entry}, described=False)
    return Item(InstanceRef("t", "1", "2", "1.2.3"), entry, view)


Given = tuple[str, str, str | None] | None
"""Media type, transfer syntax that is said, and whose bytes: None if they have to be made."""


def given(chosen: forms.Chosen | None) -> Given:
    if chosen is None:
        return None
    found, offer = chosen
    whose = found.entry.transfer_syntax_uid if offer.stored else None
    return offer.media_type, offer.transfer_syntax or "", whose


def frames(accept: str | None, found: Item, *, several: bool = False) -> Given:
    return given(forms.choose_frames(acceptable(accept), found, several=several))


def instance(accept: str | None, found: Item) -> Given:
    return given(forms.choose_instance(acceptable(accept), found, several=False))


@pytest.mark.parametrize(
    ("accept", "found", "expected"),
    [
        # what is acceptable as stored goes out as stored
        (None, item(J2K, RPCL, ELE), ("image/jp2", J2K, J2K)),
        ("*/*", item(J2K, RPCL, BASELINE), ("image/jp2", J2K, J2K)),
        ("image/*", item(J2K, RPCL, BASELINE), ("image/jp2", J2K, J2K)),
        (f"{OCTETS}; transfer-syntax=*", item(J2K, ELE), (OCTETS, J2K, J2K)),
        ("image/jp2", item(J2K, RPCL), ("image/jp2", J2K, J2K)),
        # a copy in the wanted transfer syntax
        (OCTETS, item(J2K, ELE), (OCTETS, ELE, ELE)),
        (OCTETS, item(J2K, RPCL), (OCTETS, ELE, None)),
        (f"image/jphc; transfer-syntax={RPCL}", item(J2K, RPCL), ("image/jphc", RPCL, RPCL)),
        (f"{OCTETS}; transfer-syntax={RPCL}", item(J2K, RPCL), (OCTETS, RPCL, RPCL)),
        (f"{OCTETS}; transfer-syntax={RPCL}", item(J2K, ELE), None),
        ("image/jphc", item(J2K, RPCL), ("image/jphc", HTJ2K, RPCL)),
        ("image/jphc", item(J2K, RPCL, HTJ2K), ("image/jphc", HTJ2K, HTJ2K)),
        (f"image/jphc; transfer-syntax={RPCL}", item(J2K, HTJ2K), ("image/jphc", RPCL, None)),
        ("image/jls", item(J2K, RPCL), ("image/jls", JLS, None)),
        (f"image/jls; q=0.5, {OCTETS}; q=0.9", item(J2K, ELE), (OCTETS, ELE, ELE)),
        # with loss only for who names it
        ("image/jpeg", item(J2K, BASELINE), ("image/jpeg", f"{JPEG}70", None)),
        ("image/jpeg; transfer-syntax=*", item(J2K, BASELINE), ("image/jpeg", f"{JPEG}70", None)),
        (
            f"image/jpeg; transfer-syntax={BASELINE}",
            item(J2K, BASELINE),
            ("image/jpeg", BASELINE, BASELINE),
        ),
        (f"{OCTETS}; transfer-syntax={NEAR}", item(J2K, NEAR), (OCTETS, NEAR, NEAR)),
        (f"*/*; transfer-syntax={NEAR}", item(J2K, NEAR), ("image/jls", NEAR, NEAR)),
        ("video/mp4", item(MPEG2, H264), ("video/mp4", H264, H264)),
        ("video/mp4; transfer-syntax=*", item(MPEG2, H264), ("video/mp4", H264, H264)),
        ("video/*", item(MPEG2, H264), ("video/mpeg", MPEG2, MPEG2)),
        ("video/mp4, */*; q=0.1", item(MPEG2, H264), ("video/mp4", H264, H264)),
        ("*/*, video/mp4; q=0.1", item(MPEG2, H264), ("video/mpeg", MPEG2, MPEG2)),
        ("image/png", item(J2K, RPCL, ELE, BASELINE), None),
    ],
)  # fmt: skip
def test_frames(accept: str | None, found: Item, expected: Given):
    assert frames(accept, found) == expected


def test_several_frames_need_an_envelope():
    found = item(J2K, RPCL, frames=3)
    accept = f"image/jphc; transfer-syntax={RPCL}"
    assert frames(accept, found, several=True) is None
    multipart = f'multipart/related; type="image/jphc"; transfer-syntax={RPCL}'
    assert frames(multipart, found, several=True) == ("image/jphc", RPCL, RPCL)


@pytest.mark.parametrize(
    ("accept", "found", "expected"),
    [
        (None, item(J2K, ELE), J2K),
        ("application/dicom; transfer-syntax=*", item(J2K, ELE), J2K),
        ("application/dicom", item(J2K, ELE), ELE),
        (f"application/dicom; transfer-syntax={RPCL}", item(J2K, RPCL), RPCL),
        (f"application/dicom; transfer-syntax={HTJ2K}", item(J2K, RPCL), None),
        (f"application/dicom; transfer-syntax={BASELINE}", item(J2K, BASELINE), BASELINE),
        ("application/dicom", item(MPEG2, H264), MPEG2),
        (f"application/dicom; transfer-syntax={H264}", item(MPEG2, H264), H264),
    ],
)
def test_whole_instances(accept: str | None, found: Item, expected: str | None):
    """Whose file goes out; None: it has to be made (its File Meta would name another one)."""
    chosen = instance(accept, found)
    assert chosen is not None
    assert chosen[2] == expected


def test_without_copies_it_is_as_ever():
    for accept in (
        None,
        OCTETS,
        "image/jphc",
        f"image/jpeg; transfer-syntax={BASELINE}",
        "video/mp4",
    ):
        for stored in (ELE, RLE, J2K, BASELINE, MPEG2):
            found = item(stored)
            offer = transcoding.choose_frames(acceptable(accept), stored, several=False)
            chosen = forms.choose_frames(acceptable(accept), found, several=False)
            assert (chosen[1] if chosen else None) == offer
            assert chosen is None or chosen[0] is found


def test_what_can_be_had_names_the_copies():
    offers = [offer.content_type for offer in forms.frame_offers(item(MPEG2, H264))]
    assert f"video/mp4;transfer-syntax={H264}" in offers
    assert f"application/dicom;transfer-syntax={H264}" in [
        offer.content_type for offer in forms.offers_of(item(MPEG2, H264))
    ]


@pytest.mark.parametrize(
    ("found", "source"),
    [
        (item(J2K), J2K),
        (item(J2K, ELE, RPCL), ELE),
        (item(J2K, RPCL), RPCL),
        (item(JXL, JLS), JLS),
        (item(RLE, RPCL), RLE),
        (item(ELE, RPCL), ELE),
        (item(J2K, BASELINE, NEAR), J2K),
        (item("1.2.840.10008.1.2.4.94", ELE), ELE),
        (item(MPEG2, H264), MPEG2),
    ],
)
def test_what_is_decoded_is_without_loss_and_quick(found: Item, source: str):
    chosen = forms.source_of(found)
    assert chosen.entry.transfer_syntax_uid == source
    assert (chosen.copy is None) == (source == found.entry.transfer_syntax_uid)
    assert retrieve.original_of(chosen).entry == found.entry


def test_htj2k_is_found_where_it_is():
    assert forms.in_htj2k(item(J2K)) is None
    for found, uid in ((item(RPCL), RPCL), (item(HTJ2K, RPCL), HTJ2K), (item(J2K, HTJ2K), HTJ2K)):
        there = forms.in_htj2k(found)
        assert there is not None
        assert there.entry.transfer_syntax_uid == uid


@pytest.mark.parametrize(
    ("found", "target", "reason"),
    [
        (item(J2K, ele="it is damaged"), ELE, "it is damaged"),
        (item(J2K, ele="it is damaged"), JLS, "it is damaged"),
        (item(J2K, frames=2, ele="too long"), JLS, None),
        (item(J2K, frames=2, ele="too long"), ELE, "too long"),
        (item(J2K, rpcl="32 bits"), RPCL, "32 bits"),
        (item(J2K, rpcl="32 bits"), ELE, None),
        (item(J2K, ELE, rpcl="32 bits"), ELE, None),
    ],
)
def test_what_failed_is_not_tried_again(found: Item, target: str, reason: str | None):
    source = forms.source_of(found)
    if reason is None:
        forms.refuse_what_failed(source, target)
        return
    with pytest.raises(NotAcceptable, match=f"{reason}; it can be had as stored: {J2K}"):
        forms.refuse_what_failed(source, target)


def test_the_pixels_of_a_copy_are_described_as_they_are():
    image = ImagePixel(2, 3, 3, "YBR_FULL_422", 16, 12, 15, planar_configuration=1)
    found = item(BASELINE, ELE)
    assert transcoding.image_of_copy(image, found) is image
    copy = retrieve.copy_of(found, ELE)
    assert copy is not None
    expected = replace(image, photometric_interpretation="RGB", planar_configuration=0, high_bit=11)
    assert transcoding.image_of_copy(image, copy) == expected


# ------------------------------------------------------------------ metadata


def test_the_stored_transfer_syntax_is_named_first_then_copies_those_with_loss_last():
    assert available_transfer_syntaxes(item(J2K).entry) == [J2K]
    found = item(J2K, NEAR, RPCL, BASELINE, ELE)
    assert available_transfer_syntaxes(found.entry) == [J2K, ELE, RPCL, BASELINE, NEAR]


def test_of_a_video_the_stored_one_is_named_alone():
    assert available_transfer_syntaxes(item(MPEG2, H264).entry) == [MPEG2]


@pytest.mark.parametrize(
    "before", [b"", b'"00081199":{"vr":"SQ","Value":[{"00083002":{"vr":"UI","Value":["%b"]}}]},']
)
def test_copies_are_named_in_the_metadata_and_nowhere_else(before: bytes):
    nested = before.replace(b"%b", J2K.encode())
    own = b'"00083002":{"vr":"UI","Value":["%s"]}' % J2K.encode()
    text = b"{" + nested + own + b"}"
    assert with_copies_named(item(J2K).entry, text) is text
    named = own.replace(b"]", b',"%s"]' % RPCL.encode())
    assert with_copies_named(item(J2K, RPCL).entry, text) == b"{" + nested + named + b"}"


# ------------------------------------------------------------------ frames that are kept


def test_frames_are_kept_in_bounded_memory():
    kept = KeptFrames(max_bytes=100)
    keys = [FrameKey("digest", number, ELE) for number in range(1, 5)]
    for key in keys[:3]:
        kept.keep(key, (b"x" * 30, "RGB"))
    assert kept.get(keys[0]) == (b"x" * 30, "RGB")  # now the one used last
    kept.keep(keys[3], (b"y" * 30, "RGB"))
    assert kept.get(keys[1]) is None
    assert kept.get(keys[0]) is not None
    assert kept.get(keys[3]) == (b"y" * 30, "RGB")
    kept.keep(FrameKey("large", 1, ELE), (b"z" * 60, "RGB"))
    assert kept.get(FrameKey("large", 1, ELE)) is None
