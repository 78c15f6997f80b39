"""HTJ2K frames: read in ranges, by an address of their own, and at lower resolutions."""

from collections.abc import Iterator

import imagecodecs
import numpy as np
import openjpeg.utils
import pytest
from pydicom.dataset import Dataset

import synthetic
from coded_streams import streams_of
from copies_site import LIMIT_S, CopiesSite, Sent, copies_site
from dicomweb_site import parts_of

JPEG = "1.2.840.10008.1.2.4."
J2K, HTJ2K, RPCL, LOSSY = (f"{JPEG}{n}" for n in (90, 201, 202, 203))
OCTETS = "application/octet-stream"
VIEWER = f"multipart/related; type={OCTETS}; transfer-syntax=*"
"""As Cornerstone3D asks, whatever the path."""
STEP = 1 << 16


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CopiesSite]:
    with copies_site(tmp_path_factory.mktemp("htj2k") / "data") as site:
        yield site


def picture(rows: int = 400, columns: int = 500, number: int = 1) -> np.ndarray:
    """Make pixels far from 0 and 255: what lies beyond is cut off by one decoder, not by others."""
    rng = np.random.default_rng(rows * columns + number)
    ramp = np.add.outer(np.arange(rows) ** 2, 7 * np.arange(columns)) % 40
    return (ramp + rng.integers(80, 140, (rows, columns))).astype(np.uint8)


def htj2k(pixels: np.ndarray, *, by_resolution: bool = True) -> bytes:
    part = imagecodecs.HTJ2K.TILEPART.RESOLUTIONS if by_resolution else None
    return bytes(
        imagecodecs.htj2k_encode(pixels, reversible=True, tlm=True, resolutions=5, tilepart=part)
    )


def image(
    study: str, pixels: list[np.ndarray], syntax: str = RPCL, *, by_resolution: bool = True
) -> Dataset:
    rows, columns = pixels[0].shape
    ds = synthetic.multi_frame(frames=len(pixels), rows=rows, columns=columns, study=study)
    if syntax == "native":
        ds.PixelData = b"".join(p.tobytes() for p in pixels)
        return ds
    if syntax == J2K:
        coded = [imagecodecs.jpeg2k_encode(p, codecformat="j2k", reversible=True) for p in pixels]
        return synthetic.encapsulated(ds, syntax, [bytes(c) for c in coded])
    frames = [htj2k(p, by_resolution=by_resolution) for p in pixels]
    return synthetic.encapsulated(ds, syntax, frames)


def in_steps(site: CopiesSite, sent: Sent, path: str, accept: str) -> bytes:
    """Read as Cornerstone3D does: 64 kB, whose answer tells the length, and then the rest."""
    first = site.get(sent, path, accept, range=f"bytes=0-{STEP - 1}")
    assert first.status_code == 206
    assert len(first.content) == STEP
    total = int(first.headers["content-range"].removeprefix(f"bytes 0-{STEP - 1}/"))
    rest = site.get(sent, path, accept, range=f"bytes={STEP}-{total - 1}")
    assert rest.status_code == 206
    assert rest.headers["content-range"] == f"bytes {STEP}-{total - 1}/{total}"
    assert rest.headers["content-type"] == first.headers["content-type"]
    assert rest.headers["etag"] == first.headers["etag"]
    return first.content + rest.content


# ------------------------------------------------------------------ ranges


@pytest.mark.parametrize("syntax", [HTJ2K, RPCL, LOSSY])
def test_stored_frames_are_read_in_steps(site: CopiesSite, syntax: str):
    (sent,) = site.store(image(f"steps-{syntax}", [picture()], syntax))
    (frame,) = streams_of(sent.ds)
    for accept in ("image/jphc", f"image/jphc; transfer-syntax={syntax}"):
        if syntax == HTJ2K or "transfer-syntax" in accept:
            assert in_steps(site, sent, "/frames/1", accept) == frame
    whole = site.get(sent, "/frames/1", VIEWER)
    assert [data for _, data in parts_of(whole)] == [frame]
    assert in_steps(site, sent, "/frames/1", VIEWER) == whole.content
    assert in_steps(site, sent, "/htj2k/1", VIEWER)[-200:].rstrip().endswith(b"--")


def test_frames_of_copies_and_made_ones_are_read_in_steps(site: CopiesSite):
    (sent,) = site.store(image("steps-made", [picture()], J2K))
    accept = f'multipart/related; type="image/jphc"; transfer-syntax={RPCL}'
    for with_copy in (False, True):
        if with_copy:
            site.copy(sent, RPCL)
        for path, wanted in (("/frames/1", accept), ("/htj2k/1", VIEWER), ("/htj2k/1", "*/*")):
            body = in_steps(site, sent, path, wanted)
            assert body == site.get(sent, path, wanted).content
            start = body.index(b"\xff\x4f\xff\x51")
            decoded = imagecodecs.htj2k_decode(body[start:])
            assert np.array_equal(decoded, picture()), (with_copy, path)


