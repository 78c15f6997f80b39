"""What a client sends by STOW-RS: messages of parts, metadata with bulk data, images and video."""

import io
import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pydicom
import requests
from PIL import Image
from pydicom.dataset import Dataset

from synthetic import instance

BOUNDARY = "stow-boundary"
DICOM_JSON, DICOM_XML = "application/dicom+json", "application/dicom+xml"

Part = tuple[Mapping[str, str], bytes]


def message(parts: Iterable[Part]) -> bytes:
    """Make a multipart body."""
    out = [b"\r\n"]
    for headers, body in parts:
        lines = [f"--{BOUNDARY}", *(f"{name}: {value}" for name, value in headers.items())]
        out += ["\r\n".join(lines).encode(), b"\r\n\r\n", body, b"\r\n"]
    return b"".join([*out, f"--{BOUNDARY}--".encode()])


def content_type(kind: str = DICOM_JSON) -> str:
    """Content-Type of a message whose first part is of this type."""
    return f'multipart/related; type="{kind}"; boundary={BOUNDARY}'


def bulk(location: str, data: bytes, media_type: str = "application/octet-stream") -> Part:
    """Make a part of bulk data."""
    return {"Content-Type": media_type, "Content-Location": location}, data


def metadata(*instances: Mapping[str, Any]) -> Part:
    """Make the part of metadata."""
    return {"Content-Type": DICOM_JSON}, json.dumps(instances, ensure_ascii=False).encode()


def json_of(ds: Dataset, prefix: str = "bulk") -> tuple[dict[str, Any], list[Part]]:
    """Take a data set apart: its metadata, and bulk data of over 64 bytes as parts."""
    parts: list[Part] = []

    def keep(element: Any) -> str:
        location = f"{prefix}/{element.tag}/{len(parts)}"
        parts.append(bulk(location, bytes(element.value)))
        return location

    model = ds.to_json_dict(bulk_data_threshold=64, bulk_data_element_handler=keep)
    return {key: value for key, value in model.items() if not key.startswith("0002")}, parts


def described(ds: Dataset, uri: str = "pixels", tag: str = "7FE00010") -> dict[str, Any]:
    """Metadata of a data set whose pixels, or document, come as a part."""
    model = ds.to_json_dict()
    return {**model, tag: {"vr": "OB", "BulkDataURI": uri}}


class Client:
    """Stores by STOW-RS in a tenant of its own, and reads back."""

    def __init__(self, base: str, tenant: str) -> None:
        self.base = base
        self.session = requests.Session()
        self.session.headers["x-tenant"] = tenant

    def post(
        self, body: Any, kind: str = "", *, study: str = "", **headers: str
    ) -> requests.Response:
        """Post a body as it is."""
        return self.session.post(
            f"{self.base}/studies{study}",
            data=body,
            headers={"content-type": kind or content_type(), **headers},
            timeout=60,
        )

    def store(self, *parts: Part, kind: str = DICOM_JSON, **more: str) -> requests.Response:
        """Post a message of parts."""
        return self.post(message(parts), content_type(kind), **more)

    def wrapped(self, ds: Dataset, *frames: bytes, media_type: str) -> requests.Response:
        """Store a data set with its pixels as parts, one a frame."""
        parts = [bulk("pixels", frame, media_type) for frame in frames]
        return self.store(metadata(described(ds)), *parts)

    def fetch(self, ds: Dataset) -> pydicom.FileDataset:
        """Read an instance back, in the transfer syntax in which it is stored."""
        answer = self.session.get(
            f"{self.base}/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
            f"/instances/{ds.SOPInstanceUID}",
            headers={"accept": "application/dicom; transfer-syntax=*"},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        return pydicom.dcmread(io.BytesIO(answer.content))


def only(answer: requests.Response, tag: str) -> dict[str, Any]:
    """The one item of a sequence of a response module."""
    (item,) = answer.json()[tag]["Value"]
    found: dict[str, Any] = item
    return found


def reason(answer: requests.Response) -> int:
    """Failure Reason of the one part that failed."""
    module = answer.json()
    (item,) = [i for tag in ("00081198", "0008119A") for i in module.get(tag, {}).get("Value", ())]
    return int(item["00081197"]["Value"][0])


# ------------------------------------------------------------------ images and video

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
TRUE_COLOR = "1.2.840.10008.5.1.4.1.1.7.4"
VIDEO_PHOTOGRAPHIC = "1.2.840.10008.5.1.4.1.1.77.1.4.1"
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"


def bare(name: object, sop_class_uid: str = SECONDARY_CAPTURE, **attributes: Any) -> Dataset:
    """Make an instance that says nothing of its pixels."""
    ds = instance(sop_class_uid, study=("stow", name), **attributes)
    del ds.file_meta
    return ds


def picture(rows: int = 24, columns: int = 32, *, colour: bool = True) -> "np.ndarray[Any, Any]":
    """Make a smooth picture of 8 bits."""
    y, x = np.mgrid[0:rows, 0:columns]
    channels = [y * 255 // rows, x * 255 // columns, (x + y) * 255 // (rows + columns)]
    return (np.stack(channels, -1) if colour else channels[2]).astype("u1")


def as_file(pixels: "np.ndarray[Any, Any]", kind: str, **options: Any) -> bytes:
    """Write a picture as a file of a kind that Pillow knows."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def box(kind: bytes, *content: bytes) -> bytes:
    """Make a box of an MP4 or JP2 file."""
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body)) + kind + body


def mp4(*, codec: bytes = b"avc1", profile: int = 100, level: int = 41, frames: int = 50) -> bytes:
    """Make an MP4 file whose boxes are right (two seconds of 64 x 48); its samples are noise."""
    if codec == b"avc1":
        configuration = box(b"avcC", bytes([1, profile, 0, level, 0xFF]))
    else:
        configuration = box(b"hvcC", bytes([1, profile, *bytes(10), level, *bytes(10)]))
    entry = box(codec, bytes(24), struct.pack(">HH", 64, 48), bytes(50), configuration)
    table = box(
        b"stbl",
        box(b"stsd", struct.pack(">II", 0, 1), entry),
        box(b"stsz", struct.pack(">III", 0, 100, frames)),
    )
    header = box(b"mdhd", struct.pack(">IIIIII", 0, 0, 0, 1000, 2000, 0))
    movie = box(b"moov", box(b"trak", box(b"mdia", header, box(b"minf", table))))
    return box(b"ftyp", b"isom", bytes(4)) + movie + box(b"mdat", bytes(range(256)) * 10)
