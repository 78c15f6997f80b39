"""Migrations of the index, run when an adapter opens it."""

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

HEAD = "0004"
"""Newest revision; known here so that opening an index of today need not load Alembic."""

_FOLDER = Path(__file__).parent


def migrate(connection: Connection) -> None:
    """Bring the tables up to date; one process at a time."""
    if inspect(connection).has_table("alembic_version"):
        present = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if present == HEAD:
            return
    from alembic import command  # noqa: PLC0415  # slow, and seldom needed

    command.upgrade(configuration(connection), "head")


def configuration(connection: Connection | None = None) -> Any:
    """Tell Alembic where the revisions are and which connection to use."""
    from alembic.config import Config  # noqa: PLC0415  # as above

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
