"""What Doris refuses in a definition of a table that can be read."""

import re

from backing.doris_stand_in.naming import is_column, is_database, is_table
from backing.doris_stand_in.schema import SEQUENCE, Column, DorisError, Table

_NO_KEY = frozenset({"STRING", "FLOAT", "DOUBLE", "JSON", "VARIANT"})
_UNITS = frozenset({"year", "quarter", "month", "week", "day", "hour"})
_RANGE_TYPES = frozenset({"DATE", "DATETIME", "TINYINT", "SMALLINT", "INT", "BIGINT", "LARGEINT"})
_PROPERTIES = frozenset(
    [
        "replication_num",
        "replication_allocation",
        "storage_medium",
        "storage_cooldown_time",
        "storage_policy",
        "colocate_with",
        "bloom_filter_columns",
        "in_memory",
        "compression",
        "enable_unique_key_merge_on_write",
        "light_schema_change",
        "store_row_column",
        "row_store_columns",
        "row_store_page_size",
        "function_column.sequence_col",
        "function_column.sequence_type",
        "disable_auto_compaction",
        "enable_single_replica_compaction",
        "enable_mow_light_delete",
        "compaction_policy",
        "estimate_partition_size",
        "skip_write_index_on_load",
        "min_load_replica_num",
        "is_being_synced",
        "group_commit_interval_ms",
        "group_commit_data_bytes",
        "inverted_index_storage_format",
        "storage_page_size",
        "enable_duplicate_without_keys_by_default",
        "file_cache_ttl_seconds",
        "partition.retention_count",
        "time_series_compaction_goal_size_mbytes",
        "time_series_compaction_file_count_threshold",
        "time_series_compaction_time_threshold_seconds",
        "time_series_compaction_level_threshold",
        "time_series_compaction_empty_rowsets_threshold",
        "binlog.enable",
        "binlog.ttl_seconds",
        "binlog.max_bytes",
        "binlog.max_history_nums",
        "dynamic_partition.enable",
        "dynamic_partition.time_unit",
        "dynamic_partition.time_zone",
        "dynamic_partition.start",
        "dynamic_partition.end",
        "dynamic_partition.prefix",
        "dynamic_partition.buckets",
        "dynamic_partition.replication_num",
        "dynamic_partition.replication_allocation",
        "dynamic_partition.start_day_of_week",
        "dynamic_partition.start_day_of_month",
        "dynamic_partition.create_history_partition",
        "dynamic_partition.history_partition_num",
        "dynamic_partition.hot_partition_num",
        "dynamic_partition.reserved_history_periods",
        "dynamic_partition.storage_medium",
    ]
)
_INVERTED = frozenset(
    [
        "parser",
        "parser_mode",
        "support_phrase",
        "ignore_above",
        "lower_case",
        "char_filter_type",
        "char_filter_pattern",
        "char_filter_replacement",
        "stopwords",
        "dict_compression",
        "built_in_analyzer",
        "analyzer",
        "normalizer",
    ]
)
_INVERTED_COLUMN = re.compile(r"INDEX (\S+) \((.*)\) USING (\w+)(?: PROPERTIES\((.*?)\))?")
_DEFAULT_REPLICAS = 3


def check(table: Table, *, backends: int) -> None:
    """Check a definition and complete it: keys, hidden columns.

    Raises
    ------
    DorisError
        Doris would refuse it.
    """
    _names(table)
    _keys(table)
    _partitions(table)
    _buckets(table)
    _properties(table, backends)
    _indexes(table)


def refusal(message: str) -> DorisError:
    """Word a refusal of a definition."""
    return DorisError(f"errCode = 2, detailMessage = {message}")


def _names(table: Table) -> None:
    if not is_table(table.name):
        text = (
            f"Incorrect table name '{table.name}'. Table name regex is '^[a-zA-Z][a-zA-Z0-9-_]*$'"
        )
        raise DorisError(f"errCode = 2, detailMessage = {text}", 1103)
    seen = set()
    for column in table.columns:
        if not is_column(column.name):
            raise DorisError(
                f"errCode = 2, detailMessage = Incorrect column name '{column.name}'", 1166
            )
        if column.name.lower() in seen:
            raise DorisError(
                f"errCode = 2, detailMessage = Duplicate column name '{column.name}'", 1060
            )
        seen.add(column.name.lower())