def test_the_beginning_of_a_frame_shows_the_image_already(site: CopiesSite):
    """What a viewer does with 64 kB of a large image: a part of its resolutions is there."""
    (sent,) = site.store(image("early", [picture(700, 900)]))
    part = site.get(sent, "/frames/1", "image/jphc", range=f"bytes=0-{STEP - 1}").content
    whole = site.get(sent, "/frames/1", "image/jphc").content
    assert len(whole) > 3 * STEP
    lower = imagecodecs.htj2k_decode(part, skipres=2, resilient=True)
    assert np.array_equal(lower, imagecodecs.htj2k_decode(whole, skipres=2))


def test_frames_are_never_packed(site: CopiesSite):
    (sent,) = site.store(image("packed", [np.zeros((300, 300), np.uint8)], "native"))
    for path in ("/frames/1", "/htj2k/1", "/htj2k/1?level=1"):
        answer = site.get(sent, path, accept_encoding="gzip, zstd")
        assert answer.status_code == 200
        assert "content-encoding" not in answer.headers


# ------------------------------------------------------------------ an address of their own


@pytest.mark.parametrize("syntax", ["native", J2K, HTJ2K, RPCL, LOSSY])
def test_frames_are_htj2k_whatever_is_stored(site: CopiesSite, syntax: str):
    pixels = [picture(80, 60, number) for number in range(3)]
    (sent,) = site.store(image(f"own-{syntax}", pixels, syntax))
    given = syntax if syntax in (HTJ2K, RPCL, LOSSY) else RPCL
    for accept, kind in ((VIEWER, OCTETS), ("", "image/jphc"), ("*/*", "image/jphc")):
        answer = site.get(sent, "/htj2k/3,1", accept)
        parts = parts_of(answer)
        assert [name for name, _ in parts] == [f"{kind};transfer-syntax={given}"] * 2
        decoded = [imagecodecs.htj2k_decode(data) for _, data in parts]
        assert np.array_equal(decoded, [pixels[2], pixels[0]])
    one = site.get(sent, "/htj2k/2", "image/jphc")
    assert one.headers["content-type"] == f"image/jphc;transfer-syntax={given}"
    etag = one.headers["etag"]
    assert site.get(sent, "/htj2k/2", "image/jphc", if_none_match=etag).status_code == 304
    head = site.ask("HEAD", f"/{sent.ref.path}/htj2k/2", "image/jphc")
    assert (head.status_code, head.headers["etag"]) == (200, etag)


def test_a_copy_answers_there(site: CopiesSite):
    (sent,) = site.store(image("own-copy", [picture(80, 60)], "native"))
    (frame,) = streams_of(site.copy(sent, RPCL))
    assert site.get(sent, "/htj2k/1", "image/jphc").content == frame
    assert site.get(sent, "/frames/1").status_code == 200


def test_what_is_no_such_frame_is_refused(site: CopiesSite):
    (sent,) = site.store(image("refused", [picture(80, 60)]))
    (report,) = site.store(synthetic.structured_report(study="refused-report"))
    assert site.get(sent, "/htj2k/2").status_code == 404
    assert site.get(sent, "/htj2k/x").status_code == 400
    assert site.get(report, "/htj2k/1").status_code == 404
    assert site.get(sent, "/htj2k/1", "image/png").status_code == 406
    assert site.get(sent, "/htj2k/1", f"image/jphc; transfer-syntax={HTJ2K}").status_code == 406
    assert site.ask("POST", f"/{sent.ref.path}/htj2k/1").status_code == 405


# ------------------------------------------------------------------ lower resolutions


