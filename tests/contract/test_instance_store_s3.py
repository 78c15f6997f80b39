"""What the store on S3 promises beside `wado.ports.InstanceStore`, and what it asks of S3."""

import hashlib
import subprocess
import sys
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from contract.child import complete
from contract.stores import part10, put, read, ref, s3_endpoint, s3_place
from wado.adapters.instance_store import s3_manifest
from wado.adapters.instance_store.s3 import S3InstanceStore
from wado.adapters.instance_store.s3_bucket import Bucket, Place, Taken
from wado.archive.paths import instance_path
from wado.errors import NotFound, TooLarge, Unavailable
from wado.ports import StoreOutcome

JOURNAL = "metadata/t/1/1.journal"
LINE = b"x" * 2999 + b"\n"


class Counting(Bucket):
    """A bucket that counts what is asked of S3."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.asked: Counter[str] = Counter()

    def get(self, *args: Any, **kwargs: Any) -> Any:
        self.asked["get"] += 1
        return super().get(*args, **kwargs)

    def get_changed(self, *args: Any, **kwargs: Any) -> Any:
        self.asked["get"] += 1
        return super().get_changed(*args, **kwargs)

    def put(self, *args: Any, **kwargs: Any) -> Any:
        self.asked["put"] += 1
        return super().put(*args, **kwargs)


@pytest.fixture
def place(run_folder: Path) -> Place:
    return s3_place(s3_endpoint(run_folder), f"s3/{uuid4().hex}", timeout_s=60)


@pytest.fixture
def bucket(place: Place) -> Counting:
    return Counting(place)


@pytest.fixture
def store(bucket: Counting, tmp_path: Path) -> S3InstanceStore:
    return S3InstanceStore(bucket, tmp_path)


def another(place: Place, tmp_path: Path) -> S3InstanceStore:
    """The store of another machine: it knows nothing of what this one knows."""
    return S3InstanceStore(Bucket(place), tmp_path / "other")


class TestOriginals:
    def test_lies_under_the_name_it_would_have_as_a_file(
        self, store: S3InstanceStore, bucket: Bucket
    ) -> None:
        put(store, 1, part10(b"abc"))
        assert [o.path for o in bucket.walk("")] == [instance_path(ref(1))]

    @pytest.mark.parametrize("megabytes", [1, 9])
    def test_new_object_is_one_put_and_read_as_it_was(
        self, store: S3InstanceStore, bucket: Counting, megabytes: int
    ) -> None:
        """The longer one is sent from the disk."""
        body = hashlib.sha256(b"seed").digest() * (megabytes << 15)
        assert put(store, 1, part10(body)) is StoreOutcome.STORED
        assert bucket.asked.total() == (1 if megabytes == 1 else 0), "by another way"
        assert read(store, instance_path(ref(1))) == part10(body)
        assert put(store, 1, part10(body)) is StoreOutcome.SAME
        assert put(store, 1, part10(body[:-1])) is StoreOutcome.DIFFERENT
        assert put(store, 1, part10(body[:-1]), replace=True) is StoreOutcome.REPLACED
        assert read(store, instance_path(ref(1))) == part10(body[:-1])

    def test_object_longer_than_s3_takes_is_refused_at_once(
        self, store: S3InstanceStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("wado.adapters.instance_store.s3.MAX_PUT_BYTES", 1000)
        incoming = store.receive(ref(1))
        incoming.write([bytes(600)])
        with pytest.raises(TooLarge):
            incoming.write([bytes(600)])
        incoming.abort()

    def test_walk_is_in_order_of_names_not_of_bytes(self, store: S3InstanceStore) -> None:
        """S3 sorts ``1.2.3/`` before ``1.2/``; who compares with an index sorts names."""
        for study, series in [("1.2", "9.1"), ("1.2.3", "9.1"), ("1.2", "9")]:
            incoming = store.receive(None)
            incoming.write([part10(b"abc")])
            incoming.ref = type(ref(1)).of("clinic", study, series, "5.5")
            assert store.commit([incoming], replace=False) == [StoreOutcome.STORED]
        found = [(f.ref.study_instance_uid, f.ref.series_instance_uid) for f in store.instances()]
        assert found == [("1.2", "9"), ("1.2", "9.1"), ("1.2.3", "9.1")]


class TestReading:
    def test_frame_is_one_request(self, store: S3InstanceStore, bucket: Counting) -> None:
        data = part10(bytes(range(256)) * 20_000)
        put(store, 1, data)
        bucket.asked.clear()
        with store.open(instance_path(ref(1)), ahead=(3_000_000, 600_000)) as file:
            file.seek(3_000_000)
            assert file.read(100_000) == data[3_000_000:3_100_000]
            assert file.read(500_000) == data[3_100_000:3_600_000]
            assert bucket.asked["get"] == 1
            file.seek(1_000_000)
            assert file.read(600_000) == data[1_000_000:1_600_000]
        assert bucket.asked["get"] == 2

    def test_reading_on_takes_fewer_and_fewer_requests(
        self, store: S3InstanceStore, bucket: Counting
    ) -> None:
        data = part10(bytes(20 << 20))
        put(store, 1, data)
        bucket.asked.clear()
        with store.open(instance_path(ref(1))) as file:
            while file.read(10_000):
                pass
        assert bucket.asked["get"] < 18

    def test_object_that_was_replaced_is_not_mixed_with_the_new_one(
        self, store: S3InstanceStore
    ) -> None:
        put(store, 1, part10(bytes(1 << 20)))
        with store.open(instance_path(ref(1))) as file:
            file.read(1000)
            put(store, 1, part10(b"x" * (1 << 20)), replace=True)
            file.seek(500_000)
            with pytest.raises(NotFound, match="replaced"):
                file.read(1000)

    def test_ends_and_seeks_as_files_do(self, store: S3InstanceStore) -> None:
        store.put_document("metadata/t/1.json", [b"0123456789"])
        store.put_document("metadata/t/2.json", [])
        with store.open("metadata/t/1.json", ahead=(50, 10)) as file:
            assert file.read() == b"0123456789"
            assert file.seek(-3, 2) == 7
            assert (file.read(100), file.read(1), file.tell()) == (b"789", b"", 10)
        assert read(store, "metadata/t/2.json") == b""
        assert store.version("metadata/t/2.json") is not None


class TestJournals:
    def test_append_is_one_request_and_a_look_is_one(
        self, store: S3InstanceStore, bucket: Counting
    ) -> None:
        store.append({JOURNAL: LINE})
        bucket.asked.clear()
        store.append({JOURNAL: LINE})
        assert bucket.asked == {"put": 1}
        bucket.asked.clear()
        assert store.version(JOURNAL)
        assert bucket.asked == {"get": 1}

    def test_cost_of_an_append_does_not_grow(
        self, store: S3InstanceStore, bucket: Counting, place: Place, tmp_path: Path
    ) -> None:
        costs = []
        for _ in range(4):
            bucket.asked.clear()
            for _ in range(200):
                store.append({JOURNAL: LINE})
            costs.append(bucket.asked.total())
        assert max(costs) < 1.3 * 200
        assert read(another(place, tmp_path), JOURNAL) == LINE * 800
        segments = [o for o in bucket.walk("metadata") if ".segments/" in o.path]
        assert sum(o.size for o in segments) < 3 * len(LINE) * 800
        manifest = next(o for o in bucket.walk("metadata") if o.path == JOURNAL)
        assert manifest.size < 70_000

    def test_long_append_is_whole(
        self, store: S3InstanceStore, place: Place, tmp_path: Path
    ) -> None:
        data = b"".join(b"%0999d\n" % n for n in range(20_000))
        store.append({JOURNAL: b"first\n"})
        store.append({JOURNAL: data})
        assert read(store, JOURNAL) == b"first\n" + data
        with another(place, tmp_path).open(JOURNAL) as file:
            file.seek(6 + 10_000_000)
            assert file.readline() == b"%0999d\n" % 10_000

    def test_reader_of_the_old_one_reads_on_while_it_is_compacted(
        self, store: S3InstanceStore, place: Place, tmp_path: Path
    ) -> None:
        store.append({JOURNAL: LINE * 1000})
        with another(place, tmp_path).open(JOURNAL) as file:
            assert store.put_document(JOURNAL, [b"new\n"], at=len(LINE) * 1000)
            assert file.read() == LINE * 1000
        assert read(store, JOURNAL) == b"new\n"

    def test_what_is_no_longer_read_is_removed(
        self, store: S3InstanceStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.append({JOURNAL: LINE * 1000})
        assert store.put_document(JOURNAL, [b"new\n"], at=len(LINE) * 1000)
        monkeypatch.setattr(s3_manifest, "DOOMED_S", -1.0)
        store.append({JOURNAL: b"newer\n"})
        assert [o.path for o in bucket.walk("")] == [JOURNAL]

    def test_segments_of_one_who_died_are_abandoned_and_those_in_use_are_not(
        self, store: S3InstanceStore, bucket: Bucket
    ) -> None:
        store.append({JOURNAL: LINE * 1000})
        orphan = "metadata/t/1/1.segments/1-dead"
        bucket.put(orphan, b"never in a manifest")
        assert list(store.abandoned(older_than_s=60)) == []
        assert list(store.abandoned(older_than_s=-60)) == [orphan]
        store.delete([orphan])
        assert list(store.abandoned(older_than_s=-60)) == []
        assert read(store, JOURNAL) == LINE * 1000

    def test_removed_one_begins_anew(
        self, store: S3InstanceStore, place: Place, tmp_path: Path
    ) -> None:
        store.append({JOURNAL: b"old\n"})
        old = store.version(JOURNAL)
        store.delete([JOURNAL])
        elsewhere = another(place, tmp_path)
        assert elsewhere.version(JOURNAL) is None
        with pytest.raises(NotFound):
            elsewhere.open(JOURNAL)
        assert elsewhere.append({JOURNAL: b"new\n"}, at=0)
        assert read(store, JOURNAL) == b"new\n"
        assert old
        assert store.version(JOURNAL) not in (None, old)

    def test_stores_that_know_an_older_state_lose_nothing(
        self, store: S3InstanceStore, place: Place, tmp_path: Path
    ) -> None:
        elsewhere = another(place, tmp_path)
        for number in range(20):
            (store, elsewhere)[number % 2].append({JOURNAL: b"%d\n" % number})
        assert read(store, JOURNAL).split() == [b"%d" % n for n in range(20)]
        assert not elsewhere.append({JOURNAL: b"late\n"}, at=1)

    def test_of_writers_that_saw_the_same_length_one_wins(
        self, place: Place, tmp_path: Path
    ) -> None:
        stores = [another(place, tmp_path) for _ in range(6)]
        stores[0].append({JOURNAL: b"one\n"})
        won: list[bool] = []
        start = threading.Barrier(len(stores))

        def write(number: int) -> None:
            start.wait()
            won.append(stores[number].append({JOURNAL: b"%d\n" % number}, at=4))

        threads = [threading.Thread(target=write, args=(n,)) for n in range(len(stores))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == [False] * 5 + [True]
        assert len(read(stores[0], JOURNAL)) == 6


WRITER = """
import sys
from contract.stores import s3_place, on_s3
from pathlib import Path
endpoint, prefix, root, letter = sys.argv[1:]
store = on_s3(s3_place(endpoint, prefix, timeout_s=60), Path(root)).store
for number in range(25):
    store.append({"metadata/t/1/1.journal": f"{letter}{number}\\n".encode() * 100})
