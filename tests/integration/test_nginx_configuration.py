"""`wado deploy nginx`: whatever the settings, nginx takes what is written."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import real
from backing import nginx
from nginx_site import certificate
from wado.errors import InvalidRequest
from wado.nginx import nginx_configuration
from wado.settings import Settings, load_settings

DEPLOY = real.PROJECT / "deploy"
TLS = {"https_listen": "127.0.0.1:8443"}
ONLY_DICOM = {"http_listen": ""}


def checked(folder: Path, configuration: str) -> str:
    """What nginx says of a configuration; AssertionError if it does not take it."""
    real.require("nginx")
    file = folder / "nginx.conf"
    file.write_text(configuration)
    done = subprocess.run(
        nginx.check_arguments(folder, file), capture_output=True, text=True, check=False
    )
    said = done.stderr + (folder / "start.log").read_text()
    assert done.returncode == 0, said
    return said


def settings_of(folder: Path, **sections: dict[str, Any]) -> Settings:
    own = {"run_folder": str(folder), "http_listen": "127.0.0.1:8088"}
    given = {**own, "dimse_listen": "127.0.0.1:1104", **sections.pop("nginx", {})}
    return load_settings(None, nginx=given, **sections)


@pytest.mark.parametrize(
    ("more", "sections"),
    [
        ({}, {}),
        ({"http_listen": ""}, {}),
        ({"dimse_listen": ""}, {}),
        ({"http_listen": "[::1]:8088", "dimse_listen": "[::1]:1104"}, {}),
        ({"servers": ["127.0.0.1:1", "[::1]:2", "localhost:3"]}, {}),
        ({"storescps": ["127.0.0.1:1", "[::1]:2", "localhost:3"]}, {}),
        ({"server_names": ["pacs.example.org", "*.example.org"]}, {}),
        ({"static_folder": "/usr/share/wado/viewer/"}, {}),
        ({"static_folder": "/usr/share/wado/viewer"}, {"server": {"root_path": "/pacs"}}),
        ({"static_folder": "/v"}, {"server": {"public_url": "https://pacs.example.org/a/b/"}}),
        ({}, {"server": {"x_accel_location": "/_files"}}),
        ({}, {"server": {"x_accel_location": "/_files"}, "storage": {"url": "file:///a%2Bb/c"}}),
        ({}, {"server": {"x_accel_location": "/_files"}, "storage": {"url": "s3://bucket/a"}}),
        ({}, {"storescp": {"proxy_protocol_from": ["127.0.0.0/8", "::1/128"]}}),
        ({}, {"server": {"host": "::1"}, "storescp": {"host": "::1"}}),
        ({"proxies": ["10.0.0.0/8", "fd00::/8"]}, {}),
        ({"metrics_from": []}, {}),
        ({"workers": 3, "user": nginx.own_user()}, {}),
        ({**TLS}, {}),
        ({**TLS, "http_listen": "", "hsts_s": 31536000}, {}),
        ({**TLS, "static_folder": "/v", "hsts_s": 1}, {"server": {"x_accel_location": "/f"}}),
        ({"dimse_tls_listen": "127.0.0.1:2762"}, {}),
        ({"dimse_tls_listen": "127.0.0.1:2762", "dimse_client_ca": "CA", **ONLY_DICOM}, {}),
        (
            {
                "dimse_tls_listen": "127.0.0.1:2762",
                "dimse_tls_names": {
                    "a.example.org": ["127.0.0.1:1", "127.0.0.1:2"],
                    "*.b.example.org": ["127.0.0.1:3"],
                },
            },
            {"storescp": {"proxy_protocol_from": ["127.0.0.0/8"]}},
        ),
    ],
)
def test_nginx_takes_it(tmp_path: Path, more: dict[str, Any], sections: dict[str, Any]):
    made = certificate(tmp_path, "pacs.example.org")
    if "dimse_client_ca" in more:
        more = {**more, "dimse_client_ca": made["certificate"]}
    text = nginx_configuration(settings_of(tmp_path, nginx={**made, **more}, **sections))
    assert "test is successful" in checked(tmp_path, text)


def test_the_example_is_up_to_date(tmp_path: Path):
    file = tmp_path / "nginx.conf"
    command = [sys.executable, "-m", "wado", "deploy", "nginx"]
    command += ["--config", str(DEPLOY / "nginx.toml"), "--out", str(file)]
    subprocess.run(command, check=True, timeout=120)
    assert file.read_text() == (DEPLOY / "nginx.conf").read_text()


def test_nginx_takes_the_example(tmp_path: Path):
    """But for the files that only the real place has."""
    made = certificate(tmp_path, "pacs.example.org")
    text = (DEPLOY / "nginx.conf").read_text()
    for place, ours in {
        "/etc/ssl/pacs.pem": made["certificate"],
        "/etc/ssl/pacs.key": made["certificate_key"],
        "/var/log/nginx": str(tmp_path),
        "/run/nginx.pid": f"{tmp_path}/nginx.pid",
        "user www-data;": f"user {nginx.own_user() or 'www-data'};",
    }.items():
        assert place in text
        text = text.replace(place, ours)
    checked(tmp_path, text)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (TLS, "certificate"),
        ({"dimse_tls_listen": "127.0.0.1:2762"}, "certificate"),
        ({"http_listen": "", "dimse_listen": ""}, "nowhere"),
    ],
)
def test_what_cannot_work_is_said(tmp_path: Path, more: dict[str, Any], reason: str):
    with pytest.raises(InvalidRequest, match=reason):
        nginx_configuration(settings_of(tmp_path, nginx=more))


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path):
    for name in ("a b", "a;b", "a$b", "a{b", 'a"b'):
        settings = settings_of(
            tmp_path, storage={"root": f"/{name}"}, server={"x_accel_location": "/_files"}
        )
        with pytest.raises(InvalidRequest, match="folder of the images"):
            nginx_configuration(settings)


@pytest.mark.parametrize(
    "more",
    [
        {"http_listen": "80"},
        {"http_listen": "127.0.0.1:80; include /etc/passwd"},
        {"servers": ["127.0.0.1:80;"]},
        {"server_names": ["a b"]},
        {"server_names": ["a;"]},
        {"static_folder": "/a b"},
        {"certificate": "/a;b"},
        {"dimse_tls_names": {"a}": ["127.0.0.1:1"]}},
        {"user": "root; x"},
        {"modules": "/x;y"},
        {"run_folder": "/a\nb"},
        {"proxies": ["somewhere"]},
    ],
)
def test_settings_that_would_break_it_are_refused(tmp_path: Path, more: dict[str, Any]):
    with pytest.raises(ValidationError):
        settings_of(tmp_path, nginx=more)


def test_what_is_on_the_way_is_not_kept_and_nothing_begun_is_repeated(tmp_path: Path):
    text = nginx_configuration(settings_of(tmp_path))
    assert re.search(r"^\s*proxy_request_buffering off;$", text, re.MULTILINE)
    assert re.search(r"^\s*proxy_max_temp_file_size 0;$", text, re.MULTILINE)
    assert re.search(r"^\s*client_max_body_size 0;$", text, re.MULTILINE)
    assert re.search(r"^\s*proxy_next_upstream error timeout;$", text, re.MULTILINE)
