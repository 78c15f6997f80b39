"""Lookup tables as arrays, segmented ones expanded (PS3.3 §C.11.1.1.1 and §C.7.9.2)."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from wado.dicom.rendering.display import Lut
from wado.errors import CannotUnderstand

T = TypeVar("T", bound=np.generic)
Words = npt.NDArray[np.uint16]

_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2


def entries_of(lut: Lut) -> Words:
    """Give the entries of a table.

    A table that ends early goes on with its last entry: values that no pixel has are left out by
    some writers.

    Raises
    ------
    CannotUnderstand
        There are no entries, or segments that can't be followed.
    """
    if lut.segmented:
        values = _expanded(lut)
    elif len(lut.data) >= 2 * lut.entries or lut.bits > 8:
        values = np.frombuffer(lut.data, "<u2", len(lut.data) // 2)
    else:
        values = np.frombuffer(lut.data, np.uint8).astype(np.uint16)  # two entries to a word
    if not values.size:
        raise CannotUnderstand("a lookup table without entries")
    missing = lut.entries - values.size
    return np.pad(values, (0, missing), mode="edge") if missing > 0 else values[: lut.entries]


def looked_up(values: npt.NDArray[np.float64], lut: Lut, entries: npt.NDArray[T]) -> npt.NDArray[T]:
    """Look values up; those before the first entry and behind the last get these."""
    index = np.clip(values - lut.first, 0, lut.entries - 1)
    return np.take(entries, np.nan_to_num(index).astype(np.intp))


def _expanded(lut: Lut) -> Words:
    """Follow the segments: discrete values, straight lines, and repetitions of other segments."""
    size = 1 if lut.bits <= 8 else 2
    words = np.frombuffer(lut.data, f"<u{size}", len(lut.data) // size).tolist()
    out: list[int] = []
    at = 0
    while at + 1 < len(words) and len(out) < lut.entries:
        if words[at] != _INDIRECT:
            at = _append_segment(words, at, out)
            continue
        # How many segments, and the place of the first: 32 bits, counted in bytes.
        count, place = words[at + 1], words[at + 2 : at + 2 + 4 // size]
        again = sum(word << (8 * size * i) for i, word in enumerate(place)) // size
        for _ in range(count):
            if len(out) < lut.entries:
                again = _append_segment(words, again, out)
        at += 2 + 4 // size
    return np.array(out, np.uint16)


def _append_segment(words: list[int], at: int, out: list[int]) -> int:
    """Append what one segment stands for; gives where the next begins."""
    if at + 1 >= len(words):
        raise CannotUnderstand("a segmented palette that ends early")
    opcode, length, *values = words[at : at + 3]
    if opcode == _DISCRETE:
        out.extend(words[at + 2 : at + 2 + length])
        return at + 2 + length
    if opcode != _LINEAR or not (values and out):
        raise CannotUnderstand(f"a segmented palette with a segment of type {opcode} at {at}")
    start, end = out[-1], values[0]
    out.extend(round(start + (end - start) * i / length) for i in range(1, length + 1))
    return at + 3
