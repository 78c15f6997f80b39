"""The headers of a Stream Load, checked in the order in which a BE checks them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo

from backing.doris_stand_in.values import zone

CSV_LIMIT_MB = 10240
"""`streaming_load_max_mb` of a BE."""

JSON_LIMIT_MB = 100
"""`streaming_load_json_max_mb` of a BE: of a body that is read as a whole, not by line."""

LONGEST_S = 259_200
"""`max_stream_load_timeout_second` of an FE, and how long a load may take that does not say."""

SERVER_ZONE = "Asia/Shanghai"
"""Time zone of a load that names none, as a server has it unless somebody sets it."""

_FORMATS = {"csv", "json", "parquet", "csv_with_names", "csv_with_names_and_types"}
_MODES = {"UPSERT", "UPDATE_FIXED_COLUMNS", "UPDATE_FLEXIBLE_COLUMNS"}


class Refused(Exception):
    """A load that fails as a whole; `status` is the name of the BE's error code."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(f"[{status}]{message}")


@dataclass(slots=True)
class Mapped:
    """An entry of `columns`: a name of the source, or a column computed from them."""

    name: str
    expression: str | None = None


@dataclass(slots=True)
class LoadOptions:
    """What the headers of a load ask for."""

    format: str
    by_line: bool
    strip_array: bool
    here: tzinfo
    columns: list[Mapped] = field(default_factory=list)
    jsonpaths: list[str] = field(default_factory=list)
    json_root: str = ""
    where: str = ""
    strict: bool = False
    max_filter_ratio: float = 0.0
    two_phase: bool = False
    merge: str = "APPEND"
    delete_on: str = ""
    sequence: str = ""
    mode: str = "UPSERT"
    """`unique_key_update_mode`; `partial_columns` is UPDATE_FIXED_COLUMNS."""

    separator: str = "\t"
    line_delimiter: str = "\n"
    skip_lines: int = 0
    timeout_s: int = LONGEST_S
    late: bool = False
    """Not from a header: whether it is to be seen later only."""

    @property
    def only(self) -> list[str]:
        """The columns that a partial update touches; none if it is no partial update."""
        return [m.name.lower() for m in self.columns] if self.mode != "UPSERT" else []


def check_head(headers: Mapping[str, str]) -> None:
    """Check what is checked before the transaction begins.

    Raises
    ------
    Refused
        Format, size or framing of the body.
    """
    wanted = headers.get("format", "")
    compression = headers.get("compress_type", "")
    if (wanted or "csv").lower() not in _FORMATS or (compression and wanted.lower() == "json"):
        raise Refused("DATA_FILE_TYPE_ERROR", f"unknown data format, format={wanted}")
    if compression:
        raise Refused("NOT_IMPLEMENTED_ERROR", "the stand-in reads no compressed bodies")
    length = headers.get("content-length", "")
    chunked = "chunked" in headers.get("transfer-encoding", "")
    if length and not length.isdigit():
        raise Refused("INVALID_ARGUMENT", f"invalid HTTP header CONTENT_LENGTH={length}: stol")
    whole = wanted.lower() == "json" and headers.get("read_json_by_line", "").lower() != "true"
    name, limit = ("streaming_load_max_mb", CSV_LIMIT_MB)
    if whole:
        name, limit = ("streaming_load_json_max_mb", JSON_LIMIT_MB)
    if int(length or 0) > limit << 20:
        raise Refused(
            "EXCEEDED_LIMIT",
            f"{'json ' if whole else ''}body size {length} exceed BE's conf `{name}` "
            f"{limit << 20}. increase it if you are sure this load is reasonable",
        )
    if not length and not chunked:
        raise Refused(
            "INVALID_ARGUMENT",
            "content_length is empty and transfer-encoding!=chunked, please set content_length "
            "or transfer-encoding=chunked",
        )
    if length and chunked:
        raise Refused("INVALID_ARGUMENT", "please do not set both content_length and chunked")
    if headers.get("timeout") and not 1 <= _integer(headers, "timeout") <= LONGEST_S:
        text = f"Invalid timeout. Timeout should between 1 and {LONGEST_S} seconds"
        raise Refused("ANALYSIS_ERROR", f"TStatus: errCode = 2, detailMessage = {text}")


