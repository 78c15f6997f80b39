"""Images without who they are of (PS3.15 Annex E, Basic Application Level Confidentiality Profile).

The profile lists what must go; here only what is known to be harmless stays: numbers and codes that
describe the image, its position and how it was made. No text, name, date, time or private element
passes, whatever it is called, and UIDs are replaced. So all that the profile removes is gone, and
more.
"""

import hmac
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from wado.dicom.image import first_value
from wado.errors import InvalidRequest

Json = Mapping[str, Any]

_GROUPS = frozenset({"0018", "0020", "0028", "0054", "5200"})
"""Acquisition, relationship, image, nuclear acquisition, multi-frame functional groups."""
_NUMBERS = frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "DS", "IS", "AT"})
_TABLES = frozenset({"00281201", "00281202", "00281203", "00283006"})
"""Look-up tables of colours and of values: what they hold is seen in the picture alone."""
_ALSO = frozenset({"00080005", "00080008", "00080016", "00080060", "00080064"})
"""Character set, Image Type, SOP Class, Modality, Conversion Type: codes of the Standard."""
_REPLACED_UIDS = frozenset({"00080018", "0020000D", "0020000E", "00200052", "00209164"})
_NEVER = frozenset({"00180010", "00181000", "00181002", "00189367", "00200200", "00280A02"})
_CODE = re.compile(r"[A-Z0-9_ ]{1,16}\Z")
_TAG = re.compile(r"[0-9A-F]{8}\Z")
_EMPTY = {
    "00080020": "DA", "00080030": "TM", "00080050": "SH", "00080090": "PN", "00100010": "PN",
    "00100020": "LO", "00100030": "DA", "00100040": "CS", "00200010": "SH",
}  # fmt: skip
"""Attributes of type 2 that the profile empties (PS3.15 Table E.1-1, action Z)."""
_ORIGINALS: Final = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("2", "2.1", "4", "4.1", "128", "130")
)
"""CT, MR and PET, whose originals have nothing written into their pixels."""
_PIXEL_DATA = "7FE00010"
_UID_DIGEST_BYTES = 16
METHOD = "wado: only numbers and codes of the image are kept, UIDs are replaced"


def deidentified(metadata: Json, key: bytes) -> dict[str, Any]:
    """Make the data set of an image that tells nobody who it is of, without its Pixel Data.

    Parameters
    ----------
    metadata
        DICOM JSON of the instance.
    key
        Secret by which UIDs are replaced: the same UID gives the same one, so that a series stays
        a series, and nobody without the key can tell which it was.

    Raises
    ------
    InvalidRequest
        It can't be known that its pixels show nobody's name, or it would not be whole without what
        has to go.
    """
    _check_pixels(metadata)
    kept = dict(_kept(metadata, key))
    kept.update((tag, {"vr": vr}) for tag, vr in _EMPTY.items())
    kept["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    kept["00120062"] = {"vr": "CS", "Value": ["YES"]}
    kept["00120063"] = {"vr": "LO", "Value": [METHOD[:64]]}
    kept["00120064"] = {"vr": "SQ", "Value": [_PROFILE]}
    return dict(sorted(kept.items()))


_PROFILE = {
    "00080100": {"vr": "SH", "Value": ["113100"]},
    "00080102": {"vr": "SH", "Value": ["DCM"]},
    "00080104": {"vr": "LO", "Value": ["Basic Application Confidentiality Profile"]},
}


def replaced_uid(uid: str, key: bytes) -> str:
    """Replace a UID by one of the form 2.25 (PS3.5 §B.2)."""
    digest = hmac.digest(key, uid.encode(), "sha256")[:_UID_DIGEST_BYTES]
    return f"2.25.{int.from_bytes(digest, 'big')}"


def _check_pixels(metadata: Json) -> None:
    """Refuse what may show a name: burned in, or drawn in the unused bits of pixels."""
    if _PIXEL_DATA not in metadata:
        raise InvalidRequest("only images can be de-identified here")
    if any(tag.startswith("60") and tag.endswith(("0102", "3000")) for tag in metadata):
        raise InvalidRequest("the image has overlays, which may show a name")
    burned_in = first_value(metadata, "00280301")
    is_original = (
        first_value(metadata, "00080016") in _ORIGINALS
        and first_value(metadata, "00080008") == "ORIGINAL"
    )
    if burned_in == "YES" or not (burned_in == "NO" or is_original):
        raise InvalidRequest("the pixels may show a name: Burned In Annotation does not say NO")


def _kept(elements: Json, key: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    for tag, element in elements.items():
        if tag in _REPLACED_UIDS:
            uids = [replaced_uid(str(uid), key) for uid in element.get("Value", ()) if uid]
            yield tag, {"vr": "UI", "Value": uids}
        elif tag in _TABLES and "InlineBinary" in element:
            yield tag, {"vr": "OW", "InlineBinary": element["InlineBinary"]}
        elif tag not in _NEVER and (tag in _ALSO or tag[:4] in _GROUPS):
            kept = _value(element, key)
            if kept is not None:
                yield tag, kept


def _value(element: Json, key: bytes) -> dict[str, Any] | None:
    """Keep numbers, codes and what sequences have of them; None for all else."""
    vr, values = element.get("vr"), element.get("Value", [])
    if "BulkDataURI" in element and vr in (*_NUMBERS, "OW"):
        raise InvalidRequest("the image has look-up tables too large to be checked")
    if vr == "SQ":
        return {"vr": vr, "Value": [dict(_kept(item, key)) for item in values if item]}
    if vr == "UI":  # of the Standard: SOP classes, codes of groups that are kept
        uids = [uid for uid in values if str(uid).startswith("1.2.840.10008.")]
        return {"vr": vr, "Value": uids} if uids else None
    if vr == "CS":
        codes = [code for code in values if isinstance(code, str) and _CODE.match(code)]
        return {"vr": vr, "Value": codes} if len(codes) == len(values) else None
    if vr in _NUMBERS and all(value is None or _is_number(vr, value) for value in values):
        return {"vr": vr, "Value": list(values)}
    return None


def _is_number(vr: str, value: Any) -> bool:
    if vr == "AT":
        return isinstance(value, str) and _TAG.match(value) is not None
    return isinstance(value, int | float)
