"""Metadata of ours and what pydicom makes of the same file, compared element by element."""

import base64
from collections.abc import Callable, Mapping
from typing import Any

Metadata = Mapping[str, Any]
_OURS_ALONE = frozenset({"00080005", "FFFCFFFC", "00083002"})


def comparable(element: Metadata, *, theirs: bool) -> Metadata:
    """Bring an element of pydicom and of ours to one form; each difference that is meant is here.

    * A value that is empty among others is null (PS3.18 §F.2.5), for pydicom an empty string.
    * Padding of each value is cut, not only at the end of all (PS3.5 §6.2).
    * A sequence without items has no Value (PS3.18 §F.2.5), for pydicom an empty one.
    * Group lengths are left out: they tell of an encoding that the reader doesn't see.
    """
    if "Value" not in element:
        return element
    if element["vr"] == "SQ":
        items = [comparable_items(item, theirs=theirs) for item in element["Value"]]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    if not theirs:
        return element
    values = [v.rstrip("\0 ") or None if isinstance(v, str) else v for v in element["Value"]]
    if element["vr"] in {"CS", "AE"}:
        values = [v and v.lstrip() for v in values]
    return {"vr": element["vr"], "Value": values}


def comparable_items(metadata: Metadata, *, theirs: bool) -> dict[str, Any]:
    """Top level or item; besides, these differ.

    * Specific Character Set is UTF-8's, for that is what JSON is in.
    * Data Set Trailing Padding (FFFC,FFFC) has no meaning (PS3.10 §7.2) and is left out.
    * Available Transfer Syntax UID (0008,3002) is added.
    """
    return {
        tag: comparable(e, theirs=theirs)
        for tag, e in metadata.items()
        if tag[4:] != "0000" and tag not in _OURS_ALONE
    }


def words_turned_round(metadata: Metadata) -> dict[str, Any]:
    """Give words (OW) of a big-endian file as the little-endian ones that leave the archive.

    Pixels of 32 bits are turned round as a whole.
    """
    (bits,) = metadata.get("00280100", {}).get("Value", [16])
    out: dict[str, Any] = {}
    for tag, element in metadata.items():
        value: Any = element
        if element["vr"] == "OW" and "InlineBinary" in element:
            size = max(bits // 8, 2) if tag == "7FE00010" else 2
            data = base64.b64decode(element["InlineBinary"])
            words = b"".join(data[i : i + size][::-1] for i in range(0, len(data), size))
            value = {"vr": "OW", "InlineBinary": base64.b64encode(words).decode()}
        elif element["vr"] == "SQ":
            items = [words_turned_round(item) for item in element.get("Value", [])]
            value = {"vr": "SQ", "Value": items}
        out[tag] = value
    return out


def bulk_resolved(
    metadata: Metadata, fetch: Callable[[Metadata, str], bytes], path: str = ""
) -> dict[str, Any]:
    """Put the bytes of bulk values inline, where pydicom has them.

    `fetch` is given the element and its tag path.
    """
    out: dict[str, Any] = {}
    for tag, element in metadata.items():
        value: Any = element
        if "BulkDataURI" in element:
            assert element["BulkDataURI"].endswith(f"/bulkdata/{path}{tag}")
            value = {"vr": element["vr"], "bytes": fetch(element, path + tag)}
        elif element["vr"] == "SQ":
            items = element.get("Value", [])
            resolved = [bulk_resolved(x, fetch, f"{path}{tag}/{i}/") for i, x in enumerate(items)]
            value = {"vr": "SQ", "Value": resolved}
        out[tag] = value
    return out


def same_values(ours: Metadata, theirs: Metadata, name: object) -> None:
    """Compare; where we have bytes, pydicom has base64, or numbers made of them."""
    assert set(ours) == set(theirs), name
    for tag, element in ours.items():
        other = theirs[tag]
        if "bytes" in element and "InlineBinary" in other:
            expected = base64.b64decode(other["InlineBinary"])
            assert element["bytes"] == expected, (name, tag)
            # Encapsulated Pixel Data is OB (PS3.5 §A.4), also where a writer says OW.
            assert element["vr"] in {other["vr"], "OB"}, (name, tag)
        elif "bytes" in element:
            assert len(other.get("Value", ())) > 64, (name, tag, element["vr"], other)
        elif element["vr"] == "SQ" and "Value" in element:
            for ours_item, their_item in zip(element["Value"], other["Value"], strict=True):
                same_values(ours_item, their_item, name)
        else:
            assert element == other, (name, tag)