def options(headers: Mapping[str, str]) -> LoadOptions:
    """Check the rest.

    Raises
    ------
    Refused
        A header has a value that it may not have.
    """
    lines, array = headers.get("read_json_by_line", ""), headers.get("strip_outer_array", "")
    try:
        here = zone(headers.get("timezone") or headers.get("time_zone") or SERVER_ZONE)
        ratio = float(headers.get("max_filter_ratio") or 0)
    except ValueError as e:
        raise Refused("INVALID_ARGUMENT", f"invalid header value: {e}") from e
    given = LoadOptions(
        format=(headers.get("format") or "csv").lower(),
        by_line=lines.lower() == "true" or not (lines or array),
        strip_array=array.lower() == "true",
        here=here,
        columns=_columns(headers.get("columns", "")),
        jsonpaths=re.findall(r'"([^"]*)"', headers.get("jsonpaths", "")),
        json_root=headers.get("json_root", ""),
        where=headers.get("where", ""),
        strict=_boolean(headers, "strict_mode"),
        max_filter_ratio=ratio,
        two_phase=headers.get("two_phase_commit") == "true",
        sequence=headers.get("function_column.sequence_col", ""),
        separator=_unescape(headers.get("column_separator") or "\t"),
        line_delimiter=_unescape(headers.get("line_delimiter") or "\n"),
        skip_lines=_integer(headers, "skip_lines"),
        timeout_s=_integer(headers, "timeout") or LONGEST_S,
    )
    if given.skip_lines < 0:
        raise Refused("INVALID_ARGUMENT", f"Invalid 'skip_lines': {given.skip_lines}")
    _merge(headers, given)
    _mode(headers, given)
    return given


def _merge(headers: Mapping[str, str], given: LoadOptions) -> None:
    asked = headers.get("merge_type") or "APPEND"
    given.merge, given.delete_on = asked.upper(), headers.get("delete", "")
    if given.merge not in {"APPEND", "DELETE", "MERGE"}:
        raise Refused("INVALID_ARGUMENT", f"Invalid merge type {asked}")
    if given.merge == "MERGE" and not given.delete_on:
        text = "Excepted DELETE ON clause when merge type is MERGE."
        raise Refused("INVALID_ARGUMENT", text)
    if given.merge != "MERGE" and given.delete_on:
        text = "Not support DELETE ON clause when merge type is not MERGE."
        raise Refused("INVALID_ARGUMENT", text)


def _mode(headers: Mapping[str, str], given: LoadOptions) -> None:
    asked = headers.get("unique_key_update_mode", "")
    if asked and asked.upper() not in _MODES:
        raise Refused(
            "INVALID_ARGUMENT",
            f"Invalid unique_key_partial_mode {asked}, must be one of 'UPSERT', "
            "'UPDATE_FIXED_COLUMNS' or 'UPDATE_FLEXIBLE_COLUMNS'",
        )
    fixed = headers.get("partial_columns", "").lower() == "true"
    given.mode = asked.upper() or ("UPDATE_FIXED_COLUMNS" if fixed else "UPSERT")
    if given.mode == "UPDATE_FLEXIBLE_COLUMNS" or (given.mode != "UPSERT" and given.two_phase):
        raise Refused("NOT_IMPLEMENTED_ERROR", "the stand-in knows no such partial update")


def _boolean(headers: Mapping[str, str], name: str) -> bool:
    value = headers.get(name, "").lower()
    if value not in {"", "true", "false"}:
        text = f"Invalid {name.replace('_', ' ')} format. Must be bool type"
        raise Refused("INVALID_ARGUMENT", text)
    return value == "true"


def _integer(headers: Mapping[str, str], name: str) -> int:
    value = headers.get(name) or "0"
    try:
        return int(value)
    except ValueError as e:
        raise Refused("INVALID_ARGUMENT", f"Invalid '{name}': {value}") from e


def _unescape(text: str) -> str:
    if re.match(r"\\?x[0-9a-fA-F]{2}", text, re.IGNORECASE):
        return bytes.fromhex(text.lower().replace("\\", "").replace("x", "")).decode()
    return text.replace("\\t", "\t").replace("\\n", "\n").replace("\\r", "\r")


def _columns(text: str) -> list[Mapped]:
    """Cut at the commas that are in no parenthesis and no string."""
    parts = re.findall(r"(?:[^,()'\"]|'[^']*'|\"[^\"]*\"|\((?:[^()]|\([^()]*\))*\))+", text)
    found = []
    for part in parts:
        name, equals, expression = part.partition("=")
        found.append(Mapped(name.strip().strip("`"), expression.strip() if equals else None))
    return found
