"""What an operator gets wrong is said in one line."""

import itertools
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import synthetic
from steps import catalogue_all, load_all, store
from wado import cli_tools
from wado.bootstrap import open_archive
from wado.cli import main
from wado.errors import InvalidRequest
from wado.ports import Archive
from wado.settings import load_settings


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["wado", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (1, 2)
    return capsys.readouterr().err


def test_settings_file_that_is_no_toml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "wado.toml"
    config.write_text("a = = b")
    text = said(capsys, monkeypatch, "--config", str(config), "status")
    assert text.startswith(f"wado: the settings can't be read: {config}: Invalid value (at line 1")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[storage]\ncolour = 'x'", "storage.colour: there is no such setting (given: 'x')"),
        (
            "[[transcode.rules]]\ntarget = '1.2.840.10008.1.2.1'\nmodalities = 'MG'",
            "transcode.rules, number 1.modalities: it should be a list (given: 'MG')",
        ),
        ("[storescp]\nport = '[/x]'", "storescp.port: Input should be a valid integer"),
        ("[log]\nurl = ['kafka://']", "log.url: Input should be a valid string"),
        ("[index]\nworkers = 'postgresql://a:s3cret@b/c'", "index.workers: there is no such"),
        ("[server]\ndeidentification_key = 's3cret'", "server.deidentification_key: String"),
    ],
)
def test_settings_that_are_wrong(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    written: str,
    expected: str,
) -> None:
    config = tmp_path / "wado.toml"
    config.write_text(written)
    text = said(capsys, monkeypatch, "--config", str(config), "status")
    assert text.startswith(f"wado: setting {expected}")
    assert "s3cret" not in text
    assert text.count("\n") == 1


def test_setting_in_the_environment_that_is_no_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WADO_STORESCP__TENANTS", "no JSON")
    assert said(capsys, monkeypatch, "status").startswith("wado: the settings can't be read")


def test_tenant_that_can_be_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = said(capsys, monkeypatch, "check", "--root", str(tmp_path), "--tenant", "../x")
    assert text == "wado: not a tenant id: '../x'\n"


def test_tenant_in_the_settings_that_can_be_none(tmp_path: Path) -> None:
    settings = load_settings(storage={"root": tmp_path}, storescp={"tenants": {"CT1": "log"}})
    with pytest.raises(InvalidRequest, match="not a tenant id: 'log'"), open_archive(settings):
        pass


def test_a_log_that_stands_still_for_a_while_is_waited_for(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader pauses, as it does after an outage."""
    store(archive, synthetic.ct())
    waits = itertools.count(1)

    def wait(_seconds: float) -> None:
        if next(waits) == 5:
            catalogue_all(archive)
            load_all(archive)

    monkeypatch.setattr(cli_tools, "time", SimpleNamespace(monotonic=time.monotonic, sleep=wait))
    said: list[str] = []
    assert cli_tools.settle(archive, 30, said.append) == 0
    assert re.fullmatch("waiting for [1-9][0-9]* messages to be read", said[0])
