"""What PostgreSQL and its indexes can't hold of a value."""

from dataclasses import fields
from typing import Any

from wado.records import DicomStateMeta

LONGEST_NAME = 800
"""Bytes of a person name that is searched."""
_LONGEST = 250
_SURE = 800
"""Characters; a state that has no more is short enough for every index."""


def storable(text: str) -> str:
    """PostgreSQL holds no NUL; what stands in its place is searched for in its place, too."""
    return text.replace("\0", "\ufffd")


def shortened(state: DicomStateMeta) -> DicomStateMeta:
    """Cut values that are too long for an index, which takes 2704 bytes in all.

    Values that keep to the Standard are never as long.
    """
    values: dict[str, Any] = {f.name: getattr(state, f.name) for f in fields(state)}
    texts = {name: cut(v, _LONGEST) for name, v in values.items() if isinstance(v, str)}
    return DicomStateMeta(**{**values, **texts})


def cut(text: str | None, most: int) -> str | None:
    """Cut a text to so many bytes."""
    data = text.encode(errors="replace") if text and len(text) * 4 > most else b""
    return data[:most].decode(errors="ignore") if len(data) > most else text


def short_enough(state: DicomStateMeta) -> DicomStateMeta:
    """Cut the values of a state that might be too long for an index."""
    values = (getattr(state, f.name) for f in fields(state))
    length = sum(len(value) for value in values if isinstance(value, str))
    return shortened(state) if length > _SURE else state
