"""SmolLM2-135M-Instruct learns two-digit sums beside a quantised base: curve and time by base precision.

    OMP_NUM_THREADS=1 python -m benchmarks.base_precision FOLDER [--precisions nf4 int8 auto bf16]

FOLDER holds the model. Each precision trains the same rows with the same seed by `grpo` at the rate of
"auto", and prints, as it goes, the share of sums that are right and the mean reward of each step, the KL to
the reference of the step's completions and the seconds; and of the base and of what is delivered: the share
that is right and the reward on unseen rows, the KL and what rounding lost. The grader pays half for a right
sum and half for its right digits, so that a model that cannot add yet has something to learn from.
docs/benchmarks.md has the figures.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graders import Grade, Sample
from methods import metrics as names
from methods.hyperparameters import Facts
from methods.resolve import resolve_train
from methods.rows import Row
from methods.train_config import TrainConfig
from workers.training.base.types import Checkpoint, Group, Split
from workers.training.loop import train
from workers.training.model.shape import read_shape
from workers.training.recorders import Silent

TRAIN_ROWS, VALID_ROWS = 64, 32
LONGEST_PROMPT = 64
"""Tokens; the chat template's system message is among them."""


class Digits:
    """Grades the last number of the first line: half for a right sum, half by its digits that are right."""

    type, name = "python", "digits"

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        """Returns the grade of one answer."""
        numbers = re.findall(r"\d+", sample.output_text.strip().partition("\n")[0])
        found, wanted = numbers[-1] if numbers else "", item["reference"]
        places = max(len(found), len(wanted))
        same = sum(a == b for a, b in zip(reversed(found), reversed(wanted), strict=False))
        return Grade(0.5 * (found == wanted) + 0.5 * same / places)


class Printer(Silent):
    """Prints a line for each step, evaluation and checkpoint."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def rollouts(self, split: Split, step: int, _epoch: int, groups: Sequence[Group]) -> None:
        """Prints the share of completions that are right."""
        grades = [grade.value for group in groups for grade in group.grades]
        right, of = sum(value == 1 for value in grades), "unseen sums" if split == "valid" else "sums"
        print(f"  step {step:3}  {right} of {len(grades)} {of} right", end="\n" if split == "valid" else "")

    def metrics(self, _step: int, _epoch: int, values: Mapping[str, Any]) -> None:
        """Prints the rest of a step."""
        reward, kl = values.get(names.REWARD_MEAN), values.get(names.KL_REFERENCE)
        if reward is not None and kl is not None:
            seconds = time.monotonic() - self.began
            print(f"  reward {reward:.3f}  kl {kl:.6f}  {seconds:6.0f} s", flush=True)

    def checkpoint(self, saved: Checkpoint) -> None:
        """Prints a checkpoint, as delivered."""
        lost = saved.extra.get("rounding_error")
        told = "" if lost is None else f"  rounding {lost:.4f}"
        reward = "" if saved.valid_reward is None else f"  unseen reward {saved.valid_reward:.3f}"
        print(f"  checkpoint {saved.step:3}{reward}  kl {saved.kl:.6f}{told}", flush=True)

    def note(self, _level: str, message: str) -> None:
        """Prints what else is said."""
        print(f"  {message}", flush=True)


def rows(count: int, rng: random.Random, taken: set[str]) -> list[Row]:
    """Returns rows whose sums are not in `taken`, which they join."""
    found: list[Row] = []
    while len(found) < count:
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        text = f"What is {a} + {b}? Answer with the number only."
        if text not in taken:
            taken.add(text)
            messages = [{"role": "user", "content": text}]
            found.append(Row(len(found) + 1, {"messages": messages, "reference": str(a + b)}))
    return found


def config_of(folder: Path, precision: str, steps: int, prompts: int) -> TrainConfig:
    """Returns the run: 8 answers to each prompt of a step, all else by "auto"."""
    asked = {
        "base_precision": precision,
        "batch_size": prompts,
        "group_size": 8,
        "max_completion_tokens": 16,
        "max_steps": steps,
        "n_epochs": -(-steps * prompts // TRAIN_ROWS),
        "eval_interval": steps,
        "eval_samples": 2,
        "kl_probe_size": 8,
    }
    facts = Facts(*read_shape(folder), LONGEST_PROMPT, TRAIN_ROWS, VALID_ROWS)
    method = {"reinforcement": {"hyperparameters": asked}}
    return resolve_train(method, facts, model=folder.name, model_path=str(folder), seed=7)


def run(folder: Path, precision: str, steps: int, prompts: int) -> None:
    """Trains once and prints how it went."""
    rng, taken = random.Random(7), set[str]()
    train_rows, valid_rows = rows(TRAIN_ROWS, rng, taken), rows(VALID_ROWS, rng, taken)
    config = config_of(folder, precision, steps, prompts)
    print(f"{precision}: rate {config.learning_rate:.2g}", flush=True)
    with tempfile.TemporaryDirectory() as run_dir:
        train(config, train_rows, valid_rows, Digits(), Printer(), Path(run_dir))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs every precision that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precisions", nargs="+", default=["nf4", "int8", "auto", "bf16"])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--prompts", type=int, default=8, help="of a step")
    given = parser.parse_args(arguments)
    for precision in given.precisions:
        run(given.folder, precision, given.steps, given.prompts)


if __name__ == "__main__":
    main()
