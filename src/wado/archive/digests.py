"""Digests of files, read anew with flat memory."""

import hashlib

from wado import vitals
from wado.archive.reading import reading
from wado.ports import InstanceStore

_READ_BYTES = 1 << 20


def digest_of(store: InstanceStore, path: str) -> str:
    """SHA-256 of a file as hex digits; NotFound if it is not there, Unreadable if it is damaged."""
    digest = hashlib.sha256()
    with reading(path), store.open(path) as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
            vitals.goes_on()
    return digest.hexdigest()
