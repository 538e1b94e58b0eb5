"""`cherry graders`, with a service and without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from app.cli.output import CliError
from tests.factories import GRADER, Tenant

runner = CliRunner()


@pytest.fixture
def grader(tmp_path: Path) -> str:
    path = tmp_path / "grader.json"
    path.write_text(json.dumps(GRADER))
    return str(path)


@pytest.fixture(params=["local", "service"])
def place(request: pytest.FixtureRequest) -> list[str]:
    """Options that lead to where the grader is run."""
    if request.param == "local":
        return ["--local"]
    tenant: Tenant = request.getfixturevalue("tenant")
    return ["--url", request.getfixturevalue("server_url"), "--key", tenant.key]


def call(*arguments: str) -> Any:
    return runner.invoke(cli, ["graders", *arguments])


def test_a_grader_is_shown_as_it_is_understood(grader: str, place: list[str]) -> None:
    shown = call("validate", grader, "--json", *place)
    assert json.loads(shown.output) == GRADER


def test_an_answer_is_graded(grader: str, place: list[str]) -> None:
    shown = call("run", grader, "--sample", "a", "--item", '{"answer": "a"}', "--json", *place)
    assert (shown.exit_code, json.loads(shown.output)["reward"]) == (0, 1.0)
    shown = call("run", grader, "--sample", "b", "--item", '{"answer": "a"}', *place)
    assert shown.output.splitlines()[0].split() == ["Reward", "0"]


def test_several_answers_are_graded_one_under_the_other(grader: str, place: list[str]) -> None:
    several = ("--sample", "a", "--sample", "b  c", "--item", '{"answer": "a"}')
    shown = call("run", grader, *several, *place).output.splitlines()
    assert [line for line in shown if line[0].isdigit()] == ["1. a", "2. b c"]
    assert [line.split()[1] for line in shown if line.startswith("Reward")] == ["1", "0"]
    results = json.loads(call("run", grader, *several, "--json", *place).output)["results"]
    assert [one["reward"] for one in results] == [1.0, 0.0]


def test_a_failed_grading_is_told_and_has_an_exit_code(grader: str, place: list[str]) -> None:
    shown = call("run", grader, "--sample", "a", *place)
    assert shown.exit_code == 1
    assert "invalid_variable_error" in shown.output
    assert "item.answer" in shown.output


def test_an_invalid_grader_is_named(tmp_path: Path, place: list[str]) -> None:
    path = tmp_path / "grader.json"
    path.write_text(json.dumps({**GRADER, "operation": "is"}))
    shown = call("validate", str(path), *place)
    assert shown.exception is not None
    assert "Supported values" in str(shown.exception)


def test_the_row_comes_out_of_a_data_set(grader: str, tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "?"}], "answer": answer} for answer in "abc"]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sample.txt").write_text("b")
    sample = ["--sample-file", str(tmp_path / "sample.txt"), "--rows", str(data), "--local", "--json"]
    assert [json.loads(call("run", grader, *sample, "--row", str(i)).output)["reward"] for i in range(3)] == [
        0.0,
        1.0,
        0.0,
    ]
    assert "3 rows" in str(call("run", grader, *sample, "--row", "3").exception)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--item", "{}"], "--sample"),
        (["--sample", "a", "--item", "[1]"], "holds no JSON object"),
        (["--sample", "a", "--item", "{"], "no JSON"),
        (["--sample", "a", "--item", "{}", "--rows", "x"], "either --item or --rows"),
    ],
)
def test_wrong_options_are_explained(grader: str, arguments: list[str], hint: str) -> None:
    shown = call("run", grader, "--local", *arguments)
    assert isinstance(shown.exception, CliError)
    assert hint in str(shown.exception)


def test_a_check_tells_what_a_grader_pays_for(tmp_path: Path) -> None:
    path, data = tmp_path / "grader.json", tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**GRADER, "operation": "ilike"}))
    rows = [{"messages": [{"role": "user", "content": "?"}], "answer": answer} for answer in ("Pisa", "Rome")]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = call("check", str(path), "--data", str(data))
    assert shown.exit_code == 1
    assert (
        "warn: Wrong answers get as much as the right one: all labels at once (1 on lines 1, 2)"
        in shown.output
    )
    report = json.loads(call("check", str(path), "--data", str(data), "--json").output)
    assert {"code", "level", "message", "lines"} == set(report["findings"][0])
    assert {trial["line"] for trial in report["trials"]} == {1, 2}


def test_a_sound_grader_needs_no_data_to_pass_its_check(grader: str) -> None:
    shown = call("check", grader)
    assert shown.exit_code == 0
    assert "warn" not in shown.output


def test_where_the_right_answer_lies_can_be_said(tmp_path: Path, grader: str) -> None:
    assert "no row has 'item.gold'" in str(call("check", grader, "--reference", "gold").exception)
    report = json.loads(call("check", grader, "--reference", "item.answer", "--json").output)
    assert [trial["value"] for trial in report["trials"] if trial["probe"] == "the reference answer"] == [
        1.0
    ] * 3
