"""Very many states at once into SQLite: one transaction, and indexes made when all rows are there.

Keeping two dozen indexes in order row by row would take several times as long.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

_CACHE_KIB = 512 << 10
_FILES = "SELECT type, name, sql FROM sqlite_master WHERE tbl_name IN ({}) AND sql IS NOT NULL"
TEXT_TABLES = {"study": "study_text", "series": "series_text"}
_TABLES = ("study", "series", "study_modality")


@contextmanager
def loading(connection: sqlite3.Connection) -> Iterator[None]:
    """Do without indexes, inside a transaction of the caller, if there are no rows yet."""
    cache = connection.execute("PRAGMA cache_size").fetchone()[0]
    connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    try:
        if connection.execute("SELECT EXISTS (SELECT 1 FROM study)").fetchone()[0]:
            yield
        else:
            with _without_indexes(connection):
                yield
    finally:
        connection.execute(f"PRAGMA cache_size={cache}")


@contextmanager
def _without_indexes(connection: sqlite3.Connection) -> Iterator[None]:
    """Drop indexes and triggers, and make them again; an exception leaves that to a rollback."""
    statistics = connection.execute("SELECT tbl, idx, stat FROM sqlite_stat1").fetchall()
    files = _FILES.format(", ".join("?" * len(_TABLES)))
    made = [
        row
        for row in connection.execute(files, _TABLES).fetchall()
        if row[0] in {"index", "trigger"}
    ]
    for kind, name, _ in made:
        connection.execute(f"DROP {kind} {name}")
    yield
    for _, _, sql in made:
        connection.execute(sql)
    rebuild_texts(connection)
    connection.execute("DELETE FROM sqlite_stat1")  # what is dropped takes its statistics along
    connection.executemany("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (?, ?, ?)", statistics)
    connection.execute("ANALYZE sqlite_schema")


def rebuild_texts(connection: sqlite3.Connection) -> None:
    """Read the text of all rows into the tables by which text is searched."""
    for name in TEXT_TABLES.values():
        connection.execute(f"INSERT INTO {name} ({name}) VALUES ('rebuild')")  # noqa: S608


def texts_are_right(connection: sqlite3.Connection) -> bool:
    """Whether the rows still have the numbers by which their text is known.

    SQLite gives rows other numbers when somebody vacuums the file, unless none was ever deleted.
    """
    return all(
        connection.execute(
            f"SELECT (SELECT max(rowid) FROM {table}) IS (SELECT max(id) FROM {name}_docsize)"  # noqa: S608
        ).fetchone()[0]
        for table, name in TEXT_TABLES.items()
    )
