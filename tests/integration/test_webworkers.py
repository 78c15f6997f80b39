"""Several webworkers on one index share the work by Redis, and do it right without."""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

import synthetic
from backing.program import free_port
from backing_redis import shared_redis
from steps import catalogue_all, series_of, store
from wado.adapters.cache.redis import RedisCache
from wado.archive.journal import Journals
from wado.archive.metadata import json_document, series_metadata
from wado.ports import Archive, Cache, InstanceStore
from wado.services.webworker import Webworker
from wado.settings import WebworkerSettings

STUDIES = 12
WORKERS = 3


class Counted:
    """A store that counts which documents were written."""

    def __init__(self, store: InstanceStore) -> None:
        self._store = store
        self.written: Counter[str] = Counter()

    def put_document(self, path: str, data: Iterable[bytes], **more: Any) -> bool:
        self.written[path] += 1
        return self._store.put_document(path, data, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture(params=["redis", "redis is away"])
def caches(
    request: pytest.FixtureRequest, run_folder: Path, tmp_path: Path
) -> Iterator[list[Cache]]:
    if request.param == "redis":
        url = shared_redis(run_folder)
    else:
        url = f"redis://127.0.0.1:{free_port()}/0"
    with ExitStack() as stack:
        yield [
            stack.enter_context(closing(RedisCache(url, prefix=tmp_path.name, timeout_s=60)))
            for _ in range(WORKERS)
        ]


def test_each_series_is_described_by_one(
    archive: Archive, caches: list[Cache], request: pytest.FixtureRequest
) -> None:
    images = [synthetic.ct_series(2, study=str(n)) for n in range(STUDIES)]
    for series in images:
        store(archive, *series)
    catalogue_all(archive)
    counted = Counted(archive.store)
    begin = threading.Barrier(WORKERS)
    described: list[int] = []

    def work(cache: Cache) -> None:
        own = replace(archive, cache=cache, store=cast("InstanceStore", counted))
        worker = Webworker(own, WebworkerSettings(quiet_s=0))
        begin.wait(120)
        described.append(worker.look(threading.Event()))

    threads = [threading.Thread(target=work, args=(cache,)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(described) == WORKERS
    assert archive.index.awaiting_description(100) == []
    journals = Journals(archive.store)
    for series in images:
        found = series_metadata(journals, series_of(series[0]))
        assert found.document
        text = b"".join(json_document(archive, journals, found, ""))
        assert len(orjson.loads(text)) == 2
    if "away" not in request.node.callspec.id:
        assert set(counted.written.values()) == {1}
