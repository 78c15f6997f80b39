"""Read by pydicom the data sets that break rules; importing this imports pydicom."""

import io
import logging
import warnings
from typing import Any

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.valuerep import BYTES_VR

from wado.dicom.elements import UNDEFINED_LENGTH, tag_text
from wado.dicom.frames import scan_fragments
from wado.dicom.json_model import PIXELS, Found, FoundPixels
from wado.dicom.sop_classes import TransferSyntax
from wado.dicom.values import MAX_INLINE_BINARY, MAX_INLINE_TEXT, JsonElement
from wado.dicom.window import Window
from wado.errors import CannotUnderstand, WadoError

_MAX_SEQUENCE_BYTES = 1 << 26
_MAX_READ_BYTES = 1 << 24
"""Metadata that pydicom may read: as its objects they take fifty times as much."""
_CHARACTER_SET = "00080005"
_TRAILING_PADDING = 0xFFFCFFFC


class _Store:
    """A window that remembers whether the store failed: pydicom has OSErrors of its own."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.failure: Exception | None = None
        self._left = _MAX_READ_BYTES

    def bytes_at(self, position: int, length: int) -> bytes:
        self._left -= length
        try:
            if self._left < 0:
                raise CannotUnderstand(f"over {_MAX_READ_BYTES} bytes of irregular metadata")
            return self.window.bytes_at(position, length)
        except (WadoError, OSError) as e:
            self.failure = e
            raise

    def scan_fragments(self, position: int) -> tuple[list[int], int]:
        try:
            return scan_fragments(self.window, position, self.window.size)
        except (WadoError, OSError) as e:
            self.failure = e
            raise


class _File(io.RawIOBase):
    """The store as a file object."""

    def __init__(self, store: _Store, position: int) -> None:
        self._store, self._position = store, position
        self._size = store.window.size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        self._position = max(0, origin[whence] + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._size - self._position, MAX_INLINE_TEXT)
        if count <= 0:
            return 0
        buffer[:count] = self._store.bytes_at(self._position, count)
        self._position += count
        return count


def read_patiently(
    window: Window, start: int, syntax: TransferSyntax, surprise: Exception
) -> Found:
    """Read a data set as far as pydicom can follow it.

    Long values of the top level stay in the file as they do elsewhere; those inside sequences are
    given inline, because pydicom doesn't tell where they are. Elements that pydicom can't convert
    are left out.

    Parameters
    ----------
    window, start
        The file, or the inflated data set, and where the data set starts.
    syntax
        Its transfer syntax.
    surprise
        Why the quick way gave up; it is the reason that is given if this way fails too.

    Raises
    ------
    CannotUnderstand
        pydicom can't read it either.
    """
    log = logging.getLogger("pydicom")
    disabled, log.disabled = log.disabled, True  # what is wrong is in the file, and told once
    store = _Store(window)
    try:
        with warnings.catch_warnings(action="ignore"):
            return _read(store, start, syntax)
    except Exception as e:
        if store.failure is not None:
            raise store.failure from e
        raise CannotUnderstand(str(surprise) or type(surprise).__name__) from e
    finally:
        log.disabled = disabled


def _read(store: _Store, start: int, syntax: TransferSyntax) -> Found:
    ds = read_dataset(
        io.BufferedReader(_File(store, start), MAX_INLINE_TEXT),
        is_implicit_VR=syntax.implicit,
        is_little_endian=not syntax.big_endian,
        defer_size=MAX_INLINE_TEXT,
    )
    if not ds:
        raise CannotUnderstand("no data set")
    found = Found()
    for tag in sorted(ds.keys()):
        if tag & 0xFFFF and tag != _TRAILING_PADDING:
            try:
                element = _element(ds, tag, store, found)
            except Exception:
                if store.failure is not None:
                    raise
                continue  # the rest of the data set is still of use
            found.metadata[f"{tag:08X}"] = element
    return found


def _element(ds: Dataset, tag: int, store: _Store, found: Found) -> JsonElement:
    raw = ds.get_item(tag, keep_deferred=True)
    if isinstance(raw, RawDataElement):
        if raw.length == UNDEFINED_LENGTH:
            return _fragments(raw, store, found)
        if raw.length > store.window.size - raw.value_tell:
            store.failure = CannotUnderstand(
                f"the data set ends early: {tag_text(tag)} claims {raw.length} bytes"
            )
            raise store.failure
        if _is_bulk(raw):
            return _bulk(raw, found)
        if raw.value is None and raw.length:
            if raw.length > _MAX_SEQUENCE_BYTES:
                raise CannotUnderstand("a sequence is too long")
            value = store.bytes_at(raw.value_tell, raw.length)
            ds._dict[raw.tag] = raw._replace(value=value)  # noqa: SLF001 - no public way
    element = ds[tag]
    assert isinstance(element, DataElement)
    return _tidy(f"{tag:08X}", element.to_json_dict(None, 0))


def _is_bulk(raw: RawDataElement) -> bool:
    if raw.tag in PIXELS:
        return True
    if raw.VR in BYTES_VR:
        return raw.length > MAX_INLINE_BINARY
    return raw.length > MAX_INLINE_TEXT and raw.VR not in {"SQ", None}


def _bulk(raw: RawDataElement, found: Found) -> JsonElement:
    path = f"{raw.tag:08X}"
    if raw.tag in PIXELS:
        found.pixels = FoundPixels(path, raw.value_tell, raw.length, None)
    return found.add_bulk(raw.VR or "OW", raw.value_tell, raw.length, path)


def _fragments(raw: RawDataElement, store: _Store, found: Found) -> JsonElement:
    items, after = store.scan_fragments(raw.value_tell)
    path, length = f"{raw.tag:08X}", after - 8 - raw.value_tell
    if raw.tag in PIXELS:
        found.pixels = FoundPixels(path, raw.value_tell, length, items)
    return found.add_bulk("OB", raw.value_tell, length, path)


def _tidy(key: str, element: JsonElement) -> JsonElement:
    """Bring an element of pydicom to the form in which our own walk gives it."""
    values = element.get("Value")
    if values is None:
        return element
    if key == _CHARACTER_SET:
        return {"vr": "CS", "Value": ["ISO_IR 192"]}
    if element["vr"] == "SQ":
        items = [{k: _tidy(k, v) for k, v in item.items() if k[4:] != "0000"} for item in values]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    if element["vr"] == "PN":
        values = [{k: v for k, v in name.items() if v} or None for name in values]
    return {"vr": element["vr"], "Value": [None if v == "" else v for v in values]}
