"""Several workers on one port share the associations."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Event, Thread

import pytest

import synthetic
from dimse import ANSWER_TIMEOUT_S, RawPeer
from wado.errors import Unavailable
from wado.ports import Archive
from wado.services.association import Peer
from wado.services.storescp import app, listen, run
from wado.services.storescp.association import Association
from wado.settings import Settings

WORKERS = ("worker-0", "worker-1")


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many associations each worker has carried."""
    carried: Counter[str] = Counter()
    add = app.Worker.add

    def note(worker: app.Worker, association: Association) -> None:
        carried[threading.current_thread().name] += 1
        add(worker, association)

    monkeypatch.setattr(app.Worker, "add", note)
    return carried


@contextmanager
def two_workers(archive: Archive, settings: Settings) -> Iterator[Peer]:
    """Run two workers on one socket; both must stop at the end."""
    stop = Event()
    changed = settings.storescp.model_copy(update={"workers": 2, "port": 0})
    with listen(changed) as listener:
        threads = [
            Thread(
                target=run,
                args=(archive, changed, stop),
                kwargs={"default_tenant": "default", "listener": listener},
                name=name,
            )
            for name in WORKERS
        ]
        for thread in threads:
            thread.start()
        try:
            yield Peer("WADO", changed.host, listener.getsockname()[1])
        finally:
            stop.set()
            for thread in threads:
                thread.join(ANSWER_TIMEOUT_S)
            assert not any(thread.is_alive() for thread in threads), "a worker does not stop"


def test_a_port_in_use_is_said_in_words(settings):
    with listen(settings.storescp.model_copy(update={"port": 0})) as listener:
        taken = settings.storescp.model_copy(update={"port": listener.getsockname()[1]})
        with pytest.raises(Unavailable, match="cannot listen at 127"):
            listen(taken)


def test_two_workers_take_from_one_port(archive, settings, carried):
    with two_workers(archive, settings) as scp, ExitStack() as stack:
        peers = [stack.enter_context(RawPeer(scp)) for _ in range(8)]
        for peer, ds in zip(peers, synthetic.ct_series(8), strict=True):
            peer.associate()
            assert peer.store(ds).status == 0
    assert carried.total() == 8
    assert len(list(settings.storage.root.glob("default/*/*/*.dcm"))) == 8


def test_who_has_fewer_associations_takes_the_next(archive, settings, carried, monkeypatch):
    """A worker that has some leaves it to the other for a moment: here for very long."""
    monkeypatch.setattr(app, "_COURTESY_S", 20.0)
    monkeypatch.setattr(app, "_MAX_COURTESY_S", 3600.0)
    with two_workers(archive, settings) as scp, ExitStack() as stack:
        for _ in WORKERS:
            stack.enter_context(RawPeer(scp)).associate()
    assert carried == dict.fromkeys(WORKERS, 1)


def test_a_worker_leaves_the_longer_to_others_the_more_it_has(archive, settings, monkeypatch):
    waits: list[float] = []
    courtesy = app.Worker._courtesy

    def note(worker: app.Worker) -> float:
        waits.append(courtesy(worker))
        return 0.0

    monkeypatch.setattr(app.Worker, "_courtesy", note)
    monkeypatch.setattr(app, "_MAX_COURTESY_S", 3 * app._COURTESY_S)
    changed = settings.storescp.model_copy(update={"workers": 2, "port": 0})
    stop = Event()
    with listen(changed) as listener, ExitStack() as stack:
        args = {"default_tenant": "default", "listener": listener}
        thread = Thread(target=run, args=(archive, changed, stop), kwargs=args)
        thread.start()
        try:
            scp = Peer("WADO", changed.host, listener.getsockname()[1])
            for _ in range(5):
                stack.enter_context(RawPeer(scp)).associate()
        finally:
            stop.set()
            thread.join(ANSWER_TIMEOUT_S)
    assert not thread.is_alive()
    assert waits == [pytest.approx(n * app._COURTESY_S) for n in (0, 1, 2, 3, 3)]
