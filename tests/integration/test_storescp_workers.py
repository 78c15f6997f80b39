"""Several workers on one port share the associations."""

import threading
from collections import Counter
from contextlib import ExitStack
from threading import Event, Thread

import pytest

import synthetic
from dimse import RawPeer
from wado.errors import Unavailable
from wado.services.association import Peer
from wado.services.storescp import listen, run
from wado.services.storescp.app import Worker


def test_a_port_in_use_is_said_in_words(settings):
    with listen(settings.storescp), pytest.raises(Unavailable, match="cannot listen at 127"):
        listen(settings.storescp)


def test_two_workers_share_a_port(archive, settings, monkeypatch):
    carried: Counter[str] = Counter()
    add = Worker.add

    def note(worker, association):
        carried[threading.current_thread().name] += 1
        add(worker, association)

    monkeypatch.setattr(Worker, "add", note)
    stop = Event()
    changed = settings.storescp.model_copy(update={"workers": 2})
    with listen(changed) as listener, ExitStack() as stack:
        threads = [
            Thread(
                target=run,
                args=(archive, changed, stop),
                kwargs={"default_tenant": "default", "listener": listener},
                name=f"worker-{n}",
            )
            for n in range(2)
        ]
        for thread in threads:
            thread.start()
        try:
            scp = Peer("WADO", changed.host, changed.port)
            peers = [stack.enter_context(RawPeer(scp)) for _ in range(8)]
            for peer, ds in zip(peers, synthetic.ct_series(8), strict=True):
                peer.associate()
                assert peer.store(ds).status == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join(10)
    assert sum(carried.values()) == 8
    assert min(carried.values()) >= 2
    assert len(list(settings.storage.root.glob("default/*/*/*.dcm"))) == 8
