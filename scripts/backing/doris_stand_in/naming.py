"""What names may be."""

import re

_LABEL = re.compile(r"[-_A-Za-z0-9:]{1,128}")
_DATABASE = re.compile(r"[a-zA-Z][a-zA-Z0-9\-_]{0,63}")
_TABLE = re.compile(r"[a-zA-Z][a-zA-Z0-9\-_]{0,63}")
_COLUMN = re.compile(r"[_a-zA-Z@0-9\s/][.a-zA-Z0-9_+\-/?@#$%^&*\"\s,:]{0,255}")


def is_label(name: str) -> bool:
    """Whether a load may have this label."""
    return _LABEL.fullmatch(name) is not None


def is_database(name: str) -> bool:
    """Whether a database, or a partition, may have this name."""
    return _DATABASE.fullmatch(name) is not None


def is_table(name: str) -> bool:
    """Whether a table may have this name."""
    return _TABLE.fullmatch(name) is not None


def is_column(name: str) -> bool:
    """Whether a column may have this name."""
    return _COLUMN.fullmatch(name) is not None and not name.startswith(
        ("mv_", "mva_", "__doris_shadow_")
    )
