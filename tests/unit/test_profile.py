"""What a profile asks of the settings."""

import importlib.util
import tomllib
from pathlib import Path
from typing import Any

import pytest

from wado import profile
from wado.bootstrap import open_archive, prepare_archive
from wado.errors import InvalidRequest
from wado.profile import check_profile, default_urls, warnings
from wado.settings import Settings, load_settings

WHOLE: dict[str, Any] = {
    "log": {"url": "kafka://h:9092", "partitions": 12},
    "index": {"url": "postgresql://h/wado"},
    "warehouse": {"url": "doris://h:9030/wado"},
    "cache": {"url": "redis://h:6379/0"},
    "storage": {"root": "/srv/wado"},
}


def distributed(**changes: Any) -> Settings:
    return load_settings(**{"profile": "distributed"} | WHOLE | changes)


def test_a_whole_one_is_taken():
    check_profile(distributed())


def test_the_embedded_one_needs_nothing():
    check_profile(load_settings())
    assert warnings(load_settings()) == []


def test_all_that_is_missing_is_named_at_once_as_lines_that_can_be_added():
    with pytest.raises(InvalidRequest) as said:
        check_profile(load_settings(profile="distributed"))  # type: ignore[arg-type]
    text = str(said.value)
    assert "wado init" in text
    lines = tomllib.loads(text[text.index("[") : text.index("Then run")])
    assert set(lines) == {"log", "index", "warehouse", "cache", "storage"}
    check_profile(load_settings(**{"profile": "distributed"} | lines))


@pytest.mark.parametrize("port", ["log", "index", "warehouse", "cache"])
def test_only_what_is_missing_is_named(port: str):
    embedded = default_urls(load_settings())[port]
    with pytest.raises(InvalidRequest) as said:
        check_profile(distributed(**{port: {"url": embedded}}))
    text = str(said.value)
    assert set(tomllib.loads(text[text.index("[") : text.index("Then run")])) == {port}


def test_objects_need_no_root():
    check_profile(distributed(storage={"url": "s3://bucket/archive"}))


def test_a_package_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(profile, "find_spec", lambda name: None if name == "redis" else there(name))
    with pytest.raises(InvalidRequest, match=r"cache\.url = .*wado\[distributed\]"):
        check_profile(distributed())
    with pytest.raises(InvalidRequest, match="package redis"):
        check_profile(load_settings(cache={"url": "redis://h"}))


def test_files_that_can_not_be_read_are_all_named(tmp_path: Path):
    there = tmp_path / "there"
    there.write_text("secret")
    cache = {"url": "redis://h", "password_file": tmp_path / "absent", "ca_file": tmp_path}
    with pytest.raises(InvalidRequest) as said:
        check_profile(load_settings(cache=cache))
    assert "cache.password_file = " in str(said.value)
    assert "cache.ca_file = " in str(said.value)
    check_profile(load_settings(cache={"url": "redis://h", "password_file": there}))


def test_two_passwords_contradict_each_other(tmp_path: Path):
    file = tmp_path / "password"
    file.write_text("one")
    with pytest.raises(InvalidRequest, match="both give a password") as said:
        check_profile(load_settings(cache={"url": "redis://:another@h", "password_file": file}))
    assert "another" not in str(said.value)


def test_an_unknown_scheme_is_named_without_the_password(tmp_path: Path):
    settings = load_settings(
        storage={"root": tmp_path}, cache={"url": "memcached://wado:secret@h:1"}
    )
    for use in (
        lambda: open_archive(settings).__enter__(),
        lambda: next(prepare_archive(settings)),
    ):
        with pytest.raises(InvalidRequest, match=r"cache\.url = .*known schemes are .*redis") as e:
            use()
        assert "secret" not in str(e.value)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"log": {"url": "kafka://h", "partitions": 1}}, "log.partitions"),
        ({"storage": {"root": "/srv/wado", "durability": "os"}}, "storage.durability"),
    ],
)
def test_what_is_probably_not_meant_is_said(changes: dict[str, Any], name: str):
    assert not warnings(distributed())
    assert [text.partition(" ")[0] for text in warnings(distributed(**changes))] == [name]


class TestInit:
    def test_makes_the_root_and_may_run_again(self, tmp_path: Path):
        settings = load_settings(storage={"root": tmp_path / "a #? b"})
        first, again = list(prepare_archive(settings)), list(prepare_archive(settings))
        assert (tmp_path / "a #? b" / "incoming").is_dir()
        assert [p.port for p in first] == ["store"]
        assert "was made" in first[0].done[0]
        assert "is there" in again[0].done[0]

    def test_one_that_does_not_answer_keeps_no_other_from_it(self, tmp_path: Path):
        settings = load_settings(
            storage={"root": tmp_path / "data"}, cache={"url": "redis://wado:secret@127.0.0.1:1"}
        )
        store, cache = prepare_archive(settings, wait_s=0.1)
        assert store.failure is None
        assert "does not answer" in str(cache.failure)
        assert "secret" not in f"{cache.url} {cache.failure}"
