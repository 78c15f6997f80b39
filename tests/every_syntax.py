"""An instance, and more, of every transfer syntax of PS3.6; its pixels are known, or found out.

What is coded without loss has the pixels that it was made of. What is coded with loss has those
that a decoder gives which is not ours: DCMTK, djpeg, OpenJPEG by GDCM.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import imagecodecs
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array

import coded_streams
import synthetic
from coded_streams import Pixels, arithmetic_jpeg, by_dcmtk, cjpeg, deflated, djpeg, hierarchical
from example_pictures import (
    FRAMES_8,
    FRAMES_16,
    FRAMES_RGB,
    GRAY_8,
    GRAY_12,
    GRAY_16,
    LOSSLESS,
    PALETTE,
    RGB,
    SIGNED_12,
    SIGNED_16,
    YBR,
    Picture,
    little,
    native,
)
from wado.dicom.part10 import file_meta

JPEG = "1.2.840.10008.1.2.4."
ELE = "1.2.840.10008.1.2.1"
IMPLICIT, DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2", f"{ELE}.99", "1.2.840.10008.1.2.2"
ENCAPSULATED_UNCOMPRESSED, DEFLATED_FRAMES = f"{ELE}.98", "1.2.840.10008.1.2.8.1"
RLE = "1.2.840.10008.1.2.5"
OLD_HTJ2K = "3.2.840.10008.1.2.4.96"
_JPIP_DEFLATED = (f"{JPEG}95", f"{JPEG}205")
PAPYRUS, GE_IMPLICIT = "1.2.840.10008.1.20", "1.2.840.113619.5.2"

Kind = Literal["image", "video", "unreadable", "no pixels"]
"""`unreadable`: no decoder is known for it, so none may give pixels but the right ones."""


@dataclass(frozen=True)
class Example:
    """An instance of a transfer syntax.

    `pixels` are what its frames must decode to, each sample within `bound`; colour is RGB, but
    samples of YBR that are coded without loss stay what they are.
    """

    name: str
    ds: Dataset
    kind: Kind = "image"
    pixels: Sequence[Pixels] = ()
    bound: int = 0

    @cached_property
    def data(self) -> bytes:
        """The PS3.10 file: some syntaxes are not pydicom's, so its body is written as another."""
        uid = self.transfer_syntax_uid
        body = copy.copy(self.ds)
        body.file_meta = copy.deepcopy(self.ds.file_meta)
        body.file_meta.TransferSyntaxUID = pydicom.uid.UID(_encoded_as(uid, body))
        data = synthetic.data_set(body)
        if uid in _JPIP_DEFLATED:
            data = _even(deflated(data))
        return file_meta(str(body.SOPClassUID), str(body.SOPInstanceUID), uid) + data

    @property
    def transfer_syntax_uid(self) -> str:
        """How it is coded."""
        return str(self.ds.file_meta.TransferSyntaxUID)

    @property
    def uids(self) -> tuple[str, str, str]:
        """Study, series and instance."""
        ds = self.ds
        return str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID)


_NOTHING: Mapping[str, Any] = MappingProxyType({})


def every_example() -> list[Example]:
    """Make them all, in a study each for what belongs together."""
    return [example for maker in _MAKERS for example in maker()]


def _example(
    uid: str, picture: Picture, frames: Sequence[bytes], *, variant: str = "",
    kind: Kind = "image", pixels: Sequence[Pixels] | None = None, bound: int = 0,
    attributes: Mapping[str, Any] = _NOTHING,
) -> Example:  # fmt: skip
    """Encapsulate code streams of a picture; the pixels are those of the picture if not given."""
    name = f"{uid} {picture.name}{variant}"
    ds = synthetic.encapsulated(native(picture, name), uid, [_even(frame) for frame in frames])
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return Example(name, ds, kind, picture.frames if pixels is None else pixels, bound)


def _even(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)


# ------------------------------------------------------------------ native and near to it


def _natives() -> Iterator[Example]:
    for uid in (IMPLICIT, ELE, DEFLATED, BIG_ENDIAN):
        for picture in (GRAY_8, GRAY_12, SIGNED_16, RGB, YBR, PALETTE, FRAMES_16):
            name = f"{uid} {picture.name}"
            ds = synthetic.with_transfer_syntax(native(picture, name), uid)
            yield Example(name, ds, pixels=picture.frames)


