"""Models that were taught to think their answers through are right more often with thoughts than without."""

from __future__ import annotations

import json
import os
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest

from examples.thinking import run, smollm2
from tests.e2e.service import running_service


@pytest.mark.e2e
@pytest.mark.long
def test_thoughts_are_worth_something_to_the_tuned_model() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="cherry-test-") as folder,
        running_service(Path(folder) / "data", "--port", "0") as service,
        service.client() as client,
    ):
        for seed in (7, 8, 9):
            outcome = run.teach_and_measure(client, seed, print)
            assert len(outcome.thinking) == 100
            assert sum(outcome.thinking) > sum(outcome.base)
            assert outcome.difference.after > outcome.difference.before
            assert outcome.difference.p < 0.05


@pytest.mark.e2e
@pytest.mark.long
def test_a_real_model_is_taught_to_think() -> None:
    model = os.environ.get("SMOLLM2_MODEL")
    if not model:
        pytest.skip("SMOLLM2_MODEL names no folder with SmolLM2-135M-Instruct")
    with (
        tempfile.TemporaryDirectory(prefix="cherry-test-") as folder,
        running_service(Path(folder) / "data", "--port", "0") as service,
        service.client() as client,
    ):
        smollm2.add_model(Path(model), Path(folder) / "data")
        files = smollm2.write_rows(Path(folder))
        taught = smollm2.teach(client, files, print)
        for seed in (7, 8, 9):
            outcome = smollm2.tune_and_measure(client, taught, files, seed, print)
            assert len(outcome.thinking) == 100
            assert outcome.difference.after > outcome.difference.before
            assert outcome.difference.p < 0.05


def test_made_sums_are_solved_by_their_steps_and_no_unseen_one_is_taught(tmp_path: Path) -> None:
    files = smollm2.write_rows(tmp_path)
    taught, *others = ([json.loads(line) for line in files[name].read_text().splitlines()] for name in files)
    assert [len(taught), *map(len, others)] == list(smollm2.COUNTS.values())
    for _, solution in (row["messages"] for row in taught):
        steps = [step.split() for step in solution["reasoning_content"].splitlines()]
        assert all(int(before) + int(more) == int(after) for before, _, more, _, after in steps)
        assert all(one[-1] == next_one[0] for one, next_one in pairwise(steps))
        assert not steps or steps[-1][-1] == solution["content"]
    asked = [row["messages"][0]["content"] for rows in (taught, *others) for row in rows]
    assert len(set(asked)) == len(asked)
    assert all(len(row["messages"]) == 1 for rows in others for row in rows)
