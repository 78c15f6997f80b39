"""The content tree of structured reports and key object selections (PS3.3 §C.17.3), for reading.

From DICOM JSON to `Report`, in words that a person reads; `wado.dicom.report_page` writes it down.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from wado.dicom.image import first_value

Json = Mapping[str, Any]

_CONTENT = "0040A730"
_CONCEPT_NAME = "0040A043"
_REFERENCED_SOP = "00081199"
_EVIDENCE = ("0040A375", "0040A385", "0008114A", "00081115")
_UCUM_UNITY = ("1", "{no units}", "{ratio}")
_MAX_COORDINATES = 24
"""Numbers of a coordinate that are shown; an outline has thousands."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An instance that a report points to; where it lies is known if the report's evidence says."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    frames: tuple[int, ...] = ()
    segments: tuple[int, ...] = ()
    is_image: bool = False


@dataclass(slots=True)
class Node:
    """A content item: `concept` is its name, `value` what it says, by lines.

    `position` is that of Referenced Content Item Identifier (0040,DB73): ``1.2.3``; `target` the
    position of the item that stands here by reference. The children of a `continuous` container
    read on from one to the next, as one text.
    """

    position: str
    relationship: str
    value_type: str
    concept: str
    value: str = ""
    references: tuple[Reference, ...] = ()
    target: str = ""
    bulk_uri: str = ""
    continuous: bool = False
    children: list["Node"] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Report:
    """A document: its header as pairs of name and value, and its content."""

    title: str
    patient: tuple[tuple[str, str], ...]
    document: tuple[tuple[str, str], ...]
    root: Node


def is_report(metadata: Json) -> bool:
    """Whether an instance has a content tree."""
    return first_value(metadata, "0040A040") == "CONTAINER" or _CONTENT in metadata


def read_report(metadata: Json) -> Report:
    """Read the header and the content tree of a report."""
    places = dict(_evidence(metadata))
    root = _node(metadata, "1", places)
    _add_children(root, metadata, places)
    title = root.concept or text_of(metadata, "0008103E") or "Report"
    return Report(title, patient_of(metadata), tuple(_document(metadata)), root)


# ------------------------------------------------------------------ the header


def patient_of(metadata: Json) -> tuple[tuple[str, str], ...]:
    """Name and value of what tells patient and study; what is absent is left out."""
    pairs = (
        ("Patient", text_of(metadata, "00100010")),
        ("Patient ID", text_of(metadata, "00100020")),
        ("Birth date", text_of(metadata, "00100030")),
        ("Sex", text_of(metadata, "00100040")),
        ("Study", text_of(metadata, "00081030")),
        ("Study date", _date_time(metadata, "00080020", "00080030")),
        ("Accession number", text_of(metadata, "00080050")),
        ("Referring physician", text_of(metadata, "00080090")),
        ("Institution", text_of(metadata, "00080080")),
    )
    return tuple(pair for pair in pairs if pair[1])


def _document(metadata: Json) -> Iterator[tuple[str, str]]:
    verification = text_of(metadata, "0040A493").capitalize()
    pairs = [
        ("Series", text_of(metadata, "0008103E")),
        ("Written", _date_time(metadata, "00080023", "00080033")),
        ("Completion", text_of(metadata, "0040A491").capitalize()),
        ("Verification", verification),
    ]
    pairs += [("Verified by", _observer(item)) for item in items_of(metadata, "0040A073")]
    pairs += [("Author", _author(item)) for item in items_of(metadata, "0040A078")]
    pairs.append(("Device", _words(text_of(metadata, t) for t in ("00080070", "00081090"))))
    yield from (pair for pair in pairs if pair[1])


def _observer(item: Json) -> str:
    name, place = text_of(item, "0040A075"), text_of(item, "0040A027")
    return ", ".join(filter(None, (name, place, text_of(item, "0040A030"))))


def _author(item: Json) -> str:
    return text_of(item, "0040A123") or text_of(item, "00081010")


def _date_time(metadata: Json, date: str, time: str) -> str:
    return _words((text_of(metadata, date), text_of(metadata, time)))


def _words(texts: Iterator[str] | Sequence[str]) -> str:
    return " ".join(filter(None, texts))


# ------------------------------------------------------------------ values


