"""The pairs of jobs, fixed before the first is made: 4 tasks x 3 seeds, 20 and 200 epochs."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.stability.datasets import COUNT, LETTERS, NAME, PLAY, DataSet, Task
from benchmarks.stability.plan import Run

SHORT, LONG = 20, 200
"""Epochs of a pair's jobs: the issue's."""
ROWS, SEEDS = 48, 3
SENTENCE = 16
"""Most tokens of a story's sentence: half of the grid's, for thirty times its steps."""
EVAL_INTERVAL = 12
"""Steps between validations, two epochs: "auto" takes one, and a fifth of the time more."""


@dataclass(frozen=True)
class LongRun(Run):
    """A job of so many epochs."""

    @property
    def id(self) -> str:
        """The run's name in results."""
        return f"{self.part}/{self.data.name}/e{self.n_epochs}/s{self.seed}"


def _short(task: Task) -> Task:
    return task._replace(max_tokens=SENTENCE)


TASKS = (
    DataSet("long-count", "counts words", (COUNT._replace(batch_size=8),), train_rows=ROWS, is_clean=True),
    DataSet("long-name", "names the hero", (_short(NAME),), train_rows=ROWS, is_clean=True),
    DataSet("long-letters", "early letters", (_short(LETTERS),), train_rows=ROWS, is_clean=True),
    DataSet("long-play", 'says "play"', (_short(PLAY),), train_rows=ROWS, is_clean=True),
)
"""The stability grid's clean tasks, with the 8 prompts in a step that "auto" takes."""


def pairs() -> list[tuple[LongRun, LongRun]]:
    """Returns the short and the long job of each pair, in the order in which they are made."""
    return [(_run(data, SHORT, seed), _run(data, LONG, seed)) for seed in range(SEEDS) for data in TASKS]


def _run(data: DataSet, epochs: int, seed: int) -> LongRun:
    """All else is "auto", and so the guard acts."""
    more = (("early_stop", False), ("eval_interval", EVAL_INTERVAL))
    return LongRun("long", data, 1, seed, True, epochs, more)
