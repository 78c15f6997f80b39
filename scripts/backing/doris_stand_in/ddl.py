"""CREATE TABLE, read word by word: what is not known is refused, nothing is passed over."""

import re

from backing.doris_stand_in.checks import check
from backing.doris_stand_in.schema import Column, DorisError, Partition, Table
from backing.doris_stand_in.tokens import Reader

_PLAIN_TYPES = frozenset(
    [
        "BOOLEAN",
        "TINYINT",
        "SMALLINT",
        "INT",
        "BIGINT",
        "LARGEINT",
        "FLOAT",
        "DOUBLE",
        "DATE",
        "STRING",
        "JSON",
        "VARIANT",
    ]
)
_OTHER_NAMES = {
    "INTEGER": "INT",
    "TEXT": "STRING",
    "JSONB": "JSON",
    "DATEV2": "DATE",
    "DATETIMEV2": "DATETIME",
    "NUMERIC": "DECIMAL",
    "DECIMALV3": "DECIMAL",
}
_AGGREGATES = frozenset(
    ["SUM", "MIN", "MAX", "REPLACE", "REPLACE_IF_NOT_NULL", "HLL_UNION", "BITMAP_UNION"]
)
_INDEX_KINDS = frozenset({"INVERTED", "NGRAM_BF", "BITMAP"})


def create_table(reader: Reader, name: str, *, backends: int) -> Table:
    """Read a definition from its opening parenthesis, and check it.

    Raises
    ------
    DorisError
        Doris would refuse it.
    """
    table = Table(name, [])
    reader.expect("(")
    while True:
        if reader.comes("INDEX"):
            _index(reader, table)
        else:
            table.columns.append(_column(reader))
        if not reader.comes(","):
            break
    reader.expect(")")
    if reader.comes("ENGINE", "="):
        engine = reader.name()
        if engine.lower() != "olap":
            raise _refusal(f"Unknown table engine '{engine}'")
    _keys(reader, table)
    if reader.comes("COMMENT"):
        table.comment = reader.text()
    _partitions(reader, table)
    _distribution(reader, table)
    if reader.comes("PROPERTIES"):
        table.properties = reader.pairs()
    reader.end()
    check(table, backends=backends)
    return table


def one_column(reader: Reader) -> Column:
    """Read the definition of one column."""
    return _column(reader)


def _refusal(message: str) -> DorisError:
    return DorisError(f"errCode = 2, detailMessage = {message}")


def _column(reader: Reader) -> Column:
    column = Column(reader.name(), "")
    _type(reader, column)
    column.is_key = reader.comes("KEY")
    if reader.next.value.upper() in _AGGREGATES and reader.next.kind == "word":
        raise _refusal("the stand-in knows no aggregate tables")
    if reader.comes("NOT", "NULL"):
        column.nullable = False
    else:
        reader.comes("NULL")
    if reader.comes("AUTO_INCREMENT"):
        raise _refusal("the stand-in knows no AUTO_INCREMENT")
    if reader.comes("DEFAULT"):
        column.default = _default(reader)
    if reader.comes("COMMENT"):
        column.comment = reader.text()
    return column


def _default(reader: Reader) -> str | None:
    if reader.comes("NULL"):
        return None
    if reader.next.kind == "text":
        return reader.text()
    if reader.next.kind == "number":
        return reader.take().value
    if reader.comes("CURRENT_TIMESTAMP"):
        raise _refusal("the stand-in knows no DEFAULT CURRENT_TIMESTAMP")
    if reader.comes("TRUE") or reader.comes("FALSE"):
        raise reader.unexpected("expecting a literal")
    raise reader.unexpected(
        "expecting {'NULL', 'CURRENT_TIMESTAMP', INTEGER_VALUE, STRING_LITERAL}"
    )


def _type(reader: Reader, column: Column) -> None:
    written = reader.name().upper()
    kind = _OTHER_NAMES.get(written, written)
    numbers = []
    if reader.comes("("):
        numbers.append(reader.number())
        if reader.comes(","):
            numbers.append(reader.number())
        reader.expect(")")
    column.type = kind
    if kind in {"VARCHAR", "CHAR"}:
        _length(column, numbers)
    elif kind == "DECIMAL":
        column.length, column.scale = (
            (*numbers, *[38, 9][len(numbers) :])[:2] if numbers else (38, 9)
        )
        if len(numbers) == 1:
            column.scale = 0
        if not 1 <= column.length <= 38 or column.scale > column.length:
            raise _refusal("DECIMAL precision must be between 1 and 38")
    elif kind == "DATETIME":
        column.length = numbers[0] if numbers else 0
        if column.length > 6:
            raise _refusal("Scale of Datetime/Time must between 0 and 6. Scale was set to: 7")
    elif kind not in _PLAIN_TYPES:
        raise _refusal(f"the stand-in knows no type {written}")


