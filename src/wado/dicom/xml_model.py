"""The Native DICOM Model in XML, and the DICOM JSON Model (PS3.19 §A.1, PS3.18 Annex F).

The writer joins strings and the reader follows events of expat: no tree of the document is made
either way.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NoReturn
from xml.parsers.expat import ExpatError, ParserCreate, XMLParserType
from xml.sax.saxutils import quoteattr

from wado.dicom.dictionary import public_keyword, public_vr
from wado.dicom.elements import MAX_DEPTH
from wado.dicom.values import JsonElement, decimal_string, integer_string
from wado.errors import InvalidRequest

NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    f'<NativeDicomModel xmlns="{NAMESPACE}" xml:space="preserve">\n'
)
_TAIL = "</NativeDicomModel>\n"
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_UNWRITABLE = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""What XML 1.0 can't hold, not even as a reference (§2.2); DICOM text may hold a form feed."""
_MARKUP = re.compile(f"[&<>\r]|{_UNWRITABLE.pattern}")
_REFERENCES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_PRIVATE_GROUPS = "13579BDF"
"""Last digit of the group of a private element (PS3.5 §7.8.1)."""
_MAX_TEXT_OF_WHOLE: Final = 1e15
"""Floating point numbers below are exact integers, and written as such."""
_MAX_BYTES = 64 << 20
_MAX_COUNT = 2_000_000
"""Attributes, items and values of a document, those left out between numbers among them."""

# ------------------------------------------------------------------ writing


def to_xml(metadata: Mapping[str, Any]) -> bytes:
    """Write a data set of the DICOM JSON Model as one document, in UTF-8.

    Private elements lose the number of their block and name their creator instead, as the Standard
    asks; those whose creator is missing, or holds several blocks, keep it. Characters that XML
    can't hold become U+FFFD.
    """
    out = [_HEAD]
    _write_data_set(out, metadata)
    out.append(_TAIL)
    return "".join(out).encode()


def _write_data_set(out: list[str], elements: Mapping[str, Any]) -> None:
    creators = _creators(elements)
    for tag, element in elements.items():
        vr = element.get("vr", "UN")
        creator = creators.get((tag[:4], tag[4:6])) if creators else None
        start = _private_start(tag, vr, creator) if creator else _start(tag, vr)
        out.append(start)
        if "Value" in element:
            _write_values(out, vr, element["Value"])
        elif "InlineBinary" in element:
            out.append(f"<InlineBinary>{_escaped(element['InlineBinary'])}</InlineBinary>\n")
        elif "BulkDataURI" in element:
            out.append(f"<BulkData uri={_attribute(element['BulkDataURI'])}/>\n")
        out.append("</DicomAttribute>\n")


