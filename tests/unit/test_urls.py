"""Addresses of services: passwords are read, and never shown."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wado.errors import InvalidRequest
from wado.urls import password_of, shown, with_password


@pytest.mark.parametrize(
    ("url", "as_shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://:secret@h:6379/0", "redis://:***@h:6379/0"),
        ("postgresql://u:secret@h/d?sslmode=require", "postgresql://u:***@h/d?sslmode=require"),
        ("postgresql://u@h/d?password=secret&x=1", "postgresql://u@h/d?password=***&x=1"),
        ("kafka://u:secret@a:1,b:2,c:3", "kafka://u:***@a:1,b:2,c:3"),
        ("kafka://a:1?sasl_password=secret", "kafka://a:1?sasl_password=***"),
        ("s3://bucket/p?secret_access_key=secret", "s3://bucket/p?secret_access_key=***"),
        ("s3://bucket/p?access_key_id=A&region=r", "s3://bucket/p?access_key_id=A&region=r"),
        ("redis://u:se/cr@et@h/0", "redis://u:***@h/0"),
        ("sqlite:////srv/a@b:c/log", "sqlite:////srv/a@b:c/log"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("memory://", "memory://"),
        ("", ""),
        ("nonsense", "nonsense"),
    ],
)
def test_what_is_shown(url: str, as_shown: str):
    assert shown(url) == as_shown


@given(st.text(min_size=1), st.sampled_from(["", "user"]))
def test_no_password_is_shown_however_it_is_written(password: str, user: str):
    written = with_password(f"redis://{user}@host.example:1/0", f"X{password}Y")
    assert password_of(written, None, "s") == f"X{password}Y"
    assert shown(written) == f"redis://{user}:***@host.example:1/0"


def test_a_file_wins_and_its_line_break_is_not_part_of_it(tmp_path: Path):
    file = tmp_path / "password"
    file.write_text(" of file \n")
    assert password_of("redis://:of-url@h", file, "cache.password_file") == " of file "
    assert password_of("redis://:a%2Fb@h", None, "cache.password_file") == "a/b"
    assert password_of("redis://h", None, "cache.password_file") is None


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_file_without_one_is_named(tmp_path: Path, content: bytes):
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"cache\.password_file"):
        password_of("redis://h", file, "cache.password_file")


def test_no_password_leaves_the_url_alone():
    assert with_password("redis://u:p@h:1/0", None) == "redis://u:p@h:1/0"
