"""A value on its way into a column: converted, or NULL, or refused, as a load does it."""

import json
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from backing.doris_stand_in.schema import INTEGERS, Column

STRING_LIMIT = 1_048_576
"""Bytes that a STRING may have (`string_type_length_soft_limit_bytes`)."""

_INTEGER = re.compile(r"\s*([+-]?\d+)(\.\d*)?\s*")
_DATETIME = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[ T](\d{1,2}):(\d{1,2})(?::(\d{1,2})(\.\d+)?)?)?"
    r"\s*(Z|[+-]\d{2}:?\d{2})?"
)
_DIGITS = re.compile(r"(\d{4})(\d{2})(\d{2})(?:(\d{2})(\d{2})(\d{2}))?")
_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}


class Unfit(Exception):
    """A value that its column refuses whatever the mode; its row is filtered."""


def zone(name: str) -> tzinfo:
    """Find a time zone by its name, or by its distance from UTC (``+08:00``).

    Raises
    ------
    ValueError
        There is none of that name.
    """
    if found := re.fullmatch(r"([+-])(\d{1,2}):(\d{2})", name):
        sign = -1 if found[1] == "-" else 1
        return timezone(sign * timedelta(hours=int(found[2]), minutes=int(found[3])))
    try:
        return ZoneInfo(name)
    except Exception as e:
        raise ValueError(name) from e


def text_of(value: Any) -> str | None:
    """Give a value of JSON as the text that is converted; None is NULL."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return str(value)


def fit(column: Column, value: Any, *, strict: bool, here: tzinfo) -> Any:
    """Convert a value for a column.

    Parameters
    ----------
    column
        Where it goes.
    value
        As JSON or a CSV field gives it; None is NULL.
    strict
        A value that cannot be converted filters its row; otherwise it becomes NULL.
    here
        Time zone of the load.

    Raises
    ------
    Unfit
        The row is to be filtered, for this reason.
    """
    text = text_of(value)
    converted = None if text is None else _CONVERT.get(column.type, _as_text)(column, text, here)
    if converted is None:
        if text is not None and strict:
            raise Unfit(
                f"column({column.name}) value is incorrect while strict mode is true, "
                f"src value is {text[:200]}"
            )
        if not column.nullable:
            raise Unfit(
                f"column_name[{column.name}], null value for not null column, "
                f"type={column.type_below}"
            )
    return converted


def _as_text(column: Column, text: str, _here: tzinfo) -> str:
    size = len(text.encode(errors="surrogatepass"))
    limit = STRING_LIMIT if column.type == "STRING" else column.length
    if size > limit:
        raise Unfit(
            "the length of input is too long than schema. "
            f"column_name: {column.name}; input str: [{text[:80]}] schema length: {limit}; "
            f"limit length: {STRING_LIMIT}; actual length: {size}; "
        )
    if "\ud800" <= max(text, default="") <= "\udfff":
        raise Unfit(f"column_name[{column.name}], no valid UTF-8")
    return text


def _as_json(_column: Column, text: str, _here: tzinfo) -> str | None:
    try:
        json.loads(text)
    except ValueError:
        return None
    return text


def _as_integer(column: Column, text: str, _here: tzinfo) -> int | str | None:
    found = _INTEGER.fullmatch(text)
    if found is None:
        return None
    least, greatest = INTEGERS[column.type]
    number = int(found[1])
    if not least <= number <= greatest:
        return None
    return str(number) if column.type == "LARGEINT" else number


def _as_float(_column: Column, text: str, _here: tzinfo) -> float | str | None:
    try:
        number = float(text)
    except ValueError:
        return None
    finite = number == number and abs(number) != float("inf")  # noqa: PLR0124  # NaN
    return number if finite else str(number)


def _as_decimal(column: Column, text: str, _here: tzinfo) -> str | None:
    try:
        number = Decimal(text.strip())
        rounded = number.quantize(Decimal(1).scaleb(-column.scale), rounding="ROUND_HALF_UP")
    except InvalidOperation:
        return None
    if rounded.adjusted() >= column.length - column.scale and rounded != 0:
        raise Unfit(
            f"decimal value is not valid for definition, column={column.name}, value={text}, "
            f"precision={column.length}, scale={column.scale}"
        )
    return str(rounded)


def _as_boolean(_column: Column, text: str, _here: tzinfo) -> bool | None:
    return _BOOLEANS.get(text.strip().lower())


def _moment(text: str, here: tzinfo) -> datetime | None:
    found = _DATETIME.fullmatch(text.strip())
    digits = None if found else _DIGITS.fullmatch(text.strip())
    parts = (found or digits).groups() if found or digits else None  # type: ignore[union-attr]
    if parts is None:
        return None
    try:
        moment = datetime(*[int(p or 0) for p in parts[:6]])  # type: ignore[arg-type]  # noqa: DTZ001
    except ValueError:
        return None
    if found is None:
        return moment
    moment += timedelta(microseconds=round(float(found[7] or 0) * 1_000_000))
    if found[8] is None:
        return moment
    offset = "+00:00" if found[8] == "Z" else f"{found[8][:3]}:{found[8][-2:]}"
    return moment.replace(tzinfo=zone(offset)).astimezone(here).replace(tzinfo=None)


def _as_datetime(column: Column, text: str, here: tzinfo) -> str | None:
    moment = _moment(text, here)
    if moment is None:
        return None
    unit = 10 ** (6 - column.length)
    over = moment.microsecond % unit
    moment += timedelta(microseconds=unit - over if over * 2 >= unit > 1 else -over)
    return moment.isoformat(" ", "microseconds")


def _as_date(_column: Column, text: str, here: tzinfo) -> str | None:
    moment = _moment(text, here)
    return None if moment is None else date.isoformat(moment)


_CONVERT: dict[str, Callable[[Column, str, tzinfo], Any]] = {
    **dict.fromkeys(INTEGERS, _as_integer),
    "FLOAT": _as_float,
    "DOUBLE": _as_float,
    "DECIMAL": _as_decimal,
    "BOOLEAN": _as_boolean,
    "DATETIME": _as_datetime,
    "DATE": _as_date,
    "JSON": _as_json,
    "VARIANT": _as_json,
}