@pytest.mark.parametrize("syntax", ["native", J2K, HTJ2K, RPCL])
def test_a_lower_resolution_is_the_beginning_of_a_frame(site: CopiesSite, syntax: str):
    pixels = picture(333, 257)
    (sent,) = site.store(image(f"level-{syntax}", [pixels], syntax))
    whole = site.get(sent, "/htj2k/1?level=0", "image/jphc").content
    assert np.array_equal(imagecodecs.htj2k_decode(whole), pixels)
    lengths = [len(whole)]
    for level in range(1, 6):
        answer = site.get(sent, f"/htj2k/1?level={level}", "image/jphc")
        assert answer.status_code == 200
        lower = answer.content
        lengths.append(len(lower))
        assert lower.endswith(b"\xff\xd9")
        assert whole.startswith(lower[:-2])
        decoded = imagecodecs.htj2k_decode(lower, skipres=level)
        assert decoded.shape == (-(-333 // 2**level), -(-257 // 2**level))
        assert np.array_equal(decoded, imagecodecs.htj2k_decode(whole, skipres=level))
        blurred = np.asarray(openjpeg.utils.decode(lower)).astype(int)
        assert np.array_equal(blurred, imagecodecs.htj2k_decode(lower))
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[2] < lengths[0] // 4


def test_a_lower_resolution_is_cut_from_a_copy(site: CopiesSite):
    (sent,) = site.store(image("level-copy", [picture(200, 150)], J2K))
    (frame,) = streams_of(site.copy(sent, RPCL))
    lower = site.get(sent, "/htj2k/1?level=2", "image/jphc").content
    assert frame.startswith(lower[:-2])
    parts = parts_of(site.get(sent, "/htj2k/1?level=2", VIEWER))
    assert parts == [(f"{OCTETS};transfer-syntax={RPCL}", lower)]


def test_what_is_not_stored_by_resolution_is_made_so(site: CopiesSite):
    pixels = picture(200, 150)
    (sent,) = site.store(image("level-one-part", [pixels], RPCL, by_resolution=False))
    (stored,) = streams_of(sent.ds)
    assert site.get(sent, "/htj2k/1", "image/jphc").content.rstrip(b"\0") == stored.rstrip(b"\0")
    lower = site.get(sent, "/htj2k/1?level=1", "image/jphc").content
    expected = imagecodecs.htj2k_decode(stored, skipres=1)
    assert np.array_equal(imagecodecs.htj2k_decode(lower, skipres=1), expected)


def test_many_frames_at_a_lower_resolution_are_sent_one_by_one(site: CopiesSite):
    pixels = [picture(70, 66, number) for number in range(9)]
    (sent,) = site.store(image("level-many", pixels, "native"))
    numbers = ",".join(str(n) for n in range(1, 10))
    parts = parts_of(site.get(sent, f"/htj2k/{numbers}?level=1", VIEWER))
    assert len(parts) == 9
    for (_, data), original in zip(parts, pixels, strict=True):
        lower = imagecodecs.htj2k_decode(data, skipres=1)
        assert np.array_equal(lower, imagecodecs.htj2k_decode(htj2k(original), skipres=1))


def test_levels_that_are_not_there_are_refused(site: CopiesSite):
    (sent,) = site.store(image("levels", [picture(80, 60)]))
    for level in ("6", "33", "-1", "1.5", "x", "", "0" * 5000):
        answer = site.get(sent, f"/htj2k/1?level={level}", "image/jphc")
        assert answer.status_code == (200 if level == "" else 400), level
    answer = site.get(sent, "/htj2k/1?level=6", "image/jphc")
    assert answer.json()["reason"] == "there are levels up to 5, not 6"


def test_answers_at_a_lower_resolution_are_conditional_and_cut_to_ranges(site: CopiesSite):
    (sent,) = site.store(image("level-ranges", [picture()]))
    first = site.get(sent, "/htj2k/1?level=1", "image/jphc")
    etag = first.headers["etag"]
    assert etag != site.get(sent, "/htj2k/1?level=2", "image/jphc").headers["etag"]
    assert etag != site.get(sent, "/htj2k/1", "image/jphc").headers["etag"]
    again = site.get(sent, "/htj2k/1?level=1", "image/jphc", if_none_match=etag)
    assert again.status_code == 304
    total = len(first.content)
    part = site.get(sent, "/htj2k/1?level=1", "image/jphc", range=f"bytes=9-{total + 9}")
    assert (part.status_code, part.content) == (206, first.content[9:])
    assert part.headers["content-range"] == f"bytes 9-{total - 1}/{total}"


def test_a_copy_that_is_gone_is_made_at_a_lower_resolution(site: CopiesSite):
    pixels = picture(200, 150, 5)
    (sent,) = site.store(image("level-gone", [pixels], J2K))
    site.copy(sent, RPCL)
    site.lose(sent, RPCL)
    for path in ("/htj2k/1", "/htj2k/1?level=0"):
        whole = site.get(sent, path, "image/jphc").content
        assert np.array_equal(imagecodecs.htj2k_decode(whole), pixels)
    lower = site.get(sent, "/htj2k/1?level=1", "image/jphc").content
    assert whole.startswith(lower[:-2])


def test_the_service_tells_of_it(site: CopiesSite):
    (sent,) = site.store(image("told", [picture(80, 60)]))
    paths = site.session.get(f"{site.url}/openapi.json", timeout=LIMIT_S).json()["paths"]
    (path,) = [name for name in paths if "/htj2k/" in name]
    named = [p["name"] for p in paths[path]["get"]["parameters"]]
    assert named == ["study", "series", "instance", "frames", "level"]
    others = [name for name in paths if name != path]
    assert not any(
        p["name"] == "level"
        for name in others
        for o in paths[name].values()
        for p in o["parameters"]
    )
    told = site.ask("OPTIONS", f"/{sent.ref.path}/htj2k/1", "application/json").json()
    ((resource,),) = [each["resource"] for each in told["application"]["resources"]]
    (method,) = resource["method"]
    assert [p["name"] for p in method["request"]["param"]] == ["level"]
