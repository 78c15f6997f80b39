"""Ranges of a partitioned table: which one a row falls into, and those that are made on demand."""

import re
from datetime import date, datetime, timedelta
from typing import Any

from backing.doris_stand_in.schema import Partition, Table
from backing.doris_stand_in.values import Unfit


def place(table: Table, row: dict[str, Any]) -> None:
    """Find the partition of a row; an automatic one is made.

    Raises
    ------
    Unfit
        There is none.
    """
    if table.partition_by != "RANGE" or not table.partition_columns:
        return
    value = row[table.partition_columns[0]]
    if value is not None and any(_holds(p, str(value)) for p in table.partitions):
        return
    if table.is_auto_partition and value is not None:
        table.partitions.append(_automatic(str(value), table.partition_unit))
        return
    if value is None and any(p.lower is None for p in table.partitions):
        return
    raise Unfit(f"no partition for this tuple. tuple=({value})")


def _holds(partition: Partition, value: str) -> bool:
    key = _comparable(value)
    above = partition.lower is None or _comparable(partition.lower) <= key
    below = partition.upper in {None, "MAXVALUE"} or key < _comparable(str(partition.upper))
    return above and below


def _comparable(value: str) -> tuple[int, ...]:
    """Numbers of a date or of an integer, so that a date is the start of its day."""
    if re.fullmatch(r"-?\d+", value):
        return (int(value),)
    numbers = [int(n) for n in re.findall(r"\d+", value)]
    if len(numbers) == 7:
        numbers[6] = int(f"{re.findall(r'[0-9]+', value)[6]:<06}")
    return tuple(numbers + [0] * (7 - len(numbers)))


def _automatic(value: str, unit: str) -> Partition:
    day = date.fromisoformat(value[:10])
    hour = datetime.fromisoformat(value).hour if unit == "hour" else 0
    start = datetime(day.year, day.month, day.day, hour)  # noqa: DTZ001  # a column has no zone
    match unit:
        case "hour":
            end = start + timedelta(hours=1)
        case "day":
            end = start + timedelta(days=1)
        case "week":
            start -= timedelta(days=start.weekday())
            end = start + timedelta(weeks=1)
        case "month":
            start = start.replace(day=1)
            end = (start + timedelta(days=31)).replace(day=1)
        case "quarter":
            start = start.replace(day=1, month=start.month - (start.month - 1) % 3)
            end = (start + timedelta(days=93)).replace(day=1)
        case _:
            start = start.replace(day=1, month=1)
            end = start.replace(year=start.year + 1)
    short = 10 if len(value) == 10 else 19
    lower, upper = (str(moment)[:short] for moment in (start, end))
    return Partition(f"p{start:%Y%m%d%H%M%S}", lower, upper)