def _keys(table: Table) -> None:
    flagged = [c.name for c in table.columns if c.is_key]
    if not table.keys and flagged:
        raise refusal("the stand-in wants the key columns in one clause")
    if not table.keys:
        table.keys = _short_key(table)
    for number, name in enumerate(table.keys):
        column = table.column(name)
        if column is None:
            raise refusal(
                f"Key columns should be a ordered prefix of the schema. unknown column[{name}]"
            )
        if number >= len(table.columns) or table.columns[number] is not column:
            raise refusal(
                "Key columns should be a ordered prefix of the schema. "
                f"KeyColumns[{number}] (starts from zero) is {name}, but corresponding column is "
                f"{table.columns[number].name} in the previous columns declaration."
            )
        _key_column(column)
    if len(table.keys) == len(table.columns) and table.is_unique and table.sequence:
        raise refusal("The sequence column must not be a key")


def _short_key(table: Table) -> list[str]:
    """Without a clause the first columns are the key, up to three, as far as they may."""
    names = []
    for column in table.columns[:3]:
        if column.type in _NO_KEY:
            break
        names.append(column.name)
        if column.type == "VARCHAR":
            break
    if not names:
        raise refusal("The olap table first column could not be float, double, string or array")
    return names


def _key_column(column: Column) -> None:
    column.is_key = True
    if column.type in {"FLOAT", "DOUBLE"}:
        raise refusal("Float or double can not used as a key, use decimal instead.")
    if column.type in _NO_KEY:
        kind = column.type.capitalize()
        raise refusal(f"{kind} Type should not be used in key column[{column.name}].")


def _partitions(table: Table) -> None:
    seen = set()
    for partition in table.partitions:
        if not is_database(partition.name):
            raise refusal(f"Incorrect partition name '{partition.name}'")
        if partition.name in seen:
            raise refusal(f"Duplicated partition name: {partition.name}")
        seen.add(partition.name)
    for name in table.partition_columns:
        column = table.column(name)
        if column is None:
            raise refusal(f"partition key {name} is not exists")
        if table.is_unique and not column.is_key:
            raise refusal("The partition column must be key column in unique table")
        if column.type not in _RANGE_TYPES:
            raise refusal(f"Column[{name}] type[{column.type}] cannot be a range partition key.")
        _automatic(table, column)


def _automatic(table: Table, column: Column) -> None:
    if not table.is_auto_partition:
        if table.partition_unit:
            raise refusal("only Auto Range Partition support FunctionCallExpr")
        return
    if not table.partition_unit:
        raise refusal("auto create partition need a function expr, like date_trunc")
    if table.partition_unit not in _UNITS:
        raise refusal(f"date_trunc function second param only support argument is {sorted(_UNITS)}")
    if column.type not in {"DATE", "DATETIME"}:
        raise refusal("auto range partition only support date/datetime column")
    if column.nullable:
        raise refusal("AUTO RANGE PARTITION doesn't support NULL column")


def _buckets(table: Table) -> None:
    if len({n.lower() for n in table.distributed_by}) != len(table.distributed_by):
        raise refusal("Duplicated distribution column")
    for name in table.distributed_by:
        column = table.column(name)
        if column is None:
            raise refusal(f"Distribution column({name}) doesn't exist.")
        if column.type in _NO_KEY:
            raise refusal(f"{column.type} type should not be used in distribution column[{name}].")
        if table.is_unique and not column.is_key:
            raise refusal("Distribution column[" + name + "] is not key column")


def _properties(table: Table, backends: int) -> None:
    given = table.properties
    if unknown := {k: v for k, v in given.items() if k not in _PROPERTIES}:
        raise refusal(
            "Unknown properties: {" + ", ".join(f"{k}={v}" for k, v in unknown.items()) + "}"
        )
    _replicas(given, backends)
    for name in ("enable_unique_key_merge_on_write", "light_schema_change", "store_row_column"):
        if given.get(name, "true").lower() not in {"true", "false"}:
            raise refusal(f"{name} must be `true` or `false`")
    if "enable_unique_key_merge_on_write" in given and not table.is_unique:
        raise refusal("enable_unique_key_merge_on_write is only supported in unique tables")
    for name in filter(None, given.get("bloom_filter_columns", "").split(",")):
        column = table.column(name.strip())
        if column is None:
            raise refusal(
                f"Bloom filter column does not exist in table. invalid column: {name.strip()}"
            )
        if column.type in {"TINYINT", "FLOAT", "DOUBLE", "BOOLEAN", "JSON", "VARIANT"}:
            raise refusal(
                f"{column.type} is not supported in bloom filter index. "
                f"invalid column: {name.strip()}"
            )
    _dynamic(table)
    _sequence(table)


