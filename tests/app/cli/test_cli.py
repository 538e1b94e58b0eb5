"""Commands that need no service."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from openai import APIConnectionError, OpenAI
from pydantic import ValidationError
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app.cli.doctor import check_devices
from app.cli.main import cli
from app.cli.output import CliError
from app.cli.problems import explain
from app.cli.service import summary
from app.devices import listing
from app.embedded.places import try_lock
from app.embedded.supervisor import Given, Running, Supervisor
from app.settings import Settings
from app.tenants import service as tenants
from tests.e2e.service import GRADER, write_rows

runner = CliRunner()
COMMANDS = (
    "up",
    "api",
    "worker",
    "relay",
    "sampler",
    "migrate",
    "doctor",
    "keys",
    "projects",
    "models",
    "jobs",
    "files",
    "graders",
    "import",
    "cards",
    "chat",
)


def test_up_shows_the_url_that_clients_need(tmp_path: Path) -> None:
    base = "http://127.0.0.1:8000"
    running = Running(base, f"{base}/v1", "sk-cherry-x", f"{base}/dashboard", tmp_path, 1)
    assert summary(running)["URL"] == "http://127.0.0.1:8000/v1"


def test_up_warns_of_gpus_that_nobody_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "of_driver", tuple)
    said: list[str] = []
    for devices in ("cpu:0,cpu:1", "cpu:0,3"):
        given = Given(devices=devices, device_folder=tmp_path)
        assert Supervisor(given, tmp_path, host="::1", port=0, say=said.append)._trainings() == 2
    (warning,) = said
    assert warning.startswith("Warning: GPU 3 is to be used, but this machine shows no GPU")


def test_doctor_looks_at_the_devices_of_the_service_that_runs(tmp_path: Path) -> None:
    assert not [found for found in check_devices(tmp_path) if found.detail.startswith("cpu:")]
    lock = try_lock(tmp_path / "lock")
    assert lock
    state = {"pid": os.getpid(), "devices": ["cpu:0", "cpu:1"], "device_folder": str(tmp_path / "devices")}
    (tmp_path / "state.json").write_text(json.dumps(state))
    with lock:
        found = [finding.detail for finding in check_devices(tmp_path) if finding.name == "device"]
    assert found == ["cpu:0: free", "cpu:1: free"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    shown = runner.invoke(cli, [command, "--help"])
    assert shown.exit_code == 0
    assert "Usage" in shown.output


def test_a_good_file_is_counted(tmp_path: Path) -> None:
    checked = runner.invoke(cli, ["files", "check", str(write_rows(tmp_path / "rows.jsonl", 3))])
    assert checked.exit_code == 0
    assert "3 rows" in checked.output


def test_a_bad_file_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n')
    checked = runner.invoke(cli, ["files", "check", str(tmp_path / "rows.jsonl")])
    assert isinstance(checked.exception, CliError)
    assert "line 1" in str(checked.exception)


def test_rows_are_checked_against_a_grader(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 2)
    grader = tmp_path / "grader.json"
    grader.write_text(json.dumps({**GRADER, "reference": "{{item.city}}"}))
    checked = runner.invoke(cli, ["files", "check", str(rows), "--grader", str(grader)])
    assert "2 of 2 rows lack 'item.city', which the grader reads: lines 1-2" in str(checked.exception)


def test_without_a_service_the_way_to_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "CHERRY_URL", "CHERRY_API_KEY", "CHERRY_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    for command in (["jobs", "list"], ["keys", "list"]):
        asked = runner.invoke(cli, [*command, "--data", str(tmp_path)])
        assert isinstance(asked.exception, CliError)
        assert "cherry up" in str(asked.exception)
        assert "--data" in str(asked.exception)


def test_faults_of_the_program_are_not_explained_away() -> None:
    assert explain(RuntimeError("a bug")) is None


def test_a_setting_that_is_wrong_is_named_as_it_is_set() -> None:
    given = {"DATABASE_URL": "postgresql://h/n", "broker_url": "memory://", "max_file_bytes": "abc"}
    with pytest.raises(ValidationError) as fault:
        Settings(**given)
    assert str(explain(fault.value)).startswith("settings are wrong or missing (CHERRY_MAX_FILE_BYTES: Input")


def test_a_service_that_cannot_be_reached_is_named_without_the_query() -> None:
    client = OpenAI(base_url="http://127.0.0.1:9/v1", api_key="k", max_retries=0)
    with pytest.raises(APIConnectionError) as fault:
        client.get("/events?stream=true", cast_to=object)
    said = explain(fault.value)
    assert said is not None
    assert said.startswith("cannot reach the service at http://127.0.0.1:9/: is it running?")
    assert "`cherry up`" in said


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("localhost:8765", "http:// is missing: give --url http://localhost:8765"),
        ("example.org/v1", "http:// is missing: give --url http://example.org/v1"),
        ("ftp://example.org", "give --url http://HOST:PORT or https://HOST"),
        ("http://localhost:x", "give --url http://HOST:PORT or https://HOST"),
        ("http://", "give --url http://HOST:PORT or https://HOST"),
    ],
)
def test_what_is_no_address_is_told_with_one_that_is(url: str, told: str) -> None:
    asked = runner.invoke(cli, ["jobs", "list", "--url", url, "--key", "k"])
    assert isinstance(asked.exception, CliError)
    assert told in str(asked.exception)


def test_a_file_that_is_not_there_is_named_first() -> None:
    assert explain(FileNotFoundError(2, "No such file", "rows.jsonl")) == "rows.jsonl: No such file"
    assert explain(OSError("odd")) == "odd"


def test_admin_keys_are_made_listed_and_revoked(settings: Settings, tmp_path: Path, db: Session) -> None:
    data = ["--data", str(tmp_path)]

    def run(*arguments: str) -> str:
        done = runner.invoke(cli, ["keys", *arguments, *data])
        assert done.exit_code == 0, done.output
        return done.stdout

    made = json.loads(run("create", "--admin", "--name", "boss", "--json"))
    run("create")
    assert tenants.find_admin_key(db, made["key"])
    assert [key["kind"] for key in json.loads(run("list", "--json"))] == ["project", "admin"]
    run("revoke", made["id"])
    db.rollback()
    assert tenants.find_admin_key(db, made["key"]) is None
