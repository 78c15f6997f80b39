"""Every transfer syntax of the corpus over HTTP: kept, given back unchanged, and transcoded."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests
from pydicom.pixels.utils import pixel_array

from dicomweb_site import parts_of
from independent import JPEG_DCT, LOSSY, pixels_of
from whole_corpus import ELE, Kept, by_series

# Some ask for every file of the corpus, a few thousand requests: a busy machine takes its time.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

IMPLICIT = "1.2.840.10008.1.2"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
NEVER_SENT = {IMPLICIT, BIG_ENDIAN}
JPEG = "1.2.840.10008.1.2.4."
# As in unit/dicom/test_transcode.py: no independent decoder reads these, or not as they are meant.
FILES_THAT_ARE_NO_INSTANCES = 25
"""Without UIDs and pixels, cut short, or a DICOMDIR."""
NO_REFERENCE = {"JLSL_08_07_0_1F", "badVR", "JPEG2000-embedded-sequence-delimiter",
                "SC_rgb_jpeg", "layer9"}  # fmt: skip


def one(kept: list[Kept], name: str) -> Kept:
    return next(each for each in kept if name in each.path.name)


@pytest.mark.ps318("store-dicom")
def test_every_syntax_of_the_corpus_is_there(kept: list[Kept], manifest: list[dict[str, str]]):
    assert len(kept) > len(manifest) - FILES_THAT_ARE_NO_INSTANCES
    syntaxes = {row["transfer_syntax"].split(" ")[0] for row in manifest} - {""}
    assert {each.syntax for each in kept} == syntaxes
    assert len(syntaxes) >= 20


@pytest.mark.ps318(
    "retrieve-instance", "instance-single-part", "transfer-syntax-parameter",
    "never-implicit-or-big-endian",
)  # fmt: skip
def test_what_may_be_sent_comes_back_unchanged(kept: list[Kept]):
    for each in kept:
        answer = each.get(accept="application/dicom; transfer-syntax=*")
        assert answer.status_code == 200, each.path
        kind = answer.headers["content-type"]
        if each.syntax in NEVER_SENT:
            assert kind == f"application/dicom;transfer-syntax={ELE}", each.path
        else:
            assert kind == f"application/dicom;transfer-syntax={each.syntax}", each.path
            assert answer.content == each.data, each.path


@pytest.mark.ps318("retrieve-study", "retrieve-series", "instance-multipart", "multipart-parts")
def test_studies_and_series_are_all_their_instances_unchanged(kept: list[Kept]):
    """But for what is never sent: see below."""
    studies: dict[str, list[Kept]] = {}
    several = 0
    for series in by_series(kept):
        studies.setdefault(series[0].study_url, []).extend(series)
        several += len(series) > 1
        assert_all_parts(series[0].series_url, series)
    assert several > 10
    assert any(len(each) > 100 for each in studies.values())
    for url, instances in studies.items():
        assert_all_parts(url, instances)


def assert_all_parts(url: str, instances: list[Kept]) -> None:
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    parts = parts_of(instances[0].get(url, accept))
    assert len(parts) == len(instances), url
    given = {data for _, data in parts}
    for each in instances:
        assert each.data in given or each.syntax in NEVER_SENT, each.path
    for kind, _ in parts:
        assert kind.startswith("application/dicom;transfer-syntax=1.2.840.10008.1.2.")
        assert kind.partition("=")[2] not in NEVER_SENT


@pytest.mark.ps318("default-explicit-little-endian", "head")
def test_the_default_is_explicit_little_endian_unless_pixels_were_lost(kept: list[Kept]):
    for each in kept:
        answer = requests.head(
            each.url, headers={**each.headers, "accept": "application/dicom"}, timeout=60
        )
        assert answer.status_code == 200, each.path
        kind = answer.headers["content-type"]
        lossy = each.syntax in LOSSY or each.syntax.startswith(f"{JPEG}10")
        syntax = each.syntax if lossy else ELE
        assert kind == f"application/dicom;transfer-syntax={syntax}", each.path


@pytest.mark.ps318("never-implicit-or-big-endian", "default-explicit-little-endian")
def test_implicit_and_big_endian_become_explicit_little_endian_element_by_element(
    kept: list[Kept],
):
    seen = set()
    for each in kept:
        if each.syntax not in {*NEVER_SENT, DEFLATED}:
            continue
        answer = each.native
        got = pydicom.dcmread(io.BytesIO(answer.content))
        assert str(got.file_meta.TransferSyntaxUID) == ELE
        assert_same_elements(each.ds, got, each)
        seen.add(each.syntax)
    assert len(seen) == 3


def assert_same_elements(
    given: pydicom.Dataset, got: pydicom.Dataset, each: Kept, path: str = ""
) -> None:
    tags = [e.tag for e in given if e.tag.element and e.tag != 0xFFFCFFFC]
    assert tags == [e.tag for e in got], (each.path, path)
    for tag in tags:
        was, now = given[tag], got[tag]
        at = f"{path}{tag}"
        if was.VR == "SQ":
            assert len(was.value) == len(now.value), (each.path, at)
            for i, (item, other) in enumerate(zip(was.value, now.value, strict=True)):
                assert_same_elements(item, other, each, f"{at}[{i}].")
        elif each.syntax == BIG_ENDIAN and (tag == 0x7FE00010 or tag.is_private):
            continue  # words are turned round: the pixels are compared elsewhere
        else:
            assert same_value(was, now), (each.path, at, was, now)


def same_value(was: pydicom.DataElement, now: pydicom.DataElement) -> bool:
    if was.VR != now.VR:
        return False
    if isinstance(was.value, bytes):
        return bool(was.value + b"\0" * (len(was.value) % 2) == now.value)
    return bool(was.value == now.value or str(was.value) == str(now.value))


@pytest.mark.ps318("default-explicit-little-endian", "transfer-syntax-parameter")
def test_every_image_transcoded_to_explicit_little_endian_has_the_pixels_of_other_decoders(
    kept: list[Kept],
):
    seen = set()
    for each in kept:
        if "PixelData" not in each.ds or any(name in each.path.name for name in NO_REFERENCE):
            continue
        answer = each.native
        if each.syntax.startswith(f"{JPEG}10"):
            assert answer.status_code == 406, each.path
            continue
        assert answer.status_code == 200, (each.path, answer.text)
        got = pydicom.dcmread(io.BytesIO(answer.content))
        assert str(got.file_meta.TransferSyntaxUID) == ELE
        assert got.SOPInstanceUID == each.uids[2]
        if each.ds.get("BitsAllocated") is None:
            continue  # no image, though it has Pixel Data
        assert int(answer.headers["content-length"]) == len(answer.content)
        for number in sorted({1, each.frames}):
            assert_same_frame(frame_of(got, number), pixels_of(each.path)[number - 1], each)
        seen.add(each.syntax)
    assert len(seen) >= 18


def frame_of(ds: pydicom.Dataset, number: int) -> np.ndarray:
    return pixel_array(ds, raw=True, index=number - 1)


def assert_same_frame(got: np.ndarray, expected: np.ndarray, each: Kept) -> None:
    assert got.shape == expected.shape, each.path
    difference = np.abs(got.astype(np.int64) - expected.astype(np.int64))
    if each.syntax in JPEG_DCT:
        assert np.mean(difference > 2) < 1e-5, each.path
    else:
        assert not difference.any(), each.path


@pytest.mark.ps318("frames", "frames-octet-stream")
def test_native_frames_are_those_of_the_transcoded_instance(kept: list[Kept]):
    checked = 0
    for each in kept:
        if each.syntax in NEVER_SENT or "PixelData" not in each.ds or each.frames > 1:
            continue
        if each.syntax.startswith(f"{JPEG}10") or each.ds.get("PlanarConfiguration") == 1:
            continue
        frame = each.get("/frames/1", "application/octet-stream")
        if frame.status_code in (404, 406):
            continue  # its frames can't be told apart, or it is damaged
        assert frame.headers["content-type"].endswith(f";transfer-syntax={ELE}"), each.path
        pixels = pydicom.dcmread(io.BytesIO(each.native.content)).PixelData
        assert pixels.startswith(frame.content), each.path
        checked += 1
    assert checked > 250


@pytest.mark.ps318("never-implicit-or-big-endian", "not-acceptable")
def test_neither_implicit_nor_big_endian_is_sent_even_when_asked_for(kept: list[Kept]):
    for each in (one(kept, "MR_small_implicit"), one(kept, "MR_small_expb")):
        answer = each.get(accept=f"application/dicom; transfer-syntax={each.syntax}")
        assert answer.status_code == 406
        assert ELE in answer.json()["reason"]


TARGETS = (f"{JPEG}70", f"{JPEG}80", f"{JPEG}90", "1.2.840.10008.1.2.5", f"{JPEG}201",
           f"{JPEG}202")  # fmt: skip


@pytest.mark.ps318("transfer-syntax-parameter")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "name", ["CT1_UNC", "MR_small.dcm", "US1_UNC", "emri_small.dcm", "693_J2KR", "MR4_JPLL"]
)
def test_instances_transcoded_to_a_compressed_syntax_are_read_by_other_decoders(
    kept: list[Kept], name: str, target: str, tmp_path: Path
):
    each = one(kept, name)
    answer = each.get(accept=f"application/dicom; transfer-syntax={target}")
    assert answer.status_code == 200, answer.text
    path = tmp_path / "made.dcm"
    path.write_bytes(answer.content)
    made = pydicom.dcmread(path)
    assert str(made.file_meta.TransferSyntaxUID) == target
    assert made.PixelData
    expected = pixels_of(each.path)
    got = pixels_of(path)
    pixels_of.cache_clear()
    assert len(got) == len(expected)
    for one_got, one_expected in zip(got, expected, strict=True):
        assert_same_frame(one_got, one_expected, each)


@pytest.mark.ps318("frames-compressed", "quality-values", "conditional")
@pytest.mark.parametrize(
    ("accept", "syntax"),
    [
        ("image/jpeg", f"{JPEG}70"),
        ("image/jls", f"{JPEG}80"),
        ("image/jp2", f"{JPEG}90"),
        ("image/dicom-rle", "1.2.840.10008.1.2.5"),
        ("image/jphc", f"{JPEG}201"),
        ("image/jxl", f"{JPEG}110"),
        (f"image/jphc; transfer-syntax={JPEG}202", f"{JPEG}202"),
        ("multipart/related; type=image/jls", f"{JPEG}80"),
        ("application/octet-stream", ELE),
        ("image/png, image/jls;q=0.5", f"{JPEG}80"),
    ],
)
def test_frames_are_made_in_the_syntax_that_is_asked_for(
    kept: list[Kept], accept: str, syntax: str
):
    each = one(kept, "CT1_UNC")
    answer = each.get("/frames/1", accept)
    assert answer.status_code == 200, answer.text
    if accept.startswith("multipart"):
        ((kind, _),) = parts_of(answer)
    else:
        kind = answer.headers["content-type"]
    assert kind.endswith(f";transfer-syntax={syntax}")
    again = each.get("/frames/1", accept, **{"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.ps318("not-acceptable")
@pytest.mark.parametrize(
    "accept",
    ["image/jpx", f"image/jpeg; transfer-syntax={JPEG}50", "image/png", "video/mp4",
     f"application/octet-stream; transfer-syntax={IMPLICIT}"],
)  # fmt: skip
def test_what_can_not_be_made_is_406_with_what_can(kept: list[Kept], accept: str):
    answer = one(kept, "CT1_UNC").get("/frames/1", accept)
    assert answer.status_code == 406
    assert f"image/jls;transfer-syntax={JPEG}80" in answer.json()["reason"]


@pytest.mark.ps318("frames-compressed", "default-explicit-little-endian")
def test_lossy_frames_are_sent_as_stored_unless_others_are_asked_for(kept: list[Kept]):
    each = one(kept, "SC_rgb_dcmtk_pebpcyps2")
    assert each.syntax == f"{JPEG}50"
    for accept in ("image/jpeg", "application/octet-stream; transfer-syntax=*"):
        frame = each.get("/frames/1", accept)
        assert frame.content in each.data
    ((kind, data),) = parts_of(each.get("/frames/1", "*/*"))
    assert kind == f"image/jpeg;transfer-syntax={JPEG}50"
    assert data in each.data
    plain = each.get(accept="application/dicom")
    assert plain.content == each.data, "decoding what is lossy would only make it larger"
    native = each.get("/frames/1", "application/octet-stream")
    assert len(native.content) == 100 * 100 * 3
    whole = each.get(accept=f"application/dicom; transfer-syntax={ELE}")
    ds = pydicom.dcmread(io.BytesIO(whole.content))
    assert (ds.PhotometricInterpretation, ds.PlanarConfiguration) == ("RGB", 0)
    assert ds.LossyImageCompression == "01"


@pytest.mark.ps318("default-explicit-little-endian", "instance-multipart")
def test_without_a_syntax_a_lossless_instance_is_explicit_little_endian(kept: list[Kept]):
    answer = one(kept, "MR4_JPLL").get(accept='multipart/related; type="application/dicom"')
    ((kind, data),) = parts_of(answer)
    assert kind == f"application/dicom;transfer-syntax={ELE}"
    assert pydicom.dcmread(io.BytesIO(data)).file_meta.TransferSyntaxUID == ELE


@pytest.mark.ps318("range-single", "conditional", "head")
def test_ranges_and_conditions_fit_what_is_transcoded(kept: list[Kept]):
    each = one(kept, "emri_small_RLE")
    accept = f"application/dicom; transfer-syntax={ELE}"
    whole = each.get(accept=accept)
    middle = each.get(accept=accept, range="bytes=3000-40000")
    assert middle.status_code == 206
    assert middle.content == whole.content[3000:40001]
    assert middle.headers["content-range"] == f"bytes 3000-40000/{len(whole.content)}"
    other = each.get(accept="application/dicom; transfer-syntax=*")
    assert other.headers["etag"] != whole.headers["etag"]
    head = requests.head(each.url, headers={**each.headers, "accept": accept}, timeout=60)
    assert head.headers["content-length"] == str(len(whole.content))


@pytest.mark.ps318("frames", "frames-octet-stream", "frames-compressed")
def test_one_answer_has_one_syntax_whatever_the_frames(kept: list[Kept]):
    each = one(kept, "emri_small_RLE")
    for accept, syntax in (("application/octet-stream", ELE), ("image/jls", f"{JPEG}80")):
        answer = each.get("/frames/1,2,3,7,10,1", f"multipart/related; type={accept}")
        parts = parts_of(answer)
        assert len(parts) == 6
        assert {kind for kind, _ in parts} == {f"{accept};transfer-syntax={syntax}"}
        assert parts[0] == parts[5]


@pytest.mark.ps318("frames-packed-bits")
def test_frames_of_one_bit_are_packed(kept: list[Kept]):
    for name in ("liver_nonbyte_aligned_deflate", "liver_nonbyte_aligned_j2k", "liver_rle"):
        each = one(kept, name)
        frame = each.get("/frames/3", "application/octet-stream")
        size = each.ds.Rows * each.ds.Columns
        assert len(frame.content) == (size + 7) // 8
        bits = np.unpackbits(np.frombuffer(frame.content, np.uint8), count=size, bitorder="little")
        assert np.array_equal(bits, pixels_of(each.path)[2].reshape(-1))
