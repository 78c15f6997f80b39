"""Settings: defaults for one machine, a TOML file, environment, command line; in that order."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from wado.settings import Settings, load_settings


def _every_setting() -> Iterator[tuple[str, FieldInfo]]:
    for section, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for name, inner in kind.model_fields.items():
                yield f"{section}.{name}", inner
        else:
            yield section, field


EVERY_SETTING = list(_every_setting())


def test_defaults_are_those_that_the_design_promises():
    settings = load_settings()
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8080)
    assert (settings.storescp.port, settings.storescp.ae_title) == (11112, "WADO")
    assert settings.storage.root == Path("data")
    assert settings.storage.durability == "fsync"
    assert settings.storage.duplicates == "keep"
    assert settings.profile == "embedded"


def test_the_environment_wins_over_the_file_and_overrides_win_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = tmp_path / "wado.toml"
    config.write_text(
        '[storage]\ndurability = "os"\n[storescp]\nport = 1\nae_title = "FILE"\n'
        '[server]\nport = 3\n[storescp.tenants]\nCLINIC = "clinic"\n'
    )
    monkeypatch.setenv("WADO_STORESCP__PORT", "2")
    monkeypatch.setenv("WADO_SERVER__PORT", "4")
    settings = load_settings(config, server={"port": 5})
    assert settings.storage.durability == "os"
    assert settings.storescp.ae_title == "FILE"
    assert settings.storescp.port == 2
    assert settings.server.port == 5
    assert settings.storescp.tenants == {"CLINIC": "clinic"}


@pytest.mark.parametrize(
    "text",
    [
        "[storage]\ndurabilty = 'os'",
        "[storage]\ndurability = 'maybe'",
        "unknown = 1",
        "[storescp]\nport = 70000",
        "[storescp]\nartim_timeout_s = 0",
        "[storescp]\nae_title = 'LONGER THAN SIXTEEN'",
    ],
)
def test_a_wrong_setting_is_refused_and_named(tmp_path: Path, text: str):
    config = tmp_path / "wado.toml"
    config.write_text(text)
    name = re.findall(r"(\w+) =", text)[0]
    with pytest.raises(ValidationError, match=name):
        load_settings(config)


def test_settings_do_not_change():
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.profile = "distributed"  # type: ignore[misc]  # that is what is tested
    with pytest.raises(ValidationError):
        settings.storage.durability = "os"  # type: ignore[misc]  # likewise


@pytest.mark.parametrize(("name", "field"), EVERY_SETTING)
def test_every_setting_says_what_it_is_and_has_a_default(name: str, field: FieldInfo):
    assert field.description, name
    assert not field.is_required(), name


@pytest.mark.parametrize(("name", "field"), EVERY_SETTING)
def test_a_number_with_a_dimension_has_its_unit_in_its_name(name: str, field: FieldInfo):
    """Seconds end in _s, bytes in _bytes; what counts things says so in its description."""
    assert field.description
    says = field.description.lower()
    if field.annotation is float:
        assert name.endswith(("_s", "_ratio")), name
    if field.annotation is int and "in bytes" in says:
        assert name.endswith("_bytes"), name
    if re.search(r"\bseconds\b", says):
        assert name.endswith("_s"), name
