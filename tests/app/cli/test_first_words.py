"""What a newcomer meets: `cherry` without a command, completion by Tab, JSON from every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from app.cli.main import cli
from app.cli.problems import explain
from app.embedded.places import try_lock

ROOT = Path(__file__).parents[3]
CHERRY = str(Path(sys.executable).with_name("cherry"))
RUN_ON = ("api", "worker", "relay", "sampler", "migrate")
"""Commands that are servers, or that another tool runs."""
WRITE_FILES = ("files get", "environments rows")
"""Commands whose output is a file's content."""


def run(folder: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Runs the real command in a folder, without what this process was told of a service."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CHERRY_", "DATABASE"))}
    return subprocess.run(
        [CHERRY, *arguments], cwd=folder, env={**kept, **changes}, capture_output=True, text=True, timeout=60
    )


def test_without_a_command_it_says_what_to_do_first(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "No service runs on .cherry" in done.stdout
    first, then = done.stdout.index("cherry up"), done.stdout.index("cherry jobs create")
    assert first < then


def test_a_service_that_runs_is_named_with_its_address(tmp_path: Path) -> None:
    (tmp_path / ".cherry").mkdir()
    lock = try_lock(tmp_path / ".cherry" / "lock")
    state = {"pid": os.getpid(), "url": "http://127.0.0.1:8123"}
    (tmp_path / ".cherry" / "state.json").write_text(json.dumps(state))
    done = run(tmp_path)
    assert lock is not None
    lock.close()
    assert "A service runs at http://127.0.0.1:8123/v1" in done.stdout
    assert "http://127.0.0.1:8123/dashboard" in done.stdout
    assert "cherry up" not in done.stdout


def test_tab_completes_commands(tmp_path: Path) -> None:
    asked = {"_CHERRY_COMPLETE": "complete_bash", "COMP_WORDS": "cherry jobs ch", "COMP_CWORD": "2"}
    assert run(tmp_path, **asked).stdout.split() == ["check", "checkpoints"]


def commands() -> dict[str, click.Command]:
    """Returns every command by its words."""
    found: dict[str, click.Command] = {}

    def walk(command: click.Command, words: list[str]) -> None:
        below = getattr(command, "commands", None)
        for name, each in (below or {}).items():
            walk(each, [*words, name])
        if not below:
            found[" ".join(words)] = command

    walk(typer.main.get_command(cli), [])
    return found


def test_every_command_that_tells_something_tells_it_as_json_too() -> None:
    lack = [name for name, each in commands().items() if "as_json" not in {p.name for p in each.params}]
    assert sorted(lack) == sorted([*RUN_ON, *WRITE_FILES])


def test_a_checked_file_is_told_as_json(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"messages": [{"role": "user", "content": "hi"}]}\n{"messages": []}\n')
    done = CliRunner().invoke(cli, ["files", "check", str(file), "--json"])
    told = json.loads(done.stdout)
    assert (done.exit_code, told["valid"], told["faults"][0]["line"]) == (1, False, 2)
    file.write_text('{"messages": [{"role": "user", "content": "hi"}]}\n')
    done = CliRunner().invoke(cli, ["files", "check", str(file), "--json"])
    assert (done.exit_code, json.loads(done.stdout)["rows"]) == (0, 1)


def test_broken_json_is_shown_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "grader.json"
    file.write_text('{\n  "type": "string_check"\n  "name": "x"\n}')
    done = CliRunner().invoke(cli, ["graders", "validate", str(file), "--local"])
    said = explain(done.exception) if isinstance(done.exception, Exception) else None
    assert said is not None
    message, shown, mark = said.splitlines()
    assert message.startswith(f"{file} is no JSON: ")
    assert "line 3, column 3" in message
    assert (shown, mark) == ('    "name": "x"', "    ^")


@pytest.mark.parametrize("words", [["graders", "run", "g.json", "--sample", "x", "--rows", "r.jsonl"]])
def test_rows_are_counted_as_lines_from_1(tmp_path: Path, words: list[str]) -> None:
    grader = {"type": "string_check", "name": "same", "operation": "eq"}
    grader |= {"input": "{{sample.output_text}}", "reference": "{{item.answer}}"}
    (tmp_path / "g.json").write_text(json.dumps(grader))
    row = {"messages": [{"role": "user", "content": "?"}]}
    rows = (json.dumps(row | {"answer": answer}) + "\n" for answer in ("x", "y"))
    (tmp_path / "r.jsonl").write_text("".join(rows))
    rewards = [
        json.loads(run(tmp_path, *words, "--local", "--json", "--line", line).stdout)["reward"]
        for line in "12"
    ]
    assert rewards == [1.0, 0.0]
    beyond = run(tmp_path, *words, "--local", "--line", "3")
    assert "there is no line 3" in beyond.stderr


AS_ON_WINDOWS = """
import sys
sys.modules["fcntl"] = None
sys.argv = ["cherry", *sys.argv[1:]]
from app.cli.main import main
main()
"""


def test_where_there_is_no_unix_the_way_to_one_is_told() -> None:
    command = [sys.executable, "-c", AS_ON_WINDOWS, "jobs", "list"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert "WSL 2" in done.stderr
    assert "Traceback" not in done.stderr
