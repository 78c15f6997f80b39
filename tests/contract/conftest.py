"""Fixtures of the tests of `Index`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.indexes import Open
from wado.adapters.index.sqlite import SqliteIndex
from wado.ports import Index


@pytest.fixture(params=[pytest.param("sqlite")])
def open_index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Open the index; each call as another process would."""
    opened: list[Index] = []

    def open_it() -> Index:
        index = SqliteIndex(tmp_path / "index" / "index.sqlite", durable=True)
        opened.append(index)
        return index

    yield open_it
    for index in opened:
        index.close()


@pytest.fixture
def index(open_index: Open) -> Index:
    return open_index()
