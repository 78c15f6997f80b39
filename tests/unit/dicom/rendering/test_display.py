"""What an instance says of its display, read from DICOM JSON."""

from base64 import b64encode
from dataclasses import replace
from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wado.dicom.image import ImagePixel
from wado.dicom.rendering.display import (
    Display,
    Lut,
    annotation_lines,
    display_of,
    icc_profile_of,
)
from wado.dicom.rendering.options import Window
from wado.dicom.rendering.planes import Overlay
from wado.errors import CannotUnderstand


def no_bulk(path: str, start: int, end: int | None) -> bytes:
    raise AssertionError(f"nothing is bulky: {path}")


def image(kind: str = "MONOCHROME2", *, signed: bool = False, **fields: Any) -> ImagePixel:
    plain = ImagePixel(4, 5, 1, kind, 16, 12, 11, int(signed), number_of_frames=3)
    return replace(plain, **fields)


def json(**elements: Any) -> dict[str, Any]:
    """DICOM JSON of values, or of whole elements; keywords are tags with an x before."""
    return {
        tag[1:]: value if isinstance(value, dict) else {"Value": value}
        for tag, value in elements.items()
    }


def display(metadata: dict[str, Any], of: ImagePixel | None = None, number: int = 1) -> Display:
    return display_of(metadata, of or image(), number, no_bulk, overlays=True)


def test_an_instance_that_says_nothing():
    assert display({}) == Display()


def test_first_window_with_its_function():
    metadata = json(x00281050=[40, 300], x00281051=[400.5, 1500], x00281056=["SIGMOID"])
    assert display(metadata).voi == Window(40, 400.5, "SIGMOID")
    metadata = json(x00281050=[40], x00281051=[400], x00281056=["CUBIC"])
    assert display(metadata).voi == Window(40, 400, "LINEAR")


@pytest.mark.parametrize("width", [[], [0], [-5], [None], ["wide"], [0.5]])
def test_windows_that_are_none_are_passed_over(width: list[Any]):
    assert display(json(x00281050=[40], x00281051=width)).voi is None


def test_rescale():
    assert display(json(x00281053=[2], x00281052=[-1024])).modality == (2.0, -1024.0)
    assert display(json(x00281052=[-1024])).modality == (1.0, -1024.0)
    assert display(json(x00281053=[0], x00281052=[1])).modality == (1.0, 1.0)


def test_functional_groups_stand_before_the_top_level():
    def group(slope: int, center: int) -> dict[str, Any]:
        return json(
            x00289145=[json(x00281053=[slope], x00281052=[1])],
            x00289132=[json(x00281050=[center], x00281051=[100])],
        )

    metadata = json(
        x52009229=[group(2, 20)],
        x52009230=[{}, group(3, 30), json(x00289145=[{}])],
        x00281053=[9],
        x00281050=[90],
        x00281051=[100],
    )
    found = [display(metadata, number=n) for n in (1, 2, 3)]
    assert [d.modality for d in found] == [(2.0, 1.0), (3.0, 1.0), (2.0, 1.0)]
    assert [d.voi for d in found] == [Window(20, 100), Window(30, 100), Window(20, 100)]


@pytest.mark.parametrize(
    ("kind", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
    ],
)
def test_inverted(kind: str, shape: str | None, inverted: bool):
    assert display(json(x20500020=[shape]), image(kind)).inverted is inverted


def test_padding():
    assert display(json(x00280120=[63536])).padding == (63536, 63536)
    assert display(json(x00280120=[10], x00280121=[5])).padding == (5, 10)
    assert display(json(x00280122=[-1e5])).padding == (-1e5, -1e5)


DATA = b64encode(pack("<3H", 1, 2, 3)).decode()


@pytest.mark.parametrize(
    "data",
    [{"vr": "US", "Value": [1, 2, 3]}, {"vr": "OW", "InlineBinary": DATA}],
)
def test_lookup_tables(data: dict[str, Any]):
    item = json(x00283002=[3, 5, 16], x00283006=data)
    found = display(json(x00283000=[item], x00283010=[item]))
    assert found.modality == found.voi == Lut(3, 5, 16, pack("<3H", 1, 2, 3))


def test_lookup_table_that_is_bulky():
    def bulk(path: str, start: int, end: int | None) -> bytes:
        return path.encode()

    item = json(
        x00283002=[0, 0, 8], x00283006={"BulkDataURI": "i/1.2/bulkdata/00283010/0/00283006"}
    )
    found = display_of(json(x00283010=[item]), image(), 1, bulk, overlays=True)
    assert found.voi == Lut(65536, 0, 8, b"00283010/0/00283006")