def _nearly_native() -> Iterator[Example]:
    for picture in LOSSLESS:
        plain = [little(frame) for frame in picture.frames]
        yield _example(ENCAPSULATED_UNCOMPRESSED, picture, plain)
        yield _example(DEFLATED_FRAMES, picture, [deflated(frame) for frame in plain])
        name = f"{RLE} {picture.name}"
        ds = native(picture, name)
        ds.compress(RLE, encoding_plugin="pydicom", generate_instance_uid=False)
        yield Example(name, ds, pixels=picture.frames)


# ------------------------------------------------------------------ JPEG

_BY_DCMCJPEG: tuple[tuple[str, str, tuple[Picture, ...]], ...] = (
    ("50", "+eb", (GRAY_8, RGB, FRAMES_8, FRAMES_RGB)),
    ("51", "+ee", (GRAY_8, GRAY_12, RGB)),
    ("53", "+es", (GRAY_8, GRAY_12, RGB, FRAMES_8)),
    ("55", "+ep", (GRAY_8, GRAY_12, RGB, FRAMES_RGB)),
    ("57", "+el", (GRAY_8, GRAY_12, GRAY_16, SIGNED_12, SIGNED_16, RGB, PALETTE, FRAMES_16)),
    ("70", "+e1", (GRAY_8, GRAY_12, GRAY_16, SIGNED_12, SIGNED_16, RGB, PALETTE, FRAMES_RGB)),
)
_LOSSLESS_JPEG = ("57", "70")


def _by_dcmcjpeg() -> Iterator[Example]:
    for number, option, pictures in _BY_DCMCJPEG:
        for picture in pictures:
            name = f"{JPEG}{number} {picture.name}"
            options = () if number in _LOSSLESS_JPEG else ("+s4",)
            ds = by_dcmtk(native(picture, name), "dcmcjpeg", option, "+un", *options)
            assert ds.file_meta.TransferSyntaxUID == JPEG + number
            if number in _LOSSLESS_JPEG:
                yield Example(name, ds, pixels=picture.frames)
            else:
                decoded = by_dcmtk(ds, "dcmdjpeg")
                yield Example(name, ds, pixels=_frames_of(decoded), bound=2)


def _frames_of(ds: Dataset, plugin: str = "") -> tuple[Pixels, ...]:
    pixels = pixel_array(ds, raw=True, decoding_plugin=plugin)
    return tuple(pixels) if int(ds.get("NumberOfFrames") or 1) > 1 else (pixels,)


_LOSSY: dict[str, Any] = {
    "LossyImageCompression": "01",
    "LossyImageCompressionMethod": "ISO_10918_1",
    "LossyImageCompressionRatio": "10",
}
_OF_YCBCR: dict[str, Any] = {"PhotometricInterpretation": "YBR_FULL", **_LOSSY}


def _arithmetic() -> Iterator[Example]:
    """Processes of arithmetic coding, which viewers do not know."""
    if not coded_streams.has_cjpeg():
        return
    for number, options, spectral, pictures in (
        ("52", (), False, (GRAY_8, RGB, FRAMES_8)),
        ("54", (), True, (GRAY_8, FRAMES_8)),
        ("56", ("-progressive",), False, (GRAY_8, RGB)),
    ):
        for picture in pictures:
            streams = [
                arithmetic_jpeg(frame, *options, spectral=spectral) for frame in picture.frames
            ]
            changes = _OF_YCBCR if picture.is_colour else _LOSSY
            pixels = [djpeg(stream) for stream in streams]
            yield _example(
                JPEG + number, picture, streams, pixels=pixels, bound=2, attributes=changes
            )