def _creators(elements: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Creator of each private block (group, block) of a data set that can be told by its name."""
    found = {
        (tag[:4], tag[6:]): values[0]
        for tag, element in elements.items()
        if tag[3] in _PRIVATE_GROUPS
        and tag[4:6] == "00"
        and (values := element.get("Value"))
        and isinstance(values[0], str)
    }
    if not found:
        return found
    blocks = Counter((group, name) for (group, _), name in found.items())
    return {key: name for key, name in found.items() if blocks[key[0], name] == 1}


@lru_cache(maxsize=8192)
def _start(tag: str, vr: str) -> str:
    keyword = public_keyword(int(tag, 16))
    named = f' keyword="{keyword}"' if keyword else ""
    return f'<DicomAttribute tag="{tag}" vr={_attribute(vr)}{named}>\n'


@lru_cache(maxsize=8192)
def _private_start(tag: str, vr: str, creator: str) -> str:
    # The block is where this one data set happens to keep it: by name alone it is the same in all.
    at = f"{tag[:4]}00{tag[6:]}"
    return f'<DicomAttribute tag="{at}" vr={_attribute(vr)} privateCreator={_attribute(creator)}>\n'


def _write_values(out: list[str], vr: str, values: Iterable[Any]) -> None:
    if vr == "SQ":
        for number, item in enumerate(values, 1):
            out.append(f'<Item number="{number}">\n')
            _write_data_set(out, item or {})
            out.append("</Item>\n")
    elif vr == "PN":
        for number, name in enumerate(values, 1):
            out.append(f'<PersonName number="{number}">\n')
            _write_name(out, name or {})
            out.append("</PersonName>\n")
    else:
        for number, value in enumerate(values, 1):
            out.append(f'<Value number="{number}">{_text(value)}</Value>\n')


def _write_name(out: list[str], name: Mapping[str, str] | str) -> None:
    if isinstance(name, str):
        name = dict(zip(_GROUPS, name.split("="), strict=False))
    for group in _GROUPS:
        if text := name.get(group):
            out.append(f"<{group}>\n")
            # More carets than there are components stay with the last one; those at the end are
            # told by empty components.
            parts = zip(_COMPONENTS, text.split("^", len(_COMPONENTS) - 1), strict=False)
            keep = text.endswith("^")
            out += [f"<{at}>{_escaped(part)}</{at}>\n" for at, part in parts if part or keep]
            out.append(f"</{group}>\n")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return _escaped(value)
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < _MAX_TEXT_OF_WHOLE:
        return str(int(value))
    return str(value)


def _escaped(text: str) -> str:
    return _MARKUP.sub(_reference, text) if _MARKUP.search(text) else text


def _reference(match: re.Match[str]) -> str:
    return _REFERENCES.get(match[0], _REPLACEMENT)


def _attribute(text: str) -> str:
    return quoteattr(_UNWRITABLE.sub(_REPLACEMENT, text))


# ------------------------------------------------------------------ reading


def from_xml(data: bytes, *, max_bytes: int = _MAX_BYTES) -> dict[str, Any]:
    """Read one document as a data set of the DICOM JSON Model, its elements by ascending tag.

    Document types, and with them entities, are refused. Numbers are read as the VR wants them;
    text that is no number stays text. A private element that names its creator gets the block that
    the data set reserves for it, or a free one.

    Parameters
    ----------
    data
        In UTF-8, or another encoding that the document names and expat knows.
    max_bytes
        Longest document.

    Raises
    ------
    InvalidRequest
        Not XML, not a Native DICOM Model, or larger, deeper or longer than any data set.
    """
    if len(data) > max_bytes:
        raise InvalidRequest(f"the XML document has over {max_bytes} bytes")
    reader = _Reader()
    try:
        reader.parser.Parse(data, True)  # noqa: FBT003 - takes no keywords
    except (ExpatError, ValueError, LookupError) as e:  # the last two of encodings
        raise InvalidRequest(f"not XML that can be read: {e}") from e
    return reader.metadata


_PARENTS: Mapping[str, tuple[str, ...]] = {
    "NativeDicomModel": ("",),
    "DicomAttribute": ("NativeDicomModel", "Item"),
    **dict.fromkeys(
        ("Item", "PersonName", "Value", "InlineBinary", "BulkData"), ("DicomAttribute",)
    ),
    **dict.fromkeys(_GROUPS, ("PersonName",)),
    **dict.fromkeys(_COMPONENTS, _GROUPS),
}
"""In which elements an element may stand (PS3.19 §A.1.6)."""
_LEAVES = frozenset({"Value", "InlineBinary", *_COMPONENTS})
_TAG = re.compile(r"[0-9A-Fa-f]{8}\Z")
_FIRST_BLOCK, _LAST_BLOCK = 0x10, 0xFF
_WHOLE = re.compile(r"[+-]?\d{1,20}\Z", re.ASCII)


def _whole(text: str) -> int | str:
    return int(text) if _WHOLE.match(text) else text


_READ: Mapping[str, Callable[[str], Any]] = {
    "IS": integer_string,
    **dict.fromkeys(("SL", "SS", "SV", "UL", "US", "UV"), _whole),
    **dict.fromkeys(("DS", "FD", "FL"), decimal_string),
    "AT": str.upper,
}
"""How the text of a value is read; of other VRs it stays text."""


@dataclass(slots=True)
class _Attribute:
    """An attribute being read: `values` by their number, `content` of another kind."""

    tag: str
    vr: str
    creator: str
    values: list[Any] = field(default_factory=list)
    content: JsonElement = field(default_factory=dict)


class _Reader:
    """Follows the events of one document; `metadata` is there when it has ended."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}
        self.parser: XMLParserType = ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = self._doctype
        self._open = [""]
        self._sets: list[list[_Attribute]] = []
        self._attributes: list[_Attribute] = []
        self._name: dict[str, str] = {}
        self._components: dict[str, str] = {}
        self._text: list[str] = []
        self._count = 0

    def _doctype(self, *_: object) -> NoReturn:
        raise InvalidRequest("the XML document has a document type, which is not taken")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(" ")[2]
        parent = self._open[-1]
        if parent not in _PARENTS.get(name, ()):
            raise InvalidRequest(f"<{name[:40]}> in <{parent}>: not a Native DICOM Model")
        self._open.append(name)
        self._text.clear()
        match name:
            case "NativeDicomModel":
                self._sets.append([])
            case "DicomAttribute":
                self._attributes.append(_attribute_of(attributes))
                self._counted(1)
            case "Item" | "PersonName" | "Value":
                self._number(name, attributes)
            case "BulkData":
                self._bulk_data(attributes)
            case _:
                self._components = {} if name in _GROUPS else self._components

    def _counted(self, more: int) -> None:
        self._count += more
        if self._count > _MAX_COUNT:
            raise InvalidRequest(f"there are over {_MAX_COUNT} attributes and values")

    def _number(self, name: str, attributes: dict[str, str]) -> None:
        """Make room for the value of this number; those left out before it are empty."""
        attribute = self._attributes[-1]
        wanted = {"SQ": "Item", "PN": "PersonName"}.get(attribute.vr, "Value")
        values = attribute.values
        text = attributes.get("number", str(len(values) + 1))
        if name != wanted or attribute.content:
            raise InvalidRequest(f"<{name}> in {attribute.tag} of VR {attribute.vr}")
        if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) <= len(values):
            raise InvalidRequest(f"number {text[:20]!r} of a value of {attribute.tag}")
        self._counted(int(text) - len(values))
        empty: Any = {} if name == "Item" else None
        values.extend(empty for _ in range(int(text) - len(values)))
        if name == "Item":
            if len(self._sets) > MAX_DEPTH:
                raise InvalidRequest(f"sequences are nested deeper than {MAX_DEPTH} levels")
            self._sets.append([])
        self._name = {}

    def _bulk_data(self, attributes: dict[str, str]) -> None:
        uri = attributes.get("uri") or attributes.get("uuid")
        if not uri:
            raise InvalidRequest(f"<BulkData> of {self._attributes[-1].tag} names no uri")
        self._only({"BulkDataURI": uri})

    def _only(self, content: JsonElement) -> None:
        attribute = self._attributes[-1]
        if attribute.values or attribute.content or attribute.vr == "SQ":
            raise InvalidRequest(f"{attribute.tag} has content of several kinds")
        attribute.content = content

    def _characters(self, text: str) -> None:
        if self._open[-1] in _LEAVES:
            self._text.append(text)

    def _end(self, _: str) -> None:
        name = self._open.pop()
        text = "".join(self._text) if name in _LEAVES else ""
        self._text.clear()
        match name:
            case "NativeDicomModel":
                self.metadata = _data_set(self._sets.pop())
            case "DicomAttribute":
                self._sets[-1].append(self._attributes.pop())
            case "Item":
                self._attributes[-1].values[-1] = _data_set(self._sets.pop())
            case "PersonName":
                self._attributes[-1].values[-1] = self._name or None
            case "Value":
                self._value(text)
            case "InlineBinary":
                self._only({"InlineBinary": _base64(text)} if text.strip() else {})
            case _ if name in _GROUPS:
                self._end_of_group(name)
            case _:
                self._components[name] = text

    def _value(self, text: str) -> None:
        attribute = self._attributes[-1]
        read = _READ.get(attribute.vr)
        if read:
            text = text.strip()
        if text:
            attribute.values[-1] = read(text) if read else text

    def _end_of_group(self, group: str) -> None:
        last = max(map(_COMPONENTS.index, self._components), default=-1)
        text = "^".join(self._components.get(at, "") for at in _COMPONENTS[: last + 1])
        if text:
            self._name[group] = text