"""


def test_processes_write_in_turn(place: Place, tmp_path: Path) -> None:
    tests = Path(__file__).resolve().parents[1]
    environment = {"PYTHONPATH": f"{tests}:{tests.parent / 'scripts'}", "PATH": ""}
    command = [sys.executable, "-c", WRITER, place.endpoint, place.prefix]
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                subprocess.Popen([*command, tmp_path / letter, letter], env=environment)
            )
            for letter in "abc"
        ]
        for writer in writers:
            stack.callback(writer.kill)  # before it is waited for
        assert [writer.wait(200) for writer in writers] == [0, 0, 0]
    lines = read(another(place, tmp_path), JOURNAL).decode().split()
    for letter in "abc":
        ours = [int(line[1:]) for line in lines if line[0] == letter]
        assert ours == [n for n in range(25) for _ in range(100)], "each append whole, in order"


def test_store_in_use_before_a_fork_says_so(store: S3InstanceStore) -> None:
    """Its threads do not survive the fork: it would wait for ever."""
    assert store.version("incoming") is None

    def in_child() -> None:
        with pytest.raises(Unavailable, match="forked"):
            store.version("incoming")

    complete(in_child)


class TestMoves:
    def test_interrupted_move_is_finished(self, store: S3InstanceStore, bucket: Bucket) -> None:
        """Whoever copied died before he deleted."""
        path = instance_path(ref(1))
        put(store, 1, part10(b"abc"))
        assert bucket.copy(path, f"deleted/{path}")
        assert store.move({path: f"deleted/{path}"}) == {path}
        assert [o.path for o in bucket.walk("")] == [f"deleted/{path}"]

    def test_what_was_replaced_meanwhile_is_moved_as_it_is_then(
        self, store: S3InstanceStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = instance_path(ref(1))
        put(store, 1, part10(b"abc"))
        delete = bucket.delete_if

        def late(name: str, etag: str) -> bool:
            monkeypatch.setattr(bucket, "delete_if", delete)
            put(store, 1, part10(b"newer"), replace=True)
            return delete(name, etag)

        monkeypatch.setattr(bucket, "delete_if", late)
        assert store.move({path: f"deleted/{path}"}) == {path}
        assert read(store, f"deleted/{path}") == part10(b"newer")
        assert store.version(path) is None


def test_conditions_hold(bucket: Bucket) -> None:
    etag = bucket.put("a", b"1", over=None)
    for over in (None, '"stale"'):
        with pytest.raises(Taken):
            bucket.put("a", b"2", over=over)
    with pytest.raises(Taken):
        bucket.put("absent", b"2", over=etag)
    assert bucket.put("a", b"2", over=etag) != etag
    assert not bucket.delete_if("a", etag)
