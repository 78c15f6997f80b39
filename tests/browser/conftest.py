"""One archive with real files and one browser for all tests of the viewer."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, expect, sync_playwright
from pydicom import dcmread
from pydicom.uid import UID

import real
from browser.viewer_page import PATIENCE_MS, ViewerPage
from every_syntax import Example, every_example, write_all
from service import PATIENT_ENV, RunningArchive, wait_until

expect.set_options(timeout=PATIENCE_MS)
FLAGS = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
"""Software WebGL on a machine without a graphics card, and no requests of the browser's own."""

COMPRESSED = {
    "rle": "RLELossless",
    "jpeg-lossless": "JPEGProcess14SV1",
    "jpeg-ls": "JPEGLSLossless",
    "jpeg-2000": "JPEG2000LosslessOnly",
    "implicit": "LittleEndianImplicit",
}
"""One image in several transfer syntaxes, by the middle of the file's name."""

RPCL = "1.2.840.10008.1.2.4.202"
LARGE_JPEG_2000 = [
    {"target": RPCL, "sources": ["1.2.840.10008.1.2.4.90"], "min_pixels": 1 << 20},
]
"""A rule that makes copies of large images which take long to decode."""


@dataclass(frozen=True)
class Sent:
    """A file in the archive and where it stands there."""

    path: Path
    study_instance_uid: str
    series_instance_uid: str


@pytest.fixture(scope="session")
def head(corpus: Path) -> list[Path]:
    """The CT head: 140 slices of one series, from the first to the last."""
    paths = (corpus / "ct-volume" / "head-1mm-std").iterdir()
    return sorted(
        paths, key=lambda path: int(dcmread(path, stop_before_pixels=True).InstanceNumber)
    )


@pytest.fixture(scope="session")
def sent(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sent]:
    """Copies of single files under UIDs of their own, by what they show."""
    folder = tmp_path_factory.mktemp("single")
    images = corpus / "syntaxes" / "ctimage"
    sources = {name: next(images.glob(f"*_{part}Transfer*")) for name, part in COMPRESSED.items()}
    sources["htj2k"] = next((corpus / "syntaxes" / "htj2k").glob("*HTJ2KLossless*"))
    sources["palette"] = corpus / "color" / "pydicom__examples_palette.dcm"
    sources["multiframe"] = corpus / "multiframe" / "pydicom-data__emri_small.dcm"
    sources["report"] = corpus / "nonimage" / "highdicom__sr_document.dcm"
    return {
        name: _renamed(source, folder / f"{name}.dcm", number)
        for number, (name, source) in enumerate(sources.items(), 1)
    }


def _renamed(source: Path, target: Path, number: int) -> Sent:
    """Copy a file under other UIDs: the corpus has the same image in every transfer syntax."""
    ds = dcmread(source)
    ds.StudyInstanceUID = f"1.2.826.0.1.3680043.8.498.7.{number}"
    ds.SeriesInstanceUID = f"{ds.StudyInstanceUID}.1"
    ds.SOPInstanceUID = f"{ds.StudyInstanceUID}.1.1"
    ds.file_meta.MediaStorageSOPInstanceUID = UID(ds.SOPInstanceUID)
    ds.StudyDescription = target.stem
    ds.save_as(target)
    return Sent(target, ds.StudyInstanceUID, ds.SeriesInstanceUID)


@pytest.fixture(scope="session")
def filled(
    tmp_path_factory: pytest.TempPathFactory, head: list[Path], sent: dict[str, Sent]
) -> Iterator[RunningArchive]:
    """An archive that was sent the CT head and the single files by C-STORE."""
    real.require("viewer")
    with RunningArchive(tmp_path_factory.mktemp("viewed") / "data", env=PATIENT_ENV) as archive:
        send(archive, head[0].parent)
        send(archive, next(iter(sent.values())).path.parent)
        yield archive


@pytest.fixture(scope="session")
def examples() -> dict[str, Example]:
    """An instance, and more, of every transfer syntax, by name."""
    real.require("dcmtk")
    return {example.name: example for example in every_example()}


@pytest.fixture(scope="session")
def every_one(
    tmp_path_factory: pytest.TempPathFactory, examples: dict[str, Example]
) -> Iterator[RunningArchive]:
    """An archive that was sent all of them, each a series of one study."""
    real.require("viewer")
    files = tmp_path_factory.mktemp("every")
    write_all(list(examples.values()), files)
    env = {**PATIENT_ENV, "WADO_TRANSCODE__RULES": json.dumps(LARGE_JPEG_2000)}
    with RunningArchive(tmp_path_factory.mktemp("every_one") / "data", env=env) as archive:
        send(archive, files, [example.uids for example in examples.values()])
        yield archive


@pytest.fixture
def every_viewer(page: Page, every_one: RunningArchive) -> ViewerPage:
    """The viewer on the archive that has everything."""
    return ViewerPage(page, every_one.http)


def available(archive: RunningArchive, example: Example) -> list[str]:
    """Transfer syntaxes in which the archive says it has an instance."""
    study, series, _ = example.uids
    address = f"{archive.dicomweb}/studies/{study}/series/{series}/metadata"
    answer = requests.get(address, headers={"accept": "application/dicom+json"}, timeout=60)
    assert answer.status_code == 200, answer.text
    return list(answer.json()[0]["00083002"]["Value"])


def send(archive: RunningArchive, path: Path, uids: Collection[tuple[str, str, str]] = ()) -> None:
    """C-STORE a file or a folder, and wait until each of its instances is found.

    `uids` are study, series and instance of each, for files that pydicom can't read.
    """
    result = archive.wado("send", str(path), "--to", archive.destination)
    assert result.returncode == 0, result.stdout + result.stderr
    for study, group in groupby(sorted(uids or uids_below(path)), key=itemgetter(0)):
        sent = {instance for _, _, instance in group}
        wait_until(
            lambda study=study, sent=sent: sent <= found(archive, study),  # type: ignore[misc]
            timeout_s=120,
            reason=f"all instances of {study} are found",
        )


def uids_below(path: Path) -> list[tuple[str, str, str]]:
    """Give study, series and instance of a file, or of each file in a folder."""
    files = [path] if path.is_file() else list(path.iterdir())
    read = [dcmread(file, stop_before_pixels=True) for file in files]
    return [(ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID) for ds in read]


def found(archive: RunningArchive, study: str) -> set[str]:
    """Give the instances of a study that a search finds."""
    address = f"{archive.dicomweb}/studies/{study}/instances?limit=1000"
    answer = requests.get(address, timeout=60)
    assert answer.status_code in (200, 204), answer.text
    rows = answer.json() if answer.status_code == 200 else []
    return {row["00080018"]["Value"][0] for row in rows}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window, one for all tests."""
    path = real.require("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(path), args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page of 1280 by 800 that fails the test when its code throws."""
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        # What the page asks for again and again may be in the hands of a test's route just now.
        page.unroute_all(behavior="ignoreErrors")
    assert not errors, errors


@pytest.fixture
def viewer(page: Page, filled: RunningArchive) -> ViewerPage:
    """The viewer on a fresh page, nothing opened yet."""
    return ViewerPage(page, filled.http)
