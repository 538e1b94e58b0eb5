"""`cherry graders check --labels` and `cherry graders sheet`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from app.cli.output import CliError
from app.grading.services import forget_services
from app.settings import get_settings
from tests.factories import GRADER
from tests.graders.calibration.judged import SCORE, WORTH, labelled
from tests.judging import running_judge

runner = CliRunner()


def call(*arguments: str | Path) -> Any:
    return runner.invoke(cli, ["graders", *map(str, arguments)])


def labels_in(folder: Path) -> Path:
    path = folder / "labels.jsonl"
    rows = [{**case.item, "answer": case.answer, "score": case.label} for case in labelled()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def grader_in(folder: Path, **spec: Any) -> Path:
    path = folder / "grader.json"
    path.write_text(json.dumps(spec))
    return path


def test_a_judge_is_compared_with_people_and_what_it_costs_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grader, labels = grader_in(tmp_path, **SCORE | {"model": "gullible"}), labels_in(tmp_path)
    with running_judge(worth=WORTH) as judge:
        monkeypatch.setenv("CHERRY_JUDGES", json.dumps({"*": {"base_url": judge.base_url}}))
        monkeypatch.setenv(
            "CHERRY_PRICES", json.dumps({"models": {"gullible": {"input": 1.0, "output": 2.0}}})
        )
        get_settings.cache_clear()
        forget_services()
        shown = call("check", grader, "--labels", labels)
        report = json.loads(call("check", grader, "--labels", labels, "--json", "--calls", "30").output)
        assert judge.calls > 30
    forget_services()
    assert shown.exit_code == 1
    assert "Verdict: do not use." in shown.output
    assert "talked round" in shown.output
    assert "USD a grade" in shown.output
    assert report["price"]["spent"] > 0
    assert (report["graded"], report["cost"]["calls"]) == (20, 30)


def test_a_grader_that_asks_nobody_is_compared_too(tmp_path: Path) -> None:
    grader = grader_in(tmp_path, type="python", name="words", source=COUNTS_WORDS)
    shown = call("check", grader, "--labels", labels_in(tmp_path))
    assert shown.exit_code == 0
    assert "Verdict: fit to train against." in shown.output
    assert "Not measured: talk. It asks no model" in shown.output


COUNTS_WORDS = """
def grade(sample, item):
    words = ("dog", "play", "tree", "sun")
    return sum(word in sample["output_text"] for word in words) / 4
"""


def test_a_sheet_goes_out_and_comes_back(tmp_path: Path) -> None:
    data, sheet = labels_in(tmp_path), tmp_path / "sheet.csv"
    grader = grader_in(tmp_path, **{**GRADER, "reference": "A dog story 0"})
    made = call("sheet", "--data", data, "--out", sheet, "--n", "12", "--grader", grader)
    assert made.exit_code == 0
    assert "Wrote 12 of 20 answers" in made.output
    text = sheet.read_text("utf-8-sig")
    assert "A dog story 0" in text  # the one that got 1
    assert "no row has a score" in str(call("check", grader, "--labels", sheet).exception)
    lines = text.splitlines()
    sheet.write_text("\n".join([lines[0], *(f"{line}{n % 5}" for n, line in enumerate(lines[1:]))]))
    report = json.loads(call("check", grader, "--labels", sheet, "--json").output)
    assert (report["labelled"], report["verdict"]) == (12, "do not use")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--out", "sheet.csv"], "--data FILE or --job ID"),
        (["--out", "sheet.txt", "--data", "x.jsonl"], "must end in .csv"),
    ],
)
def test_wrong_options_are_explained(arguments: list[str], hint: str) -> None:
    shown = call("sheet", *arguments)
    assert isinstance(shown.exception, CliError)
    assert hint in str(shown.exception)
