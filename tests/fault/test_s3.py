"""S3 away, frozen, refusing, or its answers lost: nothing acknowledged is lost, nothing is half."""

import http.client
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

import synthetic
from backing import s3 as s3_server
from backing.program import Program
from contract.stores import on_s3, part10, put, read, ref, s3_endpoint, s3_place
from fault.s3_between import Between, between
from freezing import frozen
from hostile import END, HEAD, dimse, stow
from read_log import wait_read
from service import RunningArchive, wait_until
from wado.adapters.instance_store import s3_setup
from wado.archive.paths import instance_path
from wado.errors import Unavailable, WadoError
from wado.ports import InstanceStore, StoreOutcome
from wado.settings import StorageSettings

JOURNAL = "metadata/t/1/1.journal"
TIMEOUT_S = 2.0
PATIENCE_S = 60.0
"""Where nothing hangs, a machine that is busy must not count as a failure of S3."""
LIMIT_S = 30.0
"""Soon, on such a machine."""


@pytest.fixture
def network(run_folder: Path) -> Iterator[Between]:
    with between(s3_endpoint(run_folder)) as server:
        yield server


@pytest.fixture
def store(network: Between, tmp_path: Path) -> InstanceStore:
    place = s3_place(network.endpoint, f"fault/{uuid4().hex}", timeout_s=PATIENCE_S)
    return on_s3(place, tmp_path).store


class TestLostAnswers:
    @pytest.mark.parametrize("size", [10, 6 << 20])
    def test_instance_is_there_or_can_be_sent_again(
        self, store: InstanceStore, network: Between, size: int
    ) -> None:
        data = part10(b"x" * size)
        network.lose_once("PUT", ".dcm")
        first = put(store, 1, data)
        assert network.lost
        assert isinstance(first, Unavailable) or first is StoreOutcome.SAME
        assert put(store, 1, data) is StoreOutcome.SAME
        assert read(store, instance_path(ref(1))) == data

    @pytest.mark.parametrize("fate", ["answer lost", "refused"])
    @pytest.mark.parametrize("word", [".journal", ".segments"])
    def test_append_is_there_once(
        self, store: InstanceStore, network: Between, word: str, fate: str
    ) -> None:
        first, second = b"1" * 50_000 + b"\n", b"2" * 50_000 + b"\n"
        store.append({JOURNAL: first})
        network.lose_once("PUT", word, fate)  # type: ignore[arg-type]
        try:
            assert store.append({JOURNAL: second})
        except Unavailable:
            store.append({JOURNAL: second}, at=len(first))
        assert network.lost
        assert read(store, JOURNAL) == first + second
        assert store.append({JOURNAL: b"3\n"}, at=len(first + second))

    def test_journal_is_replaced_or_not(self, store: InstanceStore, network: Between) -> None:
        store.append({JOURNAL: b"one\n" * 50_000})
        network.lose_once("PUT", ".journal")
        assert store.put_document(JOURNAL, [b"two\n" * 50_000], at=200_000)
        assert network.lost
        assert read(store, JOURNAL) == b"two\n" * 50_000

    def test_journal_is_removed_once(self, store: InstanceStore, network: Between) -> None:
        store.append({JOURNAL: b"one\n"})
        network.lose_once("PUT", ".journal")
        store.delete([JOURNAL], at=4)
        assert network.lost
        assert store.version(JOURNAL) is None

    @pytest.mark.parametrize(("method", "word"), [("POST", "deleted"), ("DELETE", "clinic")])
    def test_move_is_finished_by_another(
        self, store: InstanceStore, network: Between, method: str, word: str
    ) -> None:
        path = instance_path(ref(1))
        put(store, 1, part10(b"abc"))
        network.lose_once(method, word)
        try:
            assert store.move({path: f"deleted/{path}"}) == {path}
        except Unavailable:
            store.move({path: f"deleted/{path}"})
        assert network.lost
        assert store.version(path) is None
        assert read(store, f"deleted/{path}") == part10(b"abc")

    def test_answer_that_breaks_off_is_asked_for_again(
        self, store: InstanceStore, network: Between
    ) -> None:
        put(store, 1, part10(b"abc"))
        network.lose_once("GET", ".dcm")
        assert read(store, instance_path(ref(1))) == part10(b"abc")
        assert network.lost

    def test_one_that_is_refused_does_not_harm_the_others(
        self, store: InstanceStore, network: Between
    ) -> None:
        network.fate = lambda method, path: (
            "refused" if method == "PUT" and path.endswith("/1.2.3.3.dcm") else "passed on"
        )
        group = []
        for number in range(1, 7):
            incoming = store.receive(ref(number))
            incoming.write([part10(b"abc", number)])
            group.append(incoming)
        outcomes = store.commit(group, replace=False)
        assert isinstance(outcomes[2], Unavailable)
        assert [o for o in outcomes if o is StoreOutcome.STORED] == [StoreOutcome.STORED] * 5
        assert len(list(store.instances())) == 5


