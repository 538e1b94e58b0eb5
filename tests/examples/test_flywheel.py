"""The data flywheel once around: the corrected kind gains, and the old one stays."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from examples.flywheel import run
from tests.e2e.service import running_service

LEAST_ON_OLD = -0.03
"""What the interval of the old kind's difference may not reach (the issue's bar)."""


def test_the_comparison_is_paired() -> None:
    before, after = [0.0, 1.0] * 20, [1.0, 1.0] * 20
    better = run.compare(before, after)
    assert (better.before, better.after) == (0.5, 1.0)
    assert 0.3 < better.low < 0.5 < better.high < 0.7
    assert better.p < 0.001
    worse = run.compare(after, before)
    assert worse.high < 0
    assert worse.p > 0.99
    same = run.compare([0.0, 1.0, 0.5, 0.5], [1.0, 0.0, 0.5, 0.5])
    assert (same.low + same.high, same.p > 0.4) == (0.0, True)


def test_no_prompt_that_is_measured_on_was_served_and_both_kinds_are_there() -> None:
    served, unseen = run.read_rows("requests.jsonl"), run.read_rows("unseen.jsonl")
    kinds = Counter(row["kind"] for row in unseen)
    assert kinds[run.NEW] >= 40
    texts = [{row["messages"][-1]["content"].split("\n", 1)[1] for row in rows} for rows in (served, unseen)]
    assert texts[0].isdisjoint(texts[1])


def test_the_rows_are_those_of_their_recipe(tmp_path: Path) -> None:
    from scripts.nano import flywheel

    flywheel.main(["--out", str(tmp_path)])
    for name in ("requests.jsonl", "unseen.jsonl"):
        assert (tmp_path / name).read_text() == (run.HERE / name).read_text()


@pytest.mark.e2e
@pytest.mark.long
def test_what_is_learnt_from_corrections_costs_nothing_of_what_was_learnt_before() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="cherry-test-") as folder,
        running_service(Path(folder) / "data", "--port", "0") as service,
        service.client() as client,
    ):
        outcome = run.turn(client, print)
        content = client.files.content(outcome.dataset["file_id"]).text
        second: Any = client.fine_tuning.jobs.retrieve(outcome.dataset["jobs"][0]["id"])
    new, old = outcome.differences[run.NEW], outcome.differences[run.OLD]
    assert new.after > new.before
    assert new.p < 0.05
    assert old.low > LEAST_ON_OLD
    report = outcome.dataset["report"]
    assert [model["model"] for model in report["models"]] == [outcome.first]
    assert report["models"][0]["job"], "the row of the first job is known"
    assert report["feedback"]["correction"] >= 20
    assert (second.model, second.fine_tuned_model) == (outcome.first, outcome.second)
    answers = {row["messages"][-1]["content"]: row["answer"] for row in run.read_rows("requests.jsonl")}
    for row in map(json.loads, content.splitlines()):
        assert row["messages"][1]["content"] == answers[row["messages"][0]["content"]]
