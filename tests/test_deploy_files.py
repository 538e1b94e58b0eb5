"""The files that operators copy name settings that exist, and processes that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from app.cli.main import cli
from app.settings import Settings

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
NO_SETTING = {"CHERRY_MODELS"}  # a folder of the host, mounted by compose


def setting_names() -> set[str]:
    names = {f"CHERRY_{name.upper()}" for name in Settings.model_fields} - {"CHERRY_DATABASE_URL"}
    return names | {"DATABASE_URL"}


def named_settings(text: str) -> set[str]:
    return set(re.findall(r"\b(?:CHERRY_[A-Z_]+|DATABASE_URL)\b", text))


def test_env_example_names_every_setting_and_no_other() -> None:
    assert named_settings((ROOT / ".env.example").read_text()) == setting_names() | {"CHERRY_DATA_DIR"}


@pytest.mark.parametrize("name", ["docker-compose.yml", "Dockerfile"])
def test_deploy_file_names_only_settings_that_exist(name: str) -> None:
    assert named_settings((ROOT / name).read_text()) - NO_SETTING <= setting_names()


def test_env_example_can_be_read_as_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("CHERRY_BROKER_URL", raising=False)
    settings = Settings(_env_file=ROOT / ".env.example")  # type: ignore[call-arg]
    defaults = Settings(database_url="x", broker_url="y", _env_file=None)  # type: ignore[call-arg]
    different = {
        name
        for name in Settings.model_fields
        if name not in ("database_url", "broker_url") and getattr(settings, name) != getattr(defaults, name)
    }
    assert different == set(), "the example shows other values than the defaults"


def test_compose_has_the_services_and_builds_targets_that_exist() -> None:
    services = COMPOSE["services"]
    known = {"postgres", "valkey", "migrate", "api", "relay", "validator", "evaluator", "worker", "sampler"}
    assert set(services) == known
    targets = set(re.findall(r"^FROM \S+ AS (\w+)", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE))
    assert {s["build"]["target"] for s in services.values() if "build" in s} <= targets


@pytest.mark.parametrize("service", ["migrate", "relay", "validator", "worker", "sampler"])
def test_compose_commands_exist(service: str) -> None:
    command = COMPOSE["services"][service]["command"]
    assert command[0] == "cherry"
    shown = CliRunner().invoke(cli, [command[1], "--help"])
    assert shown.exit_code == 0, shown.output
    for option in (word for word in command[2:] if word.startswith("--")):
        assert option in shown.output


def test_dockerfile_keeps_torch_out_of_the_api() -> None:
    stages = (ROOT / "Dockerfile").read_text().split("FROM ")
    api = next(stage for stage in stages if stage.startswith("base AS api"))
    worker = next(stage for stage in stages if stage.startswith("base AS worker"))
    assert ".[graders]" in api
    assert "[train,graders]" in worker


def test_dockerfile_copies_only_what_exists() -> None:
    text = (ROOT / "Dockerfile").read_text()
    for sources in re.findall(r"^COPY (.+) \S+$", text, flags=re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source


def test_every_worker_of_compose_has_the_train_extra() -> None:
    for name, service in COMPOSE["services"].items():
        if service.get("command", [])[:2] in (["cherry", "worker"], ["cherry", "sampler"]):
            assert service["build"]["target"] == "worker", f"{name} tokenizes prompts"
