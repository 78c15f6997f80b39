"""Commands that look at the services of an archive, and say what to do."""

import sys
import tomllib
from pathlib import Path

import pytest

from backing.program import free_port
from wado import cli_status
from wado.cli import main

AWAY = "redis://wado:secret@127.0.0.1:{port}/0"
DISTRIBUTED = """
profile = "distributed"
[log]
url = "kafka://127.0.0.1:1"
[index]
url = "postgresql://127.0.0.1:1/wado"
[warehouse]
url = "doris://127.0.0.1:1/wado"
[cache]
url = "redis://127.0.0.1:1/0"
[storage]
root = "data"
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_status, "_STATUS_S", 60.0)
    (tmp_path / "data").mkdir()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def run_it(*words: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["wado", *words])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code, said.out + said.err

    return run_it


@pytest.mark.parametrize("command", ["up", "server", "storescp", "consumer", "webworker"])
def test_a_service_without_its_settings_says_in_plain_lines_what_to_add(
    run, tmp_path: Path, command: str
) -> None:
    (tmp_path / "wado.toml").write_text('profile = "distributed"\n')
    code, text = run(command)
    assert code == 1
    assert text.startswith('wado: profile = "distributed" needs services')
    assert "\n[log]\nurl = " in text


class TestInit:
    def test_on_one_machine_nothing_else_is_needed(self, run) -> None:
        code, text = run("init")
        assert (code, "nothing else is needed" in text) == (0, True)

    def test_what_does_not_answer_is_named_with_what_to_do(self, run, tmp_path: Path) -> None:
        url = AWAY.format(port=free_port())
        (tmp_path / "wado.toml").write_text(f'[cache]\nurl = "{url}"\n')
        code, text = run("init", "--wait", "0.1")
        assert code == 1
        assert "not prepared: cache" in text
        assert "run `wado init` again" in text
        assert "secret" not in text
        assert (tmp_path / "data" / "incoming").is_dir()

    def test_what_is_missing_can_be_copied(self, run, tmp_path: Path) -> None:
        (tmp_path / "wado.toml").write_text('profile = "distributed"\n')
        code, text = run("init")
        assert code == 1
        lines = text[text.index("[") : text.index("Then run")]
        (tmp_path / "wado.toml").write_text('profile = "distributed"\n' + lines)
        assert set(tomllib.loads(lines)) == {"log", "index", "warehouse", "cache", "storage"}


class TestStatus:
    def test_tells_what_is_away_and_goes_on(self, run, tmp_path: Path) -> None:
        url = AWAY.format(port=free_port())
        (tmp_path / "wado.toml").write_text(f'[cache]\nurl = "{url}"\n')
        code, text = run("status")
        assert code == 1
        assert "NO: Redis does not answer" in text
        assert "secret" not in text
        assert "storage_queue" in text
        assert "The archive is empty." in text

    def test_quick(self, run) -> None:
        code, text = run("status", "--quick")
        assert code == 0
        assert "storage_queue" in text
        assert "empty" not in text


@pytest.mark.parametrize("command", ["check", "transcode", "verify", "transcode --dry-run"])
def test_a_tenant_of_which_there_is_nothing_is_no_tenant_with_nothing_wrong(
    run, command: str
) -> None:
    code, text = run(*command.split(), "--tenant", "radiolgy")
    assert code == 1
    assert "there is nothing of tenant radiolgy" in text


def test_reindex_wants_to_hear_that_all_is_stopped(run, tmp_path: Path) -> None:
    (tmp_path / "wado.toml").write_text(DISTRIBUTED)
    code, text = run("reindex")
    assert code == 1
    assert "--stopped" in text