def _length(column: Column, numbers: list[int]) -> None:
    limit = 255 if column.type == "CHAR" else 65533
    if not numbers:
        raise _refusal(f"{column.type} of column {column.name} needs a length here")
    column.length = numbers[0]
    if column.length <= 0:
        raise _refusal(f"{column.type} size must be > 0: {column.length}")
    if column.length > limit:
        raise _refusal(f"{column.type} size must be <= {limit}: {column.length}")


def _index(reader: Reader, table: Table) -> None:
    if reader.comes("IF", "NOT", "EXISTS"):
        pass
    name, columns = reader.name(), reader.names()
    kind = "INVERTED"
    if reader.comes("USING"):
        kind = reader.name().upper()
        if kind not in _INDEX_KINDS:
            raise reader.unexpected("expecting {'ANN', 'BITMAP', 'INVERTED', 'NGRAM_BF'}")
    properties = reader.pairs() if reader.comes("PROPERTIES") else {}
    comment = reader.text() if reader.comes("COMMENT") else ""
    shown = ", ".join(f"`{c}`" for c in columns)
    text = f"INDEX {name} ({shown}) USING {kind}"
    if properties:
        text += " PROPERTIES(" + ", ".join(f'"{k}" = "{v}"' for k, v in properties.items()) + ")"
    table.indexes.append(text + (f" COMMENT '{comment}'" if comment else ""))


def _keys(reader: Reader, table: Table) -> None:
    for kind in ("UNIQUE", "DUPLICATE", "AGGREGATE"):
        if reader.comes(kind, "KEY"):
            if kind == "AGGREGATE":
                raise _refusal("the stand-in knows no aggregate tables")
            table.keys_type, table.keys = kind, reader.names()
    if reader.comes("CLUSTER", "BY"):
        raise _refusal("the stand-in knows no cluster keys")


def _partitions(reader: Reader, table: Table) -> None:
    table.is_auto_partition = reader.comes("AUTO")
    if not reader.comes("PARTITION", "BY"):
        if table.is_auto_partition:
            raise reader.unexpected("expecting 'PARTITION'")
        return
    table.partition_by = "LIST" if reader.comes("LIST") else "RANGE"
    if table.partition_by == "RANGE":
        reader.comes("RANGE")
    if table.partition_by == "LIST":
        raise _refusal("the stand-in knows no list partitions")
    reader.expect("(")
    if reader.comes("DATE_TRUNC", "("):
        table.partition_columns = [reader.name()]
        reader.expect(",")
        table.partition_unit = reader.text().lower()
        reader.expect(")")
    else:
        table.partition_columns = [reader.name()]
    if reader.comes(","):
        raise _refusal("the stand-in partitions by one column")
    reader.expect(")", "(")
    while not reader.comes(")"):
        table.partitions.extend(_partition(reader, table.partitions))
        reader.comes(",")


def _partition(reader: Reader, before: list[Partition]) -> list[Partition]:
    if reader.comes("FROM"):
        raise _refusal("the stand-in knows no FROM … TO … INTERVAL")
    reader.expect("PARTITION")
    reader.comes("IF", "NOT", "EXISTS")
    name = reader.name()
    reader.expect("VALUES")
    if reader.comes("LESS", "THAN"):
        lower = before[-1].upper if before else None
        if reader.comes("MAXVALUE") or reader.comes("(", "MAXVALUE", ")"):
            return [Partition(name, lower, "MAXVALUE")]
        return [Partition(name, lower, _bound(reader))]
    reader.expect("[")
    lower = _bound(reader)
    reader.expect(",")
    upper = _bound(reader)
    reader.expect(")")
    return [Partition(name, lower, upper)]


def _bound(reader: Reader) -> str:
    reader.expect("(")
    value = reader.take().value
    reader.expect(")")
    if not re.fullmatch(r"[-:. \d]+|MAXVALUE", value):
        raise _refusal(f"Invalid partition value: {value}")
    return value


def _distribution(reader: Reader, table: Table) -> None:
    if not reader.comes("DISTRIBUTED", "BY"):
        raise _refusal("Create olap table should contain distribution desc")
    if reader.comes("RANDOM"):
        if table.is_unique:
            raise _refusal("Create unique keys table should not contain random distribution desc")
    else:
        reader.expect("HASH")
        table.distributed_by = reader.names()
    if reader.comes("BUCKETS"):
        if not reader.comes("AUTO"):
            table.buckets = str(reader.number())
            if table.buckets == "0":
                raise _refusal("Number of hash distribution should be greater than zero.")
    else:
        table.buckets = "10"
