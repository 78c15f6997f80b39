"""Waveforms drawn (PS3.3 §C.10.9): a page with a curve for each channel, on the paper of an ECG."""

from array import array
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from sys import byteorder
from typing import Any

from wado.dicom.image import first_value
from wado.dicom.report import code, items_of, patient_of, text_of
from wado.dicom.report_page import page

Json = Mapping[str, Any]
Bulk = Callable[[str], bytes]
"""Gives the bytes of a bulky value by its tag path, in little endian; empty if it has none."""

WAVEFORMS = "54000100"
_DATA, _PADDING = "54001010", "5400100A"
_TYPES = {"SB": "b", "UB": "B", "SS": "h", "US": "H", "SL": "i", "UL": "I"}
_MAX_CHANNELS = 64
_SECONDS_A_LINE = 10.0
"""What is drawn of a recording: as much as a strip of paper holds."""
_MM_PER_SECOND, _MM_PER_MILLIVOLT = 25.0, 10.0
_BOX_MM, _LABEL_MM, _CLIP_MM = 26.0, 4.0, 40.0
_MAX_POINTS = 2000
_MILLIVOLTS = {"mV": 1.0, "uV": 1e-3, "V": 1e3, "nV": 1e-6}


@dataclass(frozen=True, slots=True)
class Channel:
    """A curve: `values` in its units; a unit is so many `millivolts`, None if it is no voltage."""

    label: str
    units: str
    millivolts: float | None
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Group:
    """Channels that were sampled together, so many times a second."""

    label: str
    frequency: float
    samples: int
    channels: tuple[Channel, ...]


def multiplex_groups(metadata: Json, bulk: Bulk) -> list[Group]:
    """Read the waveforms of an instance; those that can't be read have no channels."""
    found = enumerate(metadata.get(WAVEFORMS, {}).get("Value", ()))
    return [_group(item, bulk, f"{WAVEFORMS}/{number}/{_DATA}") for number, item in found if item]


def _group(item: Json, bulk: Bulk, path: str) -> Group:
    frequency = _number(item, "003A001A", 0.0)
    count = int(_number(item, "003A0005", 0.0))
    definitions = items_of(item, "003A0200")[:_MAX_CHANNELS]
    words = _words(item, bulk, path)
    samples = len(words) // count if count else 0
    drawn = min(samples, int(frequency * _SECONDS_A_LINE)) if frequency > 0 else samples
    channels = tuple(
        _channel(definition, words[index : drawn * count : count])
        for index, definition in enumerate(definitions[:count])
    )
    label = text_of(item, "003A0020") or "Waveform"
    return Group(label, frequency, samples, channels if samples else ())


def _words(item: Json, bulk: Bulk, path: str) -> "array[int]":
    """Samples of all channels, one channel after the other for each moment."""
    element = item.get(_DATA, {})
    data = b64decode(element["InlineBinary"]) if "InlineBinary" in element else bulk(path)
    kind = _TYPES.get(text_of(item, "54001006"))
    words = array(kind or "B")
    if kind is not None:
        words.frombytes(data[: len(data) - len(data) % words.itemsize])
        if byteorder == "big":
            words.byteswap()
    return words


def _channel(definition: Json, words: Sequence[int]) -> Channel:
    source = next(iter(items_of(definition, "003A0208")), {})
    unit = next(iter(items_of(definition, "003A0211")), {})
    units = text_of(unit, "00080100")
    scale = _number(definition, "003A0210", 1.0) * _number(definition, "003A0212", 1.0)
    baseline = _number(definition, "003A0213", 0.0)
    return Channel(
        text_of(definition, "003A0203") or code(source),
        units,
        _MILLIVOLTS.get(units),
        [word * scale + baseline for word in words],
    )


def _number(item: Json, tag: str, default: float) -> float:
    value = first_value(item, tag)
    return float(value) if isinstance(value, int | float) else default


# ------------------------------------------------------------------ drawing


def waveform_page(metadata: Json, groups: Sequence[Group]) -> str:
    """Write a page with all groups drawn."""
    title = text_of(metadata, "0008103E") or f"{text_of(metadata, '00080060')} waveform"
    return page(title, (patient_of(metadata),), _body(groups))


def _body(groups: Sequence[Group]) -> Iterator[str]:
    for group in groups:
        seconds = group.samples / group.frequency if group.frequency else 0.0
        yield f"<h2>{escape(group.label)}</h2>"
        shown = f", the first {_SECONDS_A_LINE:g} drawn" if seconds > _SECONDS_A_LINE else ""
        yield f'<p class="how">{seconds:.4g} s{shown}; {group.frequency:g} samples a second</p>'
        if group.channels:
            yield _svg(group)
        else:
            yield "<p>The samples can't be drawn.</p>"


def _svg(group: Group) -> str:
    """Draw a group in millimetres of paper: 25 to the second, 10 to the millivolt."""
    seconds = max((len(c.values) for c in group.channels), default=0) / (group.frequency or 1.0)
    width = max(seconds * _MM_PER_SECOND, 1.0)
    height = _BOX_MM * len(group.channels)
    curves = "".join(
        _curve(channel, _BOX_MM * (row + 0.5), width) for row, channel in enumerate(group.channels)
    )
    grid = _grid(1, 0.1, "#f6d5d5") + _grid(5, 0.2, "#eba9a9")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.2f} {height:.2f}" '
        f'role="img" aria-label="{escape(group.label)}"><defs>{grid}</defs>'
        '<rect width="100%" height="100%" fill="url(#g1)"/>'
        f'<rect width="100%" height="100%" fill="url(#g5)"/>{curves}</svg>\n'
    )


def _grid(step: int, line: float, colour: str) -> str:
    return (
        f'<pattern id="g{step}" width="{step}" height="{step}" patternUnits="userSpaceOnUse">'
        f'<path d="M {step} 0 L 0 0 0 {step}" fill="none" stroke="{colour}" stroke-width="{line}"/>'
        "</pattern>"
    )


def _curve(channel: Channel, middle: float, width: float) -> str:
    text = escape(f"{channel.label} ({channel.units})" if channel.units else channel.label)
    label = f'<text x="1" y="{middle - _BOX_MM / 2 + _LABEL_MM:.1f}" font-size="3">{text}</text>'
    scale, zero = _scale(channel)
    step = width / max(len(channel.values), 1)
    points = " ".join(
        f"{index * step:.2f},{middle - max(-_CLIP_MM, min(_CLIP_MM, (value - zero) * scale)):.2f}"
        for index, value in _thinned(channel.values)
    )
    line = f'<polyline points="{points}" fill="none" stroke="#111" stroke-width="0.25"/>'
    return f"{label}{line}"


def _scale(channel: Channel) -> tuple[float, float]:
    """Millimetres of a unit, and the value on the middle line; what is no voltage fills its box."""
    if channel.millivolts is not None:
        return channel.millivolts * _MM_PER_MILLIVOLT, 0.0
    low, high = min(channel.values, default=0.0), max(channel.values, default=0.0)
    return 0.8 * _BOX_MM / ((high - low) or 1.0), (high + low) / 2


def _thinned(values: Sequence[float]) -> Iterator[tuple[int, float]]:
    """Leave out what can't be seen: of each stretch its lowest and highest value stay, in order."""
    step = max(1, 2 * len(values) // _MAX_POINTS)
    for start in range(0, len(values), step):
        stretch = range(start, min(start + step, len(values)))
        low, high = min(stretch, key=values.__getitem__), max(stretch, key=values.__getitem__)
        for index in sorted({low, high}):
            yield index, values[index]
