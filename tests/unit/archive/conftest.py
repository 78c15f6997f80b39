"""Fixtures of what the archive does, in this process."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from wado.archive.copies import Converter
from wado.archive.journal import Journals
from wado.archive.pixel_workers import PixelWorkers
from wado.ports import Archive
from wado.settings import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Nobody cuts the power here."""
    storage = settings.storage.model_copy(update={"durability": "os"})
    return settings.model_copy(update={"storage": storage})


@pytest.fixture(scope="module")
def pixels() -> Iterator[PixelWorkers]:
    """Processes that decode and encode, for the tests of a module."""
    with closing(PixelWorkers(workers=2, timeout_s=100, max_memory_bytes=8 << 30)) as workers:
        yield workers


@pytest.fixture
def converter(archive: Archive, pixels: PixelWorkers) -> Converter:
    """What makes copies in the archive of the test."""
    return Converter(archive, Journals(archive.store), pixels, archive.transcode)
