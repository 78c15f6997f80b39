"""Expressions of Doris, run by the engine below."""

from collections.abc import Mapping
from typing import Any

import duckdb
import sqlglot

from backing.doris_stand_in.load_headers import Refused


def evaluate(source: Mapping[str, Any], expressions: Mapping[str, str]) -> dict[str, Any]:
    """Compute columns of a load from the columns of its source.

    Doris would read a text as a number where one is needed; here it has to be one (in JSON).

    Raises
    ------
    Refused
        An expression is not understood.
    """
    names = [name for name in source if not name.startswith("__")]
    columns = ", ".join(f'? AS "{name}"' for name in names)
    try:
        wanted = ", ".join(
            f'({sqlglot.transpile(text, read="doris", write="duckdb")[0]}) AS "{name}"'
            for name, text in expressions.items()
        )
        with duckdb.connect() as connection:
            values = [source[name] for name in names]
            row = connection.execute(f"SELECT {wanted} FROM (SELECT {columns})", values).fetchone()
    except (duckdb.Error, sqlglot.errors.SqlglotError) as e:
        message = str(e).splitlines()[0]
        raise Refused("ANALYSIS_ERROR", f"TStatus: errCode = 2, detailMessage = {message}") from e
    assert row is not None
    return dict(zip(expressions, row, strict=True))
