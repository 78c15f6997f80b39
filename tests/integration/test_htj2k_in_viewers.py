"""HTJ2K frames in the decoder that Cornerstone3D brings along, run by Node."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

import real
import synthetic
from copies_site import CopiesSite, Sent, copies_site

DECODER = real.PROJECT / "viewer/node_modules/@cornerstonejs/codec-openjph/dist/openjphjs.js"
DECODE = """
const [decoder, folder, jobs] = process.argv.slice(1)
const fs = require("fs")
require(decoder)().then((codec) => {
    for (const [name, level] of JSON.parse(jobs)) {
        const frame = fs.readFileSync(`${folder}/${name}.jph`)
        const made = new codec.HTJ2KDecoder()
        made.getEncodedBuffer(frame.length).set(frame)
        made.decodeSubResolution(level)
        fs.writeFileSync(`${folder}/${name}.raw`, made.getDecodedBuffer())
    }
})
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CopiesSite]:
    with copies_site(tmp_path_factory.mktemp("viewers") / "data") as site:
        yield site


@pytest.fixture(scope="module")
def sent(site: CopiesSite) -> Sent:
    rng = np.random.default_rng(3)
    ramp = np.add.outer(np.arange(700) // 4, np.arange(900) // 9) % 100
    ds = synthetic.multi_frame(frames=1, rows=700, columns=900, study="in-viewers")
    ds.PixelData = (ramp + rng.integers(50, 120, (700, 900))).astype(np.uint8).tobytes()
    (sent,) = site.store(ds)
    return sent


def decoded(folder: Path, jobs: dict[str, tuple[bytes, int]]) -> dict[str, bytes]:
    """Decode frames, each at its level, as the viewer does."""
    node = real.require("node")
    if not DECODER.is_file():
        pytest.skip("the packages of the viewer are not installed")
    for name, (frame, _) in jobs.items():
        (folder / f"{name}.jph").write_bytes(frame)
    levels = json.dumps([[name, level] for name, (_, level) in jobs.items()])
    subprocess.run(
        [node, "-e", DECODE, str(DECODER), str(folder), levels],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return {name: (folder / f"{name}.raw").read_bytes() for name in jobs}


def test_lower_resolutions_are_those_of_the_whole(site: CopiesSite, sent: Sent, tmp_path: Path):
    whole = site.get(sent, "/htj2k/1", "image/jphc").content
    jobs = {
        f"level-{level}": (
            site.get(sent, f"/htj2k/1?level={level}", "image/jphc").content,
            level,
        )
        for level in range(6)
    }
    for name, pixels in decoded(tmp_path, jobs).items():
        level = jobs[name][1]
        assert pixels == imagecodecs.htj2k_decode(whole, skipres=level).tobytes(), name
    assert imagecodecs.htj2k_decode(whole).tobytes() == bytes(sent.ds.PixelData)


def test_the_beginning_that_was_read_shows_a_lower_resolution(
    site: CopiesSite, sent: Sent, tmp_path: Path
):
    whole = site.get(sent, "/htj2k/1", "image/jphc").content
    begun = site.get(sent, "/htj2k/1", "image/jphc", range="bytes=0-65535")
    assert (begun.status_code, len(begun.content)) == (206, 65536)
    shown = decoded(tmp_path, {"begun": (begun.content, 2)})
    assert shown["begun"] == imagecodecs.htj2k_decode(whole, skipres=2).tobytes()
