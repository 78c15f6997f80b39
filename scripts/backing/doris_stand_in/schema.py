"""What is known of a table, and how its types are kept by the engine below."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

INTEGERS = {
    "TINYINT": (-(1 << 7), (1 << 7) - 1),
    "SMALLINT": (-(1 << 15), (1 << 15) - 1),
    "INT": (-(1 << 31), (1 << 31) - 1),
    "BIGINT": (-(1 << 63), (1 << 63) - 1),
    "LARGEINT": (-(1 << 127), (1 << 127) - 1),
}
"""Least and greatest value of each integer type."""

_BELOW = {
    "BOOLEAN": "BOOLEAN",
    "TINYINT": "TINYINT",
    "SMALLINT": "SMALLINT",
    "INT": "INTEGER",
    "BIGINT": "BIGINT",
    "LARGEINT": "HUGEINT",
    "FLOAT": "FLOAT",
    "DOUBLE": "DOUBLE",
    "DATE": "DATE",
    "DATETIME": "TIMESTAMP",
}
SEQUENCE = "__DORIS_SEQUENCE_COL__"
"""Hidden column of tables with `function_column.sequence_type`."""


@dataclass(slots=True)
class Column:
    """A column; `length` is that of VARCHAR and CHAR, or precision; `scale` the decimals."""

    name: str
    type: str
    length: int = 0
    scale: int = 0
    nullable: bool = True
    default: str | None = None
    comment: str = ""
    is_key: bool = False

    @property
    def shown_type(self) -> str:
        """The type as DESC shows it."""
        if self.type in {"VARCHAR", "CHAR"}:
            return f"{self.type.lower()}({self.length})"
        if self.type == "DECIMAL":
            return f"decimal({self.length},{self.scale})"
        if self.type == "DATETIME" and self.length:
            return f"datetime({self.length})"
        return {"STRING": "text"}.get(self.type, self.type.lower())

    @property
    def type_below(self) -> str:
        """The type of DuckDB that keeps it."""
        if self.type == "DECIMAL":
            return f"DECIMAL({self.length},{self.scale})"
        return _BELOW.get(self.type, "VARCHAR")


@dataclass(slots=True)
class Partition:
    """A partition of a range: values from `lower` (None: from the beginning) below `upper`."""

    name: str
    lower: str | None
    upper: str | None


@dataclass(slots=True)
class Table:
    """A table as it was defined."""

    name: str
    columns: list[Column]
    keys_type: str = "DUPLICATE"
    keys: list[str] = field(default_factory=list)
    partition_by: str = ""
    partition_columns: list[str] = field(default_factory=list)
    partition_unit: str = ""
    is_auto_partition: bool = False
    partitions: list[Partition] = field(default_factory=list)
    distributed_by: list[str] = field(default_factory=list)
    buckets: str = "AUTO"
    indexes: list[str] = field(default_factory=list)
    properties: dict[str, str] = field(default_factory=dict)
    comment: str = ""

    @property
    def is_unique(self) -> bool:
        """Whether the last row of a key replaces the ones before."""
        return self.keys_type == "UNIQUE"

    @property
    def sequence(self) -> str | None:
        """The column that decides which row of a key is the last; None: the order of loading."""
        if "function_column.sequence_type" in self.properties:
            return SEQUENCE
        return self.properties.get("function_column.sequence_col")

    def column(self, name: str) -> Column | None:
        """Find a column, whatever the case of its letters."""
        return next((c for c in self.columns if c.name.lower() == name.lower()), None)

    def to_json(self) -> str:
        """Give a text that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Table":
        """Read what `to_json` gave."""
        value: dict[str, Any] = json.loads(text)
        value["columns"] = [Column(**c) for c in value["columns"]]
        value["partitions"] = [Partition(**p) for p in value["partitions"]]
        return cls(**value)


class DorisError(Exception):
    """A refusal as Doris words it, with the error number of MySQL."""

    def __init__(self, message: str, code: int = 1105) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
