"""What is absent skips a test, and fails it where it is required."""

from pathlib import Path

import pytest

import real


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(real._FIND, "dcmtk", lambda: None)
    monkeypatch.delenv("WADO_TEST_REQUIRE", raising=False)


def test_what_is_there_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(real._FIND, "dcmtk", lambda: tmp_path)
    assert real.require("dcmtk") == tmp_path


def test_what_is_absent_skips(absent: None):
    with pytest.raises(pytest.skip.Exception, match="dcmtk is not on this machine"):
        real.require("dcmtk")


def test_what_is_required_fails(absent: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WADO_TEST_REQUIRE", "chromium,dcmtk")
    with pytest.raises(pytest.fail.Exception, match="WADO_TEST_REQUIRE names it"):
        real.require("dcmtk")


def test_the_corpus_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("WADO_TEST_CORPUS", str(tmp_path))
    assert real.find("corpus") is None
    (tmp_path / "MANIFEST.tsv").touch()
    assert real.find("corpus") == tmp_path
