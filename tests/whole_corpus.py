"""Every file of the corpus in a running archive, stored by HTTP; what it lacks is added first."""

import io
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import pydicom
import requests
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, SecondaryCaptureImageStorage

from dicomweb_site import Sent

ELE = "1.2.840.10008.1.2.1"
_NATIVE = f"application/dicom; transfer-syntax={ELE}"
TENANT = "corpus"
"""Of the files whose SOP Instance UID comes first; others of the same UID have tenants beside."""
_STORED_AT_A_TIME = 8
_TIMEOUT_S = 60


class Kept(Sent):
    """A file that the archive keeps; how it is asked for."""

    def __init__(self, path: Path, tenant: str, base: str) -> None:
        super().__init__(path)
        self.headers = {"x-tenant": tenant}
        study, series, instance = self.uids
        self.study_url = f"{base}/studies/{study}"
        self.series_url = f"{self.study_url}/series/{series}"
        self.url = f"{self.series_url}/instances/{instance}"

    def get(self, resource: str = "", accept: str = "*/*", **headers: str) -> requests.Response:
        """Ask for the instance, or for a resource of it, or for a whole address."""
        url = resource if resource.startswith("http") else f"{self.url}{resource}"
        given = {**self.headers, "accept": accept, **headers}
        return requests.get(url, headers=given, timeout=_TIMEOUT_S)

    @property
    def native(self) -> requests.Response:
        """The instance in Explicit VR Little Endian; remembered where it has to be made."""
        return self.get(accept=_NATIVE) if self.syntax == ELE else self._made

    @cached_property
    def _made(self) -> requests.Response:
        return self.get(accept=_NATIVE)

    @property
    def frames(self) -> int:
        """Number of frames, 1 where that can't be read."""
        count = self.ds.get("NumberOfFrames")
        return int(count) if str(count).isdigit() else 1


def store_all(base: str, paths: list[Path], folder: Path) -> list[Kept]:
    """Store files; those that the archive took. Completed ones are written to `folder`."""
    copies: Counter[str] = Counter()
    jobs = []
    for path in paths:
        ready = complete(path, folder)
        uid = _uid_of(ready)
        jobs.append((ready, f"{TENANT}-{copies[uid]}" if copies[uid] else TENANT))
        copies[uid] += 1

    def store(job: tuple[Path, str]) -> Kept | None:
        path, tenant = job
        answer = requests.post(
            f"{base}/studies",
            data=path.read_bytes(),
            headers={"content-type": "application/dicom", "x-tenant": tenant},
            timeout=_TIMEOUT_S,
        )
        assert answer.status_code in {200, 409}, (path, answer.text)
        return Kept(path, tenant, base) if answer.status_code == 200 else None

    with ThreadPoolExecutor(_STORED_AT_A_TIME) as pool:
        return [kept for kept in pool.map(store, jobs) if kept is not None]


def _uid_of(path: Path) -> str:
    try:
        ds = pydicom.dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True)
    except InvalidDicomError:
        return ""
    return str(ds.get("SOPInstanceUID", ""))


def complete(path: Path, folder: Path) -> Path:
    """Give an image that lacks UIDs or the preamble what it lacks; others stay as they are."""
    ds = pydicom.dcmread(path, force=True)
    lacking = [name for name in _needed(path) if not ds.get(name)]
    whole = path.read_bytes()[128:132] == b"DICM"
    syntax = ds.file_meta.get("TransferSyntaxUID") if hasattr(ds, "file_meta") else None
    if not syntax or "PixelData" not in ds or (whole and not lacking):
        return path
    for name, value in _needed(path).items():
        if name in lacking:
            setattr(ds, name, value)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    completed = folder / path.name
    completed.write_bytes(out.getvalue())
    return completed


def _needed(path: Path) -> dict[str, UID]:
    own = "2.25." + str(int.from_bytes(path.name.encode()[-12:], "big"))
    return {
        "SOPClassUID": SecondaryCaptureImageStorage,
        "SOPInstanceUID": UID(f"{own}.3"),
        "StudyInstanceUID": UID(f"{own}.1"),
        "SeriesInstanceUID": UID(f"{own}.2"),
    }


def by_series(kept: list[Kept]) -> Iterator[list[Kept]]:
    """Files of each series of the first tenant."""
    series: dict[str, list[Kept]] = {}
    for each in kept:
        if each.headers["x-tenant"] == TENANT:
            series.setdefault(each.series_url, []).append(each)
    yield from series.values()