def _attribute_of(attributes: dict[str, str]) -> _Attribute:
    tag = attributes.get("tag", "")
    if not _TAG.match(tag):
        raise InvalidRequest(f"tag {tag[:20]!r} of a <DicomAttribute>")
    vr = attributes.get("vr") or public_vr(int(tag, 16))
    vr = vr if len(vr) == 2 and vr.isascii() and vr.isalpha() else "UN"
    return _Attribute(tag.upper(), vr.upper(), attributes.get("privateCreator", "").strip())


def _base64(text: str) -> str:
    text = "".join(text.split())
    try:
        b64decode(text, validate=True)
    except (Base64Error, ValueError) as e:
        raise InvalidRequest(f"<InlineBinary> is not base64: {e}") from e
    return text


def _data_set(attributes: list[_Attribute]) -> dict[str, Any]:
    elements: dict[str, Any] = {}
    nameless: list[_Attribute] = []
    for attribute in attributes:
        tag = attribute.tag
        if attribute.creator and tag[3] in _PRIVATE_GROUPS and tag[4:6] == "00":
            nameless.append(attribute)
        else:
            _add(elements, tag, attribute)
    for attribute in nameless:
        _add(elements, _private_tag(elements, attribute), attribute)
    return {tag: elements[tag] for tag in sorted(elements)}


def _add(elements: dict[str, Any], tag: str, attribute: _Attribute) -> None:
    if tag in elements:
        raise InvalidRequest(f"{tag} stands twice in a data set")
    content = {"Value": attribute.values} if attribute.values else attribute.content
    elements[tag] = {"vr": attribute.vr, **content}


def _private_tag(elements: dict[str, Any], attribute: _Attribute) -> str:
    """Find the block of a creator, or reserve a free one (PS3.5 §7.8.1)."""
    group = attribute.tag[:4]
    free = ""
    for block in range(_FIRST_BLOCK, _LAST_BLOCK + 1):
        reserved = elements.get(f"{group}00{block:02X}")
        if reserved is None:
            free = free or f"{block:02X}"
        elif (reserved.get("Value") or [""])[0] == attribute.creator:
            return f"{group}{block:02X}{attribute.tag[6:]}"
    if not free:
        raise InvalidRequest(f"no block of group {group} is free for {attribute.creator[:64]!r}")
    elements[f"{group}00{free}"] = {"vr": "LO", "Value": [attribute.creator]}
    return f"{group}{free}{attribute.tag[6:]}"
