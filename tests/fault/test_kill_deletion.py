"""SIGKILL while studies are deleted and stored again: what was acknowledged last, holds.

Longer by ``WADO_TEST_KILLS=100 make test-fault``; ``WADO_TEST_SEED`` repeats a run's choices.
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import requests

import synthetic
from read_log import wait_read
from service import RunningArchive, wait_until

KILLS = int(os.environ.get("WADO_TEST_KILLS", "8"))
CLIENTS = 2
SLICES = 4
TIMEOUT_S = 60
KIND = 'multipart/related; type="application/dicom"; boundary="guid"'
HEAD = b"\r\n--guid\r\nContent-Type: application/dicom\r\n\r\n"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningArchive]:
    """An archive of this test's own: it is about to suffer."""
    with RunningArchive(tmp_path / "data") as archive:
        yield archive


class Client(threading.Thread):
    """Stores a study and deletes it, in turn; ends with either, and knows which."""

    def __init__(self, number: int, archive: RunningArchive, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.base = f"{archive.dicomweb}/studies"
        self.chance = chance
        self.stop = threading.Event()
        self.datasets = synthetic.ct_series(SLICES, study=f"study {number}", series=f"{number}")
        self.study = f"{self.base}/{self.datasets[0].StudyInstanceUID}"
        self.stored = False
        self.rounds = 0
        self.answers: Counter[str] = Counter()

    def run(self) -> None:
        """Store and delete until stopped."""
        while not self.stop.is_set():
            self.until_done("store", self.store)
            self.stored = True
            if self.stop.is_set() and self.chance.random() < 0.5:
                break
            self.until_done("delete", self.delete)
            self.stored = False
            self.rounds += 1

    def until_done(self, name: str, attempt: Callable[[], int]) -> None:
        """Try until it is acknowledged."""
        deadline = time.monotonic() + 100
        while True:
            assert time.monotonic() < deadline, f"{name}: {self.answers}"
            try:
                status = attempt()
            except requests.RequestException as e:
                self.answers[type(e).__name__] += 1
                time.sleep(0.05)
                continue
            self.answers[f"{name} {status}"] += 1
            if status in (200, 204, 410, 404):
                return
            time.sleep(0.05)

    def store(self) -> int:
        """Store the study; its status."""
        body = b"".join(HEAD + synthetic.part10(ds) for ds in self.datasets) + b"\r\n--guid--"
        answer = requests.post(
            self.base, data=body, headers={"content-type": KIND}, timeout=TIMEOUT_S
        )
        return answer.status_code

    def delete(self) -> int:
        """Delete the study; its status. One that is only accepted is asked for again."""
        return requests.delete(self.study, timeout=TIMEOUT_S).status_code


def test_deletion_and_storage_survive_kills(running: RunningArchive) -> None:
    seed = int(os.environ.get("WADO_TEST_SEED", str(random.randrange(1 << 30))))
    print(f"WADO_TEST_SEED={seed} WADO_TEST_KILLS={KILLS}")  # noqa: T201 - to repeat the run
    chance = random.Random(seed)
    clients = [Client(number, running, chance) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.1, 0.6))
        names = sorted(name for name in running.pids() if not name.startswith("storescp"))
        running.kill_service(chance.choice([*names, "consumer-1"]))
    for client in clients:
        client.stop.set()
    for client in clients:
        client.join(170)
        assert not client.is_alive(), client.answers
    wait_until(running.ready, timeout_s=60, reason="ready again")
    wait_read(running)
    for client in clients:
        wait_until(partial(is_as_acknowledged, client), timeout_s=60, reason=str(client.answers))
    check = running.wado("check", "--deep", "--root", str(running.root))
    assert check.returncode == 0, check.stdout + check.stderr
    assert all(is_as_acknowledged(client) for client in clients)
    letters = running.wado("dlq", "list", "--root", str(running.root))
    assert letters.stdout.endswith("0 dead letters\n"), letters.stdout


def is_as_acknowledged(client: Client) -> bool:
    """Whether all of a study is there, or nothing of it."""
    answer = requests.get(f"{client.study}/metadata", timeout=TIMEOUT_S)
    if not client.stored:
        return answer.status_code == 410
    return answer.status_code == 200 and len(answer.json()) == SLICES
