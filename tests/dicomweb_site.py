"""A running server full of real files, and what strict clients make of its answers."""

import io
from collections.abc import Iterator
from pathlib import Path

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.encaps import generate_frames

_FOLDERS = ("ct-volume", "syntaxes", "multiframe", "nonimage", "color", "charset", "derived")
_MAX_BYTES = 1_500_000
_MAX_OF_A_FOLDER = 25
FRAMES = "multipart/related; type=application/octet-stream; transfer-syntax=*"
NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99",
          "1.2.840.10008.1.2.2"}  # fmt: skip


class Sent:
    """A file that the server took."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path.read_bytes()
        self.ds = pydicom.dcmread(io.BytesIO(self.data), force=True)
        self.uids = (
            str(self.ds.StudyInstanceUID),
            str(self.ds.SeriesInstanceUID),
            str(self.ds.SOPInstanceUID),
        )

    @property
    def syntax(self) -> str:
        return str(self.ds.file_meta.TransferSyntaxUID)


class Site:
    """The running server and what was stored in it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.base = f"{url}/dicomweb"
        self.client = DICOMwebClient(self.base)
        self.sent: list[Sent] = []

    def store(self, data: bytes, *, study: str = "") -> requests.Response:
        body = b"\r\n--guid\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--guid--"
        return requests.post(
            f"{self.base}/studies{study}",
            data=body,
            headers={
                "content-type": 'multipart/related; type="application/dicom"; boundary="guid"'
            },
            timeout=60,
        )

    def instance_url(self, sent: Sent) -> str:
        study, series, instance = sent.uids
        return f"{self.base}/studies/{study}/series/{series}/instances/{instance}"


def some_files(corpus: Path) -> Iterator[Path]:
    for folder in _FOLDERS:
        files = sorted(p for p in (corpus / folder).rglob("*.dcm"))
        small = [p for p in files if p.stat().st_size <= _MAX_BYTES]
        yield from small[:: max(1, len(small) // _MAX_OF_A_FOLDER)]


def frames_of(sent: Sent) -> list[bytes]:
    ds, number = sent.ds, int(sent.ds.get("NumberOfFrames") or 1)
    if sent.syntax not in NATIVE:
        return list(generate_frames(ds.PixelData, number_of_frames=number))
    data = bytes(ds.PixelData)
    if sent.syntax == "1.2.840.10008.1.2.2" and ds["PixelData"].VR == "OW":
        data = b"".join(data[i : i + 2][::-1] for i in range(0, len(data), 2))
    if ds.BitsAllocated == 1:
        bits, value = ds.Rows * ds.Columns, int.from_bytes(data, "little")
        return [
            (value >> (i * bits) & ((1 << bits) - 1)).to_bytes((bits + 7) // 8, "little")
            for i in range(number)
        ]
    length = ds.Rows * ds.Columns * ds.SamplesPerPixel * ds.BitsAllocated // 8
    if ds.PhotometricInterpretation == "YBR_FULL_422":
        length = length * 2 // 3
    return [data[i * length : (i + 1) * length] for i in range(number)]


def parts_of(answer: requests.Response) -> list[tuple[str, bytes]]:
    """Read a multipart answer as strict clients do."""
    kind = answer.headers["content-type"]
    assert kind.startswith("multipart/related; type=")
    delimiter = b"--" + kind.partition("boundary=")[2].encode()
    assert answer.content.startswith(delimiter + b"\r\nContent-Type: ")
    assert answer.content.endswith(b"\r\n" + delimiter + b"--\r\n")
    parts = []
    for text in answer.content.split(delimiter)[1:-1]:
        head, _, body = text.partition(b"\r\n\r\n")
        assert body.endswith(b"\r\n")
        parts.append((head.decode().split("Content-Type: ")[1].split("\r\n")[0], body[:-2]))
    return parts
