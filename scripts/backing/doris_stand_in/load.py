"""The body of a Stream Load: rows cut out of it, each fitted to the table or filtered."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import Any

import duckdb

from backing.doris_stand_in.load_headers import LoadOptions, Refused
from backing.doris_stand_in.partitions import place
from backing.doris_stand_in.schema import SEQUENCE, Column, Table
from backing.doris_stand_in.values import Unfit, fit


@dataclass(slots=True)
class Loaded:
    """What became of a body."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    total: int = 0
    unselected: int = 0
    errors: list[str] = field(default_factory=list)


def check_columns(table: Table, options: LoadOptions) -> None:
    """Check what the plan of a load checks: columns and the sequence column.

    Raises
    ------
    Refused
        A column that is to be computed is not there; one without value and default is missing.
    """
    for mapped in options.columns:
        if mapped.expression is not None and table.column(mapped.name) is None:
            raise _analysis(f"unknown column({mapped.name}) in table({table.name})")
    named = {m.name.lower() for m in options.columns}
    for column in table.columns:
        hidden = column.name == SEQUENCE
        optional = column.nullable or column.default is not None or hidden
        if named and not options.only and not optional and column.name.lower() not in named:
            raise _analysis(f"Column has no default value. column: {column.name}")
    _check_sequence(table, options, named)
    _check_partial(table, options)
    if options.merge != "APPEND" and not table.is_unique:
        text = "Batch delete only supported in unique tables."
        raise _analysis(text)


def _check_sequence(table: Table, options: LoadOptions, named: set[str]) -> None:
    if table.sequence == SEQUENCE and not options.sequence:
        raise _analysis(
            f"Table {table.name} has sequence column, need to specify the sequence column"
        )
    if table.sequence != SEQUENCE and options.sequence:
        raise _analysis(f"There is no sequence column in the table {table.name}")
    if options.sequence and named and options.sequence.lower() not in named:
        raise _analysis(f"There is no sequence column {options.sequence} in the columns")


def _check_partial(table: Table, options: LoadOptions) -> None:
    if options.mode == "UPSERT":
        return
    if table.properties.get("enable_unique_key_merge_on_write", "true") != "true" or (
        not table.is_unique
    ):
        raise _analysis("Only unique key merge on write support partial update")
    missing = [key for key in table.keys if options.only and key.lower() not in options.only]
    if missing:
        raise _analysis(f"Partial update should include all key columns, missing: {missing[0]}")


def _analysis(message: str) -> Refused:
    return Refused("ANALYSIS_ERROR", f"TStatus: errCode = 2, detailMessage = {message}")


def read(table: Table, options: LoadOptions, body: bytes, computed: "Computed") -> Loaded:
    """Cut a body into rows and fit each.

    Raises
    ------
    Refused
        The body cannot be read at all.
    """
    loaded = Loaded()
    for number, source in enumerate(_sources(options, table, body)):
        loaded.total += 1
        try:
            if isinstance(source, Unfit):
                raise source
            row = _fit_row(table, options, computed(source))
            if row is None:
                loaded.unselected += 1
            else:
                loaded.rows.append(row)
        except Unfit as e:
            loaded.errors.append(f"Reason: {e}. src line [{number}]; \n")
    return loaded


class Computed:
    """Columns that are computed from those of the source, and rows that are left out."""

    def __init__(self, options: LoadOptions, evaluate: Any = None) -> None:
        self._options = options
        self._evaluate = evaluate

    def __call__(self, source: dict[str, Any]) -> dict[str, Any] | None:
        """Give the row that is to be loaded; None if `where` leaves it out."""
        expressions = {m.name.lower(): m.expression for m in self._options.columns if m.expression}
        if not (expressions or self._options.where or self._options.merge == "MERGE"):
            return source
        if self._options.where:
            expressions["__where"] = self._options.where
        if self._options.merge == "MERGE":
            expressions["__delete"] = self._options.delete_on
        values: dict[str, Any] = self._evaluate(source, expressions)
        if "__where" in expressions and not values.pop("__where"):
            return None
        return {**source, **values}


