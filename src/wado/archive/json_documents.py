"""Documents made of many JSON texts, piece by piece: nothing holds one whole."""

import zlib
from collections.abc import Iterable, Iterator

_BULK_URI = b'"BulkDataURI":"'
"""How a JSON writer begins a BulkDataURI; quotes within strings are escaped and don't match."""
_GZIP_FORMAT = 31
"""Window of 32 kB, with head and tail of a gzip member (zlib's ``windowBits``)."""


def json_array(texts: Iterable[bytes]) -> Iterator[bytes]:
    """Make one JSON array of JSON texts, piece by piece."""
    opening = b"["
    for text in texts:
        yield opening + text
        opening = b",\n"
    yield b"]" if opening == b",\n" else b"[]"


def rebase_bulk_uris(text: bytes, prefix: bytes) -> bytes:
    """Make bulk data URIs of DICOM JSON (relative to the series) relative to something else.

    Parameters
    ----------
    text
        DICOM JSON of an instance, as in the journal.
    prefix
        What stands in place of ``instances/``.
    """
    return text.replace(_BULK_URI + b"instances/", _BULK_URI + prefix)


def rebased(pieces: Iterable[bytes], base: str) -> Iterator[bytes]:
    """Put `base` before all bulk data URIs of a document, wherever its pieces are cut."""
    prefixed = _BULK_URI + base.encode()
    keep = len(_BULK_URI) - 1
    held = b""
    for piece in pieces:
        data = (held + piece).replace(_BULK_URI, prefixed)
        held = data[-keep:]
        yield data[:-keep]
    yield held


def gzipped(pieces: Iterable[bytes], level: int) -> Iterator[bytes]:
    """Compress as one gzip member, without a time: equal texts give equal bytes."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, _GZIP_FORMAT)
    for piece in pieces:
        out = compressor.compress(piece)
        if out:
            yield out
    yield compressor.flush()