def items_of(metadata: Json, tag: str) -> list[Json]:
    """Items of a sequence, without the empty ones."""
    values = metadata.get(tag, {}).get("Value", ())
    return [item for item in values if item and isinstance(item, Mapping)]


def text_of(metadata: Json, tag: str) -> str:
    """Values of an element as a person reads them; empty if it has none."""
    element = metadata.get(tag, {})
    vr = element.get("vr", "")
    return ", ".join(_text(vr, value) for value in element.get("Value", ()) if value is not None)


def _text(vr: str, value: Any) -> str:
    match vr, value:
        case _, {"Alphabetic": _} | {"Ideographic": _} | {"Phonetic": _}:
            return person(value)
        case "DA", str():
            return date(value)
        case "TM", str():
            return time(value)
        case "DT", str():
            return date_time(value)
        case _, float():
            return f"{value:.10g}"
        case _:
            return str(value)


def person(value: Mapping[str, str]) -> str:
    """Write a name: family name first, other groups of characters behind it."""
    groups = (value.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic"))
    first, *rest = [text for text in map(_name, groups) if text] or [""]
    return f"{first} ({'; '.join(rest)})" if rest else first


def _name(components: str) -> str:
    """Write the components of a name (PS3.5 §6.2.1): family, given, middle, prefix, suffix."""
    family, given, middle, prefix, suffix = (*components.split("^"), "", "", "", "", "")[:5]
    rest = _words([part.strip() for part in (prefix, given, middle)])
    return ", ".join(filter(None, (family.strip(), rest, suffix.strip())))


def date(text: str) -> str:
    """``YYYYMMDD`` as ISO 8601; what is no date stays."""
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdigit() else text


def time(text: str) -> str:
    """``HHMMSS.F`` with colons, without fractions; what is no time stays."""
    digits = text.partition(".")[0]
    if not digits.isdigit() or len(digits) not in (2, 4, 6):
        return text
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))


def date_time(text: str) -> str:
    """``YYYYMMDDHHMMSS.F&ZZXX`` as ISO 8601; what is none stays."""
    for sign in "+-":
        head, found, zone = text.partition(sign)
        if found:
            return f"{date_time(head)} {sign}{zone[:2]}:{zone[2:]}"
    return _words((date(text[:8]), time(text[8:]) if len(text) > 8 else ""))


def code(item: Json) -> str:
    """Meaning of a code, or the code itself if it has none (PS3.3 §8.1)."""
    meaning = text_of(item, "00080104")
    value = next(filter(None, (text_of(item, t) for t in ("00080100", "00080119", "00080120"))), "")
    scheme = text_of(item, "00080102")
    return meaning or ", ".join(filter(None, (value, scheme)))


def _first_code(metadata: Json, tag: str) -> str:
    return next((code(item) for item in items_of(metadata, tag)), "")


# ------------------------------------------------------------------ content items


def _add_children(root: Node, metadata: Json, places: Mapping[str, tuple[str, str]]) -> None:
    """Add what lies below a node; without recursion, as depth is the sender's choice."""
    waiting: list[tuple[Node, Json]] = [(root, metadata)]
    while waiting:
        parent, item = waiting.pop()
        for number, child in enumerate(items_of(item, _CONTENT), 1):
            node = _node(child, f"{parent.position}.{number}", places)
            parent.children.append(node)
            waiting.append((node, child))
        parent.continuous = parent.continuous and _reads_on(parent.children)


def _reads_on(children: Sequence[Node]) -> bool:
    """Whether items are one text: containers and context are not, though writers say so."""
    types = {child.value_type for child in children}
    contained = all(child.relationship == "CONTAINS" for child in children)
    return contained and "TEXT" in types and "CONTAINER" not in types


def _node(item: Json, position: str, places: Mapping[str, tuple[str, str]]) -> Node:
    value_type = text_of(item, "0040A040")
    return Node(
        position=position,
        relationship=text_of(item, "0040A010"),
        value_type=value_type,
        concept=_first_code(item, _CONCEPT_NAME),
        value=_value(value_type, item),
        references=tuple(_references(item, places, is_image=value_type == "IMAGE")),
        target=".".join(text_of(item, "0040DB73").split(", ")),
        bulk_uri=item.get("0040A160", {}).get("BulkDataURI", ""),
        continuous=text_of(item, "0040A050") == "CONTINUOUS",
    )


