"""Instances of any size, made anew each time they are read, on their way in and out by HTTP."""

import hashlib
import http.client
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Any, Literal

from pydicom.dataset import Dataset
from pydicom.uid import UID

import synthetic
from memory import MEGABYTE, wait_settled
from service import RunningArchive, files_below, wait_until

Form = Literal["native", "implicit", "fragments", "rle"]
"""``fragments`` are dummy bytes, ``rle`` can be decoded."""
BOUNDARY = "boundary-of-the-memory-test"
SOP_CLASS = "1.2.840.10008.5.1.4.1.1.7.3"
IMPLICIT, EXPLICIT, RLE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"
ROWS, COLUMNS = 1024, 512
_SYNTAX = {"native": EXPLICIT, "implicit": IMPLICIT, "fragments": RLE, "rle": RLE}
_RUN_BYTES = 128
"""Most bytes of a literal run (PS3.5 §G.3)."""
TIMEOUT_S = 300.0


class Large:
    """A multi-frame image of 16 bits with frames of 1 MB, which can't be compressed if `noisy`."""

    def __init__(self, name: str, size: int, form: Form = "native", *, noisy: bool = False) -> None:
        self.size = size
        self.noisy = noisy
        self.form: Form = form
        self.transfer_syntax_uid = _SYNTAX[form]
        self.common: dict[str, Any] = {
            "patient_id": f"{name}-{form}",
            "study": f"{name}-{form}",
        }
        self.ds: Dataset = synthetic.instance(SOP_CLASS, series="large", **self.common)

    @property
    def frames(self) -> int:
        """Number of frames, of 1 MB each."""
        return self.size // MEGABYTE

    @property
    def path(self) -> str:
        """Path of the instance below the base URL."""
        ds = self.ds
        return f"{self.series}/instances/{ds.SOPInstanceUID}"

    @property
    def series(self) -> str:
        """Path of its series."""
        return f"{self.study}/series/{self.ds.SeriesInstanceUID}"

    @property
    def study(self) -> str:
        """Path of its study."""
        return f"/dicomweb/studies/{self.ds.StudyInstanceUID}"

    def frame(self, number: int) -> bytes:
        """Native bytes of a frame."""
        if self.noisy:
            return Random(number).randbytes(MEGABYTE)
        return (number - 1).to_bytes(8, "little") * (MEGABYTE // 8)

    def native(self) -> Iterator[bytes]:
        """Native pixel data, frame by frame."""
        return map(self.frame, range(1, self.frames + 1))

    def data_set(self) -> Iterator[bytes]:
        """Pieces of the bare data set."""
        if self.form == "fragments":
            yield from synthetic.large_data_set(self.size, fragments=True, **self.common)
            return
        yield synthetic.data_set(self._head())
        if self.form == "implicit":
            yield struct.pack("<HHI", 0x7FE0, 0x0010, self.frames * MEGABYTE)
            yield from self.native()
        elif self.form == "native":
            yield struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, self.frames * MEGABYTE)
            yield from self.native()
        else:
            yield struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, synthetic.UNDEFINED_LENGTH)
            yield struct.pack("<HHI", 0xFFFE, 0xE000, 0)
            for number in range(1, self.frames + 1):
                frame = run_length_frame(self.frame(number))
                yield struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame
            yield struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)

    def part10(self) -> Iterator[bytes]:
        """Pieces of the file."""
        if self.form == "fragments":
            yield from synthetic.large_part10(self.size, fragments=True, **self.common)
            return
        head = self._head()
        whole = synthetic.part10(head)
        yield whole[: len(whole) - len(synthetic.data_set(head))]
        yield from self.data_set()

    def _head(self) -> Dataset:
        ds = synthetic.instance(
            SOP_CLASS,
            series="large",
            NumberOfFrames=self.frames,
            Rows=ROWS,
            Columns=COLUMNS,
            SamplesPerPixel=1,
            PhotometricInterpretation="MONOCHROME2",
            BitsAllocated=16,
            BitsStored=16,
            HighBit=15,
            PixelRepresentation=0,
            **self.common,
        )
        ds.file_meta.TransferSyntaxUID = UID(self.transfer_syntax_uid)
        return ds


def run_length_frame(native: bytes) -> bytes:
    """Encode a frame of 16 bits in literal runs alone: as long as can be (PS3.5 §G)."""
    segments = []
    for plane in (native[1::2], native[::2]):
        runs = range(0, len(plane), _RUN_BYTES)
        head = bytes([_RUN_BYTES - 1])
        segments.append(b"".join([head + plane[at : at + _RUN_BYTES] for at in runs]))
    offsets = (64, 64 + len(segments[0]))
    header = struct.pack("<16I", 2, *offsets, *[0] * 13)
    frame = header + b"".join(segments)
    return frame + b"\0" * (len(frame) % 2)


# ------------------------------------------------------------------ in and out


def store_by_stow(archive: RunningArchive, large: Large, *, chunked: bool) -> None:
    """STOW-RS, with a Content-Length or without."""
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    end = f"\r\n--{BOUNDARY}--\r\n".encode()
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}',
        "Accept": "application/dicom+json",
    }
    if not chunked:
        length = sum(map(len, large.part10()))
        headers["Content-Length"] = str(len(head) + length + len(end))

    def body() -> Iterator[bytes]:
        yield head
        yield from large.part10()
        yield end

    connection = http.client.HTTPConnection("127.0.0.1", archive.http_port, timeout=TIMEOUT_S)
    connection.request("POST", "/dicomweb/studies", body(), headers=headers, encode_chunked=chunked)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    assert answer.status == 200, text
    assert "00081198" not in json.loads(text)


def get(
    archive: RunningArchive,
    path: str,
    accept: str = "*/*",
    *,
    headers: Mapping[str, str] | None = None,
) -> Iterator[bytes]:
    """Pieces of an answer of status 200 or 206."""
    connection = http.client.HTTPConnection("127.0.0.1", archive.http_port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"Accept": accept, **(headers or {})})
        answer = connection.getresponse()
        assert answer.status in (200, 206), (path, answer.status, answer.read(1000))
        while piece := answer.read(MEGABYTE):
            yield piece
    finally:
        connection.close()


def found(archive: RunningArchive, path: str) -> bool:
    """Whether the metadata of an instance is there."""
    try:
        return bool(b"".join(get(archive, f"{path}/metadata")))
    except AssertionError:
        return False


def digest(pieces: Iterable[bytes]) -> str:
    """SHA-256 of pieces."""
    result = hashlib.sha256()
    for piece in pieces:
        result.update(piece)
    return result.hexdigest()


def everything_agrees(archive: RunningArchive) -> None:
    """`wado check` finds nothing wrong, and nothing half-written is there."""
    wait_settled(archive)
    check = archive.wado("check", "--root", str(archive.root))
    assert check.returncode == 0, check.stdout + check.stderr
    wait_until(
        lambda: not files_below(archive.root, "*.part"), timeout_s=60, reason="no partial file"
    )
