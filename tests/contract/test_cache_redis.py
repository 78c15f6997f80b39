"""The cache in Redis: what only it promises, and what it says to Redis."""

import ssl
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from backing import redis as backing
from backing.program import Program, free_port
from backing_redis import shared_redis
from real import require
from wado.adapters.cache.redis import RedisCache
from wado.bootstrap import open_archive
from wado.errors import InvalidRequest, Unavailable
from wado.settings import load_settings


@pytest.fixture
def url(run_folder: Path) -> str:
    return shared_redis(run_folder)


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with closing(redis.Redis.from_url(url)) as opened:
        yield opened


@pytest.fixture
def protected(tmp_path: Path) -> Iterator[tuple[Program, str]]:
    """A Redis that wants a password."""
    require("redis")
    program, url = backing.server(tmp_path / "redis", options=("--requirepass", "s/e@cret"))
    program.start()
    try:
        program.wait()
        yield program, url
    finally:
        program.kill()


class TestKeys:
    def test_archives_that_share_a_redis_keep_apart(self, url: str, prefix: str) -> None:
        with (
            closing(RedisCache(url, prefix=f"{prefix}a", timeout_s=60)) as one,
            closing(RedisCache(url, prefix=f"{prefix}b", timeout_s=60)) as other,
        ):
            one.set("k", b"1", ttl_s=60)
            assert other.get("k") is None
            with one.lock("k", ttl_s=60) as first, other.lock("k", ttl_s=60) as second:
                assert (first, second) == (True, True)

    def test_processes_share_values_and_locks(self, url: str, prefix: str) -> None:
        with (
            closing(RedisCache(url, prefix=prefix, timeout_s=60)) as one,
            closing(RedisCache(url, prefix=prefix, timeout_s=60)) as other,
        ):
            one.set("k", b"1", ttl_s=60)
            assert other.get("k") == b"1"
            with one.lock("k", ttl_s=60), other.lock("k", ttl_s=60) as second:
                assert not second

    def test_everything_of_ours_ends(self, url: str, prefix: str, client: Any) -> None:
        with closing(RedisCache(url, prefix=prefix, timeout_s=60)) as cache:
            cache.set("k", b"1", ttl_s=60)
            with cache.lock("k", ttl_s=60):
                lives = {k: client.pttl(k) for k in client.scan_iter(f"{prefix}:*")}
        assert len(lives) == 2
        assert all(0 < life <= 60_000 for life in lives.values())


class TestLimits:
    def test_a_large_value_is_not_kept_and_the_old_one_neither(self, url: str, prefix: str) -> None:
        cache = RedisCache(url, prefix=prefix, timeout_s=60, max_value_bytes=1000)
        with closing(cache):
            cache.set("k", bytes(1000), ttl_s=60)
            assert cache.get("k") == bytes(1000)
            cache.set("k", bytes(1001), ttl_s=60)
            assert cache.get("k") is None

    def test_connections_are_bounded(self, url: str, prefix: str, client: Any) -> None:
        ours = url.rpartition("/")[0] + "/9"  # a database that no other test is connected to
        with closing(RedisCache(ours, prefix=prefix, timeout_s=60, max_connections=3)) as cache:

            def work() -> None:
                for n in range(50):
                    cache.set(f"{n}", b"1", ttl_s=60)
                    assert cache.get(f"{n}") == b"1"

            threads = [threading.Thread(target=work) for _ in range(12)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            connected = [each for each in client.client_list() if each["db"] == "9"]
            assert 1 <= len(connected) <= 3


class TestAuthentication:
    def test_the_password_may_stand_in_a_file(
        self, protected: tuple[Program, str], tmp_path: Path
    ) -> None:
        file = tmp_path / "password"
        file.write_text("s/e@cret\n")
        settings = load_settings(
            storage={"root": tmp_path / "data"},
            cache={"url": protected[1], "password_file": file, "timeout_s": 10},
        )
        with open_archive(settings) as archive:
            archive.cache.check()
            archive.cache.set("k", b"1", ttl_s=60)
            assert archive.cache.get("k") == b"1"

    def test_or_in_the_url(self, protected: tuple[Program, str]) -> None:
        url = protected[1].replace("redis://", "redis://:s%2Fe%40cret@")
        with closing(RedisCache(url, timeout_s=60)) as cache:
            cache.check()

    def test_a_wrong_one_is_said_without_it(self, protected: tuple[Program, str]) -> None:
        url = protected[1].replace("redis://", "redis://:not-this@")
        with closing(RedisCache(url, timeout_s=60)) as cache, capture_logs() as lines:
            with pytest.raises(Unavailable) as said:
                cache.check()
            assert cache.get("k") is None
        assert "not-this" not in f"{said.value} {lines}"
        assert len(lines) == 1

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        settings = load_settings(
            storage={"root": tmp_path / "data"},
            cache={"url": "redis://127.0.0.1:1", "password_file": tmp_path / "absent"},
        )
        reason = r"cache\.password_file.*absent.*no such file"
        with pytest.raises(InvalidRequest, match=reason), open_archive(settings):
            pass


class TestOtherWays:
    def test_unix_socket(self, tmp_path: Path) -> None:
        require("redis")
        short = tempfile.TemporaryDirectory()  # the path of a socket has at most 107 characters
        path = f"{short.name}/redis"
        program, _ = backing.server(tmp_path / "redis", options=("--unixsocket", path))
        program.start()
        try:
            program.wait()
            with closing(RedisCache(f"unix://{path}?db=1", timeout_s=60)) as cache:
                cache.check()
                cache.set("k", b"1", ttl_s=60)
                assert cache.get("k") == b"1"
        finally:
            program.stop()
            short.cleanup()

    def test_tls_checks_the_certificate(self, tmp_path: Path) -> None:
        require("redis")
        port = free_port()
        key, certificate = _self_signed(tmp_path)
        plain = free_port()
        options = (
            *("--tls-port", str(port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
        )
        program, _ = backing.server(tmp_path / "redis", plain, options=options)
        program.start()
        try:
            program.wait()
            url = f"rediss://localhost:{port}/0"
            with closing(RedisCache(url, timeout_s=60, ca_file=str(certificate))) as cache:
                cache.check()
            with (
                closing(RedisCache(url, timeout_s=60)) as cache,
                pytest.raises(Unavailable, match="certificate"),
            ):
                cache.check()
        finally:
            program.stop()

    def test_a_url_that_is_none(self) -> None:
        with pytest.raises(InvalidRequest, match=r"cache\.url") as said:
            RedisCache("redis://:secret@host:port/0")
        assert "secret" not in str(said.value)


def _self_signed(folder: Path) -> tuple[Path, Path]:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    assert ssl.create_default_context(cafile=certificate)
    return key, certificate
