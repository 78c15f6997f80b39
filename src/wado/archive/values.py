"""Values that are not sent as they are stored: inflated, in little endian, on a byte boundary.

They are worked out chunk by chunk while they are sent, so that a value of any size passes with
flat memory.
"""

from threading import Lock
from typing import Any

from wado.archive.journal import Entry
from wado.archive.pieces import Computed
from wado.archive.reading import reading
from wado.dicom.describe import describe
from wado.dicom.image import first_value
from wado.dicom.part10 import MAX_FILE_META_BYTES, read_file_meta
from wado.dicom.sop_classes import transfer_syntax
from wado.dicom.window import Read, data_set_reader
from wado.ports import InstanceStore

_CHUNK_BYTES = 1 << 20
_WORD_BYTES = {b"OW": 2, b"OF": 4, b"OL": 4, b"OD": 8, b"OV": 8}
"""Bytes of the words of a VR, which big endian turns round; those of OB and UN stay."""


def is_plain(entry: Entry) -> bool:
    """Whether values stand in the file as they are sent: not deflated, in little endian."""
    syntax = transfer_syntax(entry.transfer_syntax_uid)
    return not syntax.deflated and not syntax.big_endian


class StoredValue:
    """A value of an instance.

    Chunks that are read one after the other inflate a deflated data set once; chunks may be
    shared by threads.

    Parameters
    ----------
    store, path, entry
        The file of the instance, and what its journal says of it.
    value_offset
        Where the value starts.
    """

    def __init__(self, store: InstanceStore, path: str, entry: Entry, value_offset: int) -> None:
        self._store = store
        self._path = path
        self._entry = entry
        self._value_offset = value_offset
        self._reader: Read | None = None
        self._word_bytes = 1
        self._lock = Lock()

    def chunks(self, offset: int, first_bit: int, bits: int) -> tuple[Computed, ...]:
        """Cut `bits` from bit `first_bit` of the byte at `offset` on into chunks to be sent."""
        step = _CHUNK_BYTES * 8
        return tuple(
            self._chunk(offset + start // 8, first_bit, min(step, bits - start))
            for start in range(0, bits, step)
        )

    def _chunk(self, offset: int, first_bit: int, bits: int) -> Computed:
        length = (first_bit + bits + 7) // 8
        return Computed(
            (bits + 7) // 8, lambda: aligned(self._bytes(offset, length), first_bit, bits)
        )

    def _bytes(self, offset: int, length: int) -> bytes:
        with self._lock:
            if self._reader is None:
                self._reader = self._open()
            return self._in_order(self._reader, offset, length)

    def _in_order(self, read: Read, offset: int, length: int) -> bytes:
        """Read bytes as they are in little endian; whole words, as those at the ends turn, too."""
        size = self._word_bytes
        if size == 1:
            return read(offset, length)
        before = (offset - self._value_offset) % size
        words = (before + length + size - 1) // size
        return swapped(read(offset - before, words * size), size)[before : before + length]

    def _open(self) -> Read:
        entry = self._entry
        start = read_file_meta(self._read(0, MAX_FILE_META_BYTES)).data_set_offset
        reader = data_set_reader(self._read, entry.file_size, entry.transfer_syntax_uid, start)
        if transfer_syntax(entry.transfer_syntax_uid).big_endian:
            # The VR stands before the value (PS3.5 §7.1.2): of bulky values nearly always 8 bytes.
            self._word_bytes = _WORD_BYTES.get(reader(self._value_offset - 8, 2), 1)
            if entry.pixel is not None and self._value_offset == entry.pixel.offset:
                bits = first_value(describe(self._read, entry.file_size).metadata, "00280100")
                self._word_bytes = pixel_word_bytes(self._word_bytes, bits)
        return reader

    def _read(self, offset: int, length: int) -> bytes:
        """Read from the file, which isn't kept open: nobody would say when to close it."""
        ahead = (offset, length)
        with reading(self._path), self._store.open(self._path, ahead=ahead) as file:
            file.seek(offset)
            return file.read(length)


def pixel_word_bytes(word_bytes: int, bits_allocated: Any) -> int:
    """Bytes of the words of Pixel Data in big endian: samples of 32 bits are turned round whole.

    By the letter OW has words of 16 bits; the files there are of such samples don't keep to it.
    """
    is_wide = word_bytes == 2 and bits_allocated in (32, 64)
    return bits_allocated // 8 if is_wide else word_bytes


def swapped(data: bytes, word_bytes: int) -> bytes:
    """Turn round the bytes of each word."""
    whole = len(data) - len(data) % word_bytes
    result = bytearray(data)
    for i in range(word_bytes):
        result[i:whole:word_bytes] = data[word_bytes - 1 - i : whole : word_bytes]
    return bytes(result)


def aligned(data: bytes, first_bit: int, bits: int) -> bytes:
    """Move packed bits to a byte boundary; bits behind the last are 0 (PS3.18 §8.7.3.3.1)."""
    if not first_bit and bits == len(data) * 8:
        return data
    value = int.from_bytes(data, "little") >> first_bit
    value &= (1 << bits) - 1
    return value.to_bytes((bits + 7) // 8, "little")
