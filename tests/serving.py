"""A web server with a consumer in this process, on a port of its own, for tests of DICOMweb."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from backing.program import free_port
from service import PATIENT, wait_until
from wado.bootstrap import open_archive
from wado.ports import Archive
from wado.services.consumer import catalogue_storage
from wado.services.server.app import run
from wado.settings import Settings, load_settings


@contextmanager
def serving(root: Path, **server: object) -> Iterator[str]:
    """Serve an archive below `root`; yields ``http://127.0.0.1:<port>``."""
    with serving_archive(root, **server) as (url, _):
        yield url


@contextmanager
def serving_archive(root: Path, **server: object) -> Iterator[tuple[str, Archive]]:
    """Serve an archive below `root`; yields its address, and the archive."""
    settings: Settings = load_settings(
        storage={"root": root, "durability": "os", "unknown_sop_classes": True},
        server={"port": free_port(), **PATIENT, **server},
    )
    stop = Event()
    with open_archive(settings) as archive:
        threads = [
            Thread(target=run, args=(archive, settings.server, stop), daemon=True),
            Thread(target=catalogue_storage, args=(archive, settings.consumer, stop), daemon=True),
        ]
        for thread in threads:
            thread.start()
        url = f"http://127.0.0.1:{settings.server.port}"
        try:
            wait_until(lambda: _answers(f"{url}/livez"), timeout_s=60, reason="/livez answers")
            yield url, archive
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


__all__ = ["serving", "serving_archive"]
