"""dicomweb-client of npm, the one that OHIF uses, in a browser and from another origin."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from playwright.sync_api import Page

import synthetic
from browser.conftest import Sent
from service import RunningArchive

CLIENT = (
    Path(__file__).resolve().parents[2]
    / "viewer/node_modules/dicomweb-client/build/dicomweb-client.js"
)
PREPARE = """([url]) => {
    window.asked = []
    const open = XMLHttpRequest.prototype.open
    XMLHttpRequest.prototype.open = function (method, address, ...rest) {
        window.asked.push(`${method} ${address}`)
        return open.call(this, method, address, ...rest)
    }
    window.client = new DICOMwebClient.api.DICOMwebClient({ url })
    window.text = (buffer) => {
        const bytes = new Uint8Array(buffer)
        let text = ""
        for (let i = 0; i < bytes.length; i += 8192)
            text += String.fromCharCode(...bytes.subarray(i, i + 8192))
        return btoa(text)
    }
}"""

Ask = Callable[..., Any]


@pytest.fixture
def ask(page: Page, filled: RunningArchive) -> Ask:
    """Call a method of the client; array buffers come back as bytes."""
    # Another origin than that of the requests; browsers let only local pages ask loopback.
    page.goto(f"http://localhost:{filled.http_port}/livez")
    page.add_script_tag(path=CLIENT)
    page.evaluate(PREPARE, [filled.dicomweb])

    def call(method: str, **options: object) -> Any:
        result = page.evaluate(
            """async ([method, options]) => {
                const result = await client[method](options)
                const packed = (value) =>
                    value instanceof ArrayBuffer ? { buffer: text(value) } : value
                return Array.isArray(result) ? result.map(packed) : packed(result)
            }""",
            [method, options],
        )
        return (
            [_unpacked(value) for value in result]
            if isinstance(result, list)
            else _unpacked(result)
        )

    return call


def _unpacked(value: Any) -> Any:
    is_buffer = isinstance(value, dict) and value.keys() == {"buffer"}
    return base64.b64decode(value["buffer"]) if is_buffer else value


def uids_of(sent: Sent) -> dict[str, str]:
    return {
        "studyInstanceUID": sent.study_instance_uid,
        "seriesInstanceUID": sent.series_instance_uid,
        "sopInstanceUID": f"{sent.study_instance_uid}.1.1",
    }


def test_studies_series_and_instances_are_found(ask: Ask, sent: dict[str, Sent]):
    uid = sent["rle"].study_instance_uid
    (study,) = ask("searchForStudies", queryParams={"StudyInstanceUID": uid, "limit": 101})
    assert study["0020000D"]["Value"] == [uid]
    (series,) = ask("searchForSeries", studyInstanceUID=uid)
    assert series["0020000E"]["Value"] == [sent["rle"].series_instance_uid]
    (instance,) = ask("searchForInstances", studyInstanceUID=uid)
    assert instance["00080018"]["Value"] == [f"{uid}.1.1"]
    assert ask("searchForStudies", queryParams={"PatientID": "nobody"}) in ([], "")


def test_metadata_of_all_levels(ask: Ask, sent: dict[str, Sent]):
    uids = uids_of(sent["multiframe"])
    ds = pydicom.dcmread(sent["multiframe"].path)
    for method in ("retrieveStudyMetadata", "retrieveSeriesMetadata", "retrieveInstanceMetadata"):
        result = ask(method, **uids)
        metadata = result[0] if isinstance(result, list) else result
        assert metadata["00280008"]["Value"] == [int(ds.NumberOfFrames)]
        assert metadata["7FE00010"]["BulkDataURI"]


@pytest.mark.parametrize("name", ["rle", "jpeg-ls", "jpeg-2000", "implicit", "htj2k", "palette"])
def test_frames_and_whole_instances(ask: Ask, sent: dict[str, Sent], name: str):
    uids = uids_of(sent[name])
    ds = pydicom.dcmread(sent[name].path)
    (native,) = ask("retrieveInstanceFrames", **uids, frameNumbers=[1])
    assert len(native) == ds.Rows * ds.Columns * ds.SamplesPerPixel * ds.BitsAllocated // 8
    whole = ask("retrieveInstance", **uids)
    assert whole[128:132] == b"DICM"
    (of_study,) = ask("retrieveStudy", **uids)
    assert of_study[128:132] == b"DICM"


def test_several_frames_come_in_one_answer(ask: Ask, sent: dict[str, Sent]):
    frames = ask("retrieveInstanceFrames", **uids_of(sent["multiframe"]), frameNumbers=[3, 1, 2])
    pixels = pydicom.dcmread(sent["multiframe"].path).pixel_array
    assert frames == [pixels[n].tobytes() for n in (2, 0, 1)]


def test_bulk_data_by_the_uri_of_the_metadata(ask: Ask, sent: dict[str, Sent]):
    metadata = ask("retrieveInstanceMetadata", **uids_of(sent["multiframe"]))
    metadata = metadata[0] if isinstance(metadata, list) else metadata
    data = ask("retrieveBulkData", BulkDataURI=metadata["7FE00010"]["BulkDataURI"])
    data = data[0] if isinstance(data, list) else data
    assert data == pydicom.dcmread(sent["multiframe"].path).PixelData


def test_rendered_images_and_frames(ask: Ask, sent: dict[str, Sent]):
    wanted = {"mediaTypes": [{"mediaType": "image/jpeg"}]}  # without, frames come as text
    for name in ("rle", "multiframe", "palette"):
        uids = uids_of(sent[name])
        for result in (
            ask("retrieveInstanceRendered", **uids, **wanted, queryParams={"quality": "80"}),
            ask("retrieveInstanceFramesRendered", **uids, **wanted, frameNumbers=[1]),
        ):
            image = result[0] if isinstance(result, list) else result
            assert image.startswith(b"\xff\xd8\xff")


def test_what_is_stored_is_found_at_once(page: Page, ask: Ask):
    ds = synthetic.ct(study="npm", series="npm", patient_id="npm")
    data = base64.b64encode(synthetic.part10(ds)).decode()
    page.evaluate(
        """async (data) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0))
            return await client.storeInstances({ datasets: [bytes.buffer] })
        }""",
        data,
    )
    (found,) = ask("searchForStudies", queryParams={"PatientID": "npm"})
    assert found["0020000D"]["Value"] == [ds.StudyInstanceUID]