def _hierarchical() -> Iterator[Example]:
    """Hierarchical processes, and lossless with arithmetic coding: nobody decodes them."""
    steps = Picture(
        "", ((128 + np.indices(GRAY_8.frames[0].shape)[1] // 8 % 2 * 20).astype("u1"),), 8
    )
    if coded_streams.has_cjpeg():
        for number, options, spectral in (
            ("59", (), False), ("60", ("-arithmetic",), False),
            ("61", (), True), ("62", ("-arithmetic",), True),
            ("63", ("-progressive",), False), ("64", ("-arithmetic", "-progressive"), False),
        ):  # fmt: skip
            base, added = (
                cjpeg(picture.frames[0], *more, spectral=spectral)
                for picture, more in ((GRAY_8, options), (steps, (*options, "-restart", "1B")))
            )
            pixels = [_added(djpeg(base), djpeg(added))]
            yield _example(
                JPEG + number, GRAY_8, [hierarchical(base, added)],
                kind="unreadable", pixels=pixels, bound=3, attributes=_LOSSY)  # fmt: skip
    waves = (128 + np.indices(GRAY_8.frames[0].shape)[1] % 2 * 3).astype("u1")
    streams = [
        coded_streams.streams_of(by_dcmtk(native(picture, "part"), "dcmcjpeg", "+e1", "+un"))[0]
        for picture in (GRAY_8, Picture("", (waves,), 8))
    ]
    differences = np.diff(waves.astype(int), axis=1, prepend=128)
    summed = ((GRAY_8.frames[0] + differences) % 65536).astype("u2")
    pixels = [summed.astype("u1")]
    joined = hierarchical(streams[0].rstrip(b"\0"), streams[1])
    yield _example(f"{JPEG}65", GRAY_8, [joined], kind="unreadable", pixels=pixels)
    arithmetic = coded_streams.with_frame_header(streams[0], 0xCB)
    yield _example(f"{JPEG}58", GRAY_8, [arithmetic], kind="unreadable", pixels=())
    joined = joined.replace(b"\xff\xc3\0", b"\xff\xcb\0").replace(b"\xff\xc7\0", b"\xff\xcf\0")
    yield _example(f"{JPEG}66", GRAY_8, [joined], kind="unreadable", pixels=())


def _added(base: Pixels, difference: Pixels) -> Pixels:
    summed: Pixels = np.clip(base.astype(int) + difference - 128, 0, 255).astype("u1")
    return summed


# ------------------------------------------------------------------ JPEG-LS, JPEG 2000, JPEG XL


def _jpeg_ls() -> Iterator[Example]:
    for picture in (GRAY_8, GRAY_12, GRAY_16, SIGNED_16, RGB, PALETTE, FRAMES_8):
        name = f"{JPEG}80 {picture.name}"
        ds = by_dcmtk(native(picture, name), "dcmcjpls", "+el", "+un")
        yield Example(name, ds, pixels=picture.frames)
    for picture in (GRAY_8, GRAY_16, RGB):
        name = f"{JPEG}81 {picture.name}"
        ds = by_dcmtk(native(picture, name), "dcmcjpls", "+en", "+md", "2", "+un")
        yield Example(name, ds, pixels=_frames_of(by_dcmtk(ds, "dcmdjpls")))


def _unsigned(frame: Pixels, bits: int) -> Pixels:
    wide: Pixels = frame.astype(np.int64) & ((1 << bits) - 1)
    return wide.astype("u1" if bits <= 8 else "u2")


def _jpeg_2000() -> Iterator[Example]:
    for number in ("90", "92"):
        for picture in (GRAY_8, GRAY_12, GRAY_16, SIGNED_12, SIGNED_16, RGB, PALETTE, FRAMES_16):
            streams = [_j2k(frame, picture, reversible=True) for frame in picture.frames]
            colour = {"PhotometricInterpretation": "YBR_RCT"} if picture.is_colour else {}
            yield _example(JPEG + number, picture, streams, attributes=colour)
    for number in ("91", "93"):
        for picture in (GRAY_8, GRAY_12, SIGNED_16, RGB, FRAMES_RGB):
            yield _of_lossy(number, picture)
    matrix = bytes(
        imagecodecs.jpeg2k_encode(
            RGB.frames[0], level=0, codecformat="j2k", reversible=False, mct=False
        )
    )
    stream = coded_streams.with_component_transform(matrix)
    swapped = [RGB.frames[0][..., [1, 0, 2]]]
    yield _example(
        f"{JPEG}93", RGB, [stream], variant=" by a matrix", kind="unreadable", pixels=swapped,
        bound=1, attributes=_LOSSY)  # fmt: skip


def _j2k(frame: Pixels, picture: Picture, *, reversible: bool) -> bytes:
    coded = imagecodecs.jpeg2k_encode(
        frame, level=None if reversible else 45, codecformat="j2k", reversible=reversible,
        mct=picture.is_colour, bitspersample=picture.bits_stored,
    )  # fmt: skip
    return bytes(coded)


def _of_lossy(number: str, picture: Picture) -> Example:
    """JPEG 2000 with loss; GDCM knows what it decodes to, under the UID of part 1."""
    streams = [_j2k(frame, picture, reversible=False) for frame in picture.frames]
    colour = {"PhotometricInterpretation": "YBR_ICT"} if picture.is_colour else {}
    example = _example(JPEG + number, picture, streams, attributes={**colour, **_LOSSY})
    known = copy.deepcopy(example.ds)
    known.file_meta.TransferSyntaxUID = pydicom.uid.UID(f"{JPEG}91")
    pixels = _frames_of(known, "gdcm")
    assert max(_distance(a, b) for a, b in zip(pixels, picture.frames, strict=True)) < 2**12
    return Example(example.name, example.ds, pixels=pixels, bound=1)


def _distance(one: Pixels, other: Pixels) -> int:
    return int(np.abs(one.astype(np.int64) - other.astype(np.int64)).max())


def _htj2k() -> Iterator[Example]:
    for uid in (f"{JPEG}201", f"{JPEG}202", OLD_HTJ2K):
        for picture in (GRAY_8, GRAY_12, GRAY_16, SIGNED_16, RGB, PALETTE, FRAMES_16):
            streams = [
                bytes(imagecodecs.htj2k_encode(f, reversible=True, rgb=picture.is_colour, tlm=True))
                for f in picture.frames
            ]
            colour = {"PhotometricInterpretation": "YBR_RCT"} if picture.is_colour else {}
            yield _example(uid, picture, streams, attributes=colour)
    for picture in (GRAY_8, GRAY_12, RGB):
        streams = [
            bytes(imagecodecs.htj2k_encode(f, 0.005, reversible=False, rgb=picture.is_colour))
            for f in picture.frames
        ]
        colour = {"PhotometricInterpretation": "YBR_ICT"} if picture.is_colour else {}
        pixels = [_by_openjpeg(stream) for stream in streams]
        yield _example(
            f"{JPEG}203", picture, streams, pixels=pixels, bound=1, attributes={**colour, **_LOSSY}
        )


def _by_openjpeg(stream: bytes) -> Pixels:
    return np.asarray(imagecodecs.jpeg2k_decode(stream))


def _jpeg_xl() -> Iterator[Example]:
    for picture in (GRAY_8, GRAY_12, GRAY_16, SIGNED_12, SIGNED_16, RGB, PALETTE, FRAMES_8):
        for container in (False, True) if picture in (GRAY_8, RGB) else (False,):
            streams = [
                bytes(
                    imagecodecs.jpegxl_encode(
                        _unsigned(f, picture.bits_stored), lossless=True, usecontainer=container
                    )
                )
                for f in picture.frames
            ]
            yield _example(
                f"{JPEG}110", picture, streams, variant=" in a container" if container else ""
            )
    for picture in (GRAY_8, RGB):  # a JPEG, recompressed
        ds = by_dcmtk(native(picture, "to be recompressed"), "dcmcjpeg", "+eb", "+un", "+s4")
        streams = [
            bytes(imagecodecs.jpegxl_encode_jpeg(s.rstrip(b"\0"), usecontainer=True))
            for s in coded_streams.streams_of(ds)
        ]
        colour = {"PhotometricInterpretation": "XYB"} if picture.is_colour else {}
        pixels = _frames_of(by_dcmtk(ds, "dcmdjpeg"))
        yield _example(
            f"{JPEG}111", picture, streams, pixels=pixels, bound=4, attributes={**_LOSSY, **colour}
        )
    for picture, bound in ((GRAY_8, 12), (GRAY_16, 1600), (RGB, 40)):
        streams = [bytes(imagecodecs.jpegxl_encode(f, distance=0.5)) for f in picture.frames]
        colour = {"PhotometricInterpretation": "XYB"} if picture.is_colour else {}
        yield _example(f"{JPEG}112", picture, streams, bound=bound, attributes={**_LOSSY, **colour})


# ------------------------------------------------------------------ video

_H264 = ("-pix_fmt", "yuv420p", "-profile:v", "high", "-level", "4.1")
_VIDEOS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "100": ("mpeg2video", "mpegts", ()),
    "101": ("mpeg2video", "mpeg2video", ()),
    "102": ("libx264", "mp4", _H264),
    "103": ("libx264", "mpegts", _H264),
    "104": ("libx264", "mp4", (*_H264[:-1], "4.2")),
    "105": ("libx264", "mpegts", (*_H264[:-1], "4.2")),
    "106": ("libx264", "mp4", (*_H264[:-1], "4.2")),
    "107": ("libx265", "mp4", ("-x265-params", "log-level=none")),
    "108": ("libx265", "mpegts", ("-pix_fmt", "yuv420p10le", "-x265-params", "log-level=none")),
}
_FRAGMENTABLE = ("100", "101", "102", "103", "104", "105", "106")
_VIDEO_PHOTOGRAPHIC = "1.2.840.10008.5.1.4.1.1.77.1.4.1"


def _videos() -> Iterator[Example]:
    for number, (codec, container, options) in _VIDEOS.items():
        stream = coded_streams.video(codec, container, *options)
        yield _video(f"{JPEG}{number}", [stream], bits=10 if number == "108" else 8)
        if number in _FRAGMENTABLE:
            cuts = [0, len(stream) // 3 & ~1, len(stream) * 2 // 3 & ~1, len(stream)]
            pieces = [stream[a:b] for a, b in pairwise(cuts)]
            yield _video(f"{JPEG}{number}.1", pieces)


def _video(uid: str, fragments: list[bytes], *, bits: int = 8) -> Example:
    name = f"{uid} video"
    ds = synthetic.instance(
        _VIDEO_PHOTOGRAPHIC, study="every syntax", series=name, patient_id="SYNTAX",
        Modality="XC", NumberOfFrames=10, FrameTime="40", Rows=48, Columns=64, SamplesPerPixel=3,
        PhotometricInterpretation="YBR_PARTIAL_420", PlanarConfiguration=0,
        BitsAllocated=8 if bits == 8 else 16, BitsStored=bits, HighBit=bits - 1,
        PixelRepresentation=0, **_LOSSY,
    )  # fmt: skip
    ds.FrameIncrementPointer = 0x00181063
    made = synthetic.encapsulated(
        ds, uid, [_even(piece) for piece in fragments], offset_table="none"
    )
    made.NumberOfFrames = 10
    return Example(name, made, "video")


# ------------------------------------------------------------------ what holds no code stream


def _others() -> Iterator[Example]:
    for number in ("94", "95", "204", "205"):
        yield _without_pixels(JPEG + number, PixelDataProviderURL="http://127.0.0.1:9/jpip?image")
    for number in ("1", "2", "3"):
        yield _without_pixels(f"1.2.840.10008.1.2.7.{number}")
    for uid in (PAPYRUS, GE_IMPLICIT, "1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2"):
        name = f"{uid} {GRAY_16.name}"
        ds = native(GRAY_16, name)
        ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(uid)
        frames = GRAY_16.frames
        if uid == GE_IMPLICIT:
            ds.PixelData = frames[0].byteswap().tobytes()
        yield Example(name, ds, "unreadable", frames)


def _without_pixels(uid: str, **attributes: Any) -> Example:
    name = f"{uid} without pixels"
    ds = native(GRAY_8, name)
    del ds.PixelData
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(uid)
    return Example(name, ds, "no pixels")


def _encoded_as(uid: str, ds: Dataset) -> str:
    """Transfer syntax with the same encoding of the data set, which pydicom writes."""
    if uid in (IMPLICIT, DEFLATED, BIG_ENDIAN):
        return uid
    if uid in (PAPYRUS, GE_IMPLICIT):
        return IMPLICIT
    return RLE if "PixelData" in ds and ds["PixelData"].is_undefined_length else ELE


_MAKERS: tuple[Callable[[], Iterator[Example]], ...] = (
    _natives, _nearly_native, _by_dcmcjpeg, _arithmetic, _hierarchical, _jpeg_ls, _jpeg_2000,
    _htj2k, _jpeg_xl, _videos, _others,
)  # fmt: skip


def write_all(examples: Sequence[Example], folder: Path) -> list[Path]:
    """Write examples as files."""
    paths = []
    for number, example in enumerate(examples):
        path = folder / f"{number:03}.dcm"
        path.write_bytes(example.data)
        paths.append(path)
    return paths
