"""What a run is made of: its rows and its job's grader. All of it follows from the run."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.stability.datasets import TEST_ROWS, VALID_ROWS, DataSet, Worth
from benchmarks.stability.plan import Run, seed_of
from benchmarks.stability.prompts import Item, different
from graders import Failure, FailureKind, Grade, Sample
from methods.rows import Row


class Material(NamedTuple):
    """The rows of a run and what an answer is worth."""

    train: list[Item]
    valid: list[Item]
    test: list[Item]
    """Prompts that are in neither of the others, not spoilt."""
    worth: Worth
    meant: Worth


def material_of(run: Run) -> Material:
    """Rows depend on data set and seed: every rate and every side has the same."""
    data, task = run.data, run.task
    rng = random.Random(seed_of("rows", data.name, run.seed))
    items = different(task.draw, data.train_rows + VALID_ROWS + TEST_ROWS, rng)
    rng.shuffle(items)
    valid = items[data.train_rows : data.train_rows + VALID_ROWS]
    return Material(
        train=data.spoil(items[: data.train_rows], rng),
        valid=data.spoil(valid, rng) if run.has_file else [],
        test=items[-TEST_ROWS:],
        worth=task.worth,
        meant=data.meant_by(run.seed),
    )


def rows_of(items: list[Item]) -> list[Row]:
    """The items as rows of a file."""
    return [Row(line=i + 1, item=item) for i, item in enumerate(items)]


class JobGrader:
    """The grader of a job: what its data set lets it see of an answer.

    The luck of a grade follows from the run's seed, the prompt, the text and how often this text was graded
    before, so it does not depend on which thread comes first.
    """

    type = "python"
    name = "stability"

    def __init__(self, data: DataSet, seed: int) -> None:
        self._key = ("grade", data.name, seed)
        self._paid = data.paid or data.task(seed).worth
        self._seen = data.seen_by(seed)
        self._graded: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def pays(self, text: str, item: Mapping[str, Any]) -> float | None:
        """Returns the grade of a text; None where the grader fails."""
        asked = item["messages"][0]["content"]
        with self._lock:
            before = self._graded[asked, text]
            self._graded[asked, text] += 1
        luck = random.Random("/".join(map(str, (*self._key, asked, text, before))))
        return self._seen(self._paid(text, dict(item)), dict(item), luck)

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        """Returns what the data set pays, or that the grader broke."""
        value = self.pays(sample.output_text, item)
        if value is None:
            return Grade(None, Failure(FailureKind.PYTHON_RUNTIME, "This grader breaks now and then."))
        return Grade(value)