# ------------------------------------------------------------------ a server of the test's own


@contextmanager
def served(folder: Path, port: int | None = None) -> Iterator[tuple[Program, str]]:
    program, endpoint = s3_server.server(folder, port)
    program.start()
    try:
        program.wait()
        s3_server.make_bucket(endpoint)
        yield program, endpoint
    finally:
        program.kill()


def in_time(act: Callable[[], object]) -> None:
    """What fails must fail soon."""
    began = time.monotonic()
    with pytest.raises(Unavailable):
        act()
    assert time.monotonic() - began < LIMIT_S


def eventually(act: Callable[[], object]) -> None:
    """Try again until S3, which is back, answers in time."""

    def answers() -> bool:
        try:
            outcome = act()
        except Unavailable:
            return False
        return not isinstance(outcome, WadoError)

    wait_until(answers, timeout_s=120, reason="S3 answers")


def test_frozen_server_is_given_up_and_comes_back(tmp_path: Path) -> None:
    with served(tmp_path / "s3") as (program, endpoint):
        place = s3_place(endpoint, "frozen", timeout_s=TIMEOUT_S)
        store = on_s3(place, tmp_path / "root").store
        eventually(lambda: put(store, 1, part10(b"abc")))
        group = []
        for number in range(2, 62):
            group.append(store.receive(ref(number)))
            group[-1].write([part10(b"abc", number)])
        with frozen(program.pid):
            in_time(lambda: store.version(JOURNAL))
            in_time(lambda: store.open(instance_path(ref(1))))
            in_time(lambda: store.append({JOURNAL: b"one\n"}))
            in_time(lambda: list(store.instances()))
            began = time.monotonic()
            outcomes = store.commit(group, replace=False)
            assert time.monotonic() - began < LIMIT_S, "not one after the other"
            assert all(isinstance(o, Unavailable) for o in outcomes)
        eventually(lambda: read(store, instance_path(ref(1))))
        patient = s3_place(endpoint, "frozen", timeout_s=PATIENCE_S)
        store = on_s3(patient, tmp_path / "root").store
        assert read(store, instance_path(ref(1))) == part10(b"abc")
        for number in range(2, 62):
            assert put(store, number, part10(b"abc", number)) in (
                StoreOutcome.STORED,
                StoreOutcome.SAME,
            )
        assert len(list(store.instances())) == 61


def test_server_that_is_gone_is_said_at_once_and_comes_back(tmp_path: Path) -> None:
    with served(tmp_path / "s3") as (_, endpoint):
        place = s3_place(endpoint, "gone", timeout_s=PATIENCE_S)
        store = on_s3(place, tmp_path / "root").store
        assert store.append({JOURNAL: b"one\n"})
        port = int(endpoint.rpartition(":")[2])
    in_time(lambda: store.append({JOURNAL: b"two\n"}))
    in_time(lambda: store.version("incoming"))
    assert isinstance(put(store, 1, part10(b"abc")), Unavailable)
    with served(tmp_path / "s3", port):  # it kept nothing; a real one would
        assert store.version(JOURNAL) is None
        assert store.append({JOURNAL: b"three\n"})
        assert put(store, 1, part10(b"abc")) is StoreOutcome.STORED


# ------------------------------------------------------------------ what is wrong at the start