@pytest.mark.parametrize(
    ("first", "signed", "intercept", "wanted"),
    [
        (64512, False, 0, 64512),
        (64512, True, 0, -1024),
        (64512, False, -1024, -1024),
        (-1024, True, 0, -1024),
    ],
)
def test_sign_of_the_first_value(first: int, signed: bool, intercept: int, wanted: int):
    item = json(x00283002=[-32768, first, 16], x00283006={"Value": [1]})
    metadata = json(x00283010=[item], x00281052=[intercept])
    assert display(metadata, image(signed=signed)).voi == Lut(32768, wanted, 16, b"\1\0")


@pytest.mark.parametrize(
    "item",
    [
        json(x00283002=[3, 0], x00283006={"Value": [1]}),
        json(x00283002=[3, 0, 17], x00283006={"Value": [1]}),
        json(x00283002=[3, 0, 16]),
        json(x00283002=[3, 0, 16], x00283006={"Value": ["a"]}),
    ],
)
def test_lookup_tables_that_make_no_sense(item: dict[str, Any]):
    with pytest.raises(CannotUnderstand):
        display(json(x00283010=[item]))


def test_palettes():
    luts = {f"x0028110{n}": [0, 0, 16] for n in (1, 2, 3)}
    plain = json(**luts, **{f"x0028120{n}": {"Value": [n]} for n in (1, 2, 3)})
    found = display(plain, image("PALETTE COLOR")).palette
    assert found is not None
    assert not found.supplemental
    assert found.blue == Lut(65536, 0, 16, b"\3\0")
    segments = json(**luts, **{f"x0028122{n}": {"Value": [n]} for n in (1, 2, 3)})
    assert display(segments, image("PALETTE COLOR")).palette == (
        *(Lut(65536, 0, 16, pack("<H", n), segmented=True) for n in (1, 2, 3)), False,
    )  # fmt: skip
    coloured = display({**plain, **json(x00089205=["COLOR"], x00281050=[1], x00281051=[2])})
    assert coloured.palette == (*found[:3], True)
    assert coloured.voi == Window(1, 2)
    assert display(plain).palette is None
    with pytest.raises(CannotUnderstand):
        display({}, image("PALETTE COLOR"))


def test_range_of_segmentations():
    binary = image(bits_allocated=1, bits_stored=1, high_bit=0)
    assert display({}, binary).value_range == (0, 1)
    sop_class = ["1.2.840.10008.5.1.4.1.1.66.4"]
    fractional = json(x00080016=sop_class, x00620001=["FRACTIONAL"], x0062000E=[200])
    assert display(fractional).value_range == (0, 200)
    segments = [json(x00620004=[n]) for n in (1, 7, 3)]
    labels = json(x00080016=["1.2.840.10008.5.1.4.1.1.66.7"], x00620002=segments)
    assert display(labels).value_range == (0, 7)


def test_colour_has_no_window():
    metadata = json(x00281050=[1], x00281051=[2])
    colour = ImagePixel(4, 5, 3, "RGB", 8, 8, 7)
    assert display(metadata, colour) == Display()


# ------------------------------------------------------------------ overlays


def plane(group: str = "6000", **elements: Any) -> dict[str, Any]:
    data = b64encode(bytes(range(10))).decode()
    return json(
        **{
            f"x{group}0010": [4],
            f"x{group}0011": [5],
            f"x{group}0050": [1, 1],
            f"x{group}3000": {"InlineBinary": data},
            **{f"x{group}{tag[1:]}": value for tag, value in elements.items()},
        }
    )


def test_overlays():
    metadata = {**plane(), **plane("601E", x0050=[-2, 3]), **plane("6020")}
    assert display(metadata).overlays == (
        Overlay(4, 5, 1, 1, bytes([0, 1, 2])),
        Overlay(4, 5, -2, 3, bytes([0, 1, 2])),
    )
    assert display_of(metadata, image(), 1, no_bulk, overlays=False).overlays == ()


def test_overlays_of_frames():
    metadata = plane(x0015=[2], x0051=[2])  # two planes of 20 bits, for frames 2 and 3
    found = [display(metadata, number=n).overlays for n in (1, 2, 3)]
    assert found == [
        (),
        (Overlay(4, 5, 1, 1, bytes([0, 1, 2])),),
        (Overlay(4, 5, 1, 1, bytes([2, 3, 4]), first_bit=4),),
    ]