def _fit_row(
    table: Table, options: LoadOptions, source: dict[str, Any] | None
) -> dict[str, Any] | None:
    if source is None:
        return None
    row: dict[str, Any] = {}
    for column in table.columns:
        name = options.sequence if column.name == SEQUENCE else column.name
        if name.lower() in source:
            value = source[name.lower()]
        else:
            value = _missing(column, named=bool(options.columns))
            if options.only:  # filled in from the row that is there
                row[column.name] = value
                continue
        row[column.name] = fit(column, value, strict=options.strict, here=options.here)
    place(table, row)
    if options.merge != "APPEND":
        row["__delete"] = options.merge == "DELETE" or bool(source.get("__delete"))
    return row


def _missing(column: Column, *, named: bool) -> str | None:
    if column.default is not None:
        return column.default
    if not column.nullable and not named:
        raise Unfit(f"The column `{column.name}` is not nullable, but it's not found in jsondata")
    return None


# ------------------------------------------------------------------ rows of a body


def _sources(options: LoadOptions, table: Table, body: bytes) -> Iterator["dict[str, Any] | Unfit"]:
    names = [m.name for m in options.columns if m.expression is None]
    names = names or [c.name for c in table.columns if c.name != SEQUENCE]
    if options.format == "parquet":
        yield from _parquet(body)
        return
    if options.format != "json":
        yield from _csv(options, names, body)
        return
    for value in _documents(options, body):
        if isinstance(value, Unfit):
            yield value
        else:
            yield _from_document(options, names, value)


def _parquet(body: bytes) -> Iterator[Any]:
    with TemporaryFile() as file, duckdb.connect() as connection:
        file.write(body)
        file.flush()
        try:
            path = f"/proc/self/fd/{file.fileno()}"
            cursor = connection.execute("SELECT * FROM read_parquet(?)", [path])
        except duckdb.Error as e:
            text = f"read parquet file failed: {str(e).splitlines()[0]}"
            raise Refused("INTERNAL_ERROR", text) from e
        names = [description[0].lower() for description in cursor.description or ()]
        for row in cursor.fetchall():
            yield dict(zip(names, row, strict=True))


def _csv(options: LoadOptions, names: Sequence[str], body: bytes) -> Iterator[Any]:
    text = body.decode(errors="replace")
    lines = text.removesuffix(options.line_delimiter).split(options.line_delimiter)
    skip = options.skip_lines + options.format.count("with_names") + options.format.count("types")
    for line in lines[skip:] if text else []:
        fields = line.split(options.separator)
        if len(fields) != len(names):
            what = "less" if len(fields) < len(names) else "more"
            yield Unfit(
                f"actual column number in csv file is {what} than schema column number."
                f"actual number: {len(fields)}, schema column number: {len(names)}"
            )
            continue
        values = [None if value == "\\N" else value for value in fields]
        yield {name.lower(): value for name, value in zip(names, values, strict=True)}


def _documents(options: LoadOptions, body: bytes) -> Iterator[Any]:
    for line in body.split(b"\n") if options.by_line else [body]:
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as e:
            yield Unfit(f"Parse json data failed. code: 3, error info: {e}")
            continue
        if options.json_root:
            value = _at(value, options.json_root)
        if options.strip_array:
            if not isinstance(value, list):
                yield Unfit("JSON data is not an array-object, `strip_outer_array` must be FALSE.")
            else:
                yield from value
        elif isinstance(value, list):
            yield Unfit("JSON data is an array-object, `strip_outer_array` must be TRUE.")
        else:
            yield value


def _from_document(options: LoadOptions, names: Sequence[str], value: Any) -> Any:
    if not isinstance(value, dict):
        return Unfit("Expect json object value")
    if options.jsonpaths:
        found = [_at(value, path) for path in options.jsonpaths]
        return {name.lower(): item for name, item in zip(names, found, strict=False)}
    wanted = {name.lower() for name in names}
    row = {name.lower(): item for name, item in value.items() if name.lower() in wanted}
    if all(item is None for item in row.values()):
        return Unfit("All fields is null, this is a invalid row.")
    return row


def _at(value: Any, path: str) -> Any:
    """Follow a path such as ``$.a.b[0]``."""
    for part in path.removeprefix("$").replace("[", ".[").split("."):
        if part.startswith("[") and isinstance(value, list):
            index = int(part[1:-1])
            value = value[index] if index < len(value) else None
        elif part:
            value = value.get(part) if isinstance(value, dict) else None
    return value