_VALUE_OF = {
    "TEXT": "0040A160",
    "DATE": "0040A121",
    "TIME": "0040A122",
    "DATETIME": "0040A120",
    "PNAME": "0040A123",
    "UIDREF": "0040A124",
}


def _value(value_type: str, item: Json) -> str:
    if value_type in _VALUE_OF:
        return text_of(item, _VALUE_OF[value_type])
    return _VALUE_BY[value_type](item) if value_type in _VALUE_BY else ""


def _number(item: Json) -> str:
    qualifier = _first_code(item, "0040A301")
    measured = next(iter(items_of(item, "0040A300")), {})
    value = text_of(measured, "0040A30A")
    units = next(iter(items_of(measured, "004008EA")), {})
    return _words(
        (value or qualifier, _units(units), f"({qualifier})" if value and qualifier else "")
    )


def _units(item: Json) -> str:
    """UCUM codes are what people write (``mm``), but for those in braces and for unity."""
    value = text_of(item, "00080100")
    if text_of(item, "00080102") != "UCUM" or value.startswith("{"):
        return "" if value in _UCUM_UNITY else code(item)
    return "" if value in _UCUM_UNITY else value


def _coordinates(item: Json) -> str:
    data = item.get("00700022", {}).get("Value", ())
    numbers = (value for value in data[:_MAX_COORDINATES] if value is not None)
    shown = ", ".join(f"{n:.6g}" if isinstance(n, int | float) else str(n) for n in numbers)
    more = f", … ({len(data)} numbers)" if len(data) > _MAX_COORDINATES else ""
    return _words((text_of(item, "00700023").lower(), f"({shown}{more})" if shown else ""))


def _times(item: Json) -> str:
    kind = text_of(item, "0040A130").lower()
    for tag, name in (("0040A132", "samples"), ("0040A138", "seconds"), ("0040A13A", "at")):
        if tag in item:
            return f"{kind}, {name} {text_of(item, tag)}"
    return kind


def _channels(item: Json) -> str:
    """Referenced Waveform Channels (0040,A0B0): pairs of multiplex group and channel."""
    found = [text_of(sop, "0040A0B0") for sop in items_of(item, _REFERENCED_SOP)]
    return _words([f"channels {text}" for text in found if text])


def _table(item: Json) -> str:
    return f"{text_of(item, '0040A802')} columns, {text_of(item, '0040A801')} rows"


_VALUE_BY: Mapping[str, Callable[[Json], str]] = MappingProxyType(
    {
        "NUM": _number,
        "CODE": lambda item: _first_code(item, "0040A168"),
        "SCOORD": _coordinates,
        "SCOORD3D": _coordinates,
        "TCOORD": _times,
        "WAVEFORM": _channels,
        "TABLE": _table,
    }
)


# ------------------------------------------------------------------ references


def _references(
    item: Json, places: Mapping[str, tuple[str, str]], *, is_image: bool
) -> Iterator[Reference]:
    for sop in items_of(item, _REFERENCED_SOP):
        uid = text_of(sop, "00081155")
        study, series = places.get(uid, ("", ""))
        yield Reference(
            text_of(sop, "00081150"),
            uid,
            study,
            series,
            _integers(sop, "00081160"),
            _integers(sop, "0062000B"),
            is_image=is_image,
        )


def _integers(item: Json, tag: str) -> tuple[int, ...]:
    return tuple(value for value in item.get(tag, {}).get("Value", ()) if isinstance(value, int))


def _evidence(metadata: Json) -> Iterator[tuple[str, tuple[str, str]]]:
    """Where the instances lie that a document stands on: SOP Instance UID, study, series."""
    own = text_of(metadata, "0020000D")
    for tag in _EVIDENCE:
        for item in items_of(metadata, tag):
            study = text_of(item, "0020000D") or own
            for series in items_of(item, "00081115") or [item]:
                uid = text_of(series, "0020000E")
                for sop in (*items_of(series, _REFERENCED_SOP), *items_of(series, "0008114A")):
                    yield text_of(sop, "00081155"), (study, uid)
