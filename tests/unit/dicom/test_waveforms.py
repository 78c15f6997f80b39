"""Waveforms as pictures: samples in their units, each channel a curve, thinned, not flattened."""

import re
import struct
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from wado.dicom.describe import describe
from wado.dicom.waveforms import multiplex_groups, waveform_page

Json = dict[str, Any]


def value(vr: str, *values: Any) -> Json:
    return {"vr": vr, "Value": list(values)}


def group(samples: list[int], *, kind: str = "SS", code: str = "h", channels: int = 2) -> Json:
    unit = {"00080100": value("SH", "uV")}
    channel = {
        "003A0203": value("SH", "Lead <b>"), "003A0210": value("DS", 2.0),
        "003A0213": value("DS", 10.0), "003A0211": value("SQ", unit),
    }  # fmt: skip
    data = struct.pack(f"<{len(samples)}{code}", *samples)
    return {
        "003A0005": value("US", channels), "003A001A": value("DS", 100.0),
        "003A0200": value("SQ", *[channel] * channels), "54001006": value("CS", kind),
        "54001010": {"vr": "OW", "InlineBinary": b64encode(data).decode()},
    }  # fmt: skip


def no_bulk(_path: str) -> bytes:
    return b""


def test_samples_are_scaled_and_dealt_out_to_their_channels():
    (made,) = multiplex_groups({"54000100": value("SQ", group([1, -2, 3, -4]))}, no_bulk)
    assert [list(channel.values) for channel in made.channels] == [[12.0, 16.0], [6.0, 2.0]]
    assert (made.samples, made.frequency) == (2, 100.0)
    assert made.channels[0].millivolts == pytest.approx(1e-3)


@pytest.mark.parametrize(
    "broken",
    [
        {}, {"54001006": value("CS", "XX")}, {"54001010": {"vr": "OW"}},
        {"003A0005": value("US", 0)},
    ],
)  # fmt: skip
def test_what_can_not_be_drawn_is_said(broken: Json):
    item = {**group([1, 2, 3, 4]), **broken} if broken else {"003A0020": value("SH", "Empty")}
    page = waveform_page({}, multiplex_groups({"54000100": value("SQ", item)}, no_bulk))
    assert "can't be drawn" in page
    assert "<svg" not in page


def test_a_page_escapes_labels_and_keeps_peaks():
    samples = [0] * 100_000
    samples[500 * 2] = 30_000  # one sample of the first channel, of the five hundredth moment
    metadata = {"54000100": value("SQ", group(samples))}
    page = waveform_page(metadata, multiplex_groups(metadata, no_bulk))
    assert "Lead &lt;b&gt; (uV)" in page
    assert "the first 10 drawn" in page
    (first, second) = re.findall(r'points="([^"]*)"', page)
    heights = [float(pair.partition(",")[2]) for pair in first.split()]
    assert min(heights) < max(heights) - 25  # clipped, but there
    assert len(set(second.split())) == len(second.split())
    assert len(page) < 100_000


def test_a_real_electrocardiogram(corpus: Path):
    path = corpus / "nonimage" / "pydicom__waveform_ecg.dcm"
    data = path.read_bytes()
    found = describe(lambda at, length: data[at : at + length], len(data))

    def bulk(name: str) -> bytes:
        at, length = found.bulk[name]
        return data[at : at + length]

    groups = multiplex_groups(found.metadata, bulk)
    expected = pydicom.dcmread(path).waveform_array(0)
    assert len(groups[0].channels) == 12
    for index, channel in enumerate(groups[0].channels):
        np.testing.assert_allclose(channel.values, expected[:, index], rtol=1e-6)
    page = waveform_page(found.metadata, groups)
    assert page.count("<polyline") == 12 + len(groups[1].channels)
    assert "Lead I (Einthoven)" in page