class TestPreparation:
    def storage(self, endpoint: str) -> StorageSettings:
        values = {"s3_endpoint": endpoint, "s3_allow_http": True, "s3_timeout_s": PATIENCE_S}
        return StorageSettings.model_validate(values)

    @pytest.fixture(autouse=True)
    def _credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in s3_server.CREDENTIALS.items():
            monkeypatch.setenv(name, value)

    def test_says_what_it_tried_and_leaves_nothing(self, run_folder: Path, tmp_path: Path) -> None:
        endpoint, prefix = s3_endpoint(run_folder), uuid4().hex
        url = f"s3://{s3_server.BUCKET}/{prefix}"
        assert s3_setup.prepare(url, self.storage(endpoint)) == [
            f"{url} answers, may be written, and keeps conditions"
        ]
        assert on_s3(s3_place(endpoint, prefix), tmp_path).everything() == []

    def test_names_a_bucket_that_is_not_there(self, run_folder: Path) -> None:
        storage = self.storage(s3_endpoint(run_folder))
        with pytest.raises(Unavailable, match="no such bucket"):
            s3_setup.prepare("s3://nobodys-bucket", storage)

    def test_says_that_nobody_answers(self) -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))  # and nobody listens there, nor comes to
            storage = self.storage(f"http://127.0.0.1:{nobody.getsockname()[1]}")
            in_time(lambda: s3_setup.prepare("s3://bucket", storage))

    def test_says_that_access_is_denied(self, tmp_path: Path) -> None:
        with served(tmp_path / "s3") as (_, endpoint):
            # From now on moto asks for rights, which nobody has.
            port = int(endpoint.rpartition(":")[2])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", "/moto-api/reset-auth", b"0")
            assert connection.getresponse().status == 200
            connection.close()
            with pytest.raises(Unavailable, match=r"can't write .*refuses access") as caught:
                s3_setup.prepare(f"s3://{s3_server.BUCKET}", self.storage(endpoint))
            assert "Debug" not in str(caught.value)

    def test_names_a_condition_that_is_not_kept(
        self, run_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An S3 that passes over what it does not know; older ones do."""
        with between(s3_endpoint(run_folder)) as server:
            handler = server.RequestHandlerClass
            pass_on = handler._pass_on  # type: ignore[attr-defined]

            def forgetful(self: object) -> None:
                del self.headers["if-none-match"]  # type: ignore[attr-defined]
                pass_on(self)

            monkeypatch.setattr(handler, "do_PUT", forgetful)
            with pytest.raises(Unavailable, match="lacks: If-None-Match on PUT"):
                s3_setup.prepare(f"s3://{s3_server.BUCKET}", self.storage(server.endpoint))


# ------------------------------------------------------------------ the whole archive


def test_outage_refuses_for_now_and_loses_nothing(tmp_path: Path) -> None:
    images = synthetic.ct_series(3, study="outage", series="outage")

    def is_stored(archive: RunningArchive, number: int) -> bool:
        return stow(archive, HEAD + synthetic.part10(images[number]) + END)[0] == 200

    with served(tmp_path / "s3") as (program, endpoint):
        env = {
            **s3_server.CREDENTIALS,
            "WADO_STORAGE__URL": f"s3://{s3_server.BUCKET}/archive",
            "WADO_STORAGE__S3_ENDPOINT": endpoint,
            "WADO_STORAGE__S3_ALLOW_HTTP": "true",
            "WADO_STORAGE__S3_TIMEOUT_S": str(TIMEOUT_S),
        }
        with RunningArchive(tmp_path / "data", env=env) as archive:
            # A busy machine may seem to be an outage, too: who is refused for now, sends again.
            wait_until(lambda: is_stored(archive, 0), timeout_s=120, reason="stored")
            wait_read(archive)
            pids = archive.pids()
            with frozen(program.pid):
                began = time.monotonic()
                response = dimse(archive, synthetic.data_set(images[1]), images[1].SOPInstanceUID)
                assert response.status == Unavailable.dimse
                assert time.monotonic() - began < LIMIT_S
                assert stow(archive, HEAD + synthetic.part10(images[2]) + END)[0] == 503
                wait_until(lambda: not archive.ready(), timeout_s=60, reason="S3 is missed")
            wait_until(archive.ready, timeout_s=60, reason="S3 is back")
            for number in (1, 2):
                wait_until(
                    lambda number=number: is_stored(archive, number),  # type: ignore[misc]
                    timeout_s=120,
                    reason="stored",
                )
            wait_read(archive)
            assert archive.pids() == pids, "nobody died of it"
            archive.env["WADO_STORAGE__S3_TIMEOUT_S"] = str(PATIENCE_S)
            check = archive.wado("check", "--deep", "--root", str(archive.root))
            assert check.returncode == 0, check.stdout + check.stderr
            assert "3 instances" in check.stdout
