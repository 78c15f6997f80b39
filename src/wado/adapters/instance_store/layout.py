"""What all stores of instances share: which paths are originals, and what the same data set is."""

import re
from typing import BinaryIO

from wado import vitals
from wado.archive.paths import DERIVED
from wado.dicom.part10 import read_file_meta
from wado.dicom.uids import InstanceRef, validate_tenant_id
from wado.errors import InvalidRequest, WadoError

OURS = ("incoming", "metadata", "quarantine", "deleted", "derived", "commitments")
"""Folders below the root that are no tenants and yet hold files of ours."""
_COMPARE_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16
_FILE_NAME = re.compile(r"([0-9.]+)\.dcm(\.\d+)?\Z", re.ASCII)
_DEPTH = 4
_SYNTAX_ROOT = ".1.2.840.10008.1.2"
"""Transfer syntaxes of copies are standard ones: the last of these in a name begins theirs."""


def checked(path: str) -> str:
    """Give back a path below the root; InvalidRequest if it is none."""
    if path.startswith("/") or ".." in path.split("/"):
        raise InvalidRequest(f"not a path below the root: {path[:80]!r}")
    return path


def is_tenant(name: str) -> bool:
    """Whether a folder below the root is a tenant's."""
    try:
        return bool(validate_tenant_id(name))
    except InvalidRequest:
        return False


def file_at(path: str, place: str) -> tuple[InstanceRef, str] | None:
    """Tell which instance lies at a path below `place`; None if it is none.

    With it comes, of a derived copy, its transfer syntax. Below another place of ours an instance
    may have a number behind it, as those that were set aside.
    """
    parts = path.split("/")
    match = _FILE_NAME.match(parts[-1])
    if len(parts) != _DEPTH or match is None or (match[2] and place in ("", DERIVED)):
        return None
    name, syntax = match[1], ""
    if place == DERIVED:
        cut = name.rfind(_SYNTAX_ROOT)
        name, syntax = name[: max(cut, 0)], name[cut + 1 :]
    try:
        return InstanceRef.of(parts[0], parts[1], parts[2], name), syntax
    except WadoError:
        return None


def same_data_set(one: BinaryIO, two: BinaryIO) -> bool:
    """Whether two files, open at their beginning, hold the same data set in the same syntax.

    File Meta Information and preamble may differ: they tell who wrote the file.
    """
    heads = [read_file_meta(f.read(_HEAD_BYTES)) for f in (one, two)]
    if heads[0].transfer_syntax_uid != heads[1].transfer_syntax_uid:
        return False
    for file, head in zip((one, two), heads, strict=True):
        file.seek(head.data_set_offset)
    while True:
        vitals.goes_on("commit files")
        left, right = one.read(_COMPARE_BYTES), two.read(_COMPARE_BYTES)
        if left != right:
            return False
        if not left:
            return True
