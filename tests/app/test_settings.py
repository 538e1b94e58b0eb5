"""A misspelt setting is refused by every process; every other `CHERRY_` name has somebody who reads it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from app.cli.problems import explain
from app.embedded.supervisor import Given
from app.settings import FOR_TESTS, NO_SETTINGS, Settings, SettingUnknown, get_settings, setting_names

ROOT = Path(__file__).parents[2]
NEEDED = {"DATABASE_URL": "postgresql://nobody@nowhere/nothing", "CHERRY_BROKER_URL": "memory://"}


@pytest.fixture
def misspelt(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    get_settings.cache_clear()
    for name, value in {**NEEDED, "CHERRY_LEESE": "PT1M"}.items():
        monkeypatch.setenv(name, value)
    yield
    get_settings.cache_clear()


@pytest.mark.parametrize("kind", [Settings, Given])
def test_a_misspelt_setting_is_refused_with_the_nearest_name(misspelt: None, kind: type[Settings]) -> None:
    with pytest.raises(
        SettingUnknown, match=r"CHERRY_LEESE is no setting \(did you mean CHERRY_LEASE\?\)"
    ) as caught:
        kind()
    assert explain(caught.value) == str(caught.value)
    assert "PT1M" not in str(caught.value), "a value may be a secret"


@pytest.mark.parametrize("command", ["api", "worker", "relay", "sampler", "migrate", "up"])
def test_no_process_starts_with_one(misspelt: None, tmp_path: Path, command: str) -> None:
    data = ["--data", str(tmp_path / "data")] if command == "up" else []
    done = CliRunner().invoke(cli, [command, *data])
    assert isinstance(done.exception, SettingUnknown)
    assert not (tmp_path / "data").exists()


def test_all_of_them_are_told_and_one_without_a_neighbour_plainly(
    tmp_path: Path,
) -> None:
    (tmp_path / ".env").write_text("CHERRY_QQQ=1\nCHERRY_PORTS=1\nOTHER=2\n")
    with pytest.raises(SettingUnknown) as caught:
        Settings(_env_file=tmp_path / ".env", broker_url="x", database_url="y")  # type: ignore[call-arg]
    assert str(caught.value) == (
        "In .env: CHERRY_PORTS is no setting (did you mean CHERRY_PORT?); CHERRY_QQQ is no setting."
        " .env.example lists all settings."
    )


def test_what_is_not_ours_to_read_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    others = {
        "CHERRY_URL": "http://127.0.0.1:8000",
        "CHERRY_FUZZ_EXAMPLES": "200",
        "CHERRY_TEST_KILLS": "2",
        "CHERRY_API_SERVICE_HOST": "10.0.0.1",
        "CHERRY_API_SERVICE_PORT_HTTP": "80",
        "CHERRY_API_PORT": "tcp://10.0.0.1:80",
        "CHERRY_API_PORT_80_TCP_ADDR": "10.0.0.1",
        "CHERRYPICK": "x",
    }
    for name, value in {**NEEDED, **others}.items():
        monkeypatch.setenv(name, value)
    assert Settings().port == 8000


def test_every_name_in_the_repository_is_a_setting_or_named_as_another() -> None:
    """Tests and benchmarks take names of `FOR_TESTS`: the services that they start would refuse others."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no repository here")
    known = setting_names() | NO_SETTINGS.keys()
    made_up = {"CHERRY_LEESE", "CHERRY_PORTS", "CHERRY_QQQ", "CHERRY_SECRET"}
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if (
            path.suffix not in (".py", ".md", ".yml", ".yaml", ".toml", ".example", ".sh", "")
            or not path.is_file()
        ):
            continue
        for found in (
            set(re.findall(r"\bCHERRY_[A-Z0-9_]*[A-Z0-9]\b", path.read_text("utf-8", "ignore"))) - made_up
        ):
            assert found in known or found.startswith(FOR_TESTS) or name == "tests/app/test_settings.py", (
                name,
                found,
            )
