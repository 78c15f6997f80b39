"""Pictures of real files: rendered by our functions alone, and by DCMTK."""

import io
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from wado.archive.values import aligned, swapped
from wado.dicom.describe import describe
from wado.dicom.image import ImagePixel
from wado.dicom.rendering.display import Display, display_of
from wado.dicom.rendering.job import Form, render_frame
from wado.dicom.rendering.options import Window
from wado.dicom.rendering.placement import place
from wado.dicom.sop_classes import transfer_syntax
from wado.dicom.window import data_set_reader

Picture = npt.NDArray[np.uint8]


class ImageFile:
    """A DICOM file with pixels, read without a server."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        described = describe(lambda offset, length: data[offset : offset + length], len(data))
        meta = described.file_meta
        self.transfer_syntax_uid = meta.transfer_syntax_uid
        self.metadata = described.metadata
        self.image = ImagePixel.of(self.metadata)
        self._bulk = described.bulk
        self._pixel = described.pixel
        self._read = data_set_reader(
            lambda offset, length: data[offset : offset + length],
            len(data),
            meta.transfer_syntax_uid,
            meta.data_set_offset,
        )
        self._is_swapped = transfer_syntax(meta.transfer_syntax_uid).big_endian

    def bulk(self, path: str, start: int, end: int | None) -> bytes:
        """Bytes of a bulk value, in little endian."""
        value = self._read(*self._bulk[path])
        return (swapped(value, 2) if self._is_swapped else value)[start:end]

    def frame(self, number: int) -> bytes:
        """Stored bytes of a frame, in little endian and from a byte boundary on."""
        pixel = self._pixel
        assert pixel is not None
        data = b"".join(self._read(offset, length) for offset, length in pixel.frame(number))
        if pixel.encapsulated:
            return data
        if self._is_swapped and self._read(pixel.offset - 8, 2) == b"OW":
            data = swapped(data, 2)
        assert pixel.frame_bits is not None
        return aligned(data, pixel.first_bit(number), pixel.frame_bits)

    def display(self, number: int = 1) -> Display:
        """How the file says that a frame is to be shown."""
        return display_of(self.metadata, self.image, number, self.bulk, overlays=True)

    def picture(self, number: int = 1, window: Window | None = None) -> Picture:
        """Render a frame."""
        display = self.display(number)
        if window is not None:
            display = replace(display, voi=window)
        placement = place(None, self.image.columns, self.image.rows)
        png = render_frame(
            self.frame(number),
            self.image,
            self.transfer_syntax_uid,
            display,
            Form("image/png", 90, placement),
        )
        return np.asarray(Image.open(io.BytesIO(png)))


def dcmtk_picture(path: Path, out: Path, *options: str, frame: int = 1) -> Picture:
    """Render a frame by DCMTK; AssertionError with its words if it can't."""
    command = ["dcmj2pnm", "--write-raw-pnm", "--frame", str(frame), *options, str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.asarray(Image.open(out))
