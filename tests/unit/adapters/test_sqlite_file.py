"""Files of SQLite, and the folders they are in."""

import os
from pathlib import Path

import pytest

from wado.adapters.sqlite_file import make_folder


def test_entries_of_folders_made_by_one_who_died_are_flushed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").mkdir()
    flushed = set()
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.add(Path(f"/proc/self/fd/{fd}").readlink()))
    make_folder(tmp_path / "log" / "locks")
    assert flushed == {tmp_path, tmp_path / "log"}
