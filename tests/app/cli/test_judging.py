"""`cherry graders check --labels` and `cherry graders sheet`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app.cli.main import cli
from app.cli.output import CliError
from app.grading.services import forget_services
from app.settings import get_settings
from methods.labels.reading import rows_beside
from tests.factories import GRADER, Tenant, make_file, make_job, make_rollout
from tests.graders.calibration.judged import SCORE, WORTH, labelled
from tests.judging import running_judge

runner = CliRunner()


def call(*arguments: str | Path, **env: str) -> Any:
    return runner.invoke(cli, ["graders", *map(str, arguments)], env=env)


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
        alone = call("check", grader)
        found = json.loads(call("check", grader, "--json").output)["judge"]
        assert judge.calls > 30
    forget_services()
    assert shown.exit_code == 1
    assert "Verdict: do not use." in shown.output
    assert "talked round" in shown.output
    assert "USD a grade" in shown.output
    assert report["price"]["spent"] > 0
    assert alone.exit_code == 1
    assert "talked round" in alone.output
    assert "Nobody has compared it with people" in alone.output
    assert [remark["code"] for remark in found["remarks"]] == ["gullible"]
    assert (report["graded"], report["cost"]["calls"]) == (20, 30)


@pytest.mark.parametrize(
    ("scale", "said"),
    [(("1", "4"), "score 5 on line 5 lies outside of --scale 1 4, as 4 of 20"), (("5", "1"), "comes first")],
)
def test_a_scale_that_people_did_not_keep_to_is_refused(
    tmp_path: Path, scale: tuple[str, str], said: str
) -> None:
    shown = call("check", grader_in(tmp_path, **SCORE), "--labels", labels_in(tmp_path), "--scale", *scale)
    assert isinstance(shown.exception, CliError)
    assert said in str(shown.exception)


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


def test_a_sheet_shows_nobody_what_was_scored_before(tmp_path: Path) -> None:
    data, sheet = tmp_path / "data.jsonl", tmp_path / "sheet.csv"
    data.write_text(json.dumps({"prompt": "Why?", "level": 7, "answer": "So.", "score": 7}))
    assert call("sheet", "--data", data, "--out", sheet).exit_code == 0
    with sheet.open(newline="", encoding="utf-8-sig") as file:
        [row] = csv.DictReader(file)
    assert (row["prompt"], row["answer"], row["score"]) == ("Why?", "So.", "")
    assert '"score"' not in rows_beside(sheet).read_text()


def test_a_job_is_looked_for_at_the_service_of_the_data_folder(tmp_path: Path) -> None:
    asked = ["sheet", "--job", "ftjob-a", "--out", tmp_path / "sheet.csv"]
    shown = call(*asked, CHERRY_DATA_DIR=str(tmp_path / "elsewhere"))
    assert f"no service runs on {tmp_path / 'elsewhere'}" in str(shown.exception)


def test_what_a_job_wrote_goes_onto_a_sheet_spread_over_its_rewards(
    db: Session, tenant: Tenant, server_url: str, tmp_path: Path
) -> None:
    rows = [{"messages": [{"role": "user", "content": f"Question {n}"}], "answer": n} for n in range(2)]
    training = make_file(db, tenant.project_id, "".join(json.dumps(row) + "\n" for row in rows).encode())
    job = make_job(db, tenant.project_id, training_file=training.id)
    for step in range(1, 61):
        make_rollout(db, job, step, step % 2, 0, text=f"common {step}", reward=0.5)
        make_rollout(db, job, step, step % 2, 1, text=f"failed {step}", reward=None)
    make_rollout(db, job, 60, 1, 2, text="rare", reward=1.0)
    thought = {"role": "assistant", "content": "told", "reasoning_content": "kept to itself"}
    make_rollout(db, job, 60, 1, 3, text="<think>kept to itself</think>told", reward=0.0, message=thought)
    db.commit()
    sheet = tmp_path / "sheet.csv"
    asked = ["sheet", "--job", job.id, "--out", sheet, "--url", server_url, "--key", tenant.key]
    made = call(*asked, "--n", "8")
    assert made.exit_code == 0, made.exception
    assert "Wrote 8 of 122 answers" in made.output
    lines = {row["answer"]: row for row in csv.DictReader(sheet.read_text("utf-8-sig").splitlines())}
    assert {"rare", "told"} <= set(lines)
    assert lines["rare"]["prompt"] == "Question 1"
    only = call(*asked, "--step", "60")
    assert "Wrote 4 of 4 answers" in only.output


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
