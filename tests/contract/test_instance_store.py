"""What every instance store promises (`wado.ports.InstanceStore`)."""

import errno
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from contract.stores import (
    CT,
    EXPLICIT,
    IMPLICIT,
    Kept,
    on_disk,
    on_s3,
    part10,
    put,
    read,
    ref,
    s3_endpoint,
    s3_place,
)
from wado.archive.paths import DERIVED, derived_path, instance_path
from wado.dicom.part10 import file_meta
from wado.dicom.uids import InstanceRef
from wado.errors import InvalidRequest, NotFound, OutOfResources, WadoError
from wado.ports import InstanceStore, StoreOutcome


@pytest.fixture(params=["filesystem", "filesystem-os", "s3"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    if request.param == "s3":
        endpoint = s3_endpoint(request.getfixturevalue("run_folder"))
        return on_s3(s3_place(endpoint, f"contract/{uuid4().hex}", timeout_s=60), tmp_path / "root")
    return on_disk(tmp_path / "root", durable=request.param == "filesystem")


@pytest.fixture
def store(kept: Kept) -> InstanceStore:
    return kept.store


class TestOriginals:
    def test_is_whole_after_commit_and_absent_before(self, store: InstanceStore) -> None:
        incoming = store.receive(ref(1))
        incoming.write([part10(b"abc")])
        with pytest.raises(NotFound):
            store.open(instance_path(ref(1)))
        assert list(store.instances()) == []
        assert store.commit([incoming], replace=False) == [StoreOutcome.STORED]
        assert read(store, instance_path(ref(1))) == part10(b"abc")
        assert incoming.size == len(part10(b"abc"))

    def test_same_data_set_is_same_whoever_wrote_the_meta(self, store: InstanceStore) -> None:
        put(store, 1, part10(b"abc"))
        other_meta = file_meta(CT, "1.2.3.1", EXPLICIT).replace(b"WADO_0_1", b"OTHER_01") + b"abc"
        assert put(store, 1, other_meta) is StoreOutcome.SAME
        assert read(store, instance_path(ref(1))) == part10(b"abc")

    @pytest.mark.parametrize("body", [b"abd", b"abcd", b"ab"])
    def test_another_data_set_is_different_and_the_first_stays(
        self, store: InstanceStore, body: bytes
    ) -> None:
        put(store, 1, part10(b"abc"))
        assert put(store, 1, part10(body)) is StoreOutcome.DIFFERENT
        assert read(store, instance_path(ref(1))) == part10(b"abc")

    def test_another_transfer_syntax_is_different(self, store: InstanceStore) -> None:
        put(store, 1, part10(b"abc"))
        assert put(store, 1, part10(b"abc", syntax=IMPLICIT)) is StoreOutcome.DIFFERENT

    def test_replace_replaces_whole(self, store: InstanceStore) -> None:
        put(store, 1, part10(b"abc"))
        before = store.version(instance_path(ref(1)))
        assert put(store, 1, part10(b"xyz"), replace=True) is StoreOutcome.REPLACED
        assert read(store, instance_path(ref(1))) == part10(b"xyz")
        assert store.version(instance_path(ref(1))) != before

    def test_abort_leaves_nothing(self, kept: Kept) -> None:
        incoming = kept.store.receive(ref(1))
        incoming.write([b"abc"])
        incoming.abort()
        incoming.abort()
        assert kept.everything() == []

    def test_reference_may_come_late(self, store: InstanceStore) -> None:
        incoming = store.receive(None)
        incoming.write([part10(b"abc")])
        incoming.ref = ref(1)
        assert store.commit([incoming], replace=False) == [StoreOutcome.STORED]
        assert read(store, instance_path(ref(1))) == part10(b"abc")

    def test_group_has_an_outcome_each(self, kept: Kept) -> None:
        store = kept.store
        put(store, 1, part10(b"abc"))
        group = []
        for number, body in [(1, b"abc"), (1, b"other"), (2, b"x"), (3, b"y"), (3, b"y")]:
            incoming = store.receive(ref(number))
            incoming.write([part10(body, number)])
            group.append(incoming)
        assert store.commit(group, replace=False) == [
            StoreOutcome.SAME,
            StoreOutcome.DIFFERENT,
            StoreOutcome.STORED,
            StoreOutcome.STORED,
            StoreOutcome.SAME,
        ]
        assert kept.everything() == [instance_path(ref(number)) for number in (1, 2, 3)]

    def test_many_at_once_store_one(self, store: InstanceStore) -> None:
        outcomes: list[StoreOutcome | WadoError] = []
        start = threading.Barrier(8)

        def send(body: bytes) -> None:
            start.wait()
            outcomes.append(put(store, 1, part10(body)))

        threads = [threading.Thread(target=send, args=(b"%d" % (i % 2),)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(map(str, outcomes)) == [*["different"] * 4, *["same"] * 3, "stored"]

    def test_walks_under_tenant_study_and_series(self, store: InstanceStore) -> None:
        for number in (2, 1):
            put(store, number, part10(b"abc", number))
        other = InstanceRef.of("other", "1.9", "1.9.1", "1.9.1.1")
        incoming = store.receive(other)
        incoming.write([part10(b"abc")])
        store.commit([incoming], replace=False)
        assert [f.ref for f in store.instances()] == [ref(1), ref(2), other]
        assert [f.ref for f in store.instances("other")] == [other]
        assert [f.ref for f in store.instances(ref(1).series)] == [ref(1), ref(2)]
        assert [f.ref for f in store.instances(ref(1).study)] == [ref(1), ref(2)]
        assert list(store.instances("nobody")) == []
        file = next(store.instances("other"))
        assert (file.file_path, file.file_size) == (instance_path(other), len(part10(b"abc")))


class TestMoves:
    def test_files_have_their_new_paths(self, store: InstanceStore) -> None:
        for number in (1, 2, 3):
            put(store, number, part10(b"abc", number))
        moves = {instance_path(ref(n)): f"deleted/{instance_path(ref(n))}" for n in (1, 2, 9)}
        assert set(store.move(moves)) == {instance_path(ref(1)), instance_path(ref(2))}
        assert [f.ref for f in store.instances()] == [ref(3)]
        assert read(store, f"deleted/{instance_path(ref(1))}") == part10(b"abc")
        assert set(store.move(moves)) == set(), "after a crash, once more"

    def test_path_that_is_taken_stays(self, store: InstanceStore) -> None:
        put(store, 1, part10(b"abc"))
        put(store, 2, part10(b"xyz", 2))
        assert not store.move({instance_path(ref(1)): instance_path(ref(2))})
        assert read(store, instance_path(ref(1))) == part10(b"abc")
        assert read(store, instance_path(ref(2))) == part10(b"xyz", 2)

    def test_place_of_a_moved_file_is_free(self, store: InstanceStore) -> None:
        for body in (b"abc", b"other"):
            assert put(store, 1, part10(body)) is StoreOutcome.STORED
            store.move({instance_path(ref(1)): f"deleted/{instance_path(ref(1))}.{len(body)}"})
        assert put(store, 1, part10(b"abc")) is StoreOutcome.STORED

    def test_moved_files_are_found_in_their_place(self, store: InstanceStore) -> None:
        began = time.time() - 1
        for number, name in ((1, ".dcm"), (1, ".dcm.2"), (2, ".dcm")):
            put(store, number, part10(b"abc", number))
            path = instance_path(ref(number))
            store.move({path: f"deleted/{path.removesuffix('.dcm')}{name}"})
        found = list(store.instances(place="deleted"))
        assert [f.ref for f in found] == [ref(1), ref(1), ref(2)]
        assert found[1].file_path == f"deleted/{instance_path(ref(1))}.2"
        assert all(f.changed_s >= began for f in found)
        assert len(list(store.instances(ref(1).series, place="deleted"))) == 3
        assert list(store.instances("nobody", place="deleted")) == []
        assert list(store.instances()) == []

    def test_derived_copies_are_found_with_their_syntax(self, store: InstanceStore) -> None:
        """Also where the names of instance and transfer syntax are alike, or long together."""
        at = ref(1)
        long = replace(at, sop_instance_uid="1.2." + "3" * 60)
        alike = replace(at, sop_instance_uid=f"1.{EXPLICIT}")
        expected = []
        for instance in (at, long, alike):
            for syntax in (EXPLICIT, "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2"):
                path = derived_path(instance, syntax)
                store.put_document(path, [b"copy"])
                expected.append((instance, syntax, path, 4))
        found = list(store.instances(at.series, place=DERIVED))
        assert sorted(
            (f.ref, f.transfer_syntax_uid, f.file_path, f.file_size) for f in found
        ) == sorted(expected)
        assert [f.file_path for f in store.instances(place=DERIVED)] == [f.file_path for f in found]
        assert list(store.instances("nobody", place=DERIVED)) == []
        assert list(store.instances()) == []
        store.delete([f.file_path for f in found])
        assert list(store.instances(at.series, place=DERIVED)) == []

    def test_deletion_while_the_same_comes_again_loses_neither(self, store: InstanceStore) -> None:
        path, moved = instance_path(ref(1)), threading.Event()
        put(store, 1, part10(b"abc"))

        def mover() -> None:
            try:
                for number in range(200):
                    store.move({path: f"deleted/{path}.{number}"})
            finally:
                moved.set()

        thread = threading.Thread(target=mover)
        thread.start()
        while not moved.is_set():
            assert put(store, 1, part10(b"abc")) in (StoreOutcome.STORED, StoreOutcome.SAME)
        thread.join()


class TestDocuments:
    def test_is_replaced_whole(self, store: InstanceStore) -> None:
        store.put_document("metadata/clinic/1.2.json", [b"[", b"]"])
        store.put_document("metadata/clinic/1.2.json", [b"[1]"])
        assert read(store, "metadata/clinic/1.2.json") == b"[1]"

    def test_interrupted_document_leaves_the_old_one(self, store: InstanceStore) -> None:
        store.put_document("metadata/clinic/1.2.json", [b"old"])

        def breaks() -> "list[bytes]":
            raise OSError(errno.ENOSPC, "no space")

        class Pieces:
            def __iter__(self) -> object:
                yield b"new"
                breaks()

        with pytest.raises(OutOfResources):
            store.put_document("metadata/clinic/1.2.json", Pieces())  # type: ignore[arg-type]
        assert read(store, "metadata/clinic/1.2.json") == b"old"

    def test_delete_passes_over_what_is_absent(self, store: InstanceStore) -> None:
        store.put_document("metadata/clinic/1.2.json", [b"[]"])
        store.delete(["metadata/clinic/1.2.json", "metadata/clinic/none.json"])
        assert store.version("metadata/clinic/1.2.json") is None

    @pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "a/../../b"])
    def test_stays_below_the_root(self, store: InstanceStore, path: str) -> None:
        for call in (store.open, store.local_path, store.version):
            with pytest.raises(InvalidRequest):
                call(path)

    def test_document_as_journal_is_replaced_only_at_its_length(self, store: InstanceStore) -> None:
        path = "metadata/clinic/1.2/1.3.journal"
        assert not store.put_document(path, [b"new\n"], at=4), "it is not there"
        store.append({path: b"one\n"})
        before = store.version(path)
        assert not store.put_document(path, [b"new\n"], at=3)
        assert store.put_document(path, [b"compact\n"], at=4)
        assert read(store, path) == b"compact\n"
        after = store.version(path)
        assert before
        assert after
        assert before[0] != after[0]

    def test_journal_is_removed_only_at_its_length(self, store: InstanceStore) -> None:
        path = "metadata/clinic/1.2/1.3.journal"
        store.append({path: b"one\n"})
        store.delete([path], at=3)
        assert read(store, path) == b"one\n"
        store.delete([path, "metadata/clinic/1.2/none.journal"], at=4)
        assert store.version(path) is None

    def test_document_whose_pieces_fail_leaves_nothing(self, kept: Kept) -> None:
        def pieces() -> Iterator[bytes]:
            yield b"["
            raise NotFound("gone meanwhile")

        with pytest.raises(NotFound):
            kept.store.put_document("metadata/clinic/1.2.json", pieces())
        assert kept.everything() == []


class TestJournals:
    def test_grows_by_whole_appends(self, store: InstanceStore) -> None:
        assert store.append({"metadata/t/1/1.journal": b"one\n", "metadata/t/1/2.journal": b"a\n"})
        assert store.append({"metadata/t/1/1.journal": b"two\n"})
        assert read(store, "metadata/t/1/1.journal") == b"one\ntwo\n"
        version = store.version("metadata/t/1/1.journal")
        assert version is not None
        assert version[1] == 8

    def test_appends_at_a_length_or_not_at_all(self, store: InstanceStore) -> None:
        store.append({"metadata/t/1/1.journal": b"one\n"})
        assert not store.append({"metadata/t/1/1.journal": b"two\n"}, at=3)
        assert store.append({"metadata/t/1/1.journal": b"two\n"}, at=4)
        assert read(store, "metadata/t/1/1.journal") == b"one\ntwo\n"

    def test_appends_to_several_each_at_its_length(self, store: InstanceStore) -> None:
        one, two = "metadata/t/1/1.journal", "metadata/t/1/2.journal"
        store.append({one: b"one\n"})
        assert store.append({one: b"two\n", two: b"a\n"}, at={one: 4, two: 0})
        assert not store.append({two: b"b\n"}, at={two: 0})
        assert not store.append({one: b"", two: b"b\n"}, at={one: 8, two: 0})
        assert read(store, one) == b"one\ntwo\n"
        assert read(store, two) == b"a\n"

    def test_append_goes_to_the_journal_that_has_the_name(self, store: InstanceStore) -> None:
        """Not to one that was replaced or removed while the writer waited for its turn."""
        path, stop = "metadata/t/1/1.journal", threading.Event()
        store.append({path: b"0\n"})

        def compact() -> None:
            while not stop.is_set():
                version = store.version(path)
                if version:
                    with store.open(path) as file:
                        lines = file.read(version[1])
                    store.put_document(path, [lines], at=version[1])

        thread = threading.Thread(target=compact)
        thread.start()
        try:
            for number in range(1, 200):
                store.append({path: b"%d\n" % number})
        finally:
            stop.set()
            thread.join()
        assert read(store, path).split() == [b"%d" % n for n in range(200)]

    def test_many_journals_at_once(self, store: InstanceStore) -> None:
        store.append({f"metadata/t/{n}/1.journal": b"x\n" for n in range(50)})
        assert all(store.version(f"metadata/t/{n}/1.journal") for n in range(50))

    def test_writers_in_turn(self, store: InstanceStore) -> None:
        def write(letter: bytes) -> None:
            for _ in range(50):
                store.append({"metadata/t/1/1.journal": letter * 1000 + b"\n"})

        threads = [threading.Thread(target=write, args=(c,)) for c in (b"a", b"b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lines = read(store, "metadata/t/1/1.journal").split(b"\n")
        assert sorted({line[:1] for line in lines[:-1]}) == [b"a", b"b"]
        assert {len(line) for line in lines[:-1]} == {1000}