def _replicas(given: dict[str, str], backends: int) -> None:
    wanted = given.get("replication_num", str(_DEFAULT_REPLICAS))
    if allocation := given.get("replication_allocation"):
        wanted = allocation.rpartition(":")[2].strip()
    if not wanted.isdigit() or int(wanted) < 1:
        raise refusal("Replication num should larger than 0")
    if int(wanted) > backends:
        raise refusal(
            "Failed to find enough backend, please check the replication num,replication tag and "
            "storage medium and avail capacity of backends or maybe all be on same host.\n"
            'Create failed replications:\nreplication tag: {"location" : "default"}, '
            f"replication num: {wanted}, storage medium: HDD"
        )


def _dynamic(table: Table) -> None:
    given = {k: v for k, v in table.properties.items() if k.startswith("dynamic_partition.")}
    if not given:
        return
    if not table.partition_columns:
        raise refusal("Only support dynamic partition properties on range partition table")
    if given.get("dynamic_partition.enable", "true").lower() != "true":
        return
    if table.is_auto_partition:
        raise refusal(
            "If support auto partition and dynamic partition at same time, "
            "they must have the same interval unit."
        )
    for name in ("time_unit", "end", "prefix"):
        if f"dynamic_partition.{name}" not in given:
            raise refusal(f"Must assign dynamic_partition.{name} properties")


def _sequence(table: Table) -> None:
    given = table.properties
    kinds = [k for k in given if k.startswith("function_column.sequence_")]
    if not kinds:
        return
    if not table.is_unique:
        raise refusal("sequence column only support UNIQUE_KEYS")
    if len(kinds) == 2:
        raise refusal("sequence_col and sequence_type cannot be set at the same time")
    if named := given.get("function_column.sequence_col"):
        column = table.column(named)
        if column is None:
            raise refusal(f"The specified sequence column[{named}] not exists")
        kind = column.type
    else:
        kind = given["function_column.sequence_type"].upper()
        table.columns.append(Column(SEQUENCE, kind, length=6 if kind == "DATETIME" else 0))
    if kind not in _RANGE_TYPES:
        raise refusal("Sequence type only support integer types and date types")


def _indexes(table: Table) -> None:
    seen: set[str] = set()
    for text in table.indexes:
        found = _INVERTED_COLUMN.match(text)
        assert found is not None, text
        name, columns, kind, properties = found.groups()
        if name.lower() in seen:
            raise refusal(f"index name:`{name}` duplicated")
        seen.add(name.lower())
        column = table.column(columns.strip("`"))
        if "," in columns:
            raise refusal(f"{kind} index can only apply to a single column")
        if column is None:
            raise refusal(f"BITMAP column does not exist in table. invalid column: {columns}")
        if column.type in {"FLOAT", "DOUBLE"}:
            raise refusal(f"{column.type} is not supported in {kind} index. invalid index: {name}")
        if kind == "INVERTED":
            _inverted(table, column, properties or "")


def _inverted(table: Table, column: Column, properties: str) -> None:
    merged_late = table.properties.get("enable_unique_key_merge_on_write") == "false"
    if table.is_unique and merged_late and not column.is_key:
        raise refusal(
            "INVERTED index only used in columns of DUP_KEYS table or UNIQUE_KEYS table with "
            "merge_on_write enabled or key columns of AGG_KEYS table. "
            f"invalid column: {column.name}"
        )
    given = dict(re.findall(r'"([^"]*)" = "([^"]*)"', properties))
    if unknown := set(given) - _INVERTED:
        raise refusal(f"Invalid inverted index property key: {min(unknown)}")
    parser = given.get("parser", "none")
    if parser not in {"none", "english", "unicode", "chinese", "icu", "basic", "standard"}:
        raise refusal(f"INVERTED index parser: {parser} is invalid for column: {column.name}")
    if parser != "none" and column.type not in {"VARCHAR", "CHAR", "STRING", "VARIANT"}:
        raise refusal(
            f"INVERTED index with parser: {parser} is not supported for column: {column.name}"
        )
