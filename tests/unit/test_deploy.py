"""What is shipped to deploy with is valid as far as can be told without an engine."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate.utils import validate

from wado.adapters.message_log.kafka_cluster import DEFAULT_PARTITIONS
from wado.archive.health import GROUPS, VIDEO_GROUP
from wado.cli import app
from wado.profile import check_profile
from wado.records import Topic
from wado.settings import Settings, load_settings

PROJECT = Path(__file__).resolve().parents[2]
DEPLOY = PROJECT / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
ONE_SHOT = {"init", "nginx-configuration"}
SECRETS = {
    "WADO_INDEX__URL": "postgresql://wado:secret@postgresql:5432/wado",
    "WADO_WAREHOUSE__URL": "doris://wado:secret@doris-fe:9030/wado",
}


def locked(path: Path) -> dict[str, str]:
    return dict(
        re.findall(r"^([a-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", path.read_text(), re.MULTILINE)
    )


def commands() -> set[str]:
    names = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    return names | {group.name for group in app.registered_groups if group.name}


def settings_of(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    check_profile(settings)
    return settings


# ------------------------------------------------------------------ the image


def test_dockerfile_is_clean() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    subprocess.run([hadolint, DEPLOY / "Dockerfile"], check=True)


@pytest.mark.parametrize("name", ["requirements.txt", "build-requirements.txt"])
def test_image_has_the_locked_packages(name: str) -> None:
    everything, ours = locked(PROJECT / "constraints.txt"), locked(DEPLOY / name)
    assert ours
    assert {k: everything.get(k) for k in ours} == ours


def test_image_lacks_no_package() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["distributed"]
    names = {re.split(r"[\[>=<~! ]", each)[0] for each in wanted}
    assert names <= locked(DEPLOY / "requirements.txt").keys()


def test_what_the_image_copies_is_there() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (PROJECT / source).exists(), source
            assert any(source == i[1:] or source.startswith(f"{i[1:]}/") for i in ignored), source


# ------------------------------------------------------------------ compose


@pytest.fixture
def compose() -> dict[str, Any]:
    """The file with the variables of the example put in."""
    example = dict(
        line.split("=", 1)
        for line in (DEPLOY / ".env.example").read_text().splitlines()
        if "=" in line
    )

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        assert name in example or default is not None, f"{name} is not in .env.example"
        return example.get(name) or default or "secret"

    text = (DEPLOY / "compose.yml").read_text()
    text = re.sub(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\}", value, text)
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def test_services_of_compose_are_settings_that_work(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(monkeypatch, compose["x-wado"]["environment"])
    assert settings.profile == "distributed"
    assert json.dumps(compose["x-wado"]["environment"]).count("secret") == 1  # the password


def test_services_of_compose_are_watched(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert re.search(r":[\w.-]*\d", service["image"]), f"{name}: no version"
        assert name in ONE_SHOT or "healthcheck" in service, name
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert how["condition"] == wanted, f"{name}: {other}"
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"], volume


def test_commands_of_compose_are_ours(compose: dict[str, Any]) -> None:
    ours = [s for s in compose["services"].values() if s["image"].startswith("wado:")]
    assert {"storescp", "server", "consumer", "webworker", "init"} <= {
        s["command"][0] for s in ours
    }
    assert {s["command"][0] for s in ours} <= commands()


# ------------------------------------------------------------------ Kubernetes


def resources() -> Iterator[dict[str, Any]]:
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert {p.name for p in BASE.glob("*.yaml")} == {*listed, "kustomization.yaml"}
    for name in listed:
        yield from yaml.safe_load_all((BASE / name).read_text())


def test_resources_are_those_of_kubernetes() -> None:
    for resource in resources():
        validate(resource, "1.37", strict=True)


def test_services_of_kubernetes_are_settings_that_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(BASE / "wado.toml")
    check_profile(settings)
    ports = {
        port["name"]: port["containerPort"]
        for r in resources()
        if r["kind"] == "Deployment"
        for port in r["spec"]["template"]["spec"]["containers"][0]["ports"]
    }
    assert ports == {
        "dimse": settings.storescp.port,
        "http": settings.server.port,
        "telemetry": settings.telemetry.port,
    }


def test_what_selects_finds() -> None:
    everything = list(resources())
    pods = {
        tuple(sorted(r["spec"]["template"]["metadata"]["labels"].items())): r
        for r in everything
        if r["kind"] == "Deployment"
    }
    assert len(pods) == 4
    for r in everything:
        if r["kind"] in {"Deployment", "PodDisruptionBudget"}:
            assert tuple(sorted(r["spec"]["selector"]["matchLabels"].items())) in pods
        if r["kind"] == "Service":
            pod = pods[tuple(sorted(r["spec"]["selector"].items()))]
            container = pod["spec"]["template"]["spec"]["containers"][0]
            wanted = {port["targetPort"] for port in r["spec"]["ports"]}
            assert wanted <= {port["name"] for port in container["ports"]}
        if r["kind"] == "HorizontalPodAutoscaler":
            named = r["spec"]["scaleTargetRef"]["name"]
            assert named in {d["metadata"]["name"] for d in pods.values()}


def test_pods_run_our_commands_and_are_probed() -> None:
    for r in resources():
        if r["kind"] not in {"Deployment", "Job"}:
            continue
        pod = r["spec"]["template"]["spec"]
        container = pod["containers"][0]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["args"][2] in commands()
        assert r["kind"] == "Job" or {"startupProbe", "livenessProbe"} <= container.keys()


@pytest.mark.parametrize(
    ("name", "topic", "groups"),
    [
        ("consumer", Topic.STORAGE, [GROUPS[Topic.STORAGE]]),
        ("webworker", Topic.TRANSCODE, [GROUPS[Topic.TRANSCODE], VIDEO_GROUP]),
    ],
)
def test_lag_scales_services_up_to_the_partitions(
    name: str, topic: Topic, groups: list[str]
) -> None:
    scaled = yaml.safe_load((DEPLOY / "kubernetes" / "lag" / f"{name}.yaml").read_text())
    assert scaled["spec"]["scaleTargetRef"]["name"] == f"wado-{name}"
    assert scaled["spec"]["maxReplicaCount"] == DEFAULT_PARTITIONS
    triggers = [trigger["metadata"] for trigger in scaled["spec"]["triggers"]]
    settings = load_settings(BASE / "wado.toml")
    for trigger in triggers:
        assert settings.log.url == f"kafka://{trigger['bootstrapServers']}"
        assert trigger["topic"] == topic
    assert [trigger["consumerGroup"] for trigger in triggers] == groups


# ------------------------------------------------------------------ systemd


def test_units_are_valid(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not on this machine")
    for unit in (DEPLOY / "systemd").iterdir():
        # The program that is started is looked for: it lies elsewhere here.
        text = unit.read_text().replace("/opt/wado/bin/wado", shutil.which("true") or "/bin/true")
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        [program, "verify", *tmp_path.iterdir()],
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_units_run_our_commands() -> None:
    started = [
        line.split()
        for unit in (DEPLOY / "systemd").glob("*.service")
        for line in re.findall(r"^ExecStart=(.+)$", unit.read_text(), re.MULTILINE)
    ]
    assert {line[3] for line in started} == {"storescp", "server", "consumer", "webworker", "init"}
    assert {line[3] for line in started} <= commands()
