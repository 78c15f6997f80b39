"""What the instance store of files promises beside `wado.ports.InstanceStore`."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.stores import part10, put, read, ref
from wado.adapters.instance_store import filesystem
from wado.adapters.instance_store.filesystem import FilesystemInstanceStore
from wado.errors import OutOfResources, Unavailable, WadoError
from wado.ports import InstanceStore, StoreOutcome


@pytest.fixture(params=["filesystem", "filesystem-os"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> InstanceStore:
    return FilesystemInstanceStore(tmp_path / "root", durable=request.param == "filesystem")


class TestOriginals:
    def test_folders_that_vanish_are_made_again(self, store: InstanceStore, tmp_path: Path) -> None:
        put(store, 1, part10(b"abc"))
        shutil.rmtree(tmp_path / "root" / "clinic")
        assert put(store, 1, part10(b"abc")) is StoreOutcome.STORED

    def test_folder_that_vanishes_after_the_first_bytes_is_made_again(
        self, store: InstanceStore, tmp_path: Path
    ) -> None:
        put(store, 1, part10(b"abc"))
        incoming = store.receive(None)
        incoming.write([part10(b"abc", 2)])
        incoming.ref = ref(2)
        shutil.rmtree(tmp_path / "root" / "clinic")
        assert store.commit([incoming], replace=False) == [StoreOutcome.STORED]

    def test_failure_to_store_leaves_nothing(self, store: InstanceStore, tmp_path: Path) -> None:
        (tmp_path / "root/clinic/1.2/1.2.3/1.2.3.1.dcm").mkdir(parents=True)  # in the way
        assert isinstance(put(store, 1, part10(b"abc")), WadoError)
        assert [p for p in (tmp_path / "root").rglob("*") if p.is_file()] == []

    def test_temporary_files_are_abandoned_after_a_while(self, store: InstanceStore) -> None:
        writing = [store.receive(ref(1)), store.receive(None)]
        assert list(store.abandoned(older_than_s=60)) == []
        left = list(store.abandoned(older_than_s=-60))
        assert len(left) == 2
        store.delete(left)
        assert list(store.abandoned(older_than_s=-60)) == []
        for incoming in writing:
            incoming.abort()


class TestJournals:
    def test_torn_end_is_cut_off(self, store: InstanceStore, tmp_path: Path) -> None:
        store.append({"metadata/t/1/1.journal": b"one\n"})
        with (tmp_path / "root/metadata/t/1/1.journal").open("ab") as file:
            file.write(b"x" * 100_000)
        store.append({"metadata/t/1/1.journal": b"two\n"})
        assert read(store, "metadata/t/1/1.journal") == b"one\ntwo\n"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a function of `os` fail as on a full disk."""

    def fail(name: str) -> None:
        def no_space(*_args: object, **_kwargs: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, name, no_space)

    return fail


class TestFullDisk:
    def test_write(self, tmp_path: Path, failing: Callable[[str], None]) -> None:
        store = FilesystemInstanceStore(tmp_path)
        incoming = store.receive(ref(1))
        failing("writev")
        with pytest.raises(OutOfResources, match="No space left"):
            incoming.write([b"abc"])
        incoming.abort()
        assert not list(tmp_path.rglob("*.part"))

    def test_flush(self, tmp_path: Path, failing: Callable[[str], None]) -> None:
        store = FilesystemInstanceStore(tmp_path)
        incoming = store.receive(ref(1))
        incoming.write([part10(b"abc")])
        failing("fsync")
        assert isinstance(store.commit([incoming], replace=False)[0], OutOfResources)
        assert list(store.instances()) == []
        assert not list(tmp_path.rglob("*.part"))


class TestFolders:
    def test_entries_made_by_one_who_died_are_flushed_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        FilesystemInstanceStore(tmp_path).receive(ref(1))  # made folders, flushed nothing
        (tmp_path / "metadata/clinic/1.2").mkdir(parents=True)
        (tmp_path / "metadata/clinic/1.2/1.2.3.journal").write_bytes(b"one\n")
        store = FilesystemInstanceStore(tmp_path)
        flushed: set[str] = set()
        monkeypatch.setattr(filesystem, "_SYNCFS_FROM", 100)
        monkeypatch.setattr(filesystem, "sync_folder", flushed.add)
        assert put(store, 1, part10(b"abc")) is StoreOutcome.STORED
        series = tmp_path / "clinic/1.2/1.2.3"
        assert flushed == {str(p) for p in (series, *list(series.parents)[:3])}
        flushed.clear()
        store.append({"metadata/clinic/1.2/1.2.3.journal": b"two\n"})
        study = tmp_path / "metadata/clinic/1.2"
        assert flushed == {str(p) for p in (study, *list(study.parents)[:3])}
        flushed.clear()
        store.append({"metadata/clinic/1.2/1.2.3.journal": b"three\n"})
        assert flushed == set(), "only the first time"

    def test_folder_that_cannot_be_read_does_not_look_empty(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FilesystemInstanceStore(tmp_path)
        put(store, 1, part10(b"abc"))
        list_folder = os.scandir

        def scandir(path: str) -> object:
            if path.endswith("1.2.3"):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return list_folder(path)

        monkeypatch.setattr(os, "scandir", scandir)
        with pytest.raises(Unavailable, match="Permission denied"):
            list(store.instances())

    def test_file_that_cannot_be_looked_at_does_not_look_absent(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FilesystemInstanceStore(tmp_path)

        def stat(_path: str) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "stat", stat)
        with pytest.raises(Unavailable, match="Input/output error"):
            store.version("metadata/clinic/1.2.json")
