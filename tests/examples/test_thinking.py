"""A model that was taught to think its answers through is right more often with its thoughts than without."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from examples.thinking import run
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
