"""`cherry evals` against a service, and what a comparison of two runs says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app.cli.evals.comparison import compare
from app.cli.main import cli
from app.evals.models import EvalRun
from app.files.models import File
from tests.factories import GRADER, Tenant, make_eval, make_eval_run, make_output_item

Call = Callable[..., str]
ID = "same-9ede3ea1-69f3-47fe-b840-68ec41c4a19d"


@pytest.fixture
def call(server_url: str, tenant: Tenant) -> Call:
    """Runs a command, which must succeed."""

    def run(*arguments: str) -> str:
        place = ["--url", server_url, "--key", tenant.key]
        done = CliRunner().invoke(cli, ["evals", *arguments, *place], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


def judged(db: Session, tenant: Tenant, scores: str, name: str) -> EvalRun:
    """A run over rows 0, 1, ... of which those with a 1 have passed; a dash could not be judged."""
    counts = {"total": len(scores), "passed": scores.count("1"), "failed": scores.count("0"), "errored": 0}
    of = make_eval(db, tenant.project_id, name=name)
    run = make_eval_run(db, of, name=name, status="completed", total=len(scores), result_counts=counts)
    for seq, score in enumerate(scores, 1):
        item: dict[str, Any] = {"datasource_item": {"n": seq}, "status": "pass" if score == "1" else "fail"}
        item["results"] = [
            {"name": ID, "type": "string_check", "score": float(score == "1"), "passed": score == "1"}
        ]
        if score == "-":
            item |= {"status": "error", "results": [], "sample": {"error": {"code": "x", "message": "away"}}}
        make_output_item(db, run, seq, **item)
    db.commit()
    return run


def test_an_eval_is_made_of_a_grader_and_run_over_a_file(call: Call, db: Session, tmp_path: Path) -> None:
    (tmp_path / "grader.json").write_text(json.dumps(GRADER))
    (tmp_path / "rows.jsonl").write_text('{"item": {"answer": "a"}, "sample": {"output_text": "a"}}\n')
    made = json.loads(call("create", str(tmp_path / "grader.json"), "--name", "mine", "--json"))
    assert (made["name"], made["testing_criteria"][0]["name"]) == ("mine", "same")
    assert made["id"] in call("list")
    run = json.loads(
        call("run", made["id"], "--data-file", str(tmp_path / "rows.jsonl"), "--no-wait", "--json")
    )
    uploaded = db.get_one(File, run["data_source"]["source"]["id"])
    assert (uploaded.purpose, run["data_source"]["type"]) == ("evals", "jsonl")
    assert "queued" in call("show", made["id"])
    assert json.loads(call("cancel", run["id"], "--json"))["status"] == "canceled"


def test_a_run_is_shown_with_what_did_not_pass(call: Call, db: Session, tenant: Tenant) -> None:
    run = judged(db, tenant, "10-", "first")
    shown = call("show", run.id)
    assert "Passed 1 of 3; 1 failed, 0 could not be judged." in shown
    assert 'fail: {"n": 2}' in shown
    assert 'error: {"n": 3} -> away' in shown
    assert 'n": 1' not in shown


def test_two_runs_are_compared_row_by_row(call: Call, db: Session, tenant: Tenant) -> None:
    a, b = judged(db, tenant, "000000-1", "a"), judged(db, tenant, "11111011", "b")
    compared = json.loads(call("compare", a.id, b.id, "--json"))
    assert (compared["rows"], compared["only_a"], compared["only_b"]) == (8, 0, 0)
    same, passed = compared["criteria"]
    assert (same["name"], passed["name"]) == ("same", "all passed")
    assert (same["n"], same["mean_a"], same["mean_b"]) == (7, pytest.approx(1 / 7), pytest.approx(6 / 7))
    assert same["difference"] == pytest.approx(5 / 7)
    assert same["p"] == pytest.approx(2 / 32)
    assert same["interval"][0] < 5 / 7 < same["interval"][1]
    assert "+0.714" in call("compare", a.id, b.id)


def item(content: Any, place: int, score: float) -> dict[str, Any]:
    results = [{"name": ID, "score": score}]
    return {"datasource_item": content, "datasource_item_id": place, "results": results, "status": "pass"}


def test_rows_are_paired_by_what_they_hold_and_several_answers_are_one_row() -> None:
    a = [
        item({"q": "x"}, 0, 1.0),
        item({"q": "x"}, 0, 0.0),
        item({"q": "y"}, 1, 0.0),
        item({"q": "z"}, 2, 1.0),
    ]
    b = [item({"q": "y"}, 0, 1.0), item({"q": "x"}, 1, 1.0)]
    found = compare(a, b)
    assert (found.rows, found.only_a, found.only_b) == (2, 1, 0)
    assert (found.criteria[0].mean_a, found.criteria[0].mean_b) == (0.25, 1.0)


def test_equal_rows_are_paired_in_their_order() -> None:
    a = [item({"q": "x"}, 0, 0.0), item({"q": "x"}, 1, 1.0)]
    found = compare(a, a)
    assert found.rows == 2
    assert found.criteria[0].found is not None
    assert found.criteria[0].found.mean == 0.0
