"""Metadata of a STOW-RS request: one data set of XML, or an array of JSON (PS3.18 §10.5.1)."""

from typing import Any

import orjson

from wado.archive.spool import Spool, SpooledPart
from wado.dicom.media_types import DICOM_XML
from wado.dicom.xml_model import from_xml
from wado.errors import CannotUnderstand, InvalidRequest, TooLarge

_MAX_STRUCTURES = 2_000_000
"""Objects and arrays of a document: empty ones take 20 times their text in memory."""


def instances_of(spool: Spool, part: SpooledPart) -> list[Any]:
    """Read the instances that a part of metadata describes; each is checked when it is composed.

    Raises
    ------
    InvalidRequest
        The part is not a document of its type.
    TooLarge
        It would take too much memory.
    """
    text = spool.read_at(part, 0, part.length)
    if part.media_type.name == DICOM_XML:
        try:
            return [from_xml(text, max_bytes=len(text))]
        except CannotUnderstand as e:
            raise InvalidRequest(str(e)) from e
    if text.count(b"{") + text.count(b"[") > _MAX_STRUCTURES:
        raise TooLarge(f"the metadata has over {_MAX_STRUCTURES} objects and arrays")
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as e:
        raise InvalidRequest(f"the metadata is not JSON: {e}") from e
    # One object where an array of one must be is what clients send who store one instance.
    return document if isinstance(document, list) else [document]
