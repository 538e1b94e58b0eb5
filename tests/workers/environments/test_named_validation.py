"""Environments that a job names are tried on its first row, before it trains."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.settings import get_settings
from graders import parse_grader
from methods.rows import Row
from tests.workers.environments.test_named import FOREIGN, ITEM
from workers.jobs.grader_validation import GRADER, check_named_environment
from workers.jobs.job_data import DataFile, JobInvalid

ENTRIES = {
    "guess": {"load": f"{FOREIGN}:Guess"},
    "silent": {"load": f"{FOREIGN}:Silent"},
    "broken": {"load": "no_such_module:Guess"},
}
OWN = parse_grader({"type": "environment", "name": "own"})
OTHER = parse_grader({"type": "string_check", "operation": "eq", "input": "a", "reference": "a"})
AT = "method.reinforcement.environment"


@pytest.fixture(autouse=True)
def _environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHERRY_ENVIRONMENTS", json.dumps(ENTRIES))
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@nowhere/nothing")
    monkeypatch.setenv("CHERRY_BROKER_URL", "memory://")
    get_settings.cache_clear()


def check(name: str, item: Any = ITEM, grader: Any = OWN) -> None:
    file = DataFile("training_file", "file-1 (rows.jsonl)", "key")
    named = {"type": "named", "name": name, "args": {}}
    check_named_environment(named, "proj_a", file, [Row(3, item), Row(4, {})], [grader])


def test_one_that_replies_and_judges_is_good() -> None:
    check("guess")
    check("silent", grader=OTHER)


WRONG: dict[str, tuple[str, Any, tuple[str, str, str]]] = {
    "it is gone": (
        "gone",
        ITEM,
        ("environment_not_found", f"{AT}.name", "There is no environment 'gone' here"),
    ),
    "it gives no reward": ("silent", ITEM, ("invalid_value", GRADER, "'silent' gives no reward")),
    "it cannot be loaded": ("broken", ITEM, ("environment_error", AT, "No module named 'no_such_module'")),
    "a row does not fit": (
        "guess",
        {"messages": []},
        ("environment_error", AT, "Line 3 of the training file: "),
    ),
}


@pytest.mark.parametrize(("name", "item", "expected"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_fails_the_job(name: str, item: Any, expected: tuple[str, str, str]) -> None:
    with pytest.raises(JobInvalid) as fault:
        check(name, item)
    code, param, told = expected
    assert (fault.value.code, fault.value.param) == (code, param)
    assert told in fault.value.message


def written(tmp_path: Path, name: str, args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli.main", "environments", "rows", name]
    options = ["--out", str(tmp_path / "rows.jsonl"), "--args", args]
    return subprocess.run([*command, *options], capture_output=True, text=True)


def test_its_rows_are_written_by_the_command_line(tmp_path: Path) -> None:
    done = written(tmp_path, "guess", '{"limit": 250}')
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["number"] for row in rows] == list(range(250))
    done = written(tmp_path, "chess", "{}")
    assert (done.returncode, "has no 'chess'. It has: broken, guess, silent." in done.stderr) == (1, True)
