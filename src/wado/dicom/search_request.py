"""Searches (PS3.18 §8.3.4): the query string of QIDO-RS read into matching keys and options.

Unknown parameters, and attributes by which this archive does not search, are passed over (the
latter with a warning for the client); a wrong value of a known parameter is refused.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from urllib.parse import unquote_plus

from wado.dicom.match_values import (
    EMPTY,
    Attribute,
    attribute_of,
    is_matchable,
    looks_like_attribute,
    read_matches,
)
from wado.dicom.matching import (
    KEY_OF_KEYWORD,
    REQUEST_ATTRIBUTES,
    Key,
    Level,
    Match,
    Order,
    Query,
)
from wado.dicom.names import words
from wado.dicom.time_zones import combined, read_zone
from wado.errors import InvalidRequest

_LONGEST_NUMBER = 12
_SHOWN = 80
_MAX_WARNINGS = 10
_MAX_CONDITIONS = 250
"""More make an expression that a database refuses, or thinks about for long."""
_TIMEZONE = "timezone_offset_from_utc"
_JOINED = frozenset({"UI", "CS"})
"""VRs of which a key that comes several times is one list."""


@dataclass(frozen=True, slots=True)
class Search:
    """A query string that was read: matches, options, and warnings to give back."""

    matches: tuple[Match, ...] = ()
    include: frozenset[str] = frozenset()
    limit: int | None = None
    offset: int = 0
    fuzzy: bool = False
    order: tuple[Order, ...] = ()
    warnings: tuple[str, ...] = ()

    def query(
        self, tenant_id: str, level: Level, scope: Mapping[str, str], *, limits: tuple[int, int]
    ) -> Query:
        """Make the query: `scope` are the UIDs of the path, `limits` the default and greatest."""
        default, greatest = limits
        within = tuple(Match(keyword, "single", (uid,)) for keyword, uid in scope.items())
        return Query(
            tenant_id,
            level,
            within + self.matches,
            self.include,
            default if self.limit is None else min(self.limit, greatest),
            self.offset,
            self.fuzzy,
            self.order,
            frozenset(scope),
        )


def parse_search(query_string: str, level: Level) -> Search:
    """Read the query string of a search at `level`.

    Raises
    ------
    InvalidRequest
        A known parameter or matching key has a value that is none.
    """
    options = _Options(level)
    keys: dict[str, list[str]] = {}
    for name, value in _pairs(query_string):
        option = _PARAMETERS.get(name.lower())
        if option is not None:
            option(options, value)
        elif looks_like_attribute(name):
            keys.setdefault(name, []).append(value)
    for name, values in keys.items():
        _add_key(options, name, values)
    matches = combined(options.matches, options.zone)
    if sum(_conditions(match, fuzzy=options.fuzzy) for match in matches) > _MAX_CONDITIONS:
        raise InvalidRequest(f"a search of more than {_MAX_CONDITIONS} conditions: ask in parts")
    return Search(
        matches,
        frozenset(options.include),
        options.limit,
        options.offset,
        options.fuzzy,
        tuple(options.order),
        _some(dict.fromkeys(options.warnings)),
    )


def _conditions(match: Match, *, fuzzy: bool) -> int:
    """Count what must be compared, one by one, for a match; a list of UIDs is looked up."""
    if match.parts:
        return sum(_conditions(part, fuzzy=fuzzy) for part in match.parts)
    if match.kind not in ("any_of", "single", "wildcard"):
        return 1
    return sum(len(words(value)) if fuzzy else 1 for value in match.values) or 1


@dataclass(slots=True)
class _Options:
    """What is gathered while a query string is read."""

    level: Level
    matches: list[Match] = field(default_factory=list)
    include: set[str] = field(default_factory=set)
    order: list[Order] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    limit: int | None = None
    offset: int = 0
    fuzzy: bool = False
    empty_values: bool = False
    multiple_values: bool = False
    zone: str = ""


def _pairs(query_string: str) -> list[tuple[str, str]]:
    """Split at ``&`` and ``=``, then decode; what separates values is looked for after that.

    A plus sign is a space, as forms and most client libraries write it; a plus sign itself comes
    as ``%2B``.
    """
    pairs = []
    for text in query_string.split("&"):
        name, _, value = text.partition("=")
        try:
            decoded = unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")
        except UnicodeDecodeError as e:
            raise InvalidRequest(f"{name[:_SHOWN]}: not UTF-8") from e
        if decoded[0]:
            pairs.append((decoded[0], decoded[1].strip()))
    return pairs


# ------------------------------------------------------------------ parameters


def _natural(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > _LONGEST_NUMBER:
        raise InvalidRequest(f"{name}: not a natural number: {value[:_SHOWN]!r}")
    return int(value)


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise InvalidRequest(f"{name}: neither true nor false: {value[:_SHOWN]!r}")
    return value.lower() == "true"


def _limit(options: _Options, value: str) -> None:
    options.limit = _natural("limit", value)


def _offset(options: _Options, value: str) -> None:
    options.offset = _natural("offset", value)


def _fuzzy(options: _Options, value: str) -> None:
    options.fuzzy = _boolean("fuzzymatching", value)


def _empty_values(options: _Options, value: str) -> None:
    options.empty_values = _boolean("emptyvaluematching", value)


def _multiple_values(options: _Options, value: str) -> None:
    options.multiple_values = _boolean("multiplevaluematching", value)


def _names(value: str) -> list[str]:
    return [name for text in value.split(",") if (name := text.strip())]


def _some(warnings: Iterable[str]) -> tuple[str, ...]:
    """Leave out warnings beyond what clients take: each is a header."""
    first = tuple(islice(rest := iter(warnings), _MAX_WARNINGS))
    left_out = sum(1 for _ in rest)
    return (*first, f"{left_out} other warnings are left out") if left_out else first


def _include(options: _Options, value: str) -> None:
    """Take attributes to return; of a path the whole sequence (PS3.18 §8.3.4.3)."""
    for name in _names(value):
        if name.lower() == "all":
            options.include.add("all")
            continue
        attribute = attribute_of(name)
        if attribute is None:
            options.warnings.append(f"includefield {name[:_SHOWN]} is not known")
        elif not _is_returned(attribute, options.level):
            options.warnings.append(f"{name[:_SHOWN]} is not returned at {options.level} level")
        else:
            options.include.add(attribute.path[0])


def _is_returned(attribute: Attribute, level: Level) -> bool:
    """Whether rows of a level show an attribute: not those of lower levels (§10.6.3.3).

    Modality is asked of studies by a viewer in wide use, which reads Modalities in Study as well.
    """
    if level is Level.INSTANCE or (level, attribute.path[0]) == (Level.SERIES, REQUEST_ATTRIBUTES):
        return True
    key = _key_at(attribute.key, level)
    return key is not None and level.holds(key.level)


def _order(options: _Options, value: str) -> None:
    """Read our extension ``orderby``: names; a hyphen before, or ``desc`` behind, turns round."""
    for text in _names(value):
        name, _, direction = text.lstrip("+- ").partition(" ")
        attribute = attribute_of(name)
        key = _key_at(attribute.key, options.level) if attribute else None
        direction = direction.strip().lower()
        if key is None or not options.level.holds(key.level) or direction not in _DIRECTIONS:
            raise InvalidRequest(f"orderby: can't sort {options.level} rows by {text[:_SHOWN]!r}")
        descending = text.startswith("-") != (direction == "desc")
        if all(order.keyword != key.keyword for order in options.order):  # else it changes nothing
            options.order.append(Order(key.keyword, descending))


_DIRECTIONS = frozenset({"", "asc", "desc"})
_PARAMETERS: Mapping[str, Callable[[_Options, str], None]] = MappingProxyType(
    {
        "limit": _limit,
        "offset": _offset,
        "fuzzymatching": _fuzzy,
        "emptyvaluematching": _empty_values,
        "multiplevaluematching": _multiple_values,
        "includefield": _include,
        "orderby": _order,
    }
)


# ------------------------------------------------------------------ matching keys


def _add_key(options: _Options, name: str, values: Sequence[str]) -> None:
    attribute = attribute_of(name)
    if attribute is None:
        options.warnings.append(f"{name[:_SHOWN]} is not an attribute that is known")
    elif attribute.vr == "SQ" and not any(values) and not options.empty_values:
        _include(options, name)  # all of them, whatever their items: to be returned
    elif attribute.keyword == _TIMEZONE:
        _set_zone(options, values[-1])
    else:
        _match_by(options, attribute, name, values)


def _set_zone(options: _Options, value: str) -> None:
    """Timezone Offset From UTC says what the dates and times of the query mean (§C.2.2.2.5)."""
    if value.strip("*"):
        options.zone = read_zone(value)


def _match_by(options: _Options, attribute: Attribute, name: str, values: Sequence[str]) -> None:
    key = _key_at(attribute.key, options.level)
    if not _is_searched(key, options.level) or not is_matchable(attribute):
        options.warnings.append(f"no search at {options.level} level by {name[:_SHOWN]}")
        return
    attribute = Attribute(attribute.path, attribute.vr, key)
    joined = ["\\".join(values)] if attribute.vr in _JOINED else values
    for value in joined:
        if value == EMPTY and not options.empty_values:
            text = f"{name[:_SHOWN]}: empty values are matched with emptyvaluematching=true"
            options.warnings.append(text)
            continue
        # Without a value, too: who asks for empty values means them, not all (§C.2.2.2.7).
        wanted = EMPTY if options.empty_values and not value else value
        matches = read_matches(attribute, wanted, multiple=options.multiple_values)
        options.matches += [match for match in matches if match.kind != "universal"]
    if key is None or options.level.holds(key.level):
        options.include.add(key.tag if key else attribute.path[0])


def _is_searched(key: Key | None, level: Level) -> bool:
    """Whether rows of a level can be chosen by it: only instances by what instances alone hold."""
    return level is Level.INSTANCE or (key is not None and key.level is not Level.INSTANCE)


def _key_at(key: Key | None, level: Level) -> Key | None:
    """Modality of studies means any of theirs."""
    if key is not None and key.keyword == "modality" and level is Level.STUDY:
        return KEY_OF_KEYWORD["modalities_in_study"]
    return key
