"""The tables of the warehouse in Doris, and rows in the form in which it takes them.

The definitions in ``doris_ddl`` are the only description. Rows are checked here, before anything
is sent: what Doris refuses would otherwise have to be guessed from its messages.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from string import Template
from typing import Any, get_args

import orjson

from wado.errors import InvalidMessage, InvalidRequest
from wado.records import Table

_FOLDER = Path(__file__).parent / "doris_ddl"
_COLUMN = re.compile(r"^ {4}`(\w+)` (BIGINT|BOOLEAN|DATETIME|DOUBLE|VARCHAR)(?:\((\d+)\))?( NOT)?")
_KEY = re.compile(r"^(UNIQUE|DUPLICATE) KEY \(([^)]*)\)", re.MULTILINE)
_INT64 = 1 << 63
_FILLERS: dict[str, Any] = {
    "BIGINT": 0,
    "BOOLEAN": False,
    "DATETIME": "1970-01-01 00:00:00",
    "DOUBLE": 0.0,
    "VARCHAR": "",
}
"""Values of columns that are not null, in rows that only name a key."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `length` of a VARCHAR is in bytes of UTF-8.

    So many `characters` of a text fit, whatever they are (-1: it is no text).
    """

    name: str
    type: str
    length: int
    nullable: bool
    is_key: bool
    characters: int

    @property
    def definition(self) -> str:
        """The column as ALTER TABLE ADD COLUMN takes it."""
        length = f"({self.length})" if self.length else ""
        return f"`{self.name}` {self.type}{length} {'NULL' if self.nullable else 'NOT NULL'}"


def _text(column: Column, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidMessage(f"{column.name} is not a text")
    encoded = value.encode()
    if len(encoded) <= column.length:
        return value
    if column.is_key:
        raise InvalidMessage(f"{column.name} is longer than {column.length} bytes")
    return encoded[: column.length].decode(errors="ignore")


def _integer(column: Column, value: Any) -> int:
    if type(value) is not int or not -_INT64 <= value < _INT64:
        raise InvalidMessage(f"{column.name} is not an integer of 64 bits")
    return value


def _number(column: Column, value: Any) -> float:
    if type(value) not in (int, float):
        raise InvalidMessage(f"{column.name} is not a number")
    return float(value)


def _boolean(column: Column, value: Any) -> bool:
    if type(value) is not bool:
        raise InvalidMessage(f"{column.name} is not true or false")
    return value


def _time(column: Column, value: Any) -> str | None:
    """Turn ISO 8601 into the time in UTC, without zone: what the columns hold."""
    if value == "" and column.nullable:
        return None
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None:
            time = time.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, TypeError, OverflowError) as e:
        raise InvalidMessage(f"{column.name} is not a time in ISO 8601") from e
    return time.isoformat(sep=" ", timespec="microseconds")


_FITTING: dict[str, Callable[[Column, Any], Any]] = {
    "BIGINT": _integer,
    "BOOLEAN": _boolean,
    "DATETIME": _time,
    "DOUBLE": _number,
    "VARCHAR": _text,
}


@dataclass(frozen=True, slots=True)
class Layout:
    """A table: its definition, its columns, and the unique key (empty: it has none)."""

    table: Table
    template: Template
    columns: tuple[Column, ...]
    unique_key: tuple[str, ...]

    def statement(self, **numbers: int) -> str:
        """CREATE TABLE IF NOT EXISTS, with the numbers that settings decide."""
        return self.template.substitute({name: str(n) for name, n in numbers.items()})

    def lines(self, rows: Iterable[bytes]) -> list[bytes]:
        """Give rows as Stream Load takes them, one JSON object to a line.

        Fields that the table does not have are left out. Of a unique key only the last row stays:
        within one load Doris does not say which of several it keeps.

        Raises
        ------
        InvalidMessage
            A row is not a JSON object, or does not fit the table.
        """
        by_key: dict[Any, bytes] = {}
        for number, row in enumerate(rows):
            try:
                values = self._fit(orjson.loads(row))
                line = orjson.dumps(values)
            except (ValueError, TypeError, InvalidMessage) as e:
                raise InvalidMessage(f"row {number} does not fit {self.table}: {e}") from e
            key = tuple([values[name] for name in self.unique_key]) if self.unique_key else number
            by_key[key] = line
        return list(by_key.values())

    def key_lines(self, keys: Iterable[Sequence[str]]) -> list[bytes]:
        """Rows that name keys to be deleted; what else may not be null is filled."""
        fillers = {c.name: _FILLERS[c.type] for c in self.columns if not c.nullable}
        lines = []
        for key in keys:
            named = dict(zip(self.unique_key, key, strict=True))
            lines.append(orjson.dumps(self._fit(fillers | named)))
        return lines

    def _fit(self, row: Any) -> dict[str, Any]:
        """Give a row as Doris takes it; text that is too long is cut, but never in a key."""
        if not isinstance(row, dict):
            raise InvalidMessage("it is not a JSON object")
        fitted: dict[str, Any] = {}
        for column in self.columns:
            value = row.get(column.name)
            if value is None:
                if not column.nullable:
                    raise InvalidMessage(f"{column.name} is missing")
                continue
            # Most are short texts: they take the short way.
            if type(value) is not str or len(value) > column.characters:
                value = _FITTING[column.type](column, value)
            if value is not None:
                fitted[column.name] = value
        return fitted


@cache
def layout(table: Table) -> Layout:
    """Describe a table, by its definition.

    Raises
    ------
    InvalidRequest
        The warehouse has no such table.
    """
    if table not in get_args(Table):
        raise InvalidRequest(f"no table of the warehouse: {table[:80]!r}")
    text = (_FOLDER / f"{table}.sql").read_text(encoding="utf-8")
    model = _KEY.search(text)
    assert model is not None, f"{table} has a key"
    key = tuple(re.findall(r"`(\w+)`", model[2]))
    columns = tuple(
        Column(
            name=m[1],
            type=m[2],
            length=int(m[3] or 0),
            nullable=not m[4],
            is_key=m[1] in key,
            characters=int(m[3]) // 4 if m[2] == "VARCHAR" else -1,
        )
        for m in map(_COLUMN.match, text.splitlines())
        if m
    )
    return Layout(table, Template(text), columns, key if model[1] == "UNIQUE" else ())


def layouts() -> Iterator[Layout]:
    """All tables."""
    return map(layout, get_args(Table))


def in_parts(lines: Sequence[bytes], most_bytes: int) -> list[bytes]:
    """Join lines to bodies of at most `most_bytes` (or of one line), always cut the same way."""
    parts: list[list[bytes]] = [[]]
    size = 0
    for line in lines:
        if parts[-1] and size + len(line) + 1 > most_bytes:
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += len(line) + 1
    return [b"\n".join(part) for part in parts if part]
