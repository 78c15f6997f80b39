"""Real images look as DCMTK shows them, grey level by grey level."""

import re
from pathlib import Path

import numpy as np
import pytest

import real
from pictures import ImageFile, dcmtk_picture
from wado.dicom.rendering.options import Window

GRAY = [
    "color/pydicom-data__MR-SIEMENS-DICOM-WithOverlays.dcm",
    "color/pydicom-data__mlut_18.dcm",
    "color/pydicom-data__vlut_04.dcm",
    "color/pydicom__examples_overlay.dcm",
    "multiframe/dcm4che__NM-MONO2-16-13x-heart.dcm",
    "multiframe/pydicom-data__emri_small.dcm",
    "nonimage/pr/weasis-dicom-tools__imageForPrLUTs.dcm",
    "nonimage/pr/weasis-dicom-tools__overlay.dcm",
    "nonimage/pydicom-data__liver.dcm",
    "nonimage/pydicom__rtdose.dcm",
    "syntaxes/highdicom__dx_image.dcm",
    "syntaxes/pydicom-data__JPGLosslessP14SV1_1s_1f_8b.dcm",
    "syntaxes/pydicom__CT_small.dcm",
    "syntaxes/pydicom__ExplVR_BigEnd.dcm",
    "syntaxes/pydicom__JPGExtended.dcm",
    "syntaxes/pydicom__MR_small_RLE.dcm",
    "syntaxes/pydicom__image_dfl.dcm",
    "wsi/highdicom__sm_image_grayscale_reversed.dcm",
]
COLOUR = [
    "color/cornerstonewadoimageloader__US-YBR_FULL_422-EVRLE.dcm",
    "color/pydicom-data__SC_rgb_16bit.dcm",
    "color/pydicom-data__SC_rgb_expb.dcm",
    "color/pydicom-data__color-pl.dcm",
    "color/pydicom-data__color-px.dcm",
    "color/pydicom__SC_rgb_jpeg_dcmtk.dcm",
    "color/pydicom__SC_rgb_rle_16bit.dcm",
    "color/pydicom__SC_ybr_full_422_uncompressed.dcm",
    "color/pydicom__examples_palette.dcm",
    "multiframe/dcm4che__US-PAL-8-10x-echo.dcm",
]


@pytest.fixture(autouse=True)
def _dcmtk():
    real.require("dcmtk")


def difference(ours: np.ndarray, theirs: np.ndarray) -> int:
    assert ours.shape == theirs.shape
    return int(np.abs(ours.astype(int) - theirs).max())


@pytest.mark.parametrize("name", GRAY, ids=lambda name: re.sub(r".*__|\.dcm", "", name))
def test_gray(name: str, corpus: Path, tmp_path: Path):
    file = ImageFile(corpus / name)
    voi = file.display().voi
    option = {Window: ("+Wi", "1"), type(None): ("+Wm",)}.get(type(voi), ("+Wl", "1"))
    assert difference(file.picture(), dcmtk_picture(corpus / name, tmp_path / "p", *option)) <= 1


@pytest.mark.parametrize("name", COLOUR, ids=lambda name: re.sub(r".*__|\.dcm", "", name))
def test_colour(name: str, corpus: Path, tmp_path: Path):
    file = ImageFile(corpus / name)
    assert difference(file.picture(), dcmtk_picture(corpus / name, tmp_path / "p")) <= 1


@pytest.mark.parametrize(
    ("window", "options"),
    [
        (Window(40, 400), ("+Ww", "40", "400")),
        (Window(-600.5, 1500), ("+Ww", "-600.5", "1500")),
        (Window(0, 1), ("+Ww", "0", "1")),
        (Window(40, 400, "SIGMOID"), ("+Wfs", "+Ww", "40", "400")),
    ],
    ids=str,
)
def test_windows(window: Window, options: tuple[str, ...], corpus: Path, tmp_path: Path):
    path = corpus / "syntaxes" / "pydicom__CT_small.dcm"
    theirs = dcmtk_picture(path, tmp_path / "p", *options)
    assert difference(ImageFile(path).picture(window=window), theirs) <= 1


def test_each_frame(corpus: Path, tmp_path: Path):
    path = corpus / "multiframe" / "dcm4che__NM-MONO2-16-13x-heart.dcm"
    file = ImageFile(path)
    assert file.image.number_of_frames == 13
    option = "+Wi" if isinstance(file.display().voi, Window) else "+Wm"
    arguments = ("+Wi", "1") if option == "+Wi" else (option,)
    for number in (2, 7, 13):
        theirs = dcmtk_picture(path, tmp_path / "p", *arguments, frame=number)
        assert difference(file.picture(number), theirs) <= 1


def test_supplemental_palette(corpus: Path):
    # DCMTK knows no such palette: grey stays grey, and what it names is coloured.
    file = ImageFile(corpus / "multiframe" / "pydicom-data__eCT_Supplemental.dcm")
    picture = file.picture()
    palette = file.display().palette
    assert palette is not None
    assert palette.supplemental
    pixels = np.frombuffer(file.frame(1), "<u2").reshape(picture.shape[:2])
    coloured = (pixels >= palette.red.first) & (pixels < palette.red.first + palette.red.entries)
    assert coloured.any()
    assert (picture[~coloured].max(axis=-1) == picture[~coloured].min(axis=-1)).all()
    assert (picture[coloured].max(axis=-1) != picture[coloured].min(axis=-1)).mean() > 0.9