def test_bulky_overlays_are_read_in_part():
    asked = []

    def bulk(path: str, start: int, end: int | None) -> bytes:
        asked.append((path, start, end))
        return b"abc"

    metadata = plane(x0015=[3], x3000={"BulkDataURI": "instances/1.2/bulkdata/60003000"})
    display_of(metadata, image(), 3, bulk, overlays=True)
    assert asked == [("60003000", 5, 8)]


def test_overlays_in_unused_bits():
    metadata = plane(x0102=[12])
    del metadata["60003000"]
    assert display(metadata).overlays == (Overlay(4, 5, 1, 1, bit_position=12),)
    metadata["60000102"] = {"Value": [11]}  # a bit of the pixels themselves
    assert display(metadata).overlays == ()


@pytest.mark.parametrize("rows", [[], [0], [-4], ["a"], [1 << 20]])
def test_overlays_that_make_no_sense(rows: list[Any]):
    assert display(plane(x0010=rows)).overlays == ()


# ------------------------------------------------------------------ text and profile


def test_text_of_annotations():
    metadata = json(
        x00100010=[{"Ideographic": "山田", "Alphabetic": "Yamada^Tarou"}], x00100020=["ID1"],
        x00080060=["CT"], x00180060=[120], x00180050=[2.5],
    )  # fmt: skip
    metadata["00100010"]["Value"][0] = {"Alphabetic": "Yamada^Tarou"}
    assert annotation_lines(metadata, ("patient",)) == ("Name: Yamada Tarou", "ID: ID1")
    assert annotation_lines(metadata, ("technique",)) == ("CT", "Thickness: 2.5 mm", "kVp: 120")
    assert len(annotation_lines(metadata, ("patient", "technique"))) == 5
    assert annotation_lines(metadata, ()) == ()


def test_icc_profile_of_an_optical_path():
    profile = {"InlineBinary": b64encode(b"icc").decode()}
    assert icc_profile_of({"00282000": profile}, no_bulk) == b"icc"
    assert icc_profile_of(json(x00480105=[{"00282000": profile}]), no_bulk) == b"icc"
    assert icc_profile_of({}, no_bulk) == b""


# ------------------------------------------------------------------ what nobody expects


SCALARS = st.one_of(
    st.none(), st.integers(-(1 << 40), 1 << 40), st.floats(allow_nan=False), st.text(max_size=4),
    st.just({"Alphabetic": "A^B"}), st.just({}), st.sampled_from(["COLOR", "INVERSE", "SIGMOID"]),
)  # fmt: skip
TAGS = st.sampled_from(
    [
        "00080016",
        "00089205",
        "00100010",
        "00280120",
        "00280121",
        "00281050",
        "00281051",
        "00281052",
        "00281053",
        "00281056",
        "00281101",
        "00281102",
        "00281103",
        "00281201",
        "00281202",
        "00281203",
        "00281221",
        "00282000",
        "00283000",
        "00283002",
        "00283006",
        "00283010",
        "00289132",
        "00289145",
        "00480105",
        "20500020",
        "52009229",
        "52009230",
        "00620001",
        "00620002",
        "00620004",
        "0062000E",
        "60000010",
        "60000011",
        "60000015",
        "60000050",
        "60000051",
        "60000102",
        "60003000",
    ]
)
ELEMENTS: st.SearchStrategy[dict[str, Any]] = st.deferred(
    lambda: st.one_of(
        st.builds(lambda v: {"vr": "XX", "Value": v}, st.lists(SCALARS | DATA_SETS, max_size=3)),
        st.just({"vr": "SQ"}),
        st.just({"vr": "OW", "InlineBinary": DATA}),
        st.just({"vr": "OW", "BulkDataURI": "instances/1/bulkdata/00283006"}),
    )
)
DATA_SETS: st.SearchStrategy[dict[str, Any]] = st.deferred(
    lambda: st.dictionaries(TAGS, ELEMENTS, max_size=6)
)


@given(DATA_SETS, st.sampled_from(["MONOCHROME1", "PALETTE COLOR"]), st.integers(1, 3))
@settings(max_examples=400, deadline=None)
def test_whatever_stands_in_the_metadata(metadata: dict[str, Any], kind: str, number: int):
    try:
        found = display_of(metadata, image(kind), number, lambda *_: b"\1\0" * 9, overlays=True)
        icc_profile_of(metadata, lambda *_: b"")
    except CannotUnderstand:
        return
    assert isinstance(found, Display)
    assert isinstance(annotation_lines(metadata, ("patient", "technique")), tuple)
